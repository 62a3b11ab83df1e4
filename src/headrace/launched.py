"""Train a stage of a run on processes that ``torchrun`` or ``srun`` started together.

The data were made before, by ``headrace run``, on any machine that sees the run folder. Rank 0 alone holds the lock and
writes events, metrics and markers; when the last step is done it publishes the model, as ``headrace run`` would.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path

from headrace.errors import UserError
from headrace.flow.coordinating import coordinating
from headrace.flow.events import EventLog, Listener
from headrace.flow.executors.inline import InlineExecutor
from headrace.flow.notices import notices_to
from headrace.flow.runner import make
from headrace.flow.step import Step
from headrace.flow.storage import explaining_os_errors
from headrace.flow.task import TaskContext
from headrace.graph import Graph
from headrace.recipe.mistakes import suggest
from headrace.run_folder import read_graph
from headrace.train.edits import OnChange, edit
from headrace.train.step import Model

REPORT_SECONDS = 0.2  # minimum interval between progress events


def train(
    run: Path, stage: str, memory: int, listener: Listener | None = None, on_change: OnChange | None = None
) -> None:
    """Train a stage to its end, from its newest checkpoint if there is one, and publish its model.

    Args:
        run: the run folder.
        stage: the stage's name.
        memory: bytes for what rank 0 does besides training.
        listener: called in rank 0 with every event as it happens.
        on_change: what to do if the stage was underway when its recipe changed; see :func:`headrace.train.edits.edit`.

    Raises:
        UserError: the stage does not exist, what it trains on has not been made, or another process has ended.
        Interrupted: a process was asked to stop; the checkpoint is written.
    """
    from headrace.model.machine import keep_memory, set_environment

    set_environment()
    keep_memory()
    from headrace.train.automatic import announced, decided
    from headrace.train.installed import check_installed
    from headrace.train.interruption import Interruption
    from headrace.train.loop import Trainer
    from headrace.train.world import joined, launched_size

    model = model_of(read_graph(run), stage)
    check_installed([model.train])
    check_made(run, model)
    train = decided(model, run, *launched_size())[0]
    with (
        explaining_os_errors(run),
        joined(train.tensor_parallel, train.long.sequence_parallel) as world,
        ExitStack() as held,
        Interruption() as heard,
    ):
        log: EventLog | None = None
        with world.first() as first:
            if first:
                held.enter_context(coordinating(run))
                log = EventLog(run, listener)
                held.callback(log.close)
                held.enter_context(notices_to(log.notice))
                while not (run / "artifacts" / model.name).exists():
                    edited, told = edit(run, model, on_change)
                    if told is not None:
                        log.notice(told)
                    if not edited:
                        break
                    model = model_of(read_graph(run), stage)
        graph = read_graph(run)
        model = model_of(graph, stage)
        if not (run / "artifacts" / model.name).exists():
            section, why = world.told(decided(model, run, *launched_size()))
            job = announced(model.job(TaskContext(run, model, "train", 0)), section, why, world.chief)
            progress = silent if log is None else reporting(log, model, job.trajectory.steps)
            Trainer(job, world).train(progress, heard)
        with world.first() as first:
            if first:
                assert log is not None
                steps: list[Step] = [model, *(step for step in graph.measures if step.stage == stage)]
                made = [step for step in steps if all_made(run, step, but=model)]
                make(made, run, InlineExecutor(run, made, memory), log, memory)


def model_of(graph: Graph, stage: str) -> Model:
    """The model of a stage.

    Raises:
        UserError: the recipe trains no such stage.
    """
    if stage not in graph.models:
        known = ", ".join(graph.models) or "none"
        raise UserError(
            f"The run's recipe trains no stage {stage!r}.",
            "--stage",
            suggest(stage, list(graph.models)) or f"Choose one of its stages: {known}.",
        )
    return graph.models[stage]


def check_made(run: Path, model: Model) -> None:
    """Check that what a model is trained on exists.

    Raises:
        UserError: it does not.
    """
    missing = [step for step in model.inputs().values() if not (run / "artifacts" / step.name).is_dir()]
    if missing:
        first = missing[0]
        name = f"{first.kind}-{first.stage}" if first.stage else first.kind
        fix = f"Make it with `headrace run RECIPE --out {run} --until {name}`"
        more = f", or train it with `headrace train {run} --stage {first.stage}`" if first.kind == "model" else ""
        raise UserError(f"Stage {model.stage!r} needs {name}, which does not exist yet.", str(run), f"{fix}{more}.")


def all_made(run: Path, step: Step, but: Step) -> bool:
    """Whether everything that a step needs exists, leaving one out."""
    return all(need == but or (run / "artifacts" / need.name).is_dir() for need in step.inputs().values())


def silent(step: int, loss: float) -> None:
    """Report nothing: another process does."""


def reporting(log: EventLog, model: Model, steps: int) -> Callable[[int, float], None]:
    """Progress events of a training, now and then."""
    log.emit("phase", artifact=model.name, phase="train", tasks=1, done=0)
    last, rows = time.monotonic(), 0

    def report(step: int, loss: float) -> None:
        nonlocal last, rows
        rows += model.train.batch
        if time.monotonic() - last >= REPORT_SECONDS or step == steps:
            told = {"rows": rows, "bytes": 0, "step": step, "steps": steps, "loss": loss}
            log.emit("progress", artifact=model.name, phase="train", **told)
            last, rows = time.monotonic(), 0

    return report
