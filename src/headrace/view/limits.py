"""The numeric limits of a recipe's filters: what each is compared with, and in which direction it removes.

Every limit is brought to one form: a document passes if its *key* reaches the limit's (:meth:`Limit.key`), whether the
limit is a minimum or a maximum. A document that the rule removes whatever the limit has the key minus infinity; one
that it never concerns, plus infinity.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from headrace.recipe.cleaning import LEAST_SHAPE
from headrace.recipe.expressions import Call, Node, columns
from headrace.recipe.expressions import Literal as Plain
from headrace.recipe.schema import CodeFilter, Recipe

NEAR = "deduplicate.near.threshold"
"""No limit of a filter: it decides which documents are compared."""

Values = npt.NDArray[np.float64]
Compared = Callable[[Mapping[str, pa.Array], npt.NDArray[np.integer]], Values]
"""From columns and each document's source (its index in the recipe) to what is compared: NaN where the rule does not
apply, and where it removes a document whatever the limit, an infinity on the removed side."""


@dataclass(frozen=True)
class Limit:
    """A numeric limit.

    Attributes:
        path: its place in the recipe.
        reason: what it removes is removed for.
        value: the recipe's.
        about: what it limits, in words.
        measured: what is compared with it.
        least: whether it is a minimum.
        strict: whether what equals it is removed as well.
        integral: whether only whole numbers make sense.
        range: the values that the recipe permits.
        sources: those that it concerns.
        columns: the columns needed, of documents and of sidecars.
        compared: from these to the compared values.
    """

    path: str
    reason: str
    value: float
    about: str
    measured: str
    least: bool
    strict: bool
    integral: bool
    range: tuple[float, float]
    sources: frozenset[str]
    columns: tuple[str, ...]
    compared: Compared

    def key(self, value: float | Values) -> Any:
        """A value in the common form."""
        return value if self.least else -value

    def keys(self, table: Mapping[str, pa.Array], source: npt.NDArray[np.integer], names: list[str]) -> Values:
        """The keys of documents.

        Args:
            table: the columns needed.
            source: each document's source, as an index into ``names``.
            names: the recipe's sources.
        """
        concerned = np.array([name in self.sources for name in names], dtype=bool)[source]
        keys = np.asarray(self.key(self.compared(table, source)), dtype=np.float64)
        keys = np.where(concerned & ~np.isnan(keys), keys, np.inf)
        return keys if self.digits is None else _on_grid(keys, self.digits, up=self.strict)

    @property
    def digits(self) -> int | None:
        """Decimals of the values that it can be moved to; None if its own has more, and any will do.

        Keys are rounded to them so that there are few, in the direction that no such value notices.
        """
        digits = 0 if self.integral else 4 if self.range == (0, 1) else 2
        return digits if round(self.value, digits) == self.value else None

    def permitted(self, value: float) -> float:
        """The nearest value that it can be moved to."""
        value = min(max(value, self.range[0]), self.range[1])
        return float(value if self.digits is None else round(value, self.digits))

    def passes(self, keys: Values, value: float) -> npt.NDArray[np.bool_]:
        """Which documents a limit of this value leaves."""
        limit = self.key(value)
        return np.asarray(keys > limit if self.strict else keys >= limit)


def _on_grid(keys: Values, digits: int, up: bool) -> Values:
    """Keys rounded down, or up, to so many decimals; those beyond what doubles hold exactly stay."""
    scale = 10.0**digits
    fits = np.abs(keys) < 2.0**52 / scale
    whole = np.floor(np.where(fits, keys, 0) * scale)
    # The product is rounded, so the floor may be one off; a whole number over a power of ten is the nearest double.
    whole = np.where(whole / scale > keys, whole - 1, whole)
    whole = np.where((whole + 1) / scale <= keys, whole + 1, whole)
    if up:
        whole = np.where(whole / scale < keys, whole + 1, whole)
    return np.where(fits, whole / scale, keys)


def limits_of(recipe: Recipe) -> dict[str, Limit]:
    """All numeric limits of a recipe's filters, by their place in it, in order of precedence."""
    found = [*_short(recipe), *_code(recipe), *_rules(recipe), *_contaminated(recipe), *_quality(recipe)]
    return {limit.path: limit for limit in found}


def _quality(recipe: Recipe) -> list[Limit]:
    """The budget of quality. Its documents are compared by :mod:`headrace.view.ranked`, which knows their ranks."""
    keep = recipe.quality.keep
    if keep is None:
        return []
    kinds = {"share": "share of better text", "tokens": "tokens of better text", "above": "score"}
    key = next(key for key in kinds if getattr(keep, key) is not None)
    value = float(getattr(keep, key))
    probability = key == "share" or (key == "above" and 0 <= value <= 1)
    within = f", within each {keep.by}" if keep.by and key != "above" else ""
    return [
        Limit(
            f"quality.keep.{key}",
            "quality",
            value,
            f"Quality by {recipe.quality.named(keep.annotator)}{within}",
            kinds[key],
            key == "above",
            key != "above",
            key == "tokens",
            (0, 1) if probability else (0, 1e18) if key == "tokens" else (-1e6, 1e6),
            frozenset(recipe.sources),
            (),
            _by_rank,
        )
    ]


def _by_rank(table: Mapping[str, pa.Array], source: npt.NDArray[np.integer]) -> Values:
    raise AssertionError("documents are ranked with all others")


def limits_for(recipe: Recipe, reason: str) -> list[Limit]:
    """The limits that remove documents for a reason."""
    return [limit for limit in limits_of(recipe).values() if limit.reason == reason]


def in_force(recipe: Recipe, reason: str, source: str) -> dict[str, Any]:
    """What decides about a reason in a source: place in the recipe -> value. Labels hold as long as it does."""
    found: dict[str, Any] = {one.path: one.value for one in limits_for(recipe, reason) if source in one.sources}
    if reason in ("duplicate", "reference", "holdout") and recipe.deduplicate and recipe.deduplicate.near:
        near = recipe.deduplicate.near
        found |= {NEAR: near.threshold, "deduplicate.near.verify": near.verify}
    return found | {f"filters.rules.{r.name}": r.keep for r in recipe.filters.rules if reason == f"filter:{r.name}"}


def _numbers(column: pa.Array) -> Values:
    return np.asarray(column.cast(pa.float64()).to_numpy(zero_copy_only=False))


def _short(recipe: Recipe) -> list[Limit]:
    from headrace.select.verdicts.filters import applied

    short = applied(recipe).short
    if short is None:
        return []
    names = list(recipe.sources)
    spaces = np.array([short.of(name)[1] for name in names], dtype=bool)

    def compared(table: Mapping[str, pa.Array], source: npt.NDArray[np.integer]) -> Values:
        lengths = [_numbers(table[name]) for name in ("clean_length", "clean_length_no_spaces")]
        return np.where(spaces[source], *lengths)

    groups: dict[str, tuple[float, list[str]]] = {}
    for name in names:
        least, override = short.of(name)[0], short.sources.get(name)
        own = override is not None and override.min_characters is not None
        if own and recipe.filters.short is not None and name not in recipe.filters.short.sources:
            continue  # a conversation that nobody named: exempt
        path = f"filters.short.sources.{name}.min_characters" if own else "filters.short.min_characters"
        groups.setdefault(path, (least, []))[1].append(name)
    needed = ("clean_length", "clean_length_no_spaces")
    return [
        Limit(
            path,
            "short",
            least,
            "Fewest characters of a cleaned document",
            "characters of the cleaned text",
            True,
            False,
            True,
            (0, np.inf),
            frozenset(sources),
            needed,
            compared,
        )
        for path, (least, sources) in groups.items()
    ]


_WORDS = {
    "max_lines": "lines",
    "max_line": "characters of the longest line",
    "mean_line": "characters of a line on average",
    "max_data_line": "characters of the longest line of a data file",
    "min_alphanumeric": "share of letters and digits",
    "min_alphabetic": "share of letters",
    "max_encoded": "share of encoded data",
    "html_min_visible": "share of visible text of HTML",
    "data_characters": "characters of a JSON or YAML file",
}


def _code(recipe: Recipe) -> list[Limit]:
    from headrace.select.verdicts.filters import CODE_RULES, HTML_VISIBLE_LEAST, Rule, code_sources

    code = recipe.filters.code
    if code is None:
        return []
    sources, found = code_sources(recipe), []

    def where(rule: Rule, values: Callable[[Mapping[str, pa.Array]], Values]) -> Compared:
        def compared(table: Mapping[str, pa.Array], source: npt.NDArray[np.integer]) -> Values:
            formats = table["format"].dictionary_encode()
            speaks = np.array([rule.applies(name) for name in formats.dictionary.to_pylist()] + [rule.applies(None)])
            which = np.asarray(pc.fill_null(formats.indices, len(speaks) - 1))
            return np.where(speaks[which], values(table), np.nan)

        return compared

    def add(
        rule: Rule, path: str, value: float, least: bool, values: Callable[[Mapping[str, pa.Array]], Values]
    ) -> None:
        integral = isinstance(value, int)
        share = CodeFilter.model_fields[rule.name].annotation == float | None and "line" not in rule.name
        found.append(
            Limit(
                path,
                f"filter:{rule.name}",
                value,
                f"{'Smallest' if least else 'Largest'} {_WORDS[rule.name]}",
                _WORDS[rule.name],
                least,
                False,
                integral,
                (0, 1) if share else (1 if integral and rule.name != "data_characters" else 0, np.inf),
                sources,
                (*rule.measures, "format"),
                where(rule, values),
            )
        )

    for rule in CODE_RULES:
        value, path = getattr(code, rule.name), f"filters.code.{rule.name}"
        if isinstance(value, bool) or value is None:
            continue
        if rule.name == "html_min_visible":

            def visible(table: Mapping[str, pa.Array]) -> Values:
                too_few = _numbers(table["visible_characters"]) < HTML_VISIBLE_LEAST
                return np.where(too_few, -np.inf, _numbers(table["visible_share"]))

            add(rule, path, value, True, visible)
        elif rule.name == "data_characters":
            low, high = value

            def at_least(table: Mapping[str, pa.Array], high: float = high) -> Values:
                characters = _numbers(table["characters"])
                return np.where(characters > high, -np.inf, characters)

            def at_most(table: Mapping[str, pa.Array], low: float = low) -> Values:
                characters = _numbers(table["characters"])
                return np.where(characters < low, np.inf, characters)

            add(rule, f"{path}.0", low, True, at_least)
            add(rule, f"{path}.1", high, False, at_most)
        else:

            def plain(table: Mapping[str, pa.Array], name: str = rule.measures[0]) -> Values:
                return _numbers(table[name])

            add(rule, path, value, rule.name.startswith("min_"), plain)
    return found


_OPPOSITE = {"less": "greater", "less_equal": "greater_equal", "greater": "less", "greater_equal": "less_equal"}


def _rules(recipe: Recipe) -> list[Limit]:
    """The comparisons with a number that all must hold in an expression of the recipe's own."""
    found = []
    for rule in recipe.filters.rules:
        parts = _conjuncts(recipe.expression(rule))
        for place, part in enumerate(parts):
            compared = _comparison(part)
            if compared is None:
                continue
            operation, node, value = compared
            names = list(dict.fromkeys(name for one in parts for name in columns(one)))
            others = [one for k, one in enumerate(parts) if k != place]
            found.append(
                Limit(
                    f"filters.rules.{rule.name}.{place}",
                    f"filter:{rule.name}",
                    value,
                    f"Limit {value:g} of {', '.join(columns(node))} in the rule {rule.keep}",
                    " and ".join(columns(node)),
                    operation in ("greater", "greater_equal"),
                    operation in ("less", "greater"),
                    False,
                    (-np.inf, np.inf),
                    frozenset(recipe.sources),
                    tuple(names),
                    _of_rule(node, others, operation in ("greater", "greater_equal")),
                )
            )
    return found


def _of_rule(node: Node, others: list[Node], least: bool) -> Compared:
    from headrace.select.verdicts.rules import evaluate, kept

    def compared(table: Mapping[str, pa.Array], source: npt.NDArray[np.integer]) -> Values:
        never = -np.inf if least else np.inf
        values = np.asarray(pc.fill_null(pc.cast(evaluate(node, table), pa.float64()), np.nan))
        values = np.where(np.isnan(values), never, values)  # unknown is not kept
        for other in others:
            values = np.where(kept(other, table, len(source)), values, never)
        return values

    return compared


def _conjuncts(node: Node) -> list[Node]:
    if isinstance(node, Call) and node.operation == "and":
        return [part for argument in node.arguments for part in _conjuncts(argument)]
    return [node]


def _comparison(node: Node) -> tuple[str, Node, float] | None:
    """An order with a number: operation, what is compared, the number."""
    if not isinstance(node, Call) or node.operation not in _OPPOSITE:
        return None
    left, right = node.arguments
    if isinstance(right, Plain) and not isinstance(left, Plain) and _is_number(right.value) and columns(left):
        return node.operation, left, float(right.value)
    if isinstance(left, Plain) and not isinstance(right, Plain) and _is_number(left.value) and columns(right):
        return _OPPOSITE[node.operation], right, float(left.value)
    return None


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _contaminated(recipe: Recipe) -> list[Limit]:
    config = recipe.decontaminate
    if config is None:
        return []
    measured = {"overlap": config.overlap} | ({} if config.shapes is None else {"shape_overlap": config.shapes.overlap})

    def limit(path: str, column: str, about: str, short: str, least: float) -> Limit:
        others = [(name, value) for name, value in measured.items() if name != column]

        def compared(table: Mapping[str, pa.Array], source: npt.NDArray[np.integer]) -> Values:
            # What is removed whatever this limit is, lies beyond it.
            sure = np.asarray(pc.fill_null(pc.equal(table["method"], "substring"), False))
            for name, value in others:
                sure = sure | np.asarray(pc.fill_null(pc.greater_equal(table[name], value), False))
            return np.where(sure, np.inf, np.asarray(pc.fill_null(table[column], np.nan)))

        where = f"decontaminate.{path}"
        about, ends, columns = f"{about} at which a document is removed", (least, 1), (*measured, "method")
        return Limit(
            where, "contaminated", measured[column], about, short, False, True, False, ends,
            frozenset(recipe.sources), columns, compared,
        )  # fmt: skip

    found = [limit("overlap", "overlap", "Share of a benchmark item's n-grams", "share of the item's n-grams", 0)]
    if config.shapes is not None:
        about, short = "Share of the shape of a benchmark's program", "share of the program's shape"
        found.append(limit("shapes.overlap", "shape_overlap", about, short, LEAST_SHAPE))
    return found
