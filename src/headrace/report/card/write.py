"""Write the card of a run, its chart and the list of its documents to files."""

from __future__ import annotations

from collections.abc import Collection
from pathlib import Path

from headrace.flow.storage import replacing
from headrace.report.attribution import write_attribution
from headrace.report.card.card import CHART, card, chart
from headrace.report.card.facts import made


def write_card(
    run: Path | str,
    out: Path | None = None,
    attribution: Path | None = None,
    stages: Collection[str] | None = None,
) -> str:
    """Write a run's data card.

    Args:
        run: the run folder.
        out: the card's file; its chart is written beside it as ``token_split.svg``. None only returns the card, without
            a chart.
        attribution: the file for the list of all documents that the stages are made of, or None.
        stages: names of stages; all that are finished by default.

    Returns:
        The card, in Markdown.

    Raises:
        UserError: the folder is no run, is not far enough, has no such stage, or a file cannot be written.
    """
    told = made(run, stages)
    facts = told.facts()
    drawn = None if out is None else chart(facts)
    text = card(facts, chart=CHART if drawn else None)
    files = {out: text, out.with_name(CHART): drawn} if out is not None else {}
    for target, content in files.items():
        if content is not None:
            with replacing(target) as path:
                path.write_text(content, encoding="utf-8")
    if attribution is not None:
        with replacing(attribution) as path:
            write_attribution(path, told.attribution(), told.stages)
    return text
