"""A recipe edited in the middle of a stage: the stage goes on from its newest checkpoint, as the edited recipe says.

What was consumed stays consumed: the new trajectory begins at the next row, with the weights, the optimizer's state and
the totals of the old one, and its schedule at the next step. ``RUN/edits.json`` records where, so that the run's graph
is again a function of its folder. The old trajectory's checkpoints stay.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

from headrace.errors import UserError
from headrace.flow.storage import read_sealed, write_sealed
from headrace.flow.task import TaskContext
from headrace.sequence.loader import differing
from headrace.sequence.store import ArrowSequence
from headrace.train.step import Model
from headrace.train.trajectory import fingerprint_of, latest, read_trajectory

FILE = "edits.json"
OnChange = Literal["stop", "accept", "branch"]
Edits = Mapping[str, Mapping[str, Any]]
"""The name of a stage's model as its recipe alone describes it -> ``{"trajectory", "step", "rows"}`` of what it
continues."""


def read_edits(run: Path) -> Edits:
    """The recorded edits of a run."""
    try:
        found: Edits = read_sealed(run / FILE)["models"]
    except FileNotFoundError:
        return {}
    return found


def edit(run: Path, model: Model, on_change: OnChange | None) -> tuple[bool, str | None]:
    """Look whether a stage about to be trained was underway as something else, and record that it goes on from there.

    Args:
        run: the run folder.
        model: the stage's model, whose inputs exist.
        on_change: what to do if it was: ``accept``: go on from there; ``branch``: begin the stage anew, beside it;
            ``stop``. None accepts another schedule, batch and the like, and stops if the sequence has changed.

    Returns:
        Whether an edit was recorded, so that the graph has changed; and what the user should know, if anything.

    Raises:
        UserError: the user must decide.
    """
    now = model.trajectory(TaskContext(run, model))
    folder = latest(run, model.stage)
    before = None if folder is None else read_trajectory(folder)
    if folder is None or before is None or before.identity == now.identity or now.after is not None:
        return False, None
    from headrace.train.checkpoint import complete, newest

    if complete(now.folder(run, model.stage)):  # an edit was taken back
        return False, None
    done = newest(folder, run)
    if done is None or done.step >= before.steps:
        return False, None
    stood = f"Stage {model.stage!r} was at step {done.step} of {before.steps}"
    changed = differing(before.values(), now.values())
    if before.model != now.model or before.seed != now.seed or before.start != now.start:
        return False, f"{stood} as another training ({'; '.join(changed[:3])}). It begins anew; {kept(folder)}"
    if on_change == "branch":
        return False, f"{stood}. It begins anew, as you asked; {kept(folder)}"
    if before.sequence != now.sequence and on_change != "accept":
        raise another_sequence(stood, folder, ArrowSequence(TaskContext(run, model).input("sequence")))
    if on_change == "stop":
        raise UserError(
            f"{stood} when its recipe changed: {'; '.join(changed[:3])}.",
            f"stages.{model.stage}",
            "Undo the change; or run again with `--on-change accept` to go on from there, or `--on-change branch` to "
            "begin the stage anew beside it.",
        )
    rows = int(done.state["rows"])
    if rows > int(now.sequence["rows"]):
        raise UserError(
            f"{stood} and had consumed {rows} rows, but its sequence now has only {now.sequence['rows']}.",
            f"stages.{model.stage}",
            "Run again with `--on-change branch` to begin the stage anew.",
        )
    told = {**read_edits(run), model.name: {"trajectory": before.identity, "step": done.step, "rows": rows}}
    write_sealed(run / FILE, {"models": told})
    return True, f"{stood} when its recipe changed ({'; '.join(changed[:3])}): it goes on from row {rows} so."


def kept(folder: Path) -> str:
    """What happens to the checkpoints of before."""
    return f"the checkpoints of before stay in {folder} until `headrace clean --checkpoints`."


def another_sequence(stood: str, folder: Path, now: ArrowSequence) -> UserError:
    """The error for a sequence that changed under a training: says what differs, by source, and the ways on."""
    before = fingerprint_of(folder)
    lines = differing(before, now.fingerprint) if before is not None else ["its bytes differ"]
    return UserError(
        f"{stood} when its sequence changed.",
        str(now.path),
        "Undo the change; or run again with `--on-change accept` to go on at the next row of the new sequence, which "
        "is recorded, or `--on-change branch` to begin the stage anew beside it.",
        tuple(lines[:MOST_LINES]),
    )


MOST_LINES = 12  # of what differs
