"""Facts about the documents and their verdicts: counts from manifests, and a few examples of removed documents."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field, replace
from typing import Any

import orjson

from headrace.flow.artifact import Artifact
from headrace.report.excerpts import around, beginning, compared
from headrace.report.facts import Example, Pairs, Place, SourceFacts

# Examples per reason, taken from the sources in turn.
EXAMPLES = 4
# What evidence says about the other document, which is shown next to the removed one.
OTHER = ("kept_id", "kept_row", "kept_source", "kept_file", "kept_origin_row")

Found = dict[str, dict[str, list[tuple[int, dict[str, Any]]]]]
"""reason -> source -> [(documents row, evidence), ...]"""


@dataclass
class CorpusFacts:
    """What is known about the documents; see :class:`headrace.report.facts.RunFacts`."""

    sources: list[SourceFacts] = field(default_factory=list)
    duplicates: Pairs | None = None
    holdout: Pairs | None = None
    references: Pairs | None = None
    contamination: Pairs | None = None
    examples: list[Example] = field(default_factory=list)


def corpus_facts(
    documents: Artifact | None, verdicts: Artifact | None, tokens: Artifact | None, names: list[str]
) -> CorpusFacts:
    """Facts about the corpus.

    Args:
        documents: the documents; None before they are read.
        verdicts: their verdicts; None before they exist.
        tokens: the token store; None before documents are tokenized.
        names: the sources, in recipe order.
    """
    if documents is None:
        return CorpusFacts()
    facts = CorpusFacts(sources_read(documents, verdicts, tokens, names))
    if verdicts is not None:
        extra = verdicts.manifest.extra
        facts.duplicates, facts.holdout = _pairs(extra.get("duplicates")), _pairs(extra.get("holdout"))
        facts.references = _pairs(extra.get("references"), "against")
        if "contamination" in verdicts.manifest.inputs:
            facts.contamination = _contamination(documents, verdicts)
        facts.examples = _examples(documents, _some(documents, verdicts))
    return facts


def sources_read(
    documents: Artifact, verdicts: Artifact | None, tokens: Artifact | None, names: Iterable[str]
) -> list[SourceFacts]:
    """:func:`source_facts` of the sources that were read: one that was just added to the recipe is not among them."""
    return [source_facts(name, documents, verdicts, tokens) for name in names if name in documents.manifest.counts]


def source_facts(
    name: str, documents: Artifact, verdicts: Artifact | None = None, tokens: Artifact | None = None
) -> SourceFacts:
    """The manifests' counts for a source; no shard is read."""
    read = documents.manifest.counts[name]
    facts = SourceFacts(
        name=name,
        files=read["files"],
        documents=read["documents"],
        bytes=read["bytes"],
        characters=read["characters"],
        quarantined=read["quarantined"],
        skipped=read["skipped"],
        lost_rows=read["lost_rows"],
        lost_bytes=read["lost_bytes"],
    )
    if verdicts is not None:
        judged = verdicts.manifest.counts[name]
        facts = replace(facts, kept=judged["kept"], removed=judged["removed"], splits=judged["splits"])
    if tokens is not None:
        splits = tokens.manifest.counts[name].values()
        amounts = {key: sum(split[key] for split in splits) for key in ("tokens", "bytes")}
        facts = replace(facts, tokens=amounts["tokens"], stored_bytes=amounts["bytes"])
    return facts


def _pairs(told: list[dict[str, Any]] | None, other: str = "kept") -> Pairs | None:
    return None if told is None else {(pair["removed"], str(pair[other])): pair["documents"] for pair in told}


def _contamination(documents: Artifact, verdicts: Artifact) -> Pairs:
    """(benchmark, source) -> documents removed, from the evidence."""
    total: Counter[tuple[str, str]] = Counter()
    if any("contaminated" in counts["removed"] for counts in verdicts.manifest.counts.values()):
        for shard in range(len(verdicts.shards)):
            for row in _removed(documents, verdicts, shard, {"contaminated"}):
                item = str(orjson.loads(row["evidence"])["item"])
                total[item.split(":", 1)[0], row["source"]] += 1
    return dict(sorted(total.items()))


def _removed(documents: Artifact, verdicts: Artifact, shard: int, reasons: set[str]) -> Iterator[dict[str, Any]]:
    """``{"source", "reason", "evidence", "row"}`` for a shard's documents removed for any of some reasons."""
    import pyarrow as pa
    import pyarrow.compute as pc
    import pyarrow.parquet as pq

    table = pq.read_table(verdicts.shard_path(shard), columns=["reason", "evidence"])
    source = pq.read_table(documents.shard_path(shard), columns=["source"]).column("source")
    base = int(verdicts.row_offsets[shard])
    rows = pa.array(range(base, base + len(table)), pa.int64())
    table = table.append_column("source", source).append_column("row", rows)
    wanted = pc.is_in(table.column("reason"), pa.array(sorted(reasons), pa.string()))
    for batch in table.filter(wanted).to_batches(max_chunksize=1 << 12):
        yield from batch.to_pylist()


def _some(documents: Artifact, verdicts: Artifact) -> Found:
    """The first few removed documents by reason and source; reading stops once they are found."""
    missing = {
        (reason, source): min(n, EXAMPLES)
        for source, counts in verdicts.manifest.counts.items()
        for reason, n in counts["removed"].items()
    }
    found: Found = {}
    for shard in range(len(verdicts.shards)):
        if not missing:
            break
        for row in _removed(documents, verdicts, shard, {reason for reason, _ in missing}):
            key = (row["reason"], row["source"])
            if key in missing:
                evidence = orjson.loads(row["evidence"]) if row["evidence"] else {}
                found.setdefault(key[0], {}).setdefault(key[1], []).append((row["row"], evidence))
                missing[key] -= 1
                if not missing[key]:
                    del missing[key]
    return found


def _examples(documents: Artifact, found: Found) -> list[Example]:
    from headrace.documents.store import fetch

    taken: list[tuple[str, int, dict[str, Any]]] = []
    for reason in sorted(found):
        turns = [list(some) for _, some in sorted(found[reason].items())]
        picked = 0
        while picked < EXAMPLES and any(turns):
            for some in turns:
                if some and picked < EXAMPLES:
                    taken.append((reason, *some.pop(0)))
                    picked += 1
    if not taken:
        return []
    rows = [row for _, row, _ in taken] + [_beside(evidence) for _, _, evidence in taken if _beside(evidence) >= 0]
    columns = ["id", "source", "origin_file", "origin_row", "text"]
    texts = dict(zip(rows, fetch(documents, rows, columns).to_pylist(), strict=True))
    return [_example(reason, texts[row], evidence, texts.get(_beside(evidence))) for reason, row, evidence in taken]


def _beside(evidence: dict[str, Any]) -> int:
    """The row of the document named by evidence, if it is in the run; otherwise -1."""
    return -1 if "against" in evidence else int(evidence.get("kept_row", -1))


def _example(reason: str, document: dict[str, Any], evidence: dict[str, Any], other: dict[str, Any] | None) -> Example:
    if other is not None:
        mine, theirs = compared(document["text"], other["text"])
        told = {key: value for key, value in evidence.items() if key not in OTHER}
        return Example(reason, _place(document, mine), told, _place(other, theirs))
    if "start" in evidence and "end" in evidence:
        shown = around(document["text"], evidence["start"], evidence["end"])
        return Example(reason, _place(document, shown), evidence)
    return Example(reason, _place(document, beginning(document["text"])), evidence)


def _place(document: dict[str, Any], excerpt: tuple[str, list[tuple[int, int]]]) -> Place:
    origin = f"{document['origin_file']}:{document['origin_row']}"
    return Place(document["id"], document["source"], origin, *excerpt)
