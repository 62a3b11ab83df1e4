"""How members, their texts and the decisions about them are spread over partitions: by content, never by workers."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from headrace.flow.task import TaskContext

if TYPE_CHECKING:
    from headrace.flow.exchange import Spill
    from headrace.select.verdicts.representatives import Members

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


def spread(some: Members, free: npt.NDArray[np.int64], text: pa.Array | None, members: Spill, texts: Spill) -> int:
    """Send members to the partition of their component, and the texts of the free ones if they are given.

    Returns:
        The bytes of the longest text among them.
    """
    from headrace.documents.store import text_buffers
    from headrace.flow.keys import keyed, salt
    from headrace.select.duplicates.step import high_bits

    partition = high_bits(keyed(salt(0, "component"), some.records["component"]), members.partitions)
    members.add(partition, some.records, some.files)
    if text is None:
        return 0
    data, offsets = text_buffers(text)
    records = np.empty(len(free), dtype=texts.dtype)
    records["row"] = some.records["row"][free]
    records["length"] = np.diff(offsets)
    texts.add(partition[free], records, data)
    return int(records["length"].max(initial=0))


def partition_sizes(ctx: TaskContext, name: str, dtype: np.dtype[np.void]) -> npt.NDArray[np.int64]:
    """The bytes of each partition of what was sent, records and payload: int64[partitions]."""
    from headrace.flow.exchange import partition_bytes, partition_counts

    sizes = partition_counts(ctx, "filter", name) * dtype.itemsize + partition_bytes(ctx, "filter", name)
    return np.asarray(sizes, dtype=np.int64)


def destinations_of(shards: int) -> list[int]:
    """The partition of decisions of each shard: neighbours share one beyond ``MOST_PARTITIONS``."""
    return [shard * min(shards, MOST_PARTITIONS) // shards for shard in range(shards)]
