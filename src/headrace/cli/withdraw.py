"""``headrace withdraw``: remove documents from a run after the fact, and list the training that saw them."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from headrace.cli.options import Json, RunFolder
from headrace.cli.terminal import say, say_json

if TYPE_CHECKING:
    from headrace.withdrawal import Withdrawal

SHOWN = 20  # documents, and spans of steps per stage; --json lists all


def withdraw(
    run: RunFolder,
    documents: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="DOCUMENT...", help="Document ids (or their first digits), source:file:row, or row:NUMBER."
        ),
    ] = None,
    repo: Annotated[list[str] | None, typer.Option("--repo", help="All documents of this repository.")] = None,
    license: Annotated[list[str] | None, typer.Option("--license", help="All documents under this license.")] = None,
    listed: Annotated[
        Path | None, typer.Option("--from", metavar="FILE", help="File with one document per line.")
    ] = None,
    copies: Annotated[
        bool, typer.Option("--copies", help="Also withdraw documents removed as copies of these.")
    ] = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only list the documents.")] = False,
    json: Json = False,
) -> None:
    """Remove documents from a run, and list the training steps that saw them.

    The next `headrace run` into this folder leaves them out and rebuilds verdicts and everything after them.
    """
    from headrace import withdrawal

    names = [*(documents or []), *(_lines(listed) if listed is not None else [])]
    told = withdrawal.withdraw(run, names, repo or [], license or [], copies, dry_run)
    if json:
        say_json({**told.to_json(), "written": not dry_run})
    else:
        say(render(told, dry_run))


def _lines(path: Path) -> list[str]:
    from headrace.errors import UserError

    try:
        return [line.strip() for line in path.read_text(encoding="utf-8").splitlines() if line.strip()]
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"The list cannot be read: {error}.", str(path), "Write one document per line.") from None


def render(told: Withdrawal, dry_run: bool) -> str:
    """What is removed, and where it was trained on."""
    from headrace.report.numbers import counted
    from headrace.visible import one_line

    lines = []
    for document in told.documents[:SHOWN]:
        origin = f"{document['source']}:{document['origin_file']}:{document['origin_row']}"
        about = ", ".join(str(document[name]) for name in ("repo", "license") if document[name] is not None)
        lines.append(one_line(f"{document['id']}  {origin}  {about}".rstrip()))
    if len(told.documents) > SHOWN:
        lines.append(f"... {len(told.documents) - SHOWN:,} more")
    are = "would be" if dry_run else "is" if len(told.documents) == 1 else "are"
    lines.append(f"{counted(len(told.documents), 'document')} {are} withdrawn")
    for use in told.stages:
        steps = use.steps_of()
        what = f"{len({*use.documents.tolist()}):,} of them in {counted(len({*use.rows.tolist()}), 'row')}"
        seen = "trained on" if use.trained else "of its training"
        trained = f"; {counted(len(steps), 'step')} {seen} them: {_spans(steps)}" if steps else ""
        lines.append(f"stage {use.stage}: {what}{trained}")
    if not told.stages:
        lines.append("no stage's sequence contains any of them")
    if told.copies:
        lines.append(
            f"{counted(len(told.copies), 'document')} removed as copies of them may replace them; "
            "--copies withdraws those too"
        )
    if not dry_run:
        lines.append("Run the recipe again with the same --out to rebuild without them.")
    return "\n".join(lines)


def _spans(steps: list[int]) -> str:
    """Steps in ascending order, with runs as ``3-7``."""
    spans: list[list[int]] = []
    for step in steps:
        if spans and step == spans[-1][1] + 1:
            spans[-1][1] = step
        else:
            spans.append([step, step])
    told = [f"{first}" if first == last else f"{first}-{last}" for first, last in spans[:SHOWN]]
    return ", ".join([*told, *(["..."] if len(spans) > SHOWN else [])])
