"""Counts what tensors exist: their bytes at once, and the shapes of all that were made."""

from __future__ import annotations

import weakref
from collections.abc import Callable
from typing import Any

import torch
from torch.distributed.tensor import DTensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves


class Counted(TorchDispatchMode):
    """While it is entered, every tensor that an operation makes is counted as long as its memory exists.

    Args:
        on_host: bytes of these that a GPU's host would hold.

    Attributes:
        peak: bytes on the device at most.
        shapes: of all tensors that were made.
    """

    def __init__(self, on_host: Callable[[], int] = lambda: 0) -> None:
        super().__init__()
        self.on_host = on_host
        self.peak = 0
        self.shapes: set[tuple[int, ...]] = set()
        self._known: dict[int, weakref.ref[torch.UntypedStorage]] = {}

    @property
    def live(self) -> int:
        """Bytes now. Sharding takes memory of a storage, and gives it back, without an operation."""
        return sum(storage.nbytes() for one in self._known.values() if (storage := one()) is not None)

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if DTensor in types:  # what it does to each process's part is counted
            return NotImplemented
        out = func(*args, **(kwargs or {}))
        for one in tree_leaves(out):
            if isinstance(one, torch.Tensor):
                self._count(one)
        self.peak = max(self.peak, self.live - self.on_host())
        return out

    def _count(self, tensor: torch.Tensor) -> None:
        self.shapes.add(tuple(tensor.shape))
        storage = tensor.untyped_storage()
        key = storage._cdata
        if key not in self._known:
            self._known[key] = weakref.ref(storage)
            weakref.finalize(storage, self._known.pop, key, None)
