"""How members, their texts and the decisions about them are partitioned: by content, never by workers."""

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

# Bytes of members and texts per partition: two workers can hold two of them under the smallest budgets.
PARTITION_BYTES = 32 << 20
# A member in transit: its record, and its file's name.
MEMBER_BYTES = 192
# Decisions are in at most this many partitions, so that a map task's buffers stay small.
MOST_PARTITIONS = 2048


def partitions_for(counts: Mapping[str, int], with_text: bool) -> int:
    """The number of partitions for members, given the counts of the duplicates."""
    size = counts["members"] * MEMBER_BYTES + (counts["member_bytes"] if with_text else 0)
    return min(MOST_PARTITIONS, 1 << max(0, (size - 1) // PARTITION_BYTES).bit_length())


def spread(some: Members, free: npt.NDArray[np.int64], text: pa.Array | None, members: Spill, texts: Spill) -> int:
    """Send members to the partition of their component, with the texts of the free ones if given.

    Returns:
        The bytes of the longest of these texts.
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
    """The bytes sent to each partition, records and payload: int64[partitions]."""
    from headrace.flow.exchange import partition_bytes, partition_counts

    sizes = partition_counts(ctx, "filter", name) * dtype.itemsize + partition_bytes(ctx, "filter", name)
    return np.asarray(sizes, dtype=np.int64)


def destinations_of(shards: int) -> list[int]:
    """The decision partition of each shard: beyond ``MOST_PARTITIONS``, neighboring shards share one."""
    return [shard * min(shards, MOST_PARTITIONS) // shards for shard in range(shards)]
