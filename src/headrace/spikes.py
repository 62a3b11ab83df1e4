"""The outlying steps of a run's training: which rows they saw, from which sources, and how to leave them out."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from headrace import run_folder
from headrace.errors import UserError
from headrace.recipe.mistakes import suggest
from headrace.sequence.provenance import beside, replay_rows
from headrace.sequence.store import ArrowSequence
from headrace.sequence.windows import PADDING
from headrace.tokens.load import has_text, open_decoder
from headrace.train import guard
from headrace.train.trajectory import latest, read_trajectory


def spikes(run: Path, stage: str | None = None) -> list[dict[str, Any]]:
    """The outlying steps of the trainings last carried out, and of those that they go on from.

    Args:
        run: the run folder.
        stage: only this stage's.

    Returns:
        For each stage with any ``{"stage", "spikes", "leave_out"}``. A spike is as :func:`headrace.train.guard.told`
        tells it, with ``trajectory`` and ``seen``: for each row ``{"row", "sources", "segments": [{"source", "origin",
        "text"}]}``; ``seen`` is None where the sequence has been replaced. ``leave_out`` is the recipe's key of that
        name: ranges of rows, [first, last].

    Raises:
        UserError: the folder is not a run, or has no such stage.
    """
    names = [one.name for one in run_folder.read_recipe(run).stages]
    if stage is not None and stage not in names:
        raise UserError(
            f"This run has no stage {stage!r}.", str(run), suggest(stage, names) or f"It has {', '.join(names)}."
        )
    found = []
    for name in names if stage is None else [stage]:
        recorded = _recorded(run, name)
        if recorded:
            _look(run, name, recorded)
            found.append({"stage": name, "spikes": recorded, "leave_out": ranges([one["rows"] for one in recorded])})
    return found


def _recorded(run: Path, stage: str) -> list[dict[str, Any]]:
    """The records of the trajectory last trained on and of those before it, oldest first."""
    found: list[dict[str, Any]] = []
    folder, until = latest(run, stage), None
    while folder is not None and (trajectory := read_trajectory(folder)) is not None:
        own = [one for one in guard.told(folder) if until is None or one["step"] <= until]
        about = {"trajectory": trajectory.identity, "sequence": trajectory.sequence["digest"]}
        found = [*({**one, **about} for one in own), *found]
        after = trajectory.after
        until = None if after is None else int(after["step"])
        folder = None if after is None else folder.with_name(str(after["trajectory"]))
    return found


def _look(run: Path, stage: str, recorded: list[dict[str, Any]]) -> None:
    """Add what the rows of spikes hold."""
    sequence = run_folder.stage_sequence(run, stage)
    digest = None if sequence.fingerprint is None else sequence.fingerprint["digest"]
    for one in recorded:
        same = one.pop("sequence") == digest
        one["seen"] = _rows(sequence, *one["rows"]) if same and one["rows"][1] < len(sequence) else None


def _rows(sequence: ArrowSequence, first: int, last: int) -> list[dict[str, Any]]:
    tokenizer, inputs = beside(sequence, "tokenizer"), sequence.artifact.manifest.inputs
    if not has_text(tokenizer):
        return [{"row": row, "sources": _sources(sequence, row), "segments": []} for row in range(first, last + 1)]
    documents = beside(sequence, "documents") if "documents" in inputs else None
    return [
        {
            "row": row.row,
            "sources": _sources(sequence, row.row),
            "segments": [
                {"source": part.source, "origin": part.origin, "text": part.text}
                for part in row.segments
                if part.kind != "padding"
            ],
        }
        for row in replay_rows(sequence, documents, open_decoder(tokenizer), first, last + 1)
    ]


def _sources(sequence: ArrowSequence, row: int) -> list[str]:
    """The sources of a row, in order."""
    found = sequence.segments(row)
    known = found is not None and "source" in (found.dtype.names or ())
    if found is None or not known:
        return []
    return list(dict.fromkeys(sequence.sources[int(part["source"])] for part in found if part["kind"] != PADDING))


def ranges(rows: list[list[int]]) -> list[list[int]]:
    """Ranges of rows, [first, last] each, with those that touch as one."""
    out: list[list[int]] = []
    for first, last in sorted(map(list, rows)):
        if out and first <= out[-1][1] + 1:
            out[-1][1] = max(out[-1][1], last)
        else:
            out.append([first, last])
    return out
