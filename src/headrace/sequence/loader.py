"""Batches of a sequence for a trainer, with a state that is just a row number and a fingerprint.

Batch N of a stage is rows ``[N * batch, (N + 1) * batch)``, whatever the world size: each rank takes its slice of every
batch. There is no other state, so a run can resume with another world size or batch size at the row where it stopped.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from itertools import islice
from pathlib import Path
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from headrace.errors import UserError
from headrace.sequence.batch import Batch, read
from headrace.sequence.reader import SequenceReader
from headrace.sequence.store import open_sequence


class Loader:
    """Iterates over the batches of a sequence.

    Args:
        sequence: an opened sequence, in any format, or the folder of one of headrace's own.
        batch: rows per batch, over all ranks.
        rank: the slice of each batch to take.
        world_size: the number of slices.
        start: the row to start at.
        state: from :meth:`state_dict`; replaces ``start``.
        positions: ``row``: positions count through a row; ``document``: they restart at 0 with each segment.
        dtype: dtype of the returned tokens; None keeps the sequence's own.
        drop_last: drop rows at the end that do not fill a batch; otherwise the last batch is short, and ranks may get
            different numbers of its rows.
        prefetch: batches that a background thread reads ahead, computing loss, segment ids and positions. They are not
            part of the state.
        verify: compare each shard with its digest when its first row is read.
        even: refuse a batch that ranks cannot share evenly; otherwise their shares differ by at most a row.

    Raises:
        DamagedArtifact: with ``verify``, also while iterating: a shard has changed since it was written.
        UserError: the batch cannot be divided evenly, the start is out of range, or the state is another sequence's.
    """

    def __init__(
        self,
        sequence: SequenceReader | Path | str,
        batch: int,
        *,
        rank: int = 0,
        world_size: int = 1,
        start: int = 0,
        state: Mapping[str, Any] | None = None,
        positions: Literal["row", "document"] = "row",
        dtype: npt.DTypeLike | None = None,
        drop_last: bool = True,
        prefetch: int = 0,
        verify: bool = False,
        even: bool = True,
    ) -> None:
        reader: SequenceReader = sequence if isinstance(sequence, SequenceReader) else open_sequence(sequence)
        self.sequence = reader.verified() if verify else reader
        self.batch, self.rank, self.world_size = batch, rank, world_size
        self.restart, self.drop_last, self.prefetch = positions == "document", drop_last, prefetch
        self.dtype = np.dtype(dtype) if dtype is not None else self.sequence.dtype
        if batch < 1 or world_size < 1 or not 0 <= rank < world_size:
            raise UserError(
                f"Invalid batch of {batch} rows for rank {rank} of {world_size}.",
                str(self.sequence.path),
                "Use a batch of at least 1 and a rank from 0 to world_size - 1.",
            )
        if even and batch % world_size:
            raise UserError(
                f"A batch of {batch} rows cannot be divided evenly among {world_size} ranks.",
                str(self.sequence.path),
                f"Use a batch that is a multiple of {world_size}.",
            )
        self.consumed = self._row(start)
        if state is not None:
            self.load_state_dict(state)

    def __len__(self) -> int:
        """Batches left from the current row on."""
        return len(self.starts())

    def state_dict(self) -> dict[str, Any]:
        """Rows consumed by all ranks together, and the sequence's fingerprint (None if its files do not tell). JSON
        values."""
        return {"rows": self.consumed, "fingerprint": self.sequence.fingerprint}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Continue where a state was taken.

        Raises:
            UserError: it is not a loader's state, its row is out of range, or it belongs to a sequence with other
                bytes; says what differs.
        """
        mine = self.sequence.fingerprint
        theirs = state.get("fingerprint", "") if isinstance(state, Mapping) else ""
        told = isinstance(theirs, Mapping) and isinstance(theirs.get("digest"), str)
        if not (told or theirs is None) or "rows" not in state:
            raise UserError(
                "This is not a loader state: it needs `rows` and the `fingerprint` of its sequence.",
                str(self.sequence.path),
                "Pass exactly what `state_dict()` returned.",
            )
        if theirs is None or mine is None:
            if theirs is not mine:
                raise UserError(
                    "This state cannot be compared with this sequence: only one of the two has a fingerprint.",
                    str(self.sequence.path),
                    "Open the sequence that the state was taken from, or start at a row with `start=`.",
                )
        elif theirs["digest"] != mine["digest"]:
            differences = differing(dict(theirs), mine)
            raise UserError(
                "This state belongs to another sequence: " + "; ".join(differences) + ".",
                str(self.sequence.path),
                "Use the original sequence, or restart the stage without the state.",
            )
        self.consumed = self._row(state["rows"])

    def _row(self, row: Any) -> int:
        """A row to start at; the one after the last is the end."""
        whole = isinstance(row, int | np.integer) and not isinstance(row, bool)
        if not whole or not 0 <= row <= len(self.sequence):
            raise UserError(
                f"A sequence of {len(self.sequence)} rows has no row {row!r}.",
                str(self.sequence.path),
                f"Start at a whole number from 0 to {len(self.sequence)}.",
            )
        return int(row)

    def at(self, row: int) -> Batch:
        """This rank's share of the batch that starts at a row. A pure function of the row.

        Tokens are read now; loss, segment ids and positions on demand.
        """
        return read(self.sequence, *self.share(row), self.dtype, self.restart)

    def share(self, row: int) -> tuple[int, int]:
        """The rows ``[start, stop)`` of this rank in the batch that starts at a row."""
        rows = min(self.batch, len(self.sequence) - row)
        return row + self.rank * rows // self.world_size, row + (self.rank + 1) * rows // self.world_size

    def starts(self) -> range:
        """The rows at which the batches that are left start."""
        return range(self.consumed, len(self.sequence) - (self.batch if self.drop_last else 1) + 1, self.batch)

    def pass_batch(self, row: int) -> None:
        """Count the batch that starts at a row as consumed."""
        self.consumed = min(row + self.batch, len(self.sequence))

    def _whole(self, row: int) -> Batch:
        """The same with everything computed, so that a thread that reads ahead leaves nothing to do."""
        batch = self.at(row)
        batch.described()
        return batch

    def __iter__(self) -> Iterator[Batch]:
        starts = self.starts()
        if self.prefetch < 1:
            for row in starts:
                batch = self.at(row)
                self.pass_batch(row)
                yield batch
            return
        with ThreadPoolExecutor(1) as pool:
            ahead: deque[Future[Batch]] = deque()
            asked = iter(starts)
            for row in starts:
                ahead.extend(pool.submit(self._whole, one) for one in islice(asked, 1 + self.prefetch - len(ahead)))
                batch = ahead.popleft().result()
                self.pass_batch(row)
                yield batch


def differing(before: Mapping[str, Any], now: Mapping[str, Any], prefix: str = "") -> list[str]:
    """Where two trees of fields differ, as ``name: before -> now``; the digest only if nothing else does."""
    found = []
    for key in dict.fromkeys([*before, *now]):
        a, b = before.get(key), now.get(key)
        if a == b or (not prefix and key == "digest"):
            continue
        if isinstance(a, Mapping) and isinstance(b, Mapping):
            found += differing(a, b, f"{prefix}{key}.")
        else:
            found.append(f"{prefix}{key} was {a} and is {b}")
    if not prefix and not found:
        found.append(f"the bytes of its shards differ (digest was {before['digest']} and is {now['digest']})")
    return found
