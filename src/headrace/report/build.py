"""Write a run's report: the page, and its main charts as separate files."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from headrace.flow.storage import replacing
from headrace.report.charts.loss import loss_chart
from headrace.report.charts.positions import positions_chart
from headrace.report.charts.split import split_chart
from headrace.report.facts import RunFacts
from headrace.report.gather import gather
from headrace.report.page import page
from headrace.report.sections.stages import token_split
from headrace.report.sections.training import loss_stages


def write_report(run: Path | str) -> Path:
    """Write ``RUN/report/index.html``, and its main charts beside it as far as there is something to draw.

    Returns:
        The path of the page.

    Raises:
        UserError: the folder is not a run, or the report cannot be written.
    """
    run = Path(run)
    folder = run / "report"
    target = folder / "index.html"
    facts = replace(gather(run), report=str(target))
    for stale in folder.glob("*.svg"):
        stale.unlink()
    for name, text in {**charts(facts), "index.html": page(facts)}.items():
        with replacing(folder / name) as path:
            path.write_text(text, encoding="utf-8")
    return target


def charts(facts: RunFacts) -> dict[str, str]:
    """File name -> SVG of the standalone charts."""
    names = facts.names
    drawn = {}
    trained = loss_stages(facts)
    if trained:
        drawn["loss.svg"] = loss_chart(trained, names).file("loss")
    if facts.long.curves:
        drawn["loss_by_position.svg"] = positions_chart(facts.long.curves).file("positions")
    if facts.stages:
        drawn["token_split.svg"] = split_chart(token_split(facts), names).file("split")
    return drawn
