"""How members, their texts and the decisions about them are spread over partitions: by content, never by workers."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import numpy.typing as npt

from headrace.flow.task import TaskContext

# What a partition of members and texts holds: two workers hold two of them under the smallest budgets.
PARTITION_BYTES = 32 << 20
# A member as it travels: its record, and the name of its file.
MEMBER_BYTES = 192
# Decisions lie in at most this many partitions, so that a map task's buffers stay small.
MOST_PARTITIONS = 2048


def partitions_for(counts: Mapping[str, int], with_text: bool) -> int:
    """How many partitions the members go to, given the counts of the duplicates."""
    size = counts["members"] * MEMBER_BYTES + (counts["member_bytes"] if with_text else 0)
    return min(MOST_PARTITIONS, 1 << max(0, (size - 1) // PARTITION_BYTES).bit_length())


def partition_sizes(ctx: TaskContext, name: str, dtype: np.dtype[np.void]) -> npt.NDArray[np.int64]:
    """The bytes of each partition of what was sent, records and payload: int64[partitions]."""
    from headrace.flow.exchange import partition_bytes, partition_counts

    sizes = partition_counts(ctx, "filter", name) * dtype.itemsize + partition_bytes(ctx, "filter", name)
    return np.asarray(sizes, dtype=np.int64)


def destinations_of(shards: int) -> list[int]:
    """The partition of decisions of each shard: neighbours share one beyond ``MOST_PARTITIONS``."""
    return [shard * min(shards, MOST_PARTITIONS) // shards for shard in range(shards)]
