"""Facts of the documents and their verdicts: counted from the columns, with a few examples of what was removed."""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass, field
from typing import Any

import orjson

from headrace.flow.artifact import Artifact
from headrace.report.excerpts import around, beginning, compared
from headrace.report.facts import Example, Place, SourceFacts

# Examples of each reason, taken from different sources in turn.
EXAMPLES = 4


@dataclass
class CorpusFacts:
    """What is known of the documents; see :class:`headrace.report.facts.RunFacts`."""

    sources: list[SourceFacts] = field(default_factory=list)
    duplicates: dict[tuple[str, str], int] | None = None
    contamination: dict[tuple[str, str], int] | None = None
    examples: list[Example] = field(default_factory=list)


@dataclass
class _Removed:
    """What the scan of the verdicts collects of removed documents."""

    duplicates: dict[tuple[str, str], int] = field(default_factory=lambda: defaultdict(int))
    contamination: dict[tuple[str, str], int] = field(default_factory=lambda: defaultdict(int))
    some: dict[str, dict[str, list[tuple[int, dict[str, Any]]]]] = field(default_factory=dict)


def corpus_facts(
    documents: Artifact | None, verdicts: Artifact | None, tokens: Artifact | None, names: list[str]
) -> CorpusFacts:
    """Facts of the corpus.

    Args:
        documents: the documents; None before they are read.
        verdicts: their verdicts; None before they are judged.
        tokens: the token store; None before they are tokenised.
        names: sources in the order of the recipe.
    """
    if documents is None:
        return CorpusFacts()
    read = documents.manifest.counts
    counts: dict[str, dict[tuple[str, str], int]] = {name: defaultdict(int) for name in names}
    facts = CorpusFacts()
    if verdicts is not None:
        removed = _Removed()
        for shard in range(len(verdicts.shards)):
            _scan(documents, verdicts, shard, counts, removed)
        if "duplicates" in verdicts.manifest.inputs:
            facts.duplicates = dict(sorted(removed.duplicates.items()))
        if "contamination" in verdicts.manifest.inputs:
            facts.contamination = dict(sorted(removed.contamination.items()))
        facts.examples = _examples(documents, removed)
    for name in names:
        if name in read:
            facts.sources.append(_source(name, read[name], counts[name] if verdicts is not None else None, tokens))
    return facts


def _source(
    name: str, read: dict[str, int], counts: dict[tuple[str, str], int] | None, tokens: Artifact | None
) -> SourceFacts:
    splits = {key: n for (what, key), n in (counts or {}).items() if what == "kept"}
    removed = {key: n for (what, key), n in (counts or {}).items() if what == "removed"}
    stored = None if tokens is None else tokens.manifest.counts.get(name, {})
    return SourceFacts(
        name=name,
        files=read.get("files"),
        documents=read["documents"],
        bytes=read["bytes"],
        characters=read["characters"],
        quarantined=read["quarantined"],
        skipped=read.get("skipped", 0),
        kept=None if counts is None else sum(splits.values()),
        removed=dict(sorted(removed.items(), key=lambda item: (-item[1], item[0]))),
        splits=splits,
        tokens=None if stored is None else sum(split["tokens"] for split in stored.values()),
    )


def _scan(
    documents: Artifact,
    verdicts: Artifact,
    shard: int,
    counts: dict[str, dict[tuple[str, str], int]],
    removed: _Removed,
) -> None:
    """Count a shard's verdicts by source, and look at the evidence of what was removed."""
    import pyarrow as pa
    import pyarrow.compute as pc
    import pyarrow.parquet as pq

    source = pq.read_table(documents.shard_path(shard), columns=["source"]).column("source")
    table = pq.read_table(verdicts.shard_path(shard), columns=["keep", "reason", "split", "evidence"])
    table = table.append_column("source", source).append_column("at", pa.array(range(len(table)), pa.int64()))
    kept = table.filter(table.column("keep")).group_by(["source", "split"]).aggregate([([], "count_all")])
    for row in kept.to_pylist():
        counts[row["source"]]["kept", row["split"]] += row["count_all"]
    gone = table.filter(pc.invert(table.column("keep")))
    for row in gone.group_by(["source", "reason"]).aggregate([([], "count_all")]).to_pylist():
        counts[row["source"]]["removed", row["reason"]] += row["count_all"]
    base = int(verdicts.row_offsets[shard])
    for batch in gone.select(["source", "reason", "evidence", "at"]).to_batches(max_chunksize=1 << 14):
        for row in batch.to_pylist():
            _look(row["source"], row["reason"], row["evidence"], base + row["at"], removed)


def _look(source: str, reason: str, told: str | None, row: int, removed: _Removed) -> None:
    evidence = orjson.loads(told) if told else {}
    if reason == "duplicate":
        other = other_of(evidence)
        if other is not None:
            removed.duplicates[source, other["source"]] += 1
    elif reason == "contaminated":
        removed.contamination[str(evidence["item"]).split(":", 1)[0], source] += 1
    some = removed.some.setdefault(reason, {}).setdefault(source, [])
    if len(some) < EXAMPLES:
        some.append((row, evidence))


def other_of(evidence: dict[str, Any]) -> dict[str, Any] | None:
    """The other document that evidence speaks of: ``{"id", "row", "source", "file", "origin_row"}``."""
    return next((value for value in evidence.values() if isinstance(value, dict) and "row" in value), None)


def _examples(documents: Artifact, removed: _Removed) -> list[Example]:
    from headrace.documents.store import fetch

    taken: list[tuple[str, int, dict[str, Any]]] = []
    for reason in sorted(removed.some):
        turns = [list(some) for _, some in sorted(removed.some[reason].items())]
        picked = 0
        while picked < EXAMPLES and any(turns):
            for some in turns:
                if some and picked < EXAMPLES:
                    taken.append((reason, *some.pop(0)))
                    picked += 1
    others = [other_of(evidence) for _, _, evidence in taken]
    rows = [row for _, row, _ in taken] + [int(other["row"]) for other in others if other is not None]
    columns = ["id", "source", "origin_file", "origin_row", "text"]
    found = dict(zip(rows, fetch(documents, rows, columns).to_pylist(), strict=True)) if rows else {}
    return [
        _example(reason, found[row], evidence, None if other is None else found[int(other["row"])])
        for (reason, row, evidence), other in zip(taken, others, strict=True)
    ]


def _example(reason: str, document: dict[str, Any], evidence: dict[str, Any], other: dict[str, Any] | None) -> Example:
    told = {key: value for key, value in evidence.items() if not (isinstance(value, dict) and "row" in value)}
    if other is not None:
        mine, theirs = compared(document["text"], other["text"])
        return Example(reason, _place(document, mine), told, _place(other, theirs))
    if "start" in evidence and "end" in evidence:
        return Example(reason, _place(document, around(document["text"], evidence["start"], evidence["end"])), told)
    return Example(reason, _place(document, beginning(document["text"])), told)


def _place(document: dict[str, Any], excerpt: tuple[str, list[tuple[int, int]]]) -> Place:
    origin = f"{document['origin_file']}:{document['origin_row']}"
    return Place(document["id"], document["source"], origin, *excerpt)
