"""Distributions of every measure by source. Charts filter each other, and the documents follow."""

from __future__ import annotations

import math
import re
from dataclasses import dataclass
from typing import Any

import orjson

from headrace.report.charts.histogram import Bin, histogram_chart
from headrace.report.markup import Markup, element, join
from headrace.report.numbers import percent, round_number, size, whole
from headrace.report.palette import hue
from headrace.report.tables import details
from headrace.view.address import address
from headrace.view.choice import FIELDS, WORDS, Chosen, CorpusQuery
from headrace.view.labels import can_label
from headrace.view.layout import empty, pending
from headrace.view.named_labels import labels_stamp
from headrace.view.page import Page
from headrace.view.sql import Database, database, quoted
from headrace.view.target import Target

BINS = 32
FEW = 12  # documents listed
VALUES = 12  # of a column of words that are listed
LEAST_SPAN = 1e-12


@dataclass(frozen=True)
class Distribution:
    """A measure's documents in bins, by source, under the choices in all other measures.

    Attributes:
        measure: its name.
        edges: float64[b + 1] of the bins: powers of two, or of equal width.
        log: whether they are powers.
        counts: of each bin, by source.
        chosen: the stretch that is chosen, if one is.
        missing: documents without a value.
    """

    measure: str
    edges: list[float]
    log: bool
    counts: list[list[int]]
    chosen: tuple[float, float] | None
    missing: int


@dataclass(frozen=True)
class Value:
    """A value of a column of words, and its documents under the choices in all other columns."""

    value: str | None
    documents: int


@dataclass(frozen=True)
class Shown:
    """What the page shows.

    Attributes:
        names: sources in the order of their colors.
        documents: documents in all.
        chosen: documents that are chosen.
        bytes: of their text.
        measures: distributions.
        words: column -> its values, most documents first.
        rows: some of the chosen: row, name, source, bytes, reason.
        labels: whether the choice can be given a label.
        rule: the choice as a rule of a recipe keeps it; None without one that a rule can say.
    """

    names: list[str]
    documents: int
    chosen: int
    bytes: int
    measures: list[Distribution]
    words: dict[str, list[Value]]
    rows: list[dict[str, Any]]
    labels: bool
    rule: str | None


def load(target: Target, query: CorpusQuery) -> Shown | None:
    """Ask DuckDB; None while it counts."""
    made = database(target)
    if "corpus" not in made.tables:
        return Shown([], 0, 0, 0, [], {}, [], False, None)
    chosen = Chosen.of(query, made)
    return target.later(("corpus", query.model_dump_json()), lambda: _load(target, made, chosen), labels_stamp(target))


def _load(target: Target, made: Database, chosen: Chosen) -> Shown:
    columns = [row[0] for row in made.run("SELECT * FROM (DESCRIBE corpus)").rows]
    where, parameters = chosen.where(columns)
    total = made.run("SELECT count(*) FROM corpus").rows[0][0]
    n, text = made.run(f"SELECT count(*), coalesce(sum(bytes), 0)::BIGINT FROM corpus WHERE {where}", parameters).rows[
        0
    ]
    names = target.sources
    spans = target.kept("spans", lambda: _spans(made))
    measures = [
        _distribution(made, name, spans[name], names, chosen, columns) for name in made.measures if name in spans
    ]
    words = {name: _values(made, name, chosen, columns) for name in WORDS if name in columns}
    labels = _labels(made, chosen, columns)
    shown = ["row", "coalesce(path, origin_file || ':' || origin_row)", "source", "bytes"]
    shown += ["reason"] if "reason" in columns else []
    some = made.run(f"SELECT {', '.join(shown)} FROM corpus WHERE {where} LIMIT {FEW}", parameters).rows
    rows = [dict(zip(("row", "name", "source", "bytes", "reason"), row, strict=False)) for row in some]
    return Shown(
        names,
        total,
        n,
        text,
        measures,
        {name: values for name, values in words.items() if len(values) > 1 or name in chosen.values}
        | ({"label": labels} if labels else {}),
        rows,
        bool(chosen.between or chosen.values) and can_label(target.path),
        chosen.rule(),
    )


def _spans(made: Database) -> dict[str, tuple[float, float]]:
    """The least and the largest value of each measure that has several."""
    asked = [f"min({quoted(name)})::DOUBLE, max({quoted(name)})::DOUBLE" for name in made.measures]
    if not asked:
        return {}
    told = made.run(f"SELECT {', '.join(asked)} FROM corpus WHERE true").rows[0]
    pairs = {name: (told[2 * i], told[2 * i + 1]) for i, name in enumerate(made.measures)}
    return {name: (low, high) for name, (low, high) in pairs.items() if low is not None and high > low}


def edges(low: float, high: float, is_float: bool) -> tuple[list[float], bool]:
    """Bins for values from ``low`` to ``high``: shares in bins of equal width, sizes by powers of two."""
    if low >= 0 and (not is_float or high > 4) and high >= 64:
        last = math.ceil(math.log2(high + 1))
        first = 0 if low < 1 else math.floor(math.log2(low))
        return [0.0 if k == 0 and low < 1 else 2.0**k for k in range(first, last + 1)], True
    step = max((high - low) / BINS, LEAST_SPAN)
    return [low + step * k for k in range(BINS + 1)], False


def _distribution(
    made: Database, name: str, span: tuple[float, float], names: list[str], chosen: Chosen, columns: list[str]
) -> Distribution:
    cuts, log = edges(*span, made.measures[name] in ("DOUBLE", "FLOAT"))
    where, parameters = chosen.where(columns, name)
    value = quoted(name)
    if log:
        bin_ = (
            f"CASE WHEN {value} < 1 THEN 0 ELSE floor(log2({value}::DOUBLE))::INT - {round(math.log2(cuts[1])) - 1} END"
        )
    else:
        bin_ = f"floor(({value} - {cuts[0]!r}) / {cuts[1] - cuts[0]!r})::INT"
    last = len(cuts) - 2
    sql = (
        f"SELECT source, least({last}, greatest(0, {bin_})), count(*) FROM corpus WHERE {where} AND {value} IS NOT NULL"
    )
    counts = [[0] * len(names) for _ in range(last + 1)]
    for source, at, n in made.run(f"{sql} GROUP BY ALL", parameters, 1 << 20, 1 << 26).rows:
        if source in names:
            counts[at][names.index(source)] += n
    missing = made.run(f"SELECT count(*) FROM corpus WHERE {where} AND {value} IS NULL", parameters).rows[0][0]
    return Distribution(name, cuts, log, counts, chosen.between.get(name), missing)


def _values(made: Database, name: str, chosen: Chosen, columns: list[str]) -> list[Value]:
    where, parameters = chosen.where(columns, name)
    sql = f"SELECT {quoted(name)}, count(*) AS n FROM corpus WHERE {where} GROUP BY ALL ORDER BY n DESC, 1 LIMIT 200"
    return [Value(row[0], row[1]) for row in made.run(sql, parameters).rows]


def _labels(made: Database, chosen: Chosen, columns: list[str]) -> list[Value]:
    where, parameters = chosen.where(columns, "label")
    sql = (
        f"SELECT label, count(*) AS n FROM corpus JOIN labels USING (id) WHERE {where} GROUP BY ALL ORDER BY n DESC, 1"
    )
    return [Value(row[0], row[1]) for row in made.run(sql, parameters).rows]


def draw(query: CorpusQuery, shown: Shown | None) -> Markup:
    """The charts, the columns of words, and some of the documents."""
    if shown is None:
        return pending("Counting …")
    if not shown.documents:
        return empty("No documents yet.")
    of = f" of {whole(shown.documents)} ({percent(shown.chosen, shown.documents)})"
    said = (
        f"{whole(shown.chosen)}{of if shown.chosen < shown.documents else ''} documents, {size(shown.bytes)} of text."
    )
    charts = [_figure(query, shown, one) for one in shown.measures]
    return join(
        [
            element("p", said, " ", element("a", "Ask in SQL", href=address("query")), class_="lead", role="status"),
            _selection(query, shown),
            element(
                "div",
                element("div", charts, class_="grid"),
                element("aside", [_words(query, shown, name, values) for name, values in shown.words.items()]),
                class_="columns",
            ),
            element("h2", "Documents"),
            element("ol", [_row(row) for row in shown.rows], class_="hits"),
        ]
    )


def _selection(query: CorpusQuery, shown: Shown) -> Markup | None:
    chips = []
    for told in query.between:
        left = tuple(one for one in query.between if one != told)
        chips.append(
            element(
                "a", told.replace(":", " "), " ✕", href=address("corpus", **query.changed(between=left)), class_="chip"
            )
        )
    for name in (*WORDS, "label", "kept"):
        field = FIELDS.get(name, name)
        if value := getattr(query, field):
            none: object = None if name == "kept" else ()
            words = value if isinstance(value, str) else ", ".join(one or "none" for one in value)
            href = address("corpus", **query.changed(**{field: none}))
            chips.append(element("a", f"{name} {words}", " ✕", href=href, class_="chip"))
    if not chips:
        return element("p", "Click a bar, or drag over several, to choose documents.", class_="note")
    save = element("a", "Save their ids", href="/corpus/ids" + address("corpus", **query.changed())[len("/corpus") :])
    about = element("p", save, " as a list for ", element("code", "headrace withdraw RUN --from FILE"), ".")
    rule = None
    if shown.rule is not None:
        rule = element(
            "p",
            "As a rule that keeps only these: ",
            element("code", f"filters: {{rules: [{{name: chosen, keep: {orjson.dumps(shown.rule).decode()}}}]}}"),
        )
    label = _label_form(query) if shown.labels else None
    return element("div", element("p", chips), about, label, rule, class_="selection")


def _label_form(query: CorpusQuery) -> Markup:
    """Gives the choice a label, or takes it back."""
    fields = query.changed().items()
    pairs = [(name, one) for name, value in fields for one in (value if isinstance(value, tuple) else (value,))]
    return element(
        "form",
        [element("input", type="hidden", name=name, value=one) for name, one in pairs],
        element("label", "As a label: ", element("input", name="name", required=True, maxlength=40)),
        element("button", "Give", name="on", value="1"),
        element("button", "Take back", name="on", value="0"),
        method="post",
        action="/corpus/label",
        class_="inline",
    )


def _figure(query: CorpusQuery, shown: Shown, one: Distribution) -> Markup:
    others = tuple(told for told in query.between if not told.startswith(f"{one.measure}:"))
    hues = list(range(len(shown.names)))
    show = _amount if one.log else _share
    bins = []
    for i, counts in enumerate(one.counts):
        low, high = one.edges[i], one.edges[i + 1]
        # The last bin of shares includes its end.
        end = "" if i == len(one.counts) - 1 else f"{high:.12g}"
        href = address("corpus", **query.changed(between=(*others, f"{one.measure}:{low:.12g}:{end}")))
        bins.append(Bin(low, high, f"{show(low)} to {show(high)}", counts, href))
    name = one.measure.replace("_", " ")
    chart = histogram_chart(name, bins, hues, one.chosen, show, 440)
    none = f" ({whole(one.missing)} without)" if one.missing else ""
    template = address("corpus", **query.changed(between=(*others, f"{one.measure}:FROM:TO")))
    return element(
        "figure",
        element("figcaption", name, element("span", none, class_="note")),
        chart.inline(f"m-{re.sub(r'[^a-z0-9]', '-', one.measure.lower())}"),
        data_brush=template,
    )


def _amount(value: float) -> str:
    return round_number(float(f"{value:.2g}"))


def _share(value: float) -> str:
    return f"{value:.3g}"


def _words(query: CorpusQuery, shown: Shown, name: str, values: list[Value]) -> Markup:
    hues = {one: hue(i) for i, one in enumerate(shown.names)} if name == "source" else {}
    field = FIELDS.get(name, name)
    chosen: tuple[str, ...] = getattr(query, field)
    rows = []
    for one in values[:VALUES]:
        value = one.value or ""
        on = value in chosen
        told = tuple(v for v in chosen if v != value) if on else (*chosen, value)
        href = address("corpus", **query.changed(**{field: told}))
        said = one.value or ("kept" if name == "reason" else "none")
        rows.append(
            element(
                "li",
                element(
                    "a",
                    element("b", element("i", class_=f"key {hues[value]}"), said) if value in hues else said,
                    element("span", whole(one.documents)),
                    href=href,
                    aria_current="true" if on else None,
                ),
            )
        )
    if len(values) > VALUES:
        rows.append(element("li", f"and {whole(len(values) - VALUES)} more", class_="note"))
    return details({"reason": "removed as"}.get(name, name).capitalize(), element("ul", rows), open_=True)


def _row(row: dict[str, Any]) -> Markup:
    removed = element("span", row["reason"], class_="tag removed") if row.get("reason") else None
    return element(
        "li",
        element("p", element("a", row["name"], href=address("document", row=row["row"])), " ", removed),
        element("p", row["source"], " · ", size(row["bytes"]), class_="where"),
    )


PAGE = Page(
    about="Distributions of every measure of documents by source; choices in one filter the others.",
    query=CorpusQuery,
    load=load,
    draw=draw,
    heading=lambda query, shown: "Corpus",
    scripts=("corpus.js",),
)
