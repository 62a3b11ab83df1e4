"""``headrace mup``: whether muP holds for a run's model."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from headrace.cli.options import Json, RunFolder, whole
from headrace.cli.terminal import say, say_json

RATES = (0.25, 1.0, 4.0, 16.0, 64.0)  # times the stage's learning rate


def mup(
    run: RunFolder,
    stage: Annotated[str | None, typer.Option("--stage", help="Stage whose rows to use. Default: the first.")] = None,
    widths: Annotated[
        str | None, typer.Option("--widths", metavar="A,B,C", help="Default: the model's width, half and twice of it.")
    ] = None,
    steps: Annotated[int, typer.Option("--steps", parser=whole(4), help="Steps of each training.")] = 16,
    batch: Annotated[int, typer.Option("--batch", parser=whole(1), help="Rows of a step.")] = 4,
    length: Annotated[int, typer.Option("--length", parser=whole(2), help="Tokens of a row, at most.")] = 128,
    out: Annotated[Path | None, typer.Option("--out", metavar="FILE", help="Write the plot here, an SVG.")] = None,
    json: Json = False,
) -> None:
    """Check that muP holds for a run's model: a coordinate check, and the best learning rate at several widths.

    Trains small models on rows of the run, which must have its sequence: `headrace run RECIPE --until sequence`.
    """
    from headrace.errors import UserError
    from headrace.model.machine import prepare
    from headrace.mup import Trial, check
    from headrace.report.charts.lines import Panel, lines_chart

    if out is not None and not out.parent.is_dir():
        raise UserError("There is no such folder.", str(out.parent), "Make it, or name another --out.")
    prepare()
    trial = Trial.of(run, stage, steps, batch, length)
    own = trial.config.width
    try:
        chosen = [own // 2, own, 2 * own] if widths is None else [int(width) for width in widths.split(",")]
    except ValueError:
        raise UserError(f"{widths!r} are no widths.", "--widths", "Write whole numbers, such as 128,256,512.") from None
    if len(set(chosen)) < 2:
        raise UserError("One width shows nothing.", "--widths", "Name several, such as 128,256,512.")
    rates = [trial.optimizer.learning_rate * factor for factor in RATES]
    found = check(trial, chosen, rates, steps, progress=lambda text: say(text, err=True))
    if out is not None:
        sizes = {name: {float(w): seen[-1] for w, seen in by.items()} for name, by in found.coordinates.items()}
        losses = {f"width {width}": found.losses[width] for width in found.widths}
        said = ", ".join(f"{found.best(width):g} at width {width}" for width in found.widths)
        panels = [
            Panel(f"Sizes after 5 steps at {found.rate:g}", "width", sizes),
            Panel("Loss", "learning rate", losses),
        ]
        chart = lines_chart("muP: sizes of activations, and learning rates", f"The best rates are {said}.", panels)
        out.write_text(chart.file("mup"), encoding="utf-8")
    if json:
        say_json({"widths": found.widths, "coordinates": found.coordinates, "rate": found.rate, "losses": found.losses})
        return
    for name, by in found.coordinates.items():
        parts = "; ".join(f"{width}: {seen[0]:.3g} → {seen[-1]:.3g}" for width, seen in by.items())
        say(f"size of {name} at width {parts}; as width^{found.power(name):.2f}")
    for width in found.widths:
        say(f"best learning rate at width {width}: {found.best(width):g}")
