"""What verdicts and sidecars say about all documents, a shard at a time; no text is read."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from headrace.documents.store import read_columns
from headrace.errors import UserError
from headrace.flow.artifact import Artifact
from headrace.recipe.columns import DOCUMENT, MEASURES
from headrace.recipe.synthetic import FINDINGS
from headrace.view.target import Target

KEPT = -1


@dataclass(frozen=True)
class Judged:
    """The documents of a shard.

    Attributes:
        shard: its number.
        first: the row of its first document.
        source: int64[n], indices into the recipe's sources.
        reason: int16[n], indices into ``reasons``, or :data:`KEPT`.
        table: the columns asked for.
    """

    shard: int
    first: int
    source: npt.NDArray[np.int64]
    reason: npt.NDArray[np.int16]
    table: dict[str, pa.Array]


def reasons_of(target: Target) -> list[str]:
    """The reasons of a run's verdicts, in order of precedence as far as it matters: as each source lists them."""
    verdicts = target.artifact("verdicts")
    counts = {} if verdicts is None else verdicts.manifest.counts
    return list(dict.fromkeys(reason for count in counts.values() for reason in count["removed"]))


COPIES = ("duplicate", "reference", "holdout")
"""Reasons that depend on other documents."""


def precedence(target: Target) -> list[str]:
    """All reasons that the recipe can give, in order of precedence."""
    from headrace.select.verdicts.filters import reasons

    recipe = target.recipe
    own = [*(f"failed:{name}" for name in recipe.measures), *(f"filter:{rule.name}" for rule in recipe.filters.rules)]
    made = [f"synthetic:{finding}" for finding in FINDINGS]
    return ["withdrawn", "opt_out", "license", *made, "empty", *reasons(), *own, "contaminated", *COPIES, "quality"]


def check_filters(target: Target) -> None:
    """Make sure that the verdicts are those of the recipe's filters.

    Raises:
        UserError: the recipe has changed since.
    """
    from headrace.select.verdicts.filters import applied, code_sources

    verdicts, recipe = target.artifact("verdicts"), target.recipe
    params = {} if verdicts is None else verdicts.manifest.params
    rules = [[rule.name, rule.keep] for rule in recipe.filters.rules]
    filters = applied(recipe).model_dump(mode="json", exclude={"rules"})
    wanted = {
        "filters": filters if recipe.uses_measures else None,
        "code_in": sorted(code_sources(recipe)) if recipe.uses_measures else None,
        "contaminated": recipe.decontaminate.limits if recipe.decontaminate else None,
        "sources": list(recipe.sources),
    }
    if rules != params.get("rules", []) or any(params.get(name) != value for name, value in wanted.items()):
        raise changed(target)


def changed(target: Target) -> UserError:
    """What is said if the recipe is not the one that verdicts were given by."""
    fix = "Run it to the end; until then this cannot be told."
    return UserError("The recipe has changed since the verdicts were given.", str(target.path), fix)


def judged(target: Target, columns: Sequence[str] = ()) -> Iterator[Judged]:
    """The judged documents of a run, a shard at a time.

    Args:
        target: the run.
        columns: columns of documents, of measures (the recipe's own as well), or of contamination and duplicates.

    Raises:
        UserError: the recipe has other sources or reasons than the verdicts.
    """
    documents, verdicts = target.documents, target.artifact("verdicts")
    if documents is None or verdicts is None:
        return
    same = verdicts.manifest.params["sources"] == list(target.recipe.sources)
    if not same or not set(reasons_of(target)) <= set(precedence(target)):
        raise changed(target)
    names, reasons = list(target.recipe.sources), reasons_of(target)
    for shard in range(len(documents.shards)):
        told = read_columns(verdicts.shard_path(shard), ["reason"]).column(0)
        source = read_columns(documents.shard_path(shard), ["source"]).column(0)
        yield Judged(
            shard,
            int(documents.row_offsets[shard]),
            _indices(source, names),
            _indices(told, reasons).astype(np.int16),
            read_beside(target, shard, columns),
        )


def _indices(column: pa.ChunkedArray, names: list[str]) -> npt.NDArray[np.int64]:
    found = pc.fill_null(pc.index_in(column, pa.array(names, pa.string())), KEPT)
    return np.asarray(found.to_numpy()).astype(np.int64)


def read_beside(target: Target, shard: int, columns: Sequence[str]) -> dict[str, pa.Array]:
    """Some columns of a shard's documents and their sidecars, by name."""
    by_artifact: dict[tuple[str, str | None], list[str]] = {}
    for name in dict.fromkeys(columns):
        by_artifact.setdefault(_where(target, name), []).append(name)
    table: dict[str, pa.Array] = {}
    for key, some in by_artifact.items():
        read = read_columns(_artifact(target, key).shard_path(shard), some)
        table |= {name: read.column(name).combine_chunks() for name in some}
    return table


def _where(target: Target, name: str) -> tuple[str, str | None]:
    """The artifact that has a column. The bytes of texts are in several; those of documents are always there."""
    if name in target.recipe.measures:
        return "measure", name
    if name in ("overlap", "method", "shape_overlap"):
        return "contamination", None
    if name in ("component", "exact_of", "size"):
        return "duplicates", None
    if name in DOCUMENT or name == "bytes":
        return "documents", None
    assert name in MEASURES, name
    return "measures", None


def _artifact(target: Target, key: tuple[str, str | None]) -> Artifact:
    found = target.artifact(*key)
    assert found is not None, key
    return found


def similarities(target: Target, shard: int) -> npt.NDArray[np.float64]:
    """The similarity of a shard's documents to the copies that they were removed for, float64[n]: NaN where it was not
    computed."""
    verdicts = target.artifact("verdicts")
    assert verdicts is not None
    evidence = read_columns(verdicts.shard_path(shard), ["evidence"]).column(0).combine_chunks()
    # As headrace.select.verdicts.evidence writes it; a quote in a file's name stands behind a backslash.
    found = pc.extract_regex(evidence, r',"jaccard":(?P<value>[0-9.eE+-]+),"component_size":')
    values = pc.struct_field(found, "value").cast(pa.float64())
    return np.asarray(pc.fill_null(values, np.nan).to_numpy(zero_copy_only=False))


def token_counts(target: Target, shard: int, rows: int) -> npt.NDArray[np.int64]:
    """The tokens of a shard's documents, int64[rows]: -1 for those that were not tokenized."""
    from headrace.tokens.store import read_shard

    counts, tokens = np.full(rows, -1, dtype=np.int64), target.artifact("tokens")
    if tokens is not None:
        store, _ = read_shard(tokens.shard_path(shard))
        counts[store.rows.astype(np.int64)] = np.diff(store.offsets)
    return counts


def token_rates(target: Target) -> npt.NDArray[np.float64]:
    """Tokens for each byte of the kept documents of each source, to estimate those of others; NaN where none are
    known."""
    from headrace.report.corpus_facts import source_facts

    documents, tokens = target.documents, target.artifact("tokens")
    assert documents is not None
    told = documents.manifest.counts
    rates = [
        source_facts(name, documents, None, tokens).bytes_a_token if name in told else None
        for name in target.recipe.sources
    ]
    return np.array([np.nan if rate is None else 1 / rate for rate in rates])
