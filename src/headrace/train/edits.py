"""A recipe edited in the middle of a stage: the stage goes on from its newest checkpoint, as the edited recipe says.

What was consumed stays consumed: the new trajectory begins at the next row, with the weights, the optimizer's state and
the totals of the old one, and its schedule at the next step. ``RUN/edits.json`` records where, so that the run's graph
is again a function of its folder. The old trajectory's checkpoints stay.

An edit that is taken back is another edit: the stage goes on from where it stands, with the settings of before. Whoever
wants the checkpoints of before says ``branch``.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal

from headrace.errors import UserError
from headrace.flow.storage import SealError, read_sealed, write_sealed
from headrace.flow.task import TaskContext
from headrace.sequence.loader import differing
from headrace.sequence.store import ArrowSequence
from headrace.train.step import Model
from headrace.train.trajectory import Trajectory, fingerprint_of, latest, read_trajectory

FILE = "edits.json"
OnChange = Literal["stop", "accept", "branch"]
Edits = Mapping[str, Mapping[str, Any]]
"""The name of a stage's model as its recipe alone describes it -> ``{"trajectory", "step", "rows"}`` of what it
continues."""


def read_edits(run: Path) -> Edits:
    """The recorded edits of a run.

    Raises:
        UserError: the record is damaged.
    """
    try:
        found: Edits = read_sealed(run / FILE)["models"]
    except FileNotFoundError:
        return {}
    except SealError:
        raise UserError(
            "The record of the stages that go on after an edit of the recipe is damaged.",
            str(run / FILE),
            "Restore it; or delete it, and these stages begin anew beside their checkpoints.",
        ) from None
    return found


def edit(run: Path, model: Model, on_change: OnChange | None) -> tuple[bool, str | None]:
    """Look whether a stage about to be trained was underway as something else, and record that it goes on from there.

    Args:
        run: the run folder.
        model: the stage's model, whose inputs exist.
        on_change: what to do if it was: ``accept``: go on from there; ``branch``: begin the stage anew, beside it, or
            go on from its own checkpoints if there are any; ``stop``. None accepts another schedule, batch and the
            like, stops if the sequence has changed, and begins anew if the stage was at its end.

    Returns:
        Whether an edit was recorded, so that the graph has changed; and what the user should know, if anything.

    Raises:
        UserError: the user must decide.
    """
    now = model.trajectory(TaskContext(run, model))
    stands = _stands(run, model.stage)
    if stands is None:
        return False, None
    folder, before, at = stands
    if now.identity == before.identity or now.after == at:
        return False, None
    from headrace.train.checkpoint import complete

    own = complete(now.folder(run, model.stage))
    anew = f"It goes on from its own step {own[-1].step}" if own else "It begins anew"
    stood = f"Stage {model.stage!r} was at step {at['step']} of {before.steps}"
    changed = "; ".join(differing(before.values(), now.values())[:3])
    another = before.model != now.model or before.seed != now.seed or before.start != now.start
    ended = at["step"] >= before.steps
    if on_change == "branch" or another or (ended and on_change != "accept"):
        if on_change == "stop" and not ended:
            raise _stopped(model, stood, changed)
        if not own and now.after is not None and _record(run, model, None):
            return True, None  # and is asked again, about the stage as its recipe alone describes it
        if on_change == "branch":
            return False, None if ended else f"{stood}. {anew}, as you asked; {_kept(folder)}"
        more = " To go on from its last step instead, run with `--on-change accept`." if ended and not another else ""
        return False, f"{stood} as another training ({changed}). {anew}; {_kept(folder)}{more}"
    if before.sequence != now.sequence and on_change != "accept":
        raise _another_sequence(stood, folder, ArrowSequence(TaskContext(run, model).input("sequence")))
    if on_change == "stop":
        raise _stopped(model, stood, changed)
    if model.train.steps is not None and model.train.steps <= at["step"]:
        raise _beyond(model, stood, f"its recipe now asks for {model.train.steps} steps", "Ask for more steps")
    if at["rows"] > len(ArrowSequence(TaskContext(run, model).input("sequence"))):
        stood, but = f"{stood}, after {at['rows']} rows", f"its sequence now has {now.sequence['rows']}"
        raise _beyond(model, stood, but, "Undo the change")
    continued = replace(model, after=at)
    continued.trajectory(TaskContext(run, continued))  # refuses what leaves no whole batch
    _record(run, model, at)
    fresh = "" if before.optimizer == now.optimizer else ", with a new optimizer's state"
    return True, f"{stood} when its recipe changed ({changed}): it goes on from row {at['rows']} so{fresh}."


def _stands(run: Path, stage: str) -> tuple[Path, Trajectory, dict[str, Any]] | None:
    """The trajectory that a stage stands on, its folder, and what a training says that continues it; None before its
    first checkpoint."""
    from headrace.train.checkpoint import newest

    folder, most = latest(run, stage), None
    while folder is not None and (trajectory := read_trajectory(folder)) is not None:
        done = newest(folder, run, most)
        if done is not None:
            told = {"trajectory": trajectory.identity, "step": done.step, "rows": int(done.state["rows"])}
            return folder, trajectory, told
        # It has none of its own yet, and stands where it began.
        after = trajectory.after
        folder, most = (None, None) if after is None else (folder.with_name(after["trajectory"]), int(after["step"]))
    return None


def _record(run: Path, model: Model, at: Mapping[str, Any] | None) -> bool:
    """Record what a model continues, or that it continues nothing; returns whether this is new."""
    known = read_edits(run)
    name = replace(model, after=None if model.outside is None else model.outside.after).name
    told = {other: value for other, value in known.items() if other != name}
    told |= {} if at is None else {name: at}
    if told != known:
        write_sealed(run / FILE, {"models": told})
    return told != known


def _kept(folder: Path) -> str:
    return f"the checkpoints of before stay in {folder} until `headrace clean --checkpoints`."


_WAYS = (
    "Undo the change; or run again with `--on-change accept` to go on {where}, or `--on-change branch` to leave it "
    "there and train what the recipe says beside it."
)


def _stopped(model: Model, stood: str, changed: str) -> UserError:
    ways = _WAYS.format(where="from there")
    return UserError(f"{stood} when its recipe changed: {changed}.", f"stages.{model.stage}", ways)


def _beyond(model: Model, stood: str, but: str, fix: str) -> UserError:
    return UserError(
        f"{stood}, and {but}.",
        f"stages.{model.stage}",
        f"{fix}, or run again with `--on-change branch` to begin the stage anew.",
    )


def _another_sequence(stood: str, folder: Path, now: ArrowSequence) -> UserError:
    """The error for a sequence that changed under a training: says what differs, by source, and the ways on."""
    before = fingerprint_of(folder)
    lines = differing(before, now.fingerprint) if before is not None else ["its bytes differ"]
    ways = _WAYS.format(where="at the next row of the new sequence, which is recorded")
    return UserError(f"{stood} when its sequence changed.", str(now.path), ways, tuple(lines[:MOST_LINES]))


MOST_LINES = 12  # of what differs
