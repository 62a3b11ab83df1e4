"""Documents that a stage changes (fill-in-the-middle, conversations, headers), encoded once and stored until they are
placed."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import BinaryIO

import numpy as np

from headrace.flow.task import TaskContext

_ENTRY = np.dtype([("code", "<u8"), ("start", "<i8"), ("length", "<i8"), ("loss", "<i8"), ("lead", "<i8")])


def _code(rows: np.ndarray, epochs: np.ndarray | int) -> np.ndarray:
    """One number for a document row (below 2**48) and a copy number (uint16)."""
    return np.asarray(rows, dtype=np.uint64) << np.uint64(16) | np.asarray(epochs, dtype=np.uint64)


class EncodedWriter:
    """Appends encoded documents to a file of tokens and one of loss."""

    def __init__(self, tokens: BinaryIO, loss: BinaryIO, dtype: np.dtype) -> None:
        self._tokens, self._loss, self._dtype = tokens, loss, dtype
        self._at = self._loss_at = 0
        self.entries: list[np.ndarray] = []

    def add(
        self,
        rows: np.ndarray,
        epoch: int,
        tokens: np.ndarray,
        offsets: np.ndarray,
        loss: np.ndarray | None = None,
        end_loss: np.ndarray | None = None,
        leads: np.ndarray | None = None,
    ) -> None:
        """Add documents.

        Args:
            rows: document rows.
            epoch: their copy number.
            tokens: their tokens, concatenated.
            offsets: int64[n + 1] into ``tokens``.
            loss: bool, aligned with ``tokens``; None if every token carries loss.
            end_loss: bool[n], for the end-of-document tokens; given along with ``loss``.
            leads: int64[n], how many of the tokens only the first file of a training document has; None for 0.
        """
        entries = np.empty(len(rows), dtype=_ENTRY)
        entries["code"], entries["start"] = _code(rows, epoch), self._at + offsets[:-1]
        entries["length"] = np.diff(offsets)
        # The loss of a document's end comes after that of its tokens.
        entries["loss"] = -1 if loss is None else self._loss_at + offsets[:-1] + np.arange(len(rows))
        entries["lead"] = 0 if leads is None else leads
        self.entries.append(entries)
        tokens.astype(self._dtype).tofile(self._tokens)
        self._at += len(tokens)
        if loss is not None and end_loss is not None:
            flags = np.insert(loss, offsets[1:], end_loss)
            flags.tofile(self._loss)
            self._loss_at += len(flags)


def _names(task: int) -> tuple[str, str, str]:
    return f"encoded-{task:05d}.tokens", f"encoded-{task:05d}.loss", f"encoded-{task:05d}.npy"


@contextmanager
def writing_encoded(ctx: TaskContext, dtype: np.dtype) -> Iterator[EncodedWriter]:
    """Write the changed documents of this task's shard."""
    tokens, loss, index = _names(ctx.task)
    with ExitStack() as stack:
        files = [stack.enter_context(open(stack.enter_context(ctx.intermediate(n)).path, "wb")) for n in (tokens, loss)]
        writer = EncodedWriter(files[0], files[1], dtype)
        yield writer
    entries = np.concatenate(writer.entries) if writer.entries else np.empty(0, dtype=_ENTRY)
    with ctx.intermediate(index) as out, open(out.path, "wb") as f:
        np.save(f, entries[np.argsort(entries["code"], kind="stable")])


class EncodedReader:
    """The changed documents of a shard.

    Attributes:
        tokens: all of them, concatenated and mapped.
        loss: uint8, those with a loss mask, concatenated, each with its end-of-document token; mapped.
    """

    def __init__(self, ctx: TaskContext, phase: str, task: int, dtype: np.dtype) -> None:
        tokens, loss, index = (ctx.scratch(phase, name) for name in _names(task))
        self.tokens, self.loss = _map(tokens, dtype), _map(loss, np.dtype(np.uint8))
        self._entries = np.load(index) if index.exists() else np.empty(0, dtype=_ENTRY)

    def has(self, rows: np.ndarray) -> np.ndarray:
        """bool[n]: which documents are there as copy 0."""
        return np.isin(_code(rows, 0), self._entries["code"])

    def find(self, rows: np.ndarray, epochs: np.ndarray | int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Find documents: int64 starts in ``tokens``, lengths, and starts in ``loss`` (-1 without a mask)."""
        found = self._found(rows, epochs)
        return found["start"], found["length"], found["loss"]

    def leads(self, rows: np.ndarray, epochs: np.ndarray | int) -> np.ndarray:
        """int64[n]: how many of their tokens only the first file of a training document has."""
        return np.ascontiguousarray(self._found(rows, epochs)["lead"])

    def _found(self, rows: np.ndarray, epochs: np.ndarray | int) -> np.ndarray:
        return np.asarray(self._entries[np.searchsorted(self._entries["code"], _code(rows, epochs))])


def _map(path: Path, dtype: np.dtype) -> np.ndarray:
    if not path.exists() or path.stat().st_size == 0:
        return np.empty(0, dtype=dtype)
    return np.memmap(path, dtype=dtype, mode="r")
