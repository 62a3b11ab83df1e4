"""The data card of the run that an export comes from, and the list of its documents, beside the files."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import xxhash

from headrace import __version__
from headrace.flow.task import TaskContext
from headrace.recipe.load import dump
from headrace.report.attribution import ATTRIBUTION, write_attribution
from headrace.report.card.card import CHART, card, chart
from headrace.report.card.facts import made

VERSION = 1  # raised when the card's text changes for the same run


@dataclass(frozen=True)
class RunCard:
    """A card about a run.

    Attributes:
        run: the run folder; never part of an identity.
        stages: the stages that are exported.
        documents: whether the documents are too.
        identity: of what the card says.
    """

    run: str
    stages: tuple[str, ...]
    documents: bool
    identity: str

    @staticmethod
    def of(run: Path, stages: tuple[str, ...], documents: bool) -> RunCard:
        """The card of a run as it is now.

        Raises:
            UserError: the run has not come far enough for a card.
        """
        told = made(run, stages)
        parts = [f"{VERSION} {__version__}", dump(told.recipe)]
        parts += sorted(artifact.manifest.identity for artifact in told.artifacts.values())
        identity = xxhash.xxh3_128_hexdigest("\n".join(parts).encode())
        return RunCard(str(run.absolute()), stages, documents, identity)

    def write(self, ctx: TaskContext, data: str, head: dict[str, Any]) -> None:
        """Write README.md, the chart in it, and ATTRIBUTION.parquet.

        Args:
            ctx: the task.
            data: Markdown about the files.
            head: the front matter about the files.
        """
        told = made(self.run, self.stages)
        facts = told.facts()
        drawn = chart(facts)
        texts = {"README.md": card(facts, data, CHART if drawn else None, head), CHART: drawn}
        for name, text in texts.items():
            if text is not None:
                with ctx.file(name) as out:
                    out.path.write_text(text, encoding="utf-8")
        with ctx.file(ATTRIBUTION) as out:
            out.rows = write_attribution(out.path, told.attribution(self.documents), told.stages)
