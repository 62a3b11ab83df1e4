"""A sequence as a PyTorch ``IterableDataset``."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
from torch.utils.data import IterableDataset, get_worker_info

from headrace.sequence.loader import Batch, Loader


class SequenceDataset(IterableDataset[dict[str, torch.Tensor]]):
    """Yields ``{"tokens": int64[B, L + 1], "loss": bool[B, L], "segment_ids", "positions": int32[B, L]}``.

    Items are whole batches, so pass it to ``DataLoader(dataset, batch_size=None)``. With several loader workers, each
    reads every n-th batch, and DataLoader restores the order.

    Args:
        sequence: an opened sequence or its folder.
        batch: rows per batch, over all ranks.
        options: as for :class:`headrace.sequence.loader.Loader`.
    """

    def __init__(self, sequence: Any, batch: int, **options: Any) -> None:
        self.loader = Loader(sequence, batch, **{"dtype": "int64", **options})

    def __iter__(self) -> Iterator[dict[str, torch.Tensor]]:
        worker = get_worker_info()
        if worker is None:
            for batch in self.loader:
                yield tensors(batch)
            return
        first = self.loader.consumed
        for number in range(worker.id, len(self.loader), worker.num_workers):
            yield tensors(self.loader.at(first + number * self.loader.batch))

    def state_dict(self) -> dict[str, Any]:
        """The loader's state; counts what this process yielded, so use it without loader workers."""
        return self.loader.state_dict()

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Continue where a state was taken."""
        self.loader.load_state_dict(state)


def tensors(batch: Batch) -> dict[str, torch.Tensor]:
    """A batch as tensors that share its memory."""
    return {name: torch.from_numpy(array) for name, array in batch._asdict().items()}
