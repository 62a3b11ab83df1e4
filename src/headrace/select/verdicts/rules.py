"""The recipe's rules: expressions over measures and columns, computed with Arrow.

Null is unknown, as in SQL (Kleene logic): a comparison with it is unknown, and a document is kept only if the whole
expression is true. Numbers are computed as float64; results that are not finite, such as a division by 0, are null.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import numpy as np
import orjson
import pyarrow as pa
import pyarrow.compute as pc

from headrace.recipe.expressions import Call, Column, Node, columns
from headrace.recipe.expressions import Literal as Plain
from headrace.recipe.schema import Rule
from headrace.select.verdicts.filters import Finding, Removals

Columns = Mapping[str, pa.Array]
"""The columns that rules use, by name; all have the same length."""


def apply_rules(rules: Sequence[tuple[Rule, Node]], table: Columns, rows: int) -> Removals:
    """Apply rules to documents; the first one that does not keep a document gives the reason.

    Args:
        rules: the rules, with their expressions.
        table: what they use.
        rows: the number of documents.

    Returns:
        ``filter:<name>`` or null; the evidence is what the expression used, with the expression as ``limit``.
    """
    reasons = np.full(rows, None, dtype=object)
    evidence = np.full(rows, None, dtype=object)
    undecided = np.ones(rows, dtype=bool)
    for rule, node in rules:
        removed = np.flatnonzero(undecided & ~kept(node, table, rows))
        undecided[removed] = False
        names = columns(node)
        values = [table[name].take(pa.array(removed)).to_pylist() for name in names]
        for row, *measured in zip(removed.tolist(), *values, strict=True):
            reasons[row] = f"filter:{rule.name}"
            told = {**dict(zip(names, measured, strict=True)), "limit": rule.keep}
            evidence[row] = orjson.dumps(told).decode()
    return Removals(pa.array(reasons, pa.string()), pa.array(evidence, pa.string()))


def findings(rules: Sequence[tuple[Rule, Node]], table: Columns) -> Iterable[Finding]:
    """What each rule says about one document."""
    for rule, node in rules:
        measured = {name: table[name][0].as_py() for name in columns(node)}
        yield Finding(f"filter:{rule.name}", measured, rule.keep, not kept(node, table, 1)[0])


def failures(names: Sequence[str], errors: Sequence[pa.Array], rows: int) -> Removals:
    """The documents on which a user-defined measure failed: ``failed:<name>``, with its error.

    Args:
        names: the measures.
        errors: the errors of each, null if there is a value.
        rows: the number of documents.
    """
    reason, evidence = pa.nulls(rows, pa.string()), pa.nulls(rows, pa.string())
    for name, error in zip(names, errors, strict=True):
        told = [None if text is None else orjson.dumps({"error": text}).decode() for text in error.to_pylist()]
        mine = pc.if_else(pc.is_valid(error), pa.scalar(f"failed:{name}"), pa.scalar(None, pa.string()))
        evidence = pc.if_else(pc.is_null(reason), pa.array(told, pa.string()), evidence)
        reason = pc.coalesce(reason, mine)
    return Removals(reason, evidence)


def kept(node: Node, table: Columns, rows: int) -> np.ndarray:
    """Whether the expression is true for each row: bool[rows]."""
    value = evaluate(node, table)
    if isinstance(value, pa.Scalar):
        return np.full(rows, value.as_py() is True)
    return np.asarray(pc.fill_null(value, False).to_numpy(zero_copy_only=False), dtype=bool)


def evaluate(node: Node, table: Columns) -> Any:
    """The value of an expression: an array, or a scalar if it uses no columns."""
    match node:
        case Column():
            value = table[node.name]
            return value.combine_chunks() if isinstance(value, pa.ChunkedArray) else value
        case Plain():
            return node.value if isinstance(node.value, tuple) else pa.scalar(node.value)
        case Call():
            return _OPERATIONS[node.operation](*(evaluate(argument, table) for argument in node.arguments))


def _numbers(operation: Callable[..., Any]) -> Callable[..., Any]:
    def compute(*values: Any) -> Any:
        made = operation(*(pc.cast(value, pa.float64()) for value in values))
        return pc.if_else(pc.is_finite(made), made, pa.scalar(None, pa.float64()))

    return compute


def _is_in(value: Any, items: tuple[Any, ...]) -> Any:
    kind = pa.float64() if pa.types.is_floating(value.type) else value.type
    if pa.types.is_integer(kind) and any(isinstance(item, float) for item in items):
        value, kind = pc.cast(value, pa.float64()), pa.float64()
    found = pc.is_in(value, pa.array(items, kind))
    return pc.if_else(pc.is_valid(value), found, pa.scalar(None, pa.bool_()))


_OPERATIONS: dict[str, Callable[..., Any]] = {
    "and": pc.and_kleene,
    "or": pc.or_kleene,
    "not": pc.invert,
    "equal": pc.equal,
    "not_equal": pc.not_equal,
    "less": pc.less,
    "less_equal": pc.less_equal,
    "greater": pc.greater,
    "greater_equal": pc.greater_equal,
    "is_null": pc.is_null,
    "is_in": _is_in,
    "add": _numbers(pc.add),
    "subtract": _numbers(pc.subtract),
    "multiply": _numbers(pc.multiply),
    "divide": _numbers(pc.divide),
    "negate": _numbers(pc.negate),
    "abs": _numbers(pc.abs),
    "len": pc.utf8_length,
    "lower": pc.utf8_lower,
    "startswith": lambda text, start: pc.starts_with(text, start.as_py()),
    "endswith": lambda text, end: pc.ends_with(text, end.as_py()),
    "contains": lambda text, part: pc.match_substring(text, part.as_py()),
    "matches": lambda text, pattern: pc.match_substring_regex(text, pattern.as_py()),
}
