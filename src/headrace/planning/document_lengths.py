"""How long a source's documents are, in tokens: measured in a token store, or estimated from a sample."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import numpy as np

from headrace.recipe.lengths import Lengths

SHOWN = (4096, 32_768, 131_072)  # contexts that models are trained for, and those that long-context training adds
# A shard has some ten thousand documents: so many tell the share of a length to a fraction of a percent.
_SHARDS = 32


@dataclass(frozen=True)
class DocumentLengths:
    """Documents and their tokens by length.

    Attributes:
        documents: by the number of bits of their length: item k has those of 2^(k-1) to 2^k - 1 tokens.
        tokens: the tokens of these.
    """

    documents: tuple[int, ...]
    tokens: tuple[int, ...]

    @staticmethod
    def of(lengths: Iterable[float] | np.ndarray) -> DocumentLengths:
        """Those of documents with so many tokens each."""
        has = np.rint(lengths if isinstance(lengths, np.ndarray) else list(lengths)).astype(np.int64)
        bits = np.frexp(has.astype(np.float64))[1]
        documents = np.bincount(bits)
        tokens = np.zeros(len(documents), dtype=np.int64)
        np.add.at(tokens, bits, has)
        return DocumentLengths(tuple(documents.tolist()), tuple(tokens.tolist()))

    def at_least(self, tokens: int) -> tuple[float, float]:
        """The share of documents, and of tokens, in documents of at least so many tokens: exact for powers of two;
        between them, tokens are taken to lie evenly on a scale of logarithms."""
        if not any(self.tokens):
            return 0.0, 0.0
        if tokens <= 0:
            return 1.0, 1.0
        bits = np.frexp(float(tokens))[1]
        part = 1 - (np.log2(tokens) - (bits - 1))  # how much of the bin that the length lies in is longer
        shares = []
        for counts in (self.documents, self.tokens):
            above = sum(counts[bits + 1 :]) + part * (counts[bits] if bits < len(counts) else 0)
            shares.append(float(above / sum(counts)))
        return shares[0], shares[1]

    def within(self, lengths: Lengths) -> tuple[float, float]:
        """The share of documents, and of tokens, in documents of some lengths."""
        low, high = (self.at_least(length) if length is not None else (0.0, 0.0) for length in lengths)
        return low[0] - high[0], low[1] - high[1]


@cache
def measured_lengths(tokens: Path) -> dict[str, DocumentLengths]:
    """The lengths of each source's training documents in a token store, from an even sample of its shards."""
    from headrace.flow.artifact import Artifact
    from headrace.tokens.store import open_shard

    store = Artifact.open(tokens)
    names, train = store.manifest.extra["sources"], store.manifest.extra["splits"].index("train")
    found: dict[str, list[np.ndarray]] = {name: [] for name in names}
    for number in np.unique(np.linspace(0, len(store.shards) - 1, min(_SHARDS, len(store.shards))).astype(int)):
        shard = open_shard(store, int(number))
        lengths = np.diff(shard.offsets)
        for i, name in enumerate(names):
            found[name].append(lengths[(shard.source == i) & (shard.split == train)])
    return {name: DocumentLengths.of(np.concatenate(parts)) for name, parts in found.items() if parts}
