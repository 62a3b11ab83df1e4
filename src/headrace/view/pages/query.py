"""SQL over a run's sidecars, read only; the query is the address."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

from pydantic import Field

from headrace.report.markup import Markup, element, join
from headrace.report.numbers import counted, whole
from headrace.report.tables import Column, details, table
from headrace.view.address import address
from headrace.view.layout import empty
from headrace.view.page import Page, Query
from headrace.view.sql import MOST_ROWS, NUMBERS, Answer, database
from headrace.view.target import Target

EXAMPLES = (
    "SELECT source, count(*) AS documents, sum(bytes) AS bytes, avg(keep::INT) AS kept\nFROM corpus GROUP BY source",
    "SELECT row, path, bytes, reason FROM corpus WHERE NOT keep ORDER BY bytes DESC LIMIT 20",
    "SELECT repo, count(*) AS documents FROM corpus WHERE keep GROUP BY repo ORDER BY documents DESC LIMIT 20",
)


class SqlQuery(Query):
    """A query in SQL."""

    sql: Annotated[str, Field(max_length=8000)] = ""


@dataclass(frozen=True)
class Shown:
    """What the page shows.

    Attributes:
        tables: name -> its columns with their types.
        answer: None without a query.
    """

    tables: dict[str, list[tuple[str, str]]]
    answer: Answer | None


def load(target: Target, query: SqlQuery) -> Shown:
    """Run the query."""
    made = database(target)

    def described() -> dict[str, list[tuple[str, str]]]:
        return {
            name: [(row[0], row[1]) for row in made.run(f'SELECT * FROM (DESCRIBE "{name}")').rows]
            for name in made.tables
        }

    tables = target.kept("tables", described)
    return Shown(tables, made.ask(query.sql) if query.sql.strip() else None)


def draw(query: SqlQuery, shown: Shown) -> Markup:
    """The form, the answer, and the tables."""
    if not shown.tables:
        return empty("No documents yet.")
    form = element(
        "form",
        element("textarea", query.sql, name="sql", rows=5, aria_label="SQL", spellcheck="false"),
        element("button", "Run"),
        action=address("query"),
        class_="stacked",
    )
    about = "DuckDB's SQL over the documents and what was found about each, read only. "
    about += f"An answer has at most {whole(MOST_ROWS)} rows, fewer if they are long; its address can be shared."
    examples = [element("li", element("a", sql, href=address("query", sql=sql), class_="mono")) for sql in EXAMPLES]
    tables = [
        details(name, element("p", [[", " if i else "", column, element("span", f" {type_.lower()}", class_="note")]
                                    for i, (column, type_) in enumerate(columns)]), open_=name == "corpus")
        for name, columns in shown.tables.items()
    ]  # fmt: skip
    return join(
        [
            element("p", about, class_="lead"),
            form,
            _answer(shown.answer) if shown.answer is not None else element("ul", examples),
            element("h2", "Tables"),
            tables,
        ]
    )


def _answer(answer: Answer) -> Markup:
    if not answer.rows:
        return empty("No rows.")
    columns = [Column(name, kind in NUMBERS) for name, kind in zip(answer.columns, answer.types, strict=True)]
    rows = [[_cell(name, value) for name, value in zip(answer.columns, row, strict=True)] for row in answer.rows]
    said = f"The first {whole(len(rows))} rows." if answer.cut else f"{counted(len(rows), 'row')}."
    return table(columns, rows, said)


def _cell(name: str, value: object) -> object:
    if name == "row" and isinstance(value, int):
        return element("a", str(value), href=address("document", row=value))
    if isinstance(value, float):
        return f"{value:.6g}"
    return (
        whole(value) if isinstance(value, int) and not isinstance(value, bool) else "" if value is None else str(value)
    )


PAGE = Page(
    about="The answer of a read-only SQL query over the documents and their sidecars (DuckDB).",
    query=SqlQuery,
    load=load,
    draw=draw,
    heading=lambda query, shown: "SQL",
)
