"""The records passed between phases, and how they are partitioned.

Partitions depend only on token counts, never on workers or memory, and so do the bytes.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np

SAMPLED = np.dtype(
    [("key", "<u8"), ("row", "<u8"), ("length", "<u4"), ("epoch", "<u2"), ("source", "<u2"), ("kind", "u1")]
)
"""A copy of a document, from sample to pack: its position in the document order, its document row, its tokens."""

GROUPED = np.dtype(
    [
        ("key", "<u8"),
        ("group", "<u8"),
        ("rank", "<u8"),
        ("row", "<u8"),
        ("length", "<u4"),
        ("lead", "<u4"),
        ("kind", "<u4"),
        ("epoch", "<u2"),
        ("source", "<u2"),
    ]
)
"""The same from sample to join, for stages that group files: also half of the group's key (the row of a document that
stands alone; ``key`` depends on the other half), the place in the group, and the tokens that only a first file has."""

# What is added to the kind of a file within the build: it is in the encoded documents; it is not the first of its
# training document; it is not the last. Sequences keep only JOINED of :mod:`headrace.sequence.windows`.
REWRITTEN, INNER, MORE = 16, 32, 64
BASE = 3  # the bits of the kind itself

CUT = np.dtype(
    [
        ("to", "<u8"),
        ("row", "<u8"),
        ("start", "<i4"),
        ("tokens", "<i4"),
        ("offset", "<i4"),
        ("block", "<u2"),
        ("source", "<u2"),
        ("epoch", "<u2"),
        ("kind", "u1"),
    ]
)
"""A segment, from pack to repartition: row of the sequence (counted within the block for best fit), document row."""

MOVED = np.dtype(
    [
        ("to", "<u8"),
        ("row", "<u8"),
        ("length", "<u4"),
        ("start", "<i4"),
        ("tokens", "<i4"),
        ("offset", "<i4"),
        ("source", "<u2"),
        ("epoch", "<u2"),
        ("kind", "u1"),
        ("masked", "u1"),
    ]
)
"""A segment with its tokens, from repartition to shuffle: ``length`` bytes, tokens and then a byte of loss each if
masked."""

# A block of about a million records sorts in 26 MB; beyond 1024 blocks they grow instead, since every task of the
# previous phase writes a slice for each.
BLOCK_RECORDS, MOST_BLOCKS = 1 << 20, 1024

# With shards of 64 MB, an order task takes 200 MB. Beyond 1024 partitions each task writes several shards, and beyond 1
# TB the shards grow instead: a manifest of 16,384 is parsed in 4 ms, one of 61,000 (4 TB in shards of 64 MB) in 25 to
# 33.
SHARD_BYTES, MOST_PARTITIONS, MOST_SHARDS = 64 << 20, 1024, 16384


def upper(keys: np.ndarray, parts: int) -> np.ndarray:
    """Which of ``parts`` equal intervals of the 64-bit range contains each key: int64[n], ascending with the keys."""
    return (((keys >> np.uint64(32)) * np.uint64(parts)) >> np.uint64(32)).astype(np.int64)


def total_rows(results: list[dict[str, Any]]) -> int:
    """Rows in the sequence, from the results of the tasks."""
    return sum(result["used"] for result in results) + max((result["stop"] for result in results), default=0)


@dataclass(frozen=True)
class Blocks:
    """The partitions of the document order.

    Attributes:
        streams: the indices of the sources that share rows, one tuple per stream.
        parts: the number of blocks of each stream.
    """

    streams: tuple[tuple[int, ...], ...]
    parts: tuple[int, ...]

    @staticmethod
    def of(expected: dict[int, int], mix: bool) -> Blocks:
        """Plan the blocks.

        Args:
            expected: source index -> expected records.
            mix: whether sources share rows.
        """
        order = sorted(expected)
        streams = (tuple(order),) if mix else tuple((source,) for source in order)
        wanted = [sum(expected[source] for source in stream) / BLOCK_RECORDS for stream in streams]
        share = min(1.0, MOST_BLOCKS / max(1.0, sum(wanted)))
        return Blocks(streams, tuple(max(1, math.ceil(blocks * share)) for blocks in wanted))

    @property
    def count(self) -> int:
        """Blocks in all streams."""
        return sum(self.parts)

    @property
    def first(self) -> np.ndarray:
        """int64[streams + 1]: the first block of each stream, then the number of blocks."""
        return np.cumsum([0, *self.parts], dtype=np.int64)

    def block(self, source: int, keys: np.ndarray) -> np.ndarray:
        """The block of each key among a source's documents: int64[n]."""
        stream = next(i for i, members in enumerate(self.streams) if source in members)
        return self.first[stream] + upper(keys, self.parts[stream])


@dataclass(frozen=True)
class Shards:
    """The partitions of the row order.

    Attributes:
        partitions: tasks of the order phase.
        each: shards that each of them writes.
    """

    partitions: int
    each: int

    @staticmethod
    def of(rows: int, row_bytes: int) -> Shards:
        """Plan the shards for a number of rows.

        Each holds about :data:`SHARD_BYTES` of tokens, or more if there would be over :data:`MOST_SHARDS`.
        """
        shards = min(MOST_SHARDS, max(1, math.ceil(rows * row_bytes / SHARD_BYTES)))
        partitions = min(shards, MOST_PARTITIONS)
        return Shards(partitions, math.ceil(shards / partitions))

    @property
    def count(self) -> int:
        """Shards in all partitions."""
        return self.partitions * self.each

    def shard(self, keys: np.ndarray) -> np.ndarray:
        """The shard of each row key: int64[n], ascending with the keys."""
        return upper(keys, self.count)
