"""What removes a document on its own: withdrawals, opt-outs, licenses, filters, user-defined rules, decontamination.

The first one that removes a document gives the reason.

To add a filter, have :meth:`DocumentFilters._each` yield its removals at its place in the order of precedence, and add
its reasons at the same place in ``Verdicts.precedence``.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import orjson
import pyarrow as pa
import pyarrow.compute as pc

from headrace.documents.ids import content_id
from headrace.flow.keys import parse_ids
from headrace.recipe.columns import DOCUMENT, MEASURES
from headrace.recipe.expressions import Node, columns
from headrace.recipe.schema import Decontaminate, Filters, Rule, Split, Withdrawn
from headrace.select.contamination.limits import limit_of, same_shape, telling, whole_or_much
from headrace.select.verdicts.filters import Removals, apply_filters
from headrace.select.verdicts.licences import Rules, unlicensed
from headrace.select.verdicts.opt_out import Lists, opted_out
from headrace.select.verdicts.rules import apply_rules, failures
from headrace.select.verdicts.splits import draw
from headrace.select.verdicts.synthetic import ill_made
from headrace.select.verdicts.withdrawn import withdraw

FILTERED = pa.schema(
    [("reason", pa.string()), ("evidence", pa.string()), ("source", pa.uint16()), ("split", pa.uint8())]
)


@dataclass(frozen=True)
class DocumentFilters:
    """All filters that need no other documents.

    Attributes:
        filters: the recipe's section.
        code_in: the sources that the code filter applies to.
        own: the names of user-defined measures.
        rules: the recipe's rules, with their expressions.
        decontaminate: the recipe's section.
        sources: all sources, in recipe order.
        split: the recipe's section.
        seed: the recipe's seed.
        withdrawn: the recipe's section.
        licences: which licenses the sources may have, by source.
        lists: those who opted out, if there are lists.
        synthetic: the synthetic sources.
    """

    filters: Filters
    code_in: frozenset[str]
    own: tuple[str, ...]
    rules: tuple[tuple[Rule, Node], ...]
    decontaminate: Decontaminate | None
    sources: tuple[str, ...]
    split: Split
    seed: int
    withdrawn: Withdrawn
    licences: Rules
    lists: Lists | None
    synthetic: tuple[str, ...] = ()

    def apply(self, batch: pa.RecordBatch, ids: npt.NDArray[np.uint64], beside: dict[str, pa.Table]) -> pa.RecordBatch:
        """Filter documents, and draw the split of each.

        Args:
            batch: documents with the column ``source`` and those that the rules use.
            ids: their content ids, uint64[n, 2].
            beside: their rows in each existing sidecar; user-defined measures are named ``measure-<name>``.

        Returns:
            A batch with :data:`FILTERED`; the reason is null if nothing removes the document, the source its index.
        """
        sources = batch.column("source")
        reason, evidence = pa.nulls(batch.num_rows, pa.string()), pa.nulls(batch.num_rows, pa.string())
        for next_reason, next_evidence in self._each(batch, ids, beside):
            undecided = pc.is_null(reason)
            reason = pc.if_else(undecided, next_reason, reason)
            evidence = pc.if_else(undecided, next_evidence, evidence)
        source = pc.index_in(sources, pa.array(self.sources, sources.type)).cast(pa.uint16())
        split = pa.array(draw(ids, self.seed, self.split))
        return pa.RecordBatch.from_arrays([reason, evidence, source, split], schema=FILTERED)

    def _each(
        self, batch: pa.RecordBatch, ids: npt.NDArray[np.uint64], beside: dict[str, pa.Table]
    ) -> Iterator[Removals]:
        """What each filter removes, in order of precedence; null where it removes nothing."""
        if self.withdrawn:
            yield withdraw(batch, self.withdrawn)
        if self.lists is not None:
            yield opted_out(batch, self.lists)
        if "licences" in beside:
            yield unlicensed(beside["licences"], batch.column("source"), self.licences)
        if self.synthetic:
            yield ill_made(batch, self.synthetic)
        yield empty(ids)
        if "measures" in beside:
            yield apply_filters(beside["measures"].combine_chunks(), batch.column("source"), self.filters, self.code_in)
        if self.own:
            errors = [beside[f"measure-{name}"].column("error").combine_chunks() for name in self.own]
            yield failures(self.own, errors, batch.num_rows)
        if self.rules:
            names = {name for _, node in self.rules for name in columns(node)}
            yield apply_rules(self.rules, {name: column(name, batch, beside) for name in names}, batch.num_rows)
        if "contamination" in beside and self.decontaminate is not None:
            yield contaminated(beside["contamination"], self.decontaminate)


def column(name: str, documents: pa.RecordBatch | pa.Table, beside: dict[str, pa.Table]) -> pa.Array:
    """The value of a name in a rule: a document column, a measure, or a user-defined measure."""
    if name in DOCUMENT:
        found = documents.column(name)
    else:
        found = beside["measures" if name in MEASURES else f"measure-{name}"].column(name)
    return found.combine_chunks() if isinstance(found, pa.ChunkedArray) else found


def empty(ids: npt.NDArray[np.uint64]) -> Removals:
    """The reason ``empty`` for documents without text, which would only teach the end token.

    Args:
        ids: content ids, uint64[n, 2]: all empty texts share one.
    """
    without = (ids == parse_ids(pa.array([content_id(b"")]))).all(axis=1)
    reason = pc.if_else(pa.array(without), pa.scalar("empty"), pa.scalar(None, pa.string()))
    return Removals(reason, pa.nulls(len(ids), pa.string()))


def contaminated(table: pa.Table | pa.RecordBatch, config: Decontaminate) -> Removals:
    """Apply the recipe's limit to rows of the contamination sidecar.

    Args:
        table: rows of the contamination sidecar.
        config: the recipe's section; a text found whole removes the document whatever the limit, and is only searched
            for if the recipe asks for it, like shapes.

    Returns:
        The reason ``contaminated`` or null, and the row with the limit as evidence.
    """
    copied, renamed = whole_or_much(table, config), same_shape(table, config)
    reasons = np.full(table.num_rows, None, dtype=object)
    evidence = np.full(table.num_rows, None, dtype=object)
    rows = np.flatnonzero(copied | renamed)
    for at, row in zip(rows.tolist(), table.take(pa.array(rows)).to_pylist(), strict=True):
        found = telling(row, not copied[at])
        told = {key: value for key, value in found.items() if value is not None}
        reasons[at] = "contaminated"
        evidence[at] = orjson.dumps({**told, "limit": limit_of(found, config)}).decode()
    return Removals(pa.array(reasons, pa.string()), pa.array(evidence, pa.string()))
