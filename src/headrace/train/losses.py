"""Losses by row and by token, as files of entries of one size (little-endian):

    row_losses.bin          step <u8, loss <f4[batch], targets <u4[batch]
    token_losses.bin        step <u8, row <u8, loss <f2[seq_len]
    spike_row_losses.bin    as row_losses.bin, of outlying steps
    spike_token_losses.bin  as token_losses.bin, of the rows of outlying steps whose loss was highest

Steps count from 1, as in the log. A row's loss is the mean of its targets in nats, NaN without any; a token's is that
of the target of each position, or -1 where it carries none. Losses that are not finite stay so. Entries of tokens are
padded to a multiple of 8 bytes. The first two are cut back with the log; the others keep what was rolled back, as
``spikes.jsonl`` does.
"""

from __future__ import annotations

import math
import os
from collections.abc import Collection, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

import numpy as np

from headrace.flow.storage import replacing
from headrace.train.appended import Appended

ROWS, TOKENS = "row_losses.bin", "token_losses.bin"
SPIKE_ROWS, SPIKE_TOKENS = "spike_row_losses.bin", "spike_token_losses.bin"
NO_TARGET = -1.0
HIGHEST = float(np.finfo(np.float16).max)  # of a token's loss that is finite
BLOCK = 1 << 22  # bytes read at a time


def row_entry(batch: int) -> np.dtype:
    """The type of an entry of :data:`ROWS`: a step."""
    return np.dtype([("step", "<u8"), ("loss", "<f4", (batch,)), ("targets", "<u4", (batch,))])


def token_entry(seq_len: int) -> np.dtype:
    """The type of an entry of :data:`TOKENS`: a row."""
    names, formats = ["step", "row", "loss"], ["<u8", "<u8", ("<f2", (seq_len,))]
    size = 16 + -(-2 * seq_len // 8) * 8
    return np.dtype({"names": names, "formats": formats, "offsets": [0, 8, 16], "itemsize": size})


@dataclass(frozen=True)
class RowLosses:
    """The rows of a step.

    Attributes:
        loss: float32[B], the mean loss of each row's targets in nats; NaN without any.
        targets: int64[B], how many carried loss.
    """

    loss: np.ndarray
    targets: np.ndarray

    @staticmethod
    def of(sums: np.ndarray, targets: np.ndarray) -> RowLosses:
        """From each row's summed losses and targets, float64[B]."""
        mean = np.where(targets > 0, sums / np.maximum(targets, 1), np.nan)
        return RowLosses(mean.astype(np.float32), targets.astype(np.int64))

    @property
    def order(self) -> np.ndarray:
        """int64[B], the rows by their loss, highest first: before them what is not finite, behind them what has no
        targets."""
        loss = np.where(np.isfinite(self.loss), self.loss, np.inf)
        return np.argsort(np.where(self.targets > 0, -loss, np.inf), kind="stable")

    def highest(self, most: int) -> np.ndarray:
        """int64: at most so many of the rows with targets, in that order."""
        return self.order[: min(most, int((self.targets > 0).sum()))]

    def entry(self, step: int) -> bytes:
        """As :func:`row_entry` has it."""
        one = np.zeros(1, dtype=row_entry(len(self.loss)))
        one["step"], one["loss"], one["targets"] = step, self.loss, self.targets
        return one.tobytes()


def token_entries(step: int, rows: np.ndarray, losses: np.ndarray) -> bytes:
    """Rows as :func:`token_entry` has them.

    Args:
        step: their step.
        rows: int[n], their numbers in the sequence.
        losses: float16[n, L].
    """
    found = np.zeros(len(rows), dtype=token_entry(losses.shape[1]))
    found["step"], found["row"], found["loss"] = step, rows, losses
    return found.tobytes()


class LossLog:
    """The losses of a training underway, in its trajectory's folder.

    Args:
        folder: the folder.
        batch: rows of a step.
        seq_len: targets of a row.
        lengths: as :class:`~headrace.train.appended.Appended` has them.
    """

    def __init__(self, folder: Path, batch: int, seq_len: int, lengths: dict[str, int]) -> None:
        self._folder = folder
        self._sizes = {
            SPIKE_ROWS: row_entry(batch).itemsize,
            SPIKE_TOKENS: token_entry(seq_len).itemsize,
        }
        log = {ROWS: self._sizes[SPIKE_ROWS], TOKENS: self._sizes[SPIKE_TOKENS]}
        self._files = Appended(folder, log, lengths)
        self.lengths, self.close = self._files.lengths, self._files.close

    def rows(self, step: int, rows: RowLosses) -> None:
        """Append a step's rows."""
        self._files.add(ROWS, rows.entry(step))

    def tokens(self, step: int, rows: np.ndarray, losses: np.ndarray) -> None:
        """Append the tokens of a step's rows; arguments as for :func:`token_entries`."""
        self._files.add(TOKENS, token_entries(step, rows, losses))

    def spike(self, step: int, rows: RowLosses, numbers: np.ndarray, losses: np.ndarray) -> None:
        """Append an outlying step, flushed to disk.

        Args:
            step: the step.
            rows: its rows.
            numbers: int[n], the numbers of those with the highest loss.
            losses: float16[n, L], of their tokens.
        """
        for name, data in ((SPIKE_TOKENS, token_entries(step, numbers, losses)), (SPIKE_ROWS, rows.entry(step))):
            with open(self._folder / name, "ab") as file:
                file.truncate(file.tell() - file.tell() % self._sizes[name])  # an entry that a kill cut short
                file.write(data)
                file.flush()
                os.fsync(file.fileno())


def forget(folder: Path, batch: int, seq_len: int, steps: Collection[int]) -> None:
    """Forget the outlying steps that are none of ``steps``."""
    for name, kind in ((SPIKE_ROWS, row_entry(batch)), (SPIKE_TOKENS, token_entry(seq_len))):
        path = folder / name
        if path.exists():
            found = np.fromfile(path, dtype=kind)  # without an entry that was cut short
            kept = found[np.isin(found["step"], list(steps))]
            if kept.nbytes < path.stat().st_size:
                with replacing(path) as temporary:
                    kept.tofile(temporary)


def rows_of(folder: Path, batch: int, step: int) -> RowLosses | None:
    """The losses of a step's rows; None where they were not recorded.

    Args:
        folder: a trajectory's, or that of its model.
        batch: rows of a step.
        step: the step.
    """
    kind = row_entry(batch)
    found = _logged(folder / ROWS, kind, step, step)
    if not len(found):
        found = _at(folder / SPIKE_ROWS, kind, step)
    return None if not len(found) else RowLosses(found[-1]["loss"], found[-1]["targets"].astype(np.int64))


def tokens_of(folder: Path, seq_len: int, step: int, rows: Collection[int] | None = None) -> dict[int, np.ndarray]:
    """float16[L] of each row of a step whose tokens were recorded, by the row's number in the sequence.

    Args:
        folder: a trajectory's, or that of its model.
        seq_len: targets of a row.
        step: the step.
        rows: those wanted, which follow one another; None for all of the step.
    """
    kind = token_entry(seq_len)
    found = _logged(folder / TOKENS, kind, step, step, rows)
    if not len(found):
        found = _at(folder / SPIKE_TOKENS, kind, step)
    return {int(one["row"]): one["loss"] for one in found if rows is None or int(one["row"]) in rows}


def with_tokens(folder: Path, seq_len: int, step: int) -> set[int]:
    """The rows of a step whose tokens' losses were recorded; arguments as for :func:`tokens_of`. Reads no losses."""
    kind = token_entry(seq_len)
    try:
        with open(folder / TOKENS, "rb") as file:
            at, end = _place(file, kind, step), _place(file, kind, step + 1)
            if at < end:
                return {_word(file, i * kind.itemsize + 8) for i in range(at, end)}
    except FileNotFoundError:
        pass
    return {int(row) for row in _at(folder / SPIKE_TOKENS, kind, step)["row"]}


def mean_of(tokens: np.ndarray, start: int, length: int) -> tuple[float, int]:
    """The mean loss of the tokens at some positions of a row, NaN without targets, and how many carried loss.

    Args:
        tokens: float16[L], as :func:`tokens_of` has them: that of position p is at p - 1.
        start: the first position.
        length: how many.
    """
    some = tokens[max(start, 1) - 1 : max(start + length - 1, 0)].astype(np.float64)
    some = some[some != NO_TARGET]
    return (float(some.mean()) if len(some) else math.nan), len(some)


def blocks(folder: Path, batch: int, first: int, last: int) -> Iterator[np.ndarray]:
    """Entries (:func:`row_entry`) of steps ``first`` to ``last`` in order, some at a time."""
    kind = row_entry(batch)
    try:
        with open(folder / ROWS, "rb") as file:
            at, end = _place(file, kind, first), _place(file, kind, last + 1)
            while at < end:
                found = _read(file, kind, at, min(end - at, max(1, BLOCK // kind.itemsize)))
                if not len(found):
                    return  # cut back meanwhile
                yield found
                at += len(found)
    except FileNotFoundError:
        return


def _logged(path: Path, kind: np.dtype, first: int, last: int, rows: Collection[int] | None = None) -> np.ndarray:
    """The entries about steps ``first`` to ``last`` of a file in order of steps; of a step whose rows are all there,
    those of some rows."""
    try:
        with open(path, "rb") as file:
            at, end = _place(file, kind, first), _place(file, kind, last + 1)
            if rows and at < end:
                before = _word(file, at * kind.itemsize + 8)
                at, end = max(at, at + min(rows) - before), min(end, at + max(rows) + 1 - before)
            return _read(file, kind, at, max(0, end - at))
    except FileNotFoundError:
        return np.empty(0, dtype=kind)


def _at(path: Path, kind: np.dtype, step: int) -> np.ndarray:
    """The entries about a step of a file in any order."""
    try:
        with open(path, "rb") as file:
            heads = range(os.fstat(file.fileno()).st_size // kind.itemsize)
            found = [_read(file, kind, i, 1) for i in heads if _step(file, kind, i) == step]
    except FileNotFoundError:
        found = []
    return np.concatenate([np.empty(0, dtype=kind), *found])


def _place(file: BinaryIO, kind: np.dtype, step: int) -> int:
    """The first entry of that step or a later one, by halving."""
    low, high = 0, os.fstat(file.fileno()).st_size // kind.itemsize
    while low < high:
        middle = (low + high) // 2
        low, high = (middle + 1, high) if _step(file, kind, middle) < step else (low, middle)
    return low


def _step(file: BinaryIO, kind: np.dtype, i: int) -> int:
    return _word(file, i * kind.itemsize)


def _word(file: BinaryIO, place: int) -> int:
    # Not mapped: a resumed training cuts the file, and reading beyond its end would kill the reader.
    return int.from_bytes(os.pread(file.fileno(), 8, place), "little")


def _read(file: BinaryIO, kind: np.dtype, i: int, count: int) -> np.ndarray:
    data = os.pread(file.fileno(), count * kind.itemsize, i * kind.itemsize)
    return np.frombuffer(data, dtype=kind, count=len(data) // kind.itemsize)
