"""Kept documents and their tokens by license, from the columns of the artifacts."""

from __future__ import annotations

from collections import Counter

import numpy as np

from headrace.flow.artifact import Artifact
from headrace.report.facts import LicenceFacts


def licence_facts(documents: Artifact, verdicts: Artifact, tokens: Artifact | None) -> list[LicenceFacts]:
    """Add up shard by shard; no text is read.

    Args:
        documents: the documents.
        verdicts: their verdicts, aligned.
        tokens: the token store, None before documents are tokenized.
    """
    import pyarrow.parquet as pq

    count: Counter[str] = Counter()
    token_count: Counter[str] = Counter()
    for shard in range(len(documents.shards)):
        column = pq.read_table(documents.shard_path(shard), columns=["license"]).column("license").combine_chunks()
        keep = pq.read_table(verdicts.shard_path(shard), columns=["keep"]).column("keep").to_numpy()
        encoded = column.fill_null("").dictionary_encode()
        names = encoded.dictionary.to_pylist()
        codes = encoded.indices.to_numpy()
        _add(count, names, codes[keep], None)
        if tokens is not None:
            from headrace.tokens.store import open_shard

            store = open_shard(tokens, shard)
            rows = store.rows.astype(np.int64) - int(documents.row_offsets[shard])
            _add(token_count, names, codes[rows], np.diff(store.offsets))
    facts = [
        LicenceFacts(name, n, None if tokens is None else token_count[name])
        for name, n in sorted(count.items(), key=lambda item: (-item[1], item[0]))
    ]
    return facts if any(fact.name for fact in facts) else []


def _add(total: Counter[str], names: list[str], codes: np.ndarray, weights: np.ndarray | None) -> None:
    for name, n in zip(names, np.bincount(codes, weights, minlength=len(names)).tolist(), strict=True):
        if n:
            total[name] += int(n)
