"""Documents with planted duplicates, any number of them, made row by row from formulas: nothing is held.

A row r stands at place p = (a * r + b) mod n of a plan, a bijection with a cheap inverse. From the front the plan has

- one component of n / 20 members: three buckets, each of a third of the members, that only the first member joins;
- a chain of 10,000, each member in a bucket with the next and with no other;
- for 30 % of all rows, components of 2, 3 and 7 members: the 2 have one content id and all bands in common, the others
  have one band in common for certain and each of the rest by the toss of a coin;
- rows without duplicates.

So the component of every row is known without looking at any other.
"""

from __future__ import annotations

import math
import time
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from headrace.documents.store import SCHEMA
from headrace.flow.keys import keyed, salt
from headrace.flow.step import Phase, Step
from headrace.flow.storage import write_json
from headrace.flow.task import TaskContext
from headrace.select import sidecar
from headrace.select.duplicates.signatures import ROW_GROUP, Signatures, Signed, batch_of, schema

SOURCE = "planted"
SHARD_ROWS = 1 << 20
BATCH = 1 << 16
MAKING = "making.json"  # in the run folder: seconds that tasks spent on making fingerprints and ids up
GROUP = 12  # places of three small components, of 2, 3 and 7
_CLUSTER = np.array([0, 0, 1, 1, 1, 2, 2, 2, 2, 2, 2, 2])
_FIRST, _SIZE = np.array([0, 2, 5]), np.array([2, 3, 7])

Rows = npt.NDArray[np.uint64]


@dataclass(frozen=True)
class Plan:
    """Where each of ``n`` rows stands, and what is planted there."""

    n: int

    @cached_property
    def factor(self) -> int:
        factor = int(self.n * 0.6180339887) | 1
        while math.gcd(factor, self.n) > 1:
            factor += 2
        return factor % self.n

    @property
    def giant(self) -> int:
        return self.n // 20

    @property
    def chain(self) -> int:
        return min(10_000, self.n // 10)

    @property
    def small(self) -> tuple[int, int]:
        """The first place and the end of the small components."""
        start = self.giant + self.chain
        return start, start + int(0.3 * self.n) // GROUP * GROUP

    def places(self, rows: Rows) -> Rows:
        return (rows * np.uint64(self.factor) + np.uint64(self.n // 3)) % np.uint64(self.n)

    def rows(self, places: Rows) -> Rows:
        inverse = np.uint64(pow(self.factor, -1, self.n))
        return (places + np.uint64(self.n - self.n // 3)) % np.uint64(self.n) * inverse % np.uint64(self.n)

    def _smallest(self, start: int, stop: int) -> int:
        ranges = (np.arange(at, min(stop, at + BATCH), dtype=np.uint64) for at in range(start, stop, BATCH))
        return min((int(self.rows(places).min()) for places in ranges), default=0)

    @cached_property
    def _labels(self) -> tuple[int, int]:
        return self._smallest(0, self.giant), self._smallest(self.giant, self.giant + self.chain)

    def truth(self, rows: Rows) -> tuple[Rows, Rows, Rows]:
        """The smallest row of each row's component, the component's size, and the smallest row of the same content."""
        places = self.places(rows)
        label, size, first = rows.copy(), np.ones_like(rows), rows.copy()
        giant, chain = places < self.giant, (places >= self.giant) & (places < self.giant + self.chain)
        label[giant], size[giant] = self._labels[0], self.giant
        label[chain], size[chain] = self._labels[1], self.chain
        start, stop = self.small
        small = np.flatnonzero((places >= start) & (places < stop))
        offset = (places[small] - np.uint64(start)) % np.uint64(GROUP)
        cluster = _CLUSTER[offset]
        begin = places[small] - offset + _FIRST[cluster].astype(np.uint64)
        size[small] = _SIZE[cluster]
        for member in range(7):
            has = member < _SIZE[cluster]
            label[small[has]] = np.minimum(label[small[has]], self.rows(begin[has] + np.uint64(member)))
        first[small[cluster == 0]] = label[small[cluster == 0]]
        return label, size, first

    def counts(self) -> dict[str, int]:
        """What the duplicates' manifest must say."""
        groups = (self.small[1] - self.small[0]) // GROUP
        big = [size for size in (self.giant, self.chain) if size > 1]
        return {
            "components": 3 * groups + len(big),
            "members": GROUP * groups + sum(big),
            "largest": max([*big, 7 if groups else 0]),
            "exact_copies": groups,
        }

    def fingerprints(self, rows: Rows, bands: int) -> Rows:
        """uint64[n, bands]."""
        places = self.places(rows)
        out = np.stack([keyed(salt(0, "own", band), rows) for band in range(bands)], axis=1)
        giant = np.flatnonzero(places < self.giant)
        hubs = np.stack([keyed(salt(0, "giant"), np.array([i], dtype=np.uint64)) for i in range(3)])[:, 0]
        third = (places[giant] % np.uint64(3)).astype(np.int64)
        out[giant, third] = hubs[third]
        out[giant[places[giant] == 0], :3] = hubs
        chain = np.flatnonzero((places >= self.giant) & (places < self.giant + self.chain))
        link = places[chain] - np.uint64(self.giant)
        for k in (link, link - np.uint64(1)):  # the first's link before it and the last's after it are nobody else's
            out[chain, (k % np.uint64(2)).astype(np.int64)] = keyed(salt(0, "chain"), k)
        self._small_fingerprints(rows, places, out)
        return out

    def _small_fingerprints(self, rows: Rows, places: Rows, out: Rows) -> None:
        start, stop = self.small
        small = np.flatnonzero((places >= start) & (places < stop))
        offset = (places[small] - np.uint64(start)) % np.uint64(GROUP)
        cluster = _CLUSTER[offset]
        begin = places[small] - offset + _FIRST[cluster].astype(np.uint64)
        for band in range(out.shape[1]):
            certain = (begin % np.uint64(out.shape[1]) == band) | (cluster == 0)
            shared = certain | (keyed(salt(0, "toss", band), rows[small]) & np.uint64(1) == 1)
            out[small[shared], band] = keyed(salt(0, "small", band), begin[shared])

    def ids(self, rows: Rows) -> Rows:
        """Content ids, uint64[n, 2]: those of equal content are equal."""
        _, _, first = self.truth(rows)
        return np.stack([keyed(salt(0, "high"), first), keyed(salt(0, "low"), first)], axis=1)


_HEX = np.frombuffer(b"0123456789abcdef", dtype=np.uint8)


def hexadecimal(ids: Rows) -> pa.Array:
    """Content ids as 32 hexadecimal digits each."""
    raw = np.ascontiguousarray(ids.astype(">u8")).view(np.uint8)
    digits = _HEX[np.stack([raw >> 4, raw & 15], axis=2).reshape(-1)]
    offsets = np.arange(0, digits.size + 1, 32, dtype=np.int32)
    return pa.StringArray.from_buffers(len(ids), pa.py_buffer(offsets), pa.py_buffer(digits))


@dataclass(frozen=True)
class Documents(Step):
    """Documents without text."""

    n: int
    kind = "documents"
    VERSION = 1

    def params(self) -> dict[str, Any]:
        return {"planted": self.n}

    def inputs(self) -> dict[str, Step]:
        return {}

    def phases(self) -> list[Phase]:
        return [Phase("write", lambda ctx: [{"start": at} for at in range(0, self.n, SHARD_ROWS)], self._write)]

    def _write(self, ctx: TaskContext, spec: dict[str, Any]) -> dict[str, Any]:
        import pyarrow.parquet as pq

        plan, start = Plan(self.n), spec["start"]
        with ctx.shard() as out, pq.ParquetWriter(out.path, SCHEMA, compression="zstd") as writer:
            for at in range(start, min(self.n, start + SHARD_ROWS), BATCH):
                rows = np.arange(at, min(self.n, start + SHARD_ROWS, at + BATCH), dtype=np.uint64)
                columns = {
                    "id": hexadecimal(plan.ids(rows)),
                    "text": pa.repeat("", len(rows)),
                    "bytes": pa.repeat(0, len(rows)),
                    "source": pa.repeat(SOURCE, len(rows)),
                    "origin_file": pa.repeat(f"planted-{ctx.task:05d}.jsonl", len(rows)),
                    "origin_row": pa.array(rows.astype(np.int64) - start),
                }
                arrays = [
                    columns[f.name].cast(f.type) if f.name in columns else pa.nulls(len(rows), f.type) for f in SCHEMA
                ]
                writer.write_table(pa.Table.from_arrays(arrays, schema=SCHEMA), row_group_size=BATCH)
                out.rows += len(rows)
        return {"rows": out.rows}

    def finish(self, ctx: TaskContext) -> dict[str, Any]:
        return {"counts": {SOURCE: {"documents": self.n}}, "sources": [SOURCE]}


@dataclass(frozen=True)
class PlantedSignatures(Signatures):
    """The signatures of planted documents: they come from the plan; all that follows is the real thing."""

    def phases(self) -> list[Phase]:
        return [Phase("sign", sidecar.plan, self._planted)]

    def params(self) -> dict[str, Any]:
        return {**super().params(), "planted": True}

    def _planted(self, ctx: TaskContext, spec: dict[str, Any]) -> dict[str, Any]:
        offsets, bands = ctx.input("documents").row_offsets, self.bands()[0]
        plan = Plan(int(offsets[-1]))
        start, stop = offsets[spec["shard"] : spec["shard"] + 2].tolist()
        making = 0.0
        with ctx.shard(".arrow") as out:
            with pa.OSFile(str(out.path), "wb") as sink, pa.ipc.new_file(sink, schema(bands)) as writer:
                for at in range(start, stop, ROW_GROUP):
                    since = time.perf_counter()
                    rows = np.arange(at, min(stop, at + ROW_GROUP), dtype=np.uint64)
                    found, halves = plan.fingerprints(rows, bands), plan.ids(rows)
                    making += time.perf_counter() - since
                    none, every = np.zeros(len(rows), dtype=np.int64), np.arange(len(rows))
                    writer.write_batch(batch_of(Signed(halves[:, 0], halves[:, 1], none, every, found), bands))
                    ctx.progress(len(rows))
            out.rows = stop - start
        return {"documents": stop - start, "making": making}

    def finish(self, ctx: TaskContext) -> dict[str, Any]:
        making = sum(result["making"] for result in ctx.results("sign"))
        write_json(ctx.run / MAKING, making)
        return super().finish(ctx)
