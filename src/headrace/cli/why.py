"""``headrace why``: what happened to a document."""

from __future__ import annotations

import shutil
import sys
from pathlib import Path
from typing import Annotated, Any

import typer

from headrace.cli.options import Json, RunFolder
from headrace.cli.terminal import say, say_json
from headrace.visible import one_line

# Sequence positions listed; the rest are counted.
SHOWN = 6


def why(
    run: RunFolder,
    document: Annotated[
        str | None, typer.Argument(metavar="[DOCUMENT]", help="Document id, or source:file:row (rows count from 0).")
    ] = None,
    text_file: Annotated[
        Path | None, typer.Option("--text-file", metavar="FILE", help="Check the text in this file instead.")
    ] = None,
    source: Annotated[
        str, typer.Option("--source", help="With --text-file: treat it as a document of this source.")
    ] = "",
    full: Annotated[bool, typer.Option("--full", help="Show both duplicates in full.")] = False,
    json: Json = False,
) -> None:
    """Explain what happened to a document, with evidence."""
    from headrace import inquiry
    from headrace.errors import UserError

    if (document is None) == (text_file is None):
        raise UserError("Name one document, or a file with --text-file.", "headrace why", "headrace why RUN DOCUMENT")
    if text_file is not None:
        told = inquiry.ask_text(run, _read(text_file), source, text_file.name)
    else:
        assert document is not None
        told = inquiry.ask(run, document, None if full else 3)
    if json:
        say_json(told)
    else:
        width = shutil.get_terminal_size((120, 24)).columns if sys.stdout.isatty() else 120
        say(render(told, width))


def _read(path: Path) -> str:
    from headrace.errors import UserError
    from headrace.flow.storage import cannot_read

    try:
        return path.read_text(encoding="utf-8")
    except OSError as error:
        raise cannot_read("The text", path, error) from None
    except UnicodeDecodeError as error:
        raise UserError("The text is not UTF-8.", f"{path}, byte {error.start}", "Save it as UTF-8.") from None


def render(told: dict[str, Any], width: int) -> str:
    """The answer as text: the document, each decision, the pair of duplicates, where it went."""
    if "quarantined" in told:
        return _unread(told["quarantined"])
    about = told["document"]
    lines = [f"document {about['id']}, {about['characters']:,} characters"]
    if about["row"] is not None:
        lines.append(f"  from {about['source']}:{one_line(about['origin_file'])}:{about['origin_row']}")
        facts = [f"{key} {one_line(about[key])}" for key in ("license", "repo", "path", "language") if about.get(key)]
        lines += [f"  {', '.join(facts)}"] if facts else []
    lines += _made(about, told.get("inspired_by") or [])
    if told.get("copies"):
        lines.append(f"  {len(told['copies'])} more rows have the same text: {_some(told['copies'])}")
    lines += ["", *_decisions(told["decisions"])]
    lines += _verdict(told["verdict"])
    if told.get("reference"):
        lines.append(f"         like a document of {one_line(told['reference'])}")
    for near in told.get("nearest") or []:
        same = "the same text" if near["exact"] else f"Jaccard {near['jaccard']:.3f}"
        found = "a candidate pair" if near["agrees"] or near["exact"] else "not a candidate pair"
        lines.append(
            f"near     {near['id']}  {near['source']}:{one_line(near['origin_file'])}:{near['origin_row']}"
            f"  {same}, {found}"
        )
    if told.get("pair"):
        from headrace.select.why.side_by_side import Row
        from headrace.select.why.side_by_side import render as side_by_side

        pair = told["pair"]
        same = ", equal after cleaning" if pair["same_cleaned"] else ""
        other = "the reference document" if told.get("reference") else "the kept one"
        lines += ["", f"this document | {other}: true Jaccard {pair['jaccard']:.3f}{same}"]
        lines.append(side_by_side([Row(**row) for row in pair["rows"]], width))
    for stage, places in told.get("stages", {}).items():
        lines.append(f"{stage:<8} {_places(places)}")
    return "\n".join(lines)


def _made(about: dict[str, Any], seeds: list[dict[str, Any]]) -> list[str]:
    """Who wrote a synthetic document, and the documents that inspired it."""
    if not seeds:
        return []
    made = about["meta"]["synthetic"]
    lines = [f"  written by {one_line(made['generator'])} ({made['method']}, prompt {made['prompt'][:8]}), inspired by"]
    for seed in seeds:
        license = f", license {one_line(seed['license'])}" if seed["license"] else ""
        place = f"{seed['source']}:{one_line(seed['origin_file'])}:{seed['origin_row']}"
        lines.append(f"    {seed['id']}  {place}{license}")
    return lines


def _unread(bad: dict[str, Any]) -> str:
    """What the quarantine says about a row that is not a document."""
    lines = [f"{bad['source']}:{one_line(bad['file'])}:{bad['line'] - 1} (line {bad['line']}) was not read"]
    lines.append(f"verdict  quarantined: {one_line(bad['error'])}")
    return "\n".join([*lines, f"         {bad['excerpt']!r}"] if bad["excerpt"] else lines)


def _some(rows: list[int]) -> str:
    return ", ".join(map(str, rows[:SHOWN])) + (" ..." if len(rows) > SHOWN else "")


def _decisions(decisions: list[dict[str, Any]]) -> list[str]:
    """A line per decision: what was measured, the limit, the outcome."""
    lines = []
    for decision in decisions:
        word = {True: "removes", False: "keeps", None: "found"}[decision["removes"]]
        limit = "" if decision["limit"] is None else f", limit {decision['limit']}"
        lines.append(f"{word:<8} {decision['reason']}: {_measured(decision['measured'])}{limit}")
        if decision.get("excerpt"):
            lines.append(f"         {decision['excerpt']!r}")
    return lines


def _measured(value: Any) -> str:
    if isinstance(value, dict):
        return ", ".join(f"{key} {_measured(part)}" for key, part in value.items() if part is not None) or "no value"
    return f"{value:.4g}" if isinstance(value, float) else one_line(str(value))


def _verdict(verdict: dict[str, Any] | None) -> list[str]:
    if verdict is None:
        return []
    if verdict["keep"]:
        return [f"verdict  kept, in the {verdict['split']} split"]
    lines = [f"verdict  removed: {verdict['reason']}"]
    if verdict["evidence"]:
        lines.append(f"         {_measured(verdict['evidence'])}")
    return lines


def _places(places: list[dict[str, Any]]) -> str:
    """The rows of a sequence that contain a document."""
    if not places:
        return "not in this sequence"
    told = [
        f"row {p['row']} at {p['start']} ({p['length']} tokens, {p['kind']}, epoch {p['epoch']})"
        for p in places[:SHOWN]
    ]
    more = f" and {len(places) - SHOWN} more" if len(places) > SHOWN else ""
    return "; ".join(told) + more
