"""``headrace replay``: what the model saw at a step."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from headrace.cli.options import Json, SequenceLength, TokenizerFile, place, whole
from headrace.cli.terminal import say, say_json
from headrace.visible import one_line

if TYPE_CHECKING:
    from headrace.sequence.provenance import ReplayedRow, ReplayedSegment
    from headrace.sequence.reader import SequenceReader

# Enough of a segment to recognize it; --full shows all of it.
SHOWN = 400


def replay(
    path: Annotated[
        Path,
        typer.Argument(
            metavar="PATH", help="Run folder, export, files in a format that is read, or a URL.", parser=place
        ),
    ],
    step: Annotated[
        int,
        typer.Option("--step", metavar="N", parser=whole(1), help="Step, counted from 1, as the training's log."),
    ],
    stage: Annotated[str | None, typer.Option("--stage", help="Stage name, where there are several.")] = None,
    batch: Annotated[
        int | None,
        typer.Option("--batch", metavar="N", parser=whole(1), help="Rows per step. Default: the recipe's, or 1."),
    ] = None,
    tokenizer: TokenizerFile = None,
    sequence_length: SequenceLength = None,
    row: Annotated[
        int | None,
        typer.Option("--row", metavar="N", parser=whole(0), help="Only this row of the batch, counted from 0."),
    ] = None,
    full: Annotated[bool, typer.Option("--full", help="Show the full text.")] = False,
    json: Json = False,
) -> None:
    """Show what the model saw at a step.

    Shows the decoded text, the document and license of each segment where they are known, and which tokens carried
    loss.
    """
    from headrace import run_folder
    from headrace.errors import UserError
    from headrace.sequence.provenance import beside, replay_rows
    from headrace.sequence.store import ArrowSequence
    from headrace.tokens.load import file_decoder, open_decoder

    is_run = (path / run_folder.RECIPE).is_file()
    sequence = run_folder.open_sequence(path, stage, seq_len=sequence_length, verify=is_run)
    documents = licences = None
    if is_run and isinstance(sequence, ArrowSequence) and "documents" in sequence.artifact.manifest.inputs:
        documents, licences = beside(sequence, "documents"), run_folder.licences(path)
    if tokenizer is not None:
        decoder, _ = file_decoder(tokenizer)
    elif is_run:
        decoder = open_decoder(beside(sequence, "tokenizer"))
    else:
        raise UserError(
            "These files come without a tokenizer.", str(path), "Give the one they were made with: --tokenizer FILE."
        )
    name = stage or (sequence.artifact.manifest.stage if isinstance(sequence, ArrowSequence) else None) or str(path)
    first, stop = _rows(path, name, sequence, step, batch, is_run)
    if row is not None and row >= stop - first:
        raise UserError(f"A batch of {stop - first} has no row {row}.", "--row", f"Choose a row below {stop - first}.")
    asked = (first, stop) if row is None else (first + row, first + row + 1)
    rows = replay_rows(sequence, documents, decoder, *asked, licences)
    if json:
        say_json({"stage": name, "step": step, "batch": stop - first, "rows": [one.to_json() for one in rows]})
    else:
        from headrace.report.numbers import counted

        length = f"{counted(sequence.seq_len, 'token')} and the one after"
        say(f"{name}, step {step}: rows {first} to {stop - 1}, {length}")
        for one in rows:
            say(render(one, full))


def _rows(
    path: Path, name: str, sequence: SequenceReader, step: int, batch: int | None, is_run: bool
) -> tuple[int, int]:
    """The rows ``[first, stop)`` of a step: as they were or will be trained on, or in batches of a size that was asked
    for.

    Raises:
        UserError: there is no such step, or its rows are no more.
    """
    from headrace import run_folder
    from headrace.errors import UserError
    from headrace.ledger import trained_as
    from headrace.train.steps import Steps

    trajectory = trained_as(path, name) if is_run and batch is None else None
    if trajectory is None:
        # The held-out sequence is not a stage: it is read row by row.
        stages = run_folder.read_recipe(path).stages if is_run else ()
        of_recipe = next((one.train.batch for one in stages if one.name == name), 1)
        steps = Steps.untrained(len(sequence), batch or of_recipe, sequence.seq_len)
    else:
        digest = None if sequence.fingerprint is None else sequence.fingerprint["digest"]
        steps = Steps.of(path, name, digest, trajectory)
    stretch = steps.at(step)
    if stretch is None:
        there = f"it has steps {steps.first} to {steps.last}" if steps.last else "its rows do not fill a batch"
        raise UserError(
            f"There is no step {step}: {there}.", name, "Steps count from 1; --batch N reads batches of N rows."
        )
    first, stop = stretch.rows(step)
    if not stretch.current or stop > len(sequence):
        gone = "The recipe was edited after it, and its sequence has been replaced."
        raise UserError(f"The rows of step {step} are no more.", name, gone)
    return first, stop


def render(row: ReplayedRow, full: bool) -> str:
    """A row: a line about each segment, with its text below."""
    lines = [f"\nrow {row.row}"]
    for segment in row.segments:
        lines.append(f"  {_facts(segment)}")
        text = segment.text if full or len(segment.text) <= SHOWN else f"{segment.text[:SHOWN]} [...]"
        lines += [f"    | {line}" for line in text.split("\n")]
    return "\n".join(lines)


def _facts(segment: ReplayedSegment) -> str:
    """A segment's position, kind and origin, and where the loss was."""
    parts = [f"[{segment.start}, {segment.start + segment.length})", segment.kind]
    if segment.origin is not None:
        parts += [
            f"{segment.source}:{one_line(segment.origin)}",
            f"document {segment.id}",
            one_line(segment.license or "license unknown"),
        ]
    elif segment.source is not None:
        parts.append(one_line(segment.source))
        if segment.document is not None:
            parts.append(f"document row {segment.document}")
    if segment.offset is not None:
        parts += [f"token {segment.offset}", f"epoch {segment.epoch}"]
    spans = ", ".join(f"[{first}, {stop})" for first, stop in segment.loss)
    return f"{'  '.join(parts)}  loss on {spans or 'nothing'}"
