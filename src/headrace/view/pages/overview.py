"""The run at a glance: where documents and tokens went, what is underway, and what deserves a look."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from headrace import run_folder
from headrace.report.markup import Markup, element, join
from headrace.report.numbers import size, whole
from headrace.report.tables import Column, table, text
from headrace.view.address import address
from headrace.view.page import Page, Query
from headrace.view.target import Target


@dataclass(frozen=True)
class Overview:
    """What the page shows.

    Attributes:
        status: as ``headrace status --json``.
    """

    status: dict[str, Any]


def load(target: Target, query: Query) -> Overview:
    """Read the run's state."""
    return Overview(target.kept("status", lambda: run_folder.status(target.path)))


def draw(query: Query, shown: Overview) -> Markup:
    """Its artifacts."""
    columns = [text("artifact"), text("state"), Column("rows"), Column("disk")]
    rows = [
        (
            element("a", one["name"], href=address("sequence", stage=one["stage"]))
            if one["kind"] == "sequence" and one["state"] == "done"
            else one["name"],
            one["state"],
            whole(one["rows"]) if "rows" in one else None,
            size(one["bytes"]) if "bytes" in one else None,
        )
        for one in shown.status["artifacts"]
    ]
    return join([element("p", "Running." if shown.status["running"] else None), table(columns, rows)])


PAGE = Page(
    name="overview",
    title="Run",
    about="The flow of documents and tokens through a run, its progress, and warnings.",
    query=Query,
    load=load,
    draw=draw,
    heading=lambda query, shown: str(shown.status["recipe"]),
    serves=lambda target: target.is_run,
    menu=True,
)
