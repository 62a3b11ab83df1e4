"""``headrace replay``: what the model saw at a step."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from headrace.cli.options import Json, RunFolder, whole
from headrace.cli.terminal import say, say_json
from headrace.visible import one_line

if TYPE_CHECKING:
    from headrace.sequence.provenance import ReplayedRow, ReplayedSegment

# Enough of a segment to recognize it; --full shows all of it.
SHOWN = 400


def replay(
    run: RunFolder,
    stage: Annotated[str, typer.Option("--stage", help="Stage name.")],
    step: Annotated[int, typer.Option("--step", metavar="N", parser=whole(0), help="Step, counted from 0.")],
    row: Annotated[
        int | None,
        typer.Option("--row", metavar="N", parser=whole(0), help="Only this row of the batch, counted from 0."),
    ] = None,
    full: Annotated[bool, typer.Option("--full", help="Show the full text.")] = False,
    json: Json = False,
) -> None:
    """Show what the model saw at a step.

    Shows the decoded text, the document and license of each segment, and which tokens carried loss.
    """
    from headrace import run_folder
    from headrace.errors import UserError
    from headrace.sequence.provenance import beside
    from headrace.sequence.provenance import replay as replayed
    from headrace.tokens.load import open_decoder

    sequence = run_folder.stage_sequence(run, stage, verify=True)
    # The held-out sequence is not a stage: it is read row by row.
    batch = next((one.train.batch for one in run_folder.read_recipe(run).stages if one.name == stage), 1)
    rows = replayed(sequence, beside(sequence, "documents"), open_decoder(beside(sequence, "tokenizer")), step, batch)
    if row is not None:
        if row >= len(rows):
            raise UserError(f"A batch of {len(rows)} has no row {row}.", "--row", f"Choose a row below {len(rows)}.")
        rows = rows[row : row + 1]
    if json:
        say_json({"stage": stage, "step": step, "batch": batch, "rows": [one.to_json() for one in rows]})
    else:
        say(f"{stage}, step {step}: {batch} rows of {sequence.seq_len} tokens and the one after")
        for one in rows:
            say(render(one, full))


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
    if segment.source is not None and segment.origin is not None:
        parts += [
            f"{segment.source}:{one_line(segment.origin)}",
            f"document {segment.id}",
            one_line(segment.license or "license unknown"),
        ]
        parts += [f"token {segment.offset}", f"epoch {segment.epoch}"]
    spans = ", ".join(f"[{first}, {stop})" for first, stop in segment.loss)
    return f"{'  '.join(parts)}  loss on {spans or 'nothing'}"
