"""A step: parameters, a version and phases of tasks; the class of an artifact kind.

To add a kind of artifact, subclass :class:`Step` as a frozen dataclass whose fields are parameters and input steps,
give it ``kind`` and ``VERSION``, and say in ``params`` exactly what determines the bytes. Raise ``VERSION`` when the
bytes change for the same parameters; a golden digest test fails until you do.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from headrace.flow.identity import Identified
from headrace.flow.task import TaskContext


@dataclass(frozen=True)
class Phase:
    """One of a step's rounds of independent tasks.

    Attributes:
        name: unique in the step; also the folder of the phase's scratch files.
        plan: run by the coordinator when all earlier phases are done; gives the task specs, which are JSON and
            depend on content only, never on workers or memory. A spec may say its ``size``, in any unit: the largest
            go first, so that none begins when the others are nearly done (longest processing time first, Graham 1969).
            It may also say its ``key`` (:func:`headrace.flow.reuse.task_key`): a task of that key which another
            artifact has done is taken over; and what it is ``like``, another key: a task like it lends its file.
        work: run in a worker process for one spec; writes files through the context and returns counts as JSON.
            A task may run twice; its files appear once.
        memory: the least bytes that a spec's task needs. The scheduler runs fewer at once if the budget is small.
        most: bytes beyond which more is of no use to a spec's task. Without it a phase of few tasks gets all there is,
            and nothing runs beside it.
        exclusive: the task uses all cores itself (training), so nothing runs beside it.
    """

    name: str
    plan: Callable[[TaskContext], list[dict[str, Any]]]
    work: Callable[[TaskContext, dict[str, Any]], dict[str, Any]]
    memory: Callable[[dict[str, Any]], int] | None = None
    most: Callable[[dict[str, Any]], int] | None = None
    exclusive: bool = False


class Step(Identified):
    """What makes one artifact. Subclasses are frozen dataclasses."""

    @abstractmethod
    def inputs(self) -> dict[str, Step]:
        """The steps whose artifacts this one reads, by role."""

    @abstractmethod
    def phases(self) -> list[Phase]:
        """The rounds of work, in order."""

    @abstractmethod
    def finish(self, ctx: TaskContext) -> dict[str, Any]:
        """Check that counts are conserved and say what goes into the manifest: ``{"counts": ..., further fields}``."""


def execute(step: Step, ctx: TaskContext) -> None:
    """Do a task of a step and leave its marker. Called in a worker process."""
    phase = next(phase for phase in step.phases() if phase.name == ctx.phase)
    spec = ctx.specs(ctx.phase)[ctx.task]
    with ctx.at_work():
        ctx.leave_marker(spec, phase.work(ctx, spec))


def topological(targets: list[Step]) -> list[Step]:
    """All steps that the targets need, each after its inputs, without repeats (same name, same step)."""
    done: dict[str, Step] = {}

    def visit(step: Step) -> None:
        if step.name not in done:
            for need in step.inputs().values():
                visit(need)
            done[step.name] = step

    for target in targets:
        visit(target)
    return list(done.values())
