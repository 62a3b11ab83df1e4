"""Exports: what a run made, written in other people's formats to a folder that appears when it is finished.

An export is made as an artifact is, by the same coordinator and workers, in ``OUT.partial`` beside the folder: it goes
on where it stopped, and its bytes do not depend on workers or memory.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from headrace.errors import UserError
from headrace.flow.artifact import MANIFEST, Artifact
from headrace.flow.damage import check_files
from headrace.flow.events import EventLog, Listener
from headrace.flow.notices import notices_to
from headrace.flow.step import Step
from headrace.flow.storage import SealError, explaining_os_errors, fsync_folder, local, read_sealed, write_sealed
from headrace.formats.format import Exported, Options
from headrace.formats.registry import SEQUENCES
from headrace.formats.sequences import SequenceExport, left_behind
from headrace.pipeline import free_memory
from headrace.recipe.mistakes import suggest
from headrace.run_folder import artifact, read_recipe

REQUEST = "export.json"
GRAPH = "headrace.export:targets"


def export(
    run: Path | str,
    out: Path | str,
    to: str,
    stages: Sequence[str] = (),
    options: Options | None = None,
    workers: int | None = None,
    memory: int | None = None,
    listener: Listener | None = None,
) -> Path:
    """Write the sequences of a run in another format.

    Args:
        run: the run folder.
        out: the folder to be made.
        to: the format's name, one of :data:`headrace.formats.registry.SEQUENCES`.
        stages: names of stages, or ``heldout``; all stages by default.
        options: about the files.
        workers: worker processes; the processors of this process by default, 0 for none.
        memory: bytes for data in all workers together; half of what is free by default.
        listener: is given every event as it happens.

    Returns:
        The folder, with ``manifest.json`` beside the data.

    Raises:
        UserError: something the user can fix. What was finished stays and is not done again.
    """
    return write(_step(Path(run), to, stages, options or Options()), out, workers, memory, listener)


def write(
    step: SequenceExport,
    out: Path | str,
    workers: int | None = None,
    memory: int | None = None,
    listener: Listener | None = None,
) -> Path:
    """Make the folder of an export, or go on with it, or see that it is there; arguments as for :func:`export`.

    Raises:
        UserError: something the user can fix.
    """
    out = local(out)
    for one in step.sequences:
        SEQUENCES[step.format].check(one.open())
    with explaining_os_errors(out):
        if not _there(out, step):
            _make(step, out, workers, memory or free_memory(), listener)
    return out


def _step(run: Path, to: str, stages: Sequence[str], options: Options) -> SequenceExport:
    if to not in SEQUENCES:
        fix = suggest(to, list(SEQUENCES)) or f"Choose one of {', '.join(SEQUENCES)}."
        raise UserError(f"There is no format {to!r}.", "--to", fix)
    names = list(dict.fromkeys(stages)) or [stage.name for stage in read_recipe(run).stages]
    if not names:
        raise UserError("This run's recipe has no stages.", str(run), "Export its documents, or add a stage.")
    found = [(name, artifact(run, "sequence", name)) for name in names]
    sequences = (Exported(name, str(one.path.absolute()), one.manifest.identity) for name, one in found)
    return SequenceExport(to, tuple(sequences), options)


def _there(out: Path, step: Step) -> bool:
    """Whether the export is finished already.

    Raises:
        UserError: something else is in its place.
    """
    if not out.exists() or (out.is_dir() and not any(out.iterdir())):
        return False
    try:
        made = Artifact.open(out)
        if made.manifest.identity == step.identity:
            check_files(made, read=False)
            return True
        what = "holds another export"
    except UserError as error:
        what = "is not empty" if not (out / MANIFEST).exists() else f"is damaged ({error.what})"
    raise UserError(f"The folder to export to {what}.", str(out), "Choose another folder, or delete it.")


def _make(step: SequenceExport, out: Path, workers: int | None, memory: int, listener: Listener | None) -> None:
    from headrace.flow.executors.inline import InlineExecutor
    from headrace.flow.executors.local import LocalExecutor
    from headrace.flow.lock import lock
    from headrace.flow.runner import make

    workers = len(os.sched_getaffinity(0)) if workers is None else workers
    work = out.with_name(f"{out.name}.partial")
    with lock(work):
        _begin(step, work)
        log = EventLog(work, listener)
        try:
            with notices_to(log.notice):
                if left := left_behind(SEQUENCES[step.format], step.sequences):
                    log.notice(f"{step.format} holds tokens but no {' or '.join(left)}: {_of(left)} left behind.")
                executor = (
                    LocalExecutor(work, GRAPH, workers, memory, log)
                    if workers
                    else InlineExecutor(work, [step], memory)
                )
                try:
                    make([step], work, executor, log, memory)
                finally:
                    executor.close()
        finally:
            log.close()
        if out.is_dir():
            out.rmdir()
        os.replace(work / "artifacts" / step.name, out)
        fsync_folder(out.parent)
        shutil.rmtree(work)


def _of(left: list[str]) -> str:
    return "it is" if len(left) == 1 else "they are"


def _begin(step: SequenceExport, work: Path) -> None:
    """Write what the workers build the step from; what another export left is of no use to this one."""
    for folder in (work / "artifacts").glob("export-*"):
        if not folder.name.startswith(step.name):
            shutil.rmtree(folder)
    write_sealed(
        work / REQUEST,
        {"format": step.format, "options": asdict(step.options), "sequences": [asdict(one) for one in step.sequences]},
    )


def targets(work: Path) -> list[Step]:
    """The step of an export in the making, for workers."""
    try:
        asked: dict[str, Any] = read_sealed(work / REQUEST)
    except (FileNotFoundError, SealError):
        raise UserError("The request of this export is damaged.", str(work / REQUEST), "Export again.") from None
    sequences = tuple(Exported(**one) for one in asked["sequences"])
    return [SequenceExport(asked["format"], sequences, Options(**asked["options"]))]
