"""``headrace ledger``: what became of every token of a run's sequences."""

from __future__ import annotations

from typing import Any

import typer

from headrace.cli.options import Json, RunFolder
from headrace.cli.terminal import say, say_json
from headrace.report.numbers import counted
from headrace.visible import one_line

COLUMNS = {
    "sequence": "in sequence",
    "trained": "trained",
    "left": "left",
    "left_out": "left out",
    "skipped": "skipped",
    "unused": "unused",
    "before": "trained before",
    "passed": "passed over",
    "elsewhere": "not known",
}
ALWAYS = ("sequence", "trained", "left")  # the others only where there are any


def ledger(run: RunFolder, json: Json = False) -> None:
    """Show what became of every token, by stage and source, and check it against the training's own count."""
    from headrace import ledger as module

    told = module.ledger(run)
    if json:
        say_json(told)
    else:
        say(render(told))
    if any(stage.get("wrong") for stage in told["stages"]):
        raise typer.Exit(1)


def render(told: dict[str, Any]) -> str:
    """A table of targets that carry loss, and what was checked."""
    from headrace.planning.text import table

    shown = [key for key in COLUMNS if key in ALWAYS or told["total"][key]]
    rows, notes = [], []
    for stage in told["stages"]:
        name = one_line(stage["stage"])
        if stage["state"] == "missing":
            notes.append(f"{name}: its sequence is not built yet")
            continue
        for source, entry in stage["sources"].items():
            if not entry["sequence"]:
                continue
            rows.append([f"{name}: {one_line(source)}", *_cells(entry, shown), _epochs(entry["epochs"])])
        notes += _notes(stage)
    for source, entry in told["sources"].items():
        rows.append([f"all stages: {one_line(source)}", *_cells(entry, shown), ""])
    if told["sources"]:
        rows.append(["in all", *(f"{told['total'][key]:,}" for key in shown), "", ""])
    lines = table(["", *(COLUMNS[key] for key in shown), "repeated", "epochs"], rows)
    told_of = "Tokens that carry loss. Repeated: tokens of later copies of a document, of all in the rows."
    return "\n".join([*lines, "", told_of, *notes])


def _cells(entry: dict[str, Any], shown: list[str]) -> list[str]:
    return [*(f"{entry[key]:,}" for key in shown), "-" if entry["repeated"] is None else f"{entry['repeated']:,}"]


def _epochs(value: float | None) -> str:
    return "-" if value is None else f"{value:.4g}"


def _notes(stage: dict[str, Any]) -> list[str]:
    name, parts = one_line(stage["stage"]), len(stage["trajectories"])
    lines = [f"{name}: step {stage['step']:,} of {stage['steps']:,}" if stage["steps"] else f"{name}: trains no model"]
    if parts > 1:
        lines[0] += f", in {parts} parts, as its recipe was edited in between"
    lines += _edited(stage)
    if stage["wrong"]:
        return [*lines, *(f"  WRONG: {text}" for text in stage["wrong"])]
    if stage["checked"]:
        lines[0] += "; sequence = trained + left + left out + skipped + unused"
        lines[0] += " + trained before + passed over" if stage["replaced"] else ""
        lines[0] += ", as the training itself counted"
    if stage["recorded"]:
        lines[0] += f"; the losses of {counted(stage['recorded'], 'row')} are recorded, with as many targets each"
    return lines


def _edited(stage: dict[str, Any]) -> list[str]:
    """What became of what was trained on before the sequence changed."""
    told = stage["replaced"]
    if told is None:
        rows = stage["rows"]["elsewhere"]
        lost = f"  its sequence changed after {rows:,} rows, and is not there to compare: what of it is in the new one"
        return [f"{lost} is not known"] if rows else []
    again = {fate: count for fate, count in told["again"].items() if count}
    ways = {"elsewhere": "in rows passed over", "trained": "trained on again", "left": "to come again"}
    parts = [f"{count:,} {ways.get(fate, COLUMNS[fate])}" for fate, count in again.items()]
    parts += [f"{told['gone']:,} not in the new one"] if told["gone"] else []
    parts += [f"{told['more']:,} trained on more than once"] if told["more"] else []
    return [f"  its sequence changed: of {told['trained']:,} tokens trained on before, {', '.join(parts)}"]
