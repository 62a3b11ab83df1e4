"""What a run takes on a cluster: rounds of tasks, requests to the storage, bytes moved, and disk of each node.

Every figure is arithmetic from a plan's work and the sizes below, which the steps' own code has (a test compares them).
A step that looks at documents one by one reads each shard and writes a sidecar. An exchange has a map task a shard, and
each of its partitions reads one index and one slice from every map task: their product is what large runs ask of a
storage.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from typing import Any, Literal

from headrace.planning.machine import EFFICIENCY
from headrace.planning.plan import Plan
from headrace.planning.rates import Work
from headrace.planning.text import span, table
from headrace.report.numbers import short, size

Storage = Literal["shared", "s3"]

SHARD_BYTES = 32 << 20  # of text: documents/sink.py
DISK_SHARE = 0.35  # of text, as stored: docs/planning.md
BAND_BYTES, PARTITION_BYTES, MOST_PARTITIONS = 12, 64 << 20, 2048  # select/duplicates/step.py
ROW_SHARD_BYTES, MOST_ROW_PARTITIONS = 64 << 20, 1024  # sequence/layout.py
TOKENS_A_DOCUMENT = 1330  # SlimPajama: 1.21 T tokens in 931 M documents
BYTES_A_DOCUMENT = 5532
# The first byte of an object takes so long (AWS, "Performance design patterns for Amazon S3": 100 to 200 ms for small
# objects at worst, 10 to 30 ms usually), and as many requests are under way for each core.
LATENCY, UNDER_WAY = 0.03, 16


@dataclass(frozen=True)
class Round:
    """A phase of independent tasks.

    Attributes:
        artifact: the graph's node, such as ``duplicates``.
        name: the phase.
        tasks: how many there are.
        core_seconds: of all of them, without waiting for storage.
        reads, writes: requests to the storage.
        read, written: bytes moved.
    """

    artifact: str
    name: str
    tasks: int
    core_seconds: float
    reads: int = 0
    writes: int = 0
    read: float = 0.0
    written: float = 0.0

    @property
    def requests(self) -> int:
        """Requests of both kinds."""
        return self.reads + self.writes

    def waiting(self, storage: Storage) -> float:
        """Core-seconds spent waiting for an object store."""
        return self.requests * LATENCY / UNDER_WAY if storage == "s3" else 0.0


@dataclass(frozen=True)
class ClusterPlan:
    """A run's rounds on a number of equal nodes.

    Attributes:
        nodes, cores: machines, and cores of each.
        storage: where the run folder lies.
        rounds: the phases, in order.
        scratch: maximum bytes of intermediate files at any time.
    """

    nodes: int
    cores: int
    storage: Storage
    rounds: tuple[Round, ...]
    scratch: float

    @staticmethod
    def of(plan: Plan, nodes: int, cores: int, storage: Storage) -> ClusterPlan:
        """A plan's work on a cluster; training is not part of it."""
        scratch = max((node.scratch for node in plan.graph if not node.done), default=0)
        return ClusterPlan(nodes, cores, storage, rounds_of(plan.work), scratch)

    @property
    def waiting_hours(self) -> float:
        """Core-hours spent waiting for the storage."""
        return sum(one.waiting(self.storage) for one in self.rounds) / 3600

    @property
    def core_hours(self) -> float:
        """Core-hours, waiting included."""
        return sum(one.core_seconds for one in self.rounds) / 3600 + self.waiting_hours

    @property
    def seconds(self) -> float:
        """Seconds of all rounds, one after another."""
        return sum(self.span(one) for one in self.rounds)

    def span(self, one: Round) -> float:
        """Seconds of a round: as many tasks at once as there are cores, the last of them as few as are left."""
        each = (one.core_seconds + one.waiting(self.storage)) / one.tasks
        waves = math.ceil(one.tasks / (self.nodes * self.cores))
        return max(each * one.tasks / (self.nodes * self.cores * EFFICIENCY), each * waves)

    @property
    def disk(self) -> float:
        """Bytes of disk of a node: its share of the intermediate files, and what its tasks work on."""
        return self.scratch / self.nodes + self.cores * 4 * SHARD_BYTES

    def to_json(self) -> dict[str, Any]:
        """All figures, estimates."""
        return {
            "nodes": self.nodes,
            "cores": self.cores,
            "storage": self.storage,
            "core_hours": self.core_hours,
            "seconds": self.seconds,
            "tasks": sum(one.tasks for one in self.rounds),
            "reads": sum(one.reads for one in self.rounds),
            "writes": sum(one.writes for one in self.rounds),
            "bytes_read": sum(one.read for one in self.rounds),
            "bytes_written": sum(one.written for one in self.rounds),
            "disk_a_node": self.disk,
            "waiting_hours": self.waiting_hours,
            "rounds": [{**asdict(one), "seconds": self.span(one)} for one in self.rounds],
        }

    def __str__(self) -> str:
        rows = [
            [
                f"{one.artifact}: {one.name}",
                f"{one.tasks:,}",
                size(one.read),
                size(one.written),
                short(one.reads),
                short(one.writes),
                span(self.span(one)),
            ]
            for one in self.rounds
        ]
        waiting = f", {self.waiting_hours:,.1f} of them waiting for {self.storage}" if self.storage == "s3" else ""
        return "\n".join(
            [
                f"on {self.nodes:,} nodes of {self.cores} cores, storage {self.storage} (training is not included):",
                *table(["round", "tasks", "read", "written", "reads", "writes", "time"], rows),
                f"  ~{span(self.seconds)}, ~{self.core_hours:,.1f} core-hours{waiting}, "
                f"~{size(self.disk)} of disk a node",
            ]
        )


def rounds_of(work: Iterable[Work]) -> tuple[Round, ...]:
    """The rounds of a run's work."""
    found: list[Round] = []
    for one in work:
        found += _rounds(one)
    return tuple(found)


def _rounds(work: Work) -> list[Round]:
    if work.serial:
        return [Round(work.artifact, work.step, 1, work.core_seconds, reads=1, writes=1)]
    if work.figure == "candidates":
        return _candidates(work)
    if work.figure == "sequence":
        return _rows(work)
    text = work.amount * {"bytes": 1.0, "documents": BYTES_A_DOCUMENT}.get(work.unit, 3.72)
    shards = max(1, math.ceil(text / SHARD_BYTES))
    stored = text * DISK_SHARE
    out = {"documents": stored, "documents-ftfy": stored, "tokens": text / 3.72 * 2}.get(work.figure, stored / 100)
    return [Round(work.artifact, work.step, shards, work.core_seconds, 2 * shards, shards, stored, out)]


def _candidates(work: Work) -> list[Round]:
    """Fingerprints go to partitions, which are sorted; half of the time each."""
    documents, bands = work.amount, 9
    shards = max(1, math.ceil(documents * BYTES_A_DOCUMENT / SHARD_BYTES))
    moved = documents * bands * BAND_BYTES
    partitions = min(MOST_PARTITIONS, 1 << max(0, math.ceil(moved / PARTITION_BYTES) - 1).bit_length())
    half = work.core_seconds / 2
    return [
        Round(work.artifact, "partition", shards, half, shards, 2 * shards, moved, moved),
        Round(work.artifact, "sort", partitions, half, 2 * shards * partitions, partitions, moved, moved / 9),
    ]


def _rows(work: Work) -> list[Round]:
    """Documents are sampled a shard at a time, and their tokens go to partitions of rows."""
    tokens, moved = work.amount, work.amount * 2
    shards = max(1, math.ceil(tokens * 3.72 / SHARD_BYTES))
    partitions = min(MOST_ROW_PARTITIONS, max(1, math.ceil(moved / ROW_SHARD_BYTES)))
    third = work.core_seconds / 3
    last = 2 * shards * partitions
    return [
        Round(work.artifact, "sample", shards, third, shards, 2 * shards, moved / 100, moved / 50),
        Round(work.artifact, "repartition", shards, third, 2 * shards, 2 * shards, moved, moved),
        Round(work.artifact, "shuffle", partitions, third, last, partitions, moved, moved),
    ]
