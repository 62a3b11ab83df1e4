"""``headrace spikes``: the outlying steps of a training."""

from __future__ import annotations

from typing import Annotated, Any

import typer

from headrace.cli.options import Json, RunFolder
from headrace.cli.terminal import say, say_json
from headrace.visible import one_line

SHOWN = 160  # characters of a segment
ROWS, SEGMENTS = 8, 4  # of a step, of a row


def spikes(
    run: RunFolder,
    stage: Annotated[str | None, typer.Option("--stage", help="Only this stage.")] = None,
    json: Json = False,
) -> None:
    """Show the outlying steps of a training, their rows, those with the highest loss first, and the recipe's lines that
    leave these out."""
    from headrace import spikes as module

    found = module.spikes(run, stage)
    if json:
        say_json(found)
    elif not found:
        say("No step was outlying.")
    for one in [] if json else found:
        say(render(one))


def render(told: dict[str, Any]) -> str:
    """The outlying steps of a stage, and what to write into the recipe."""
    lines = [f"{told['stage']}: {len(told['spikes'])} outlying step{'s' * (len(told['spikes']) != 1)}"]
    for spike in told["spikes"]:
        first, last = spike["rows"]
        norm = _number(spike["grad_norm"])
        lines.append(
            f"\nstep {spike['step']}, rows {first} to {last}: {spike['reason']}, {_DONE[spike['action']]}; loss"
            f" {_number(spike['loss'])}, gradient norm {norm}"
        )
        each = ", ".join(f"{one_line(name)} {_number(loss)}" for name, loss in spike["sources"].items())
        lines += [f"  loss by source: {each}"] if each else []
        lines += _rows(spike["seen"])
    pairs = ", ".join(f"[{first}, {last}]" for first, last in told["leave_out"])
    return "\n".join(
        [*lines, "", f"To pass over these rows, under the stage's `train:` in the recipe:\n  leave_out: [{pairs}]"]
    )


_DONE = {"skip": "skipped", "rollback": "rolled back", "stop": "the run stopped"}


def _number(value: float | None) -> str:
    return "not finite" if value is None else f"{value:.4g}"


def _loss(loss: float | None, targets: int | None) -> str:
    return f", loss {_number(loss)}" if targets else ""


def _unlike(part: dict[str, Any]) -> float:
    """Documents with the highest loss come first."""
    return -(part["loss"] or 0.0)


def _rows(seen: list[dict[str, Any]] | None) -> list[str]:
    if seen is None:
        return ["  its sequence has been replaced since, so its text is not shown"]
    lines = []
    for row in seen[:ROWS]:
        sources = f" ({', '.join(map(one_line, row['sources']))})" if row["sources"] else ""
        lines.append(f"  row {row['row']}{sources}{_loss(row['loss'], row['targets'])}")
        for part in sorted(row["segments"], key=_unlike)[:SEGMENTS]:
            text = part["text"] if len(part["text"]) <= SHOWN else f"{part['text'][:SHOWN]} [...]"
            name = one_line(part["origin"] or part["source"] or "text")
            lines.append(f"    | {name}{'' if part['loss'] is None else _loss(part['loss'], 1)}: {one_line(text)}")
        left = len(row["segments"]) - SEGMENTS
        lines += [f"    | and {left} more"] if left > 0 else []
    more = len(seen) - ROWS
    return [*lines, f"  and {more} more rows; --json shows all"] if more > 0 else lines
