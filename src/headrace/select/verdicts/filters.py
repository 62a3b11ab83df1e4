"""Filters: from measures and the recipe's limits to reasons, without reading any text.

Rules are listed in order of precedence: the first that a document fails is its reason, ``short`` or ``filter:<name>``;
the evidence is what was measured, and the limit.

To add a filter:

1. if it needs something that is not measured yet, add it to :mod:`headrace.select.measures.step`;
2. add its limit to ``CodeFilter`` in :mod:`headrace.recipe.cleaning`, where null or false means off;
3. add a :class:`Rule` to :data:`CODE_RULES` here, with the same name::

       Rule("min_words", ("words",), lambda limit, words: words < limit),

   and a line for it to ``tests/select/test_filters.py``.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Iterator
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import orjson
import pyarrow as pa

from headrace.recipe.schema import CodeFilter, Filters, Recipe, ShortFilter, ShortOverride
from headrace.select.measures.formats import DATA_LIKE, NO_LETTERS

HTML_VISIBLE_LEAST = 100  # characters that must be visible, in addition to the share (StarCoder, 2305.06161, 3.1)

Mask = npt.NDArray[np.bool_]


@dataclass(frozen=True)
class Rule:
    """One rule for source code.

    Attributes:
        name: its limit's key in ``CodeFilter``; the reason is ``filter:<name>``.
        measures: the columns of measures that it uses.
        fails: from the limit and those columns (NumPy; missing numbers are NaN, so they never fail) to the documents to
            remove.
        applies: from a format, possibly None, to whether the rule applies to it.
    """

    name: str
    measures: tuple[str, ...]
    fails: Callable[..., Mask]
    applies: Callable[[str | None], bool] = lambda format: True


def _is_data(format: str | None) -> bool:
    return format in DATA_LIKE


def _is_code(format: str | None) -> bool:
    return format not in DATA_LIKE


CODE_RULES: tuple[Rule, ...] = (
    Rule("generated", ("generated_mark",), lambda limit, mark: np.array([m is not None for m in mark], bool)),
    Rule("xml", ("xml_header",), lambda limit, header: header, lambda format: format != "xml"),
    Rule("max_lines", ("lines",), lambda limit, lines: lines > limit),
    Rule("max_line", ("max_line_length",), lambda limit, length: length > limit, _is_code),
    Rule("mean_line", ("mean_line_length",), lambda limit, length: length > limit, _is_code),
    Rule("max_data_line", ("max_line_length",), lambda limit, length: length > limit, _is_data),
    Rule("min_alphanumeric", ("alphanumeric_share",), lambda limit, share: share < limit),
    Rule("min_alphabetic", ("alphabetic_share",), lambda limit, share: share < limit, lambda f: f not in NO_LETTERS),
    Rule("max_encoded", ("encoded_share",), lambda limit, share: share > limit),
    Rule(
        "html_min_visible",
        ("visible_share", "visible_characters"),
        lambda limit, share, characters: (share < limit) | (characters < HTML_VISIBLE_LEAST),
        lambda format: format == "html",
    ),
    Rule(
        "data_characters",
        ("characters",),
        lambda limit, characters: (characters < limit[0]) | (characters > limit[1]),
        lambda format: format in ("json", "yaml"),
    ),
)
"""StarCoder's rules (2305.06161, 3.1; 2402.19173, 2.4) in order of precedence: most certain first."""


class Removals(NamedTuple):
    """What the filters decide for each document.

    Attributes:
        reason: null, ``short`` or ``filter:<name>``; pa.string().
        evidence: null, or JSON of what was measured and the limit; pa.string().
    """

    reason: pa.Array
    evidence: pa.Array


class Finding(NamedTuple):
    """One rule applied to one document.

    Attributes:
        reason: the reason it gives if it removes the document.
        measured: measure -> value.
        limit: the recipe's limit.
        removes: whether the document fails the rule.
    """

    reason: str
    measured: dict[str, Any]
    limit: Any
    removes: bool


class _Outcome(NamedTuple):
    """One rule applied to all documents: which it concerns, which fail, what was measured, and the limit of each or
    all."""

    reason: str
    concerns: Mask
    fails: Mask
    measured: dict[str, npt.NDArray[Any]]
    limit: Callable[[int], Any]


def code_sources(recipe: Recipe) -> frozenset[str]:
    """The sources that the recipe's code filter applies to: those it names, or all but conversations."""
    code = recipe.filters.code
    if code is None:
        return frozenset()
    if code.sources is not None:
        return frozenset(code.sources)
    return frozenset(name for name, source in recipe.sources.items() if not source.is_chat)


def applied(recipe: Recipe) -> Filters:
    """The recipe's filters, with the short filter off for conversations it does not name."""
    short = recipe.filters.short
    if short is None:
        return recipe.filters
    off = ShortOverride(min_characters=0)
    sources = {name: off for name, source in recipe.sources.items() if source.is_chat} | short.sources
    return recipe.filters.model_copy(update={"short": short.model_copy(update={"sources": sources})})


def apply_filters(
    measures: pa.Table | pa.RecordBatch, sources: pa.Array, filters: Filters, code_in: Collection[str]
) -> Removals:
    """Apply all filters to measured documents.

    Args:
        measures: rows of the measures sidecar.
        sources: each row's source; pa.string(), not null.
        filters: the recipe's section.
        code_in: the sources that the code filter applies to, from :func:`code_sources`.
    """
    n = measures.num_rows
    reason: list[str | None] = [None] * n
    evidence: list[str | None] = [None] * n
    undecided = np.ones(n, dtype=bool)
    for outcome in _outcomes(measures, sources, filters, code_in):
        for row in np.flatnonzero(outcome.fails & undecided).tolist():
            reason[row] = outcome.reason
            measured = {name: _plain(values[row]) for name, values in outcome.measured.items()}
            evidence[row] = orjson.dumps({**measured, "limit": outcome.limit(row)}).decode()
        undecided &= ~outcome.fails
    return Removals(pa.array(reason, pa.string()), pa.array(evidence, pa.string()))


def findings(measures: pa.Table, source: str, filters: Filters, code_in: Collection[str]) -> list[Finding]:
    """All rules that concern one document, in order of precedence, whether or not they remove it.

    Args:
        measures: one row of the measures sidecar.
        source: the document's source.
        filters: the recipe's section.
        code_in: the sources that the code filter applies to.
    """
    found = []
    for outcome in _outcomes(measures, pa.array([source]), filters, code_in):
        if outcome.concerns[0]:
            measured = {name: _plain(values[0]) for name, values in outcome.measured.items()}
            found.append(Finding(outcome.reason, measured, outcome.limit(0), bool(outcome.fails[0])))
    return found


def _outcomes(
    measures: pa.Table | pa.RecordBatch, sources: pa.Array, filters: Filters, code_in: Collection[str]
) -> Iterator[_Outcome]:
    """Each enabled rule, in order of precedence."""
    names = sources.to_pylist()
    if filters.short is not None:
        yield from _short(measures, names, filters.short)
    if filters.code is not None:
        yield from _code(measures, np.array([name in code_in for name in names], dtype=bool), filters.code)


def _short(measures: pa.Table | pa.RecordBatch, sources: list[str], short: ShortFilter) -> Iterator[_Outcome]:
    """The short-document filter, in two parts: where spaces count and where they do not."""
    limits = {name: short.of(name) for name in sorted(set(sources))}
    least = np.array([limits[name][0] for name in sources], dtype=np.int64)
    spaces = np.array([limits[name][1] for name in sources], dtype=bool)
    on = least > 0
    for column, concerns in (("clean_length", on & spaces), ("clean_length_no_spaces", on & ~spaces)):
        values = _column(measures, column)
        yield _Outcome("short", concerns, concerns & (values < least), {column: values}, lambda row: int(least[row]))


def _code(measures: pa.Table | pa.RecordBatch, concerned: Mask, code: CodeFilter) -> Iterator[_Outcome]:
    formats = measures.column("format").to_pylist()
    for rule in CODE_RULES:
        limit = getattr(code, rule.name)
        if limit is None or limit is False:
            continue
        values = {name: _column(measures, name) for name in rule.measures}
        speaks = {format: rule.applies(format) for format in set(formats)}
        concerns = concerned & np.array([speaks[format] for format in formats], dtype=bool)
        fails = concerns & rule.fails(limit, *values.values())
        yield _Outcome(f"filter:{rule.name}", concerns, fails, values, _always(limit))


def _always(limit: Any) -> Callable[[int], Any]:
    return lambda row: limit


def _column(table: pa.Table | pa.RecordBatch, name: str) -> npt.NDArray[Any]:
    """A column as NumPy: missing numbers become NaN, text becomes objects."""
    return table.column(name).to_numpy() if isinstance(table, pa.Table) else table.column(name).to_numpy(False)


def _plain(value: Any) -> Any:
    """A measured value for JSON: integers as integers, missing values as null."""
    if isinstance(value, np.generic):
        value = value.item()
    if isinstance(value, float):
        if np.isnan(value):
            return None
        return int(value) if value.is_integer() else value
    return value


def reasons() -> Iterable[str]:
    """All reasons that filters can give, in order of precedence."""
    return ["short", *(f"filter:{rule.name}" for rule in CODE_RULES)]
