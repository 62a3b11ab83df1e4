"""Kept documents and their tokens by source and license, from the columns of the artifacts."""

from __future__ import annotations

from collections import Counter

import numpy as np

from headrace.documents.store import read_columns
from headrace.flow.artifact import Artifact
from headrace.report.facts import LicenceFacts
from headrace.select.licences.columns import Declared, licence_columns

Key = tuple[str, str, str]
"""Source, license and how it was found; '' where there is none."""


def licence_facts(
    documents: Artifact,
    verdicts: Artifact,
    tokens: Artifact | None,
    licences: Artifact | None,
    declared: Declared,
) -> list[LicenceFacts]:
    """Add up shard by shard; no text is read.

    Args:
        documents: the documents.
        verdicts: their verdicts, aligned.
        tokens: the token store, None before documents are tokenized.
        licences: their licenses, if the run built that sidecar.
        declared: the license that the recipe declares for each source.
    """
    count: Counter[Key] = Counter()
    token_count: Counter[Key] = Counter()
    for shard in range(len(documents.shards)):
        table = licence_columns(documents, shard, licences, declared)
        source = read_columns(documents.shard_path(shard), ["source"]).column("source")
        keep = read_columns(verdicts.shard_path(shard), ["keep"]).column("keep").to_numpy()
        encoded = [
            column.combine_chunks().fill_null("").dictionary_encode()
            for column in (source, table.column("license"), table.column("found"))
        ]
        shape = tuple(max(1, len(column.dictionary)) for column in encoded)
        codes, back = np.unique(
            np.ravel_multi_index([column.indices.to_numpy() for column in encoded], shape), return_inverse=True
        )
        names = [column.dictionary.to_pylist() for column in encoded]
        places = np.transpose(np.unravel_index(codes, shape)).tolist()
        keys = [(names[0][i], names[1][j], names[2][k]) for i, j, k in places]
        _add(count, keys, back[keep], None)
        if tokens is not None:
            from headrace.tokens.store import open_shard

            store = open_shard(tokens, shard)
            rows = store.rows.astype(np.int64) - int(documents.row_offsets[shard])
            _add(token_count, keys, back[rows], np.diff(store.offsets))
    return [
        LicenceFacts(name, n, None if tokens is None else token_count[source, name, found], source, found)
        for (source, name, found), n in sorted(count.items(), key=lambda item: (-item[1], item[0]))
    ]


def _add(total: Counter[Key], keys: list[Key], codes: np.ndarray, weights: np.ndarray | None) -> None:
    for key, n in zip(keys, np.bincount(codes, weights, minlength=len(keys)).tolist(), strict=True):
        if n:
            total[key] += int(n)
