"""A sequence for ``torch.utils.data`` and the ``transformers`` Trainer."""

from __future__ import annotations

import copy
import os
from collections.abc import Iterator, Mapping, Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from torch.utils.data import DataLoader, Dataset, IterableDataset, Sampler, get_worker_info

from headrace.errors import UserError
from headrace.sequence.batch import read
from headrace.sequence.loader import Loader
from headrace.sequence.reader import SequenceReader
from headrace.sequence.store import open_sequence
from headrace.sequence.windows import JOINED, PADDING

NO_LOSS = -100  # `ignore_index` of torch's cross_entropy and of transformers

Tensors = dict[str, torch.Tensor]


class TorchDataset(Dataset[Tensors]):
    """A sequence as a map-style dataset: item i is row i, in training order, as a causal language model takes it.

    The models of ``transformers`` shift labels themselves: the label at a position is the target of the position
    before. So an item has all L + 1 tokens of a row, and its L targets are those of the row:

    - ``input_ids``: int64[L + 1].
    - ``labels``: int64[L + 1]: the token where it carries loss as a target, else -100; always -100 for the first.
    - ``position_ids``: int64[L + 1]. If they restart with each document, ``transformers`` also keeps attention within
      documents, because there is no ``attention_mask`` (unless the model is told to keep a cache, which the Trainer
      turns off).

    Rows are in training order, so nothing may shuffle them: the Trainer does unless it is told
    ``TrainingArguments(train_sampling_strategy="sequential")``. Any number of workers, forked or spawned, may read.

    Args:
        sequence: an opened sequence, in any format, or the folder of one of headrace's own.
        positions: ``row``: positions count through a row; ``document``: they restart at 0 with each segment.
        shifted: for your own loop, and for models with room for exactly L positions: ``input_ids`` and
            ``position_ids`` have L entries, and ``labels`` holds the target of each. ``shift_labels`` is the same; it
            tells ``transformers`` not to shift (with ``TrainingArguments(remove_unused_columns=False)``).
    """

    def __init__(
        self,
        sequence: SequenceReader | Path | str,
        *,
        positions: Literal["row", "document"] = "row",
        shifted: bool = False,
    ) -> None:
        self.sequence: SequenceReader = sequence if isinstance(sequence, SequenceReader) else open_sequence(sequence)
        self.restart, self.shifted = positions == "document", shifted
        self._process = os.getpid()

    def __len__(self) -> int:
        return len(self.sequence)

    def __getitem__(self, row: int) -> Tensors:
        [item] = self.__getitems__([row])
        return item

    def __getitems__(self, rows: Sequence[int]) -> list[Tensors]:
        """Several rows at once, which a DataLoader asks for. Rows that follow one another are read together.

        Raises:
            IndexError: there is no such row.
        """
        size = len(self.sequence)
        asked = np.array([row + size if row < 0 else row for row in map(int, rows)], dtype=np.int64)
        if asked.size and not (asked.min() >= 0 and asked.max() < size):
            raise IndexError(f"rows {list(rows)} of a sequence of {size} rows")
        cuts = [0, *(np.flatnonzero(np.diff(asked) != 1) + 1).tolist(), len(asked)] if asked.size else []
        items: list[Tensors] = []
        for a, b in pairwise(cuts):
            batch = self.tensors(int(asked[a]), int(asked[b - 1]) + 1)
            items += [{name: tensor[i] for name, tensor in batch.items()} for i in range(b - a)]
        return items

    def tensors(self, start: int, stop: int) -> Tensors:
        """Rows ``start`` to ``stop`` as one batch, [stop - start, ...] each."""
        if os.getpid() != self._process:
            # Forked: the files that the parent has open share their place in the file with it.
            self.sequence, self._process = copy.copy(self.sequence), os.getpid()
        batch = read(self.sequence, start, stop, np.dtype(np.int64), self.restart)
        targets = np.where(batch.loss, batch.tokens[:, 1:], NO_LOSS)
        if self.shifted:
            labels = torch.from_numpy(targets)
            return {
                "input_ids": torch.from_numpy(batch.tokens[:, :-1]),
                "labels": labels,
                "shift_labels": labels,
                "position_ids": torch.from_numpy(batch.positions.astype(np.int64)),
            }
        aligned, positions = np.full_like(batch.tokens, NO_LOSS), np.empty_like(batch.tokens)
        aligned[:, 1:] = targets
        positions[:, :-1] = batch.positions
        positions[:, -1] = positions[:, -2] + 1
        segments = self.sequence.segments_in(start, stop) if self.restart else None
        if segments is not None:
            low, high = segments.bounds[0], segments.bounds[-1]
            row = np.repeat(np.arange(stop - start), np.diff(segments.bounds))
            first, kind = (segments.columns[name][low:high] for name in ("start", "kind"))
            begins = (first == self.sequence.seq_len) & ((kind == PADDING) | (kind & JOINED == 0))
            positions[row[begins], -1] = 0
        arrays = {"input_ids": batch.tokens, "labels": aligned, "position_ids": positions}
        return {name: torch.from_numpy(array) for name, array in arrays.items()}

    def loader(
        self,
        batch: int,
        *,
        rank: int = 0,
        world_size: int = 1,
        start: int = 0,
        state: Mapping[str, Any] | None = None,
        drop_last: bool = True,
        **options: Any,
    ) -> TorchLoader:
        """A ``DataLoader`` whose state is right with any number of workers.

        Args:
            batch: rows per batch, over all ranks.
            rank: the slice of each batch to take.
            world_size: the number of slices.
            start: the row to start at.
            state: from ``state_dict()`` of any loader of this sequence; replaces ``start``.
            drop_last: drop rows at the end that do not fill a batch.
            options: of ``torch.utils.data.DataLoader``, such as ``num_workers`` and ``pin_memory``.

        Raises:
            UserError: as :class:`headrace.sequence.loader.Loader`.
        """
        of = Loader(
            self.sequence, batch, rank=rank, world_size=world_size, start=start, state=state, drop_last=drop_last
        )
        return TorchLoader(self, of, options)

    def batches(
        self,
        batch: int,
        *,
        rank: int = 0,
        world_size: int = 1,
        start: int = 0,
        state: Mapping[str, Any] | None = None,
        drop_last: bool = True,
    ) -> TorchBatches:
        """The iterable face: whole batches, for ``DataLoader(batches, batch_size=None)``.

        Args and errors are those of :meth:`loader`.
        """
        of = Loader(
            self.sequence, batch, rank=rank, world_size=world_size, start=start, state=state, drop_last=drop_last
        )
        return TorchBatches(self, of)


class TorchLoader(DataLoader[Tensors]):
    """Batches of a :class:`TorchDataset`, read by workers and counted where they are handed out.

    Iterating goes on at the first row that was not handed out. The state is that of
    :class:`headrace.sequence.loader.Loader`: it holds for any number of workers, batch and world size.

    Args:
        dataset: the rows.
        progress: which rows this process takes, and how far it has come.
        options: of ``DataLoader``.
    """

    def __init__(self, dataset: TorchDataset, progress: Loader, options: Mapping[str, Any]) -> None:
        self.progress = progress
        super().__init__(dataset, batch_sampler=_Shares(progress), **options)

    def __iter__(self) -> Iterator[Any]:  # type: ignore[override]
        for row, batch in zip(self.progress.starts(), super().__iter__(), strict=True):
            self.progress.pass_batch(row)
            yield batch

    def state_dict(self) -> dict[str, Any]:
        """Rows handed out by all ranks together, and the sequence's fingerprint. JSON values."""
        return self.progress.state_dict()

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Continue where a state was taken, in the next iteration.

        Raises:
            UserError: it is no state, or another sequence's.
        """
        self.progress.load_state_dict(state)


class _Shares(Sampler[list[int]]):
    """The rows of this rank in each batch that is left."""

    def __init__(self, progress: Loader) -> None:
        self.progress = progress

    def __len__(self) -> int:
        return len(self.progress)

    def __iter__(self) -> Iterator[list[int]]:
        for row in self.progress.starts():
            yield list(range(*self.progress.share(row)))


class TorchBatches(IterableDataset[Tensors]):
    """Batches of a :class:`TorchDataset` as an iterable dataset; items are whole batches of [B, ...].

    With several workers, each reads every n-th batch, and ``DataLoader(batches, batch_size=None)`` restores the order.
    Each iteration starts at the row that was set last, by ``start`` or a state. ``state_dict`` is for iterating without
    workers, and for ``torchdata``'s ``StatefulDataLoader``, which asks each worker for its own.

    Args:
        dataset: the rows.
        progress: which rows this process takes, and where it starts.
    """

    def __init__(self, dataset: TorchDataset, progress: Loader) -> None:
        self.dataset, self.progress = dataset, progress
        self.start = progress.consumed
        # Workers tell whoever asks for a state elsewhere.
        self._in_workers = torch.zeros(1, dtype=torch.uint8).share_memory_()

    def __len__(self) -> int:
        return len(self._from_start())

    def _from_start(self) -> range:
        self.progress.consumed, now = self.start, self.progress.consumed
        starts = self.progress.starts()
        self.progress.consumed = now
        return starts

    def __iter__(self) -> Iterator[Tensors]:
        worker = get_worker_info()
        number, workers = (0, 1) if worker is None else (worker.id, worker.num_workers)
        if worker is not None:
            self._in_workers[0] = 1
        progress, starts = self.progress, self._from_start()
        for row in starts[number::workers]:
            batch = self.dataset.tensors(*progress.share(row))
            # A worker's state counts whole rounds of all workers: it goes on with its own part of the next round.
            progress.consumed = min(row + (workers - number) * progress.batch, len(progress.sequence))
            yield batch

    def state_dict(self) -> dict[str, Any]:
        """Where iterating in this process stands.

        Raises:
            UserError: worker processes have iterated, of which this one knows nothing.
        """
        if self._in_workers[0] and get_worker_info() is None:
            raise UserError(
                "Worker processes read these batches, so this one cannot say which were handed out.",
                str(self.progress.sequence.path),
                "Use `TorchDataset.loader(batch, num_workers=...)`, whose `state_dict` is right with workers.",
            )
        return self.progress.state_dict()

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Start where a state was taken.

        Raises:
            UserError: it is no state, or another sequence's.
        """
        self.progress.load_state_dict(state)
        self.start = self.progress.consumed
