"""A step builds one kind of artifact: parameters, a version, and phases of tasks.

To add a kind of artifact, subclass :class:`Step` as a frozen dataclass whose fields are parameters and input steps, set
``kind`` and ``VERSION``, and return in ``params`` exactly what determines the bytes. Raise ``VERSION`` when the bytes
change for the same parameters; a golden digest test fails until you do.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from headrace.flow.identity import Identified
from headrace.flow.markers import Marker
from headrace.flow.task import TaskContext


@dataclass(frozen=True)
class Phase:
    """One of a step's rounds of independent tasks.

    Attributes:
        name: unique within the step; also the folder of the phase's scratch files.
        plan: run by the coordinator when all earlier phases are done; returns the task specs, which are JSON and depend
            on content only, never on workers or memory. A spec may state its ``size``, in any unit: the largest tasks
            go first, so that none starts when the others are nearly done (longest processing time first, Graham 1969).
            It may state its ``key`` (:func:`headrace.flow.reuse.task_key`): a finished task with that key of another
            artifact is reused; and what it is ``like``, another key: a finished task like it lends its file.
        work: run in a worker process for one spec; writes files through the context and returns counts as JSON. A task
            may run twice; its files appear once.
        memory: the least bytes that a spec's task needs. If the budget is small, fewer tasks run at once.
        most: the most bytes that a spec's task can use. Without it, a phase of few tasks gets the whole budget, and
            nothing runs at the same time.
        exclusive: the task uses all cores itself (training), so nothing runs at the same time.
    """

    name: str
    plan: Callable[[TaskContext], list[dict[str, Any]]]
    work: Callable[[TaskContext, dict[str, Any]], dict[str, Any]]
    memory: Callable[[dict[str, Any]], int] | None = None
    most: Callable[[dict[str, Any]], int] | None = None
    exclusive: bool = False


class Step(Identified):
    """Builds one artifact. Subclasses are frozen dataclasses."""

    @abstractmethod
    def inputs(self) -> dict[str, Step]:
        """The steps whose artifacts this one reads, by role."""

    @abstractmethod
    def phases(self) -> list[Phase]:
        """The rounds of work, in order."""

    @abstractmethod
    def finish(self, ctx: TaskContext) -> dict[str, Any]:
        """Check that counts are conserved and return manifest fields: ``{"counts": ..., further fields}``."""


def execute(step: Step, ctx: TaskContext) -> Marker:
    """Run a task of a step; returns its marker, which the coordinator records. Called in a worker process."""
    phase = next(phase for phase in step.phases() if phase.name == ctx.phase)
    spec = ctx.spec()
    with ctx.at_work():
        return ctx.marker(spec, phase.work(ctx, spec))


def topological(targets: list[Step]) -> list[Step]:
    """All steps that the targets need, each after its inputs, without repeats (steps of the same name are the same)."""
    done: dict[str, Step] = {}

    def visit(step: Step) -> None:
        if step.name not in done:
            for need in step.inputs().values():
                visit(need)
            done[step.name] = step

    for target in targets:
        visit(target)
    return list(done.values())
