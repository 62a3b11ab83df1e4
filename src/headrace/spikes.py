"""The outlying steps of a run's training: which rows they saw, from which sources, and how to leave them out."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from headrace import run_folder
from headrace.errors import UserError
from headrace.recipe.mistakes import suggest
from headrace.sequence.provenance import beside, replay_rows
from headrace.sequence.reader import SequenceReader
from headrace.sequence.store import ArrowSequence
from headrace.sequence.windows import PADDING
from headrace.tokens.load import has_text, open_decoder
from headrace.train import guard, losses
from headrace.train.outcome import finite
from headrace.train.trajectory import latest, read_trajectory


def spikes(run: Path, stage: str | None = None) -> list[dict[str, Any]]:
    """The outlying steps of the trainings last carried out, and of those that they go on from.

    Args:
        run: the run folder.
        stage: only this stage's.

    Returns:
        For each stage with any ``{"stage", "spikes", "leave_out"}``. A spike is as :func:`headrace.train.guard.told`
        tells it, with ``trajectory`` and ``seen``: for each row ``{"row", "loss", "targets", "sources", "segments":
        [{"source", "origin", "text", "loss"}]}``, highest loss first. Losses are None where they were not recorded or
        are not finite, ``targets`` where they were not recorded, ``seen`` where the sequence has been replaced.
        ``leave_out`` is the recipe's key of that name: ranges of rows, [first, last].

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
        about = {"trajectory": trajectory.identity, "sequence": trajectory.sequence["digest"], "folder": folder}
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
        same, folder = one.pop("sequence") == digest, one.pop("folder")
        one["seen"] = None
        if same and one["rows"][1] < len(sequence):
            one["seen"] = _with_losses(sequence, folder, one["step"], _rows(sequence, *one["rows"]))


def _with_losses(
    sequence: ArrowSequence, folder: Path, step: int, rows: list[tuple[dict[str, Any], list[tuple[int, int]]]]
) -> list[dict[str, Any]]:
    """Rows with their losses and those of their segments, highest first."""
    of_rows, of_tokens = losses.rows_of(folder, len(rows), step), losses.tokens_of(folder, sequence.seq_len, step)
    for i, (row, places) in enumerate(rows):
        tokens = of_tokens.get(row["row"])
        row["loss"] = None if of_rows is None else finite(float(of_rows.loss[i]))
        row["targets"] = None if of_rows is None else int(of_rows.targets[i])
        for part, place in zip(row["segments"], places, strict=True):
            part["loss"] = None if tokens is None else finite(losses.mean_of(tokens, *place)[0])
    order = range(len(rows)) if of_rows is None else of_rows.order.tolist()
    return [rows[i][0] for i in order]


def _rows(sequence: ArrowSequence, first: int, last: int) -> list[tuple[dict[str, Any], list[tuple[int, int]]]]:
    """What each row holds, and the first position and the length of its segments."""
    tokenizer, inputs = beside(sequence, "tokenizer"), sequence.artifact.manifest.inputs
    if not has_text(tokenizer):
        return [
            ({"row": row, "sources": sources_of(sequence, row), "segments": []}, []) for row in range(first, last + 1)
        ]
    documents = beside(sequence, "documents") if "documents" in inputs else None
    found = []
    for row in replay_rows(sequence, documents, open_decoder(tokenizer), first, last + 1):
        real = [part for part in row.segments if part.kind != "padding"]
        told = [{"source": part.source, "origin": part.origin, "text": part.text} for part in real]
        about = {"row": row.row, "sources": sources_of(sequence, row.row), "segments": told}
        found.append((about, [(part.start, part.length) for part in real]))
    return found


def sources_of(sequence: SequenceReader, row: int) -> list[str]:
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
