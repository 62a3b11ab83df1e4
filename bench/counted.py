"""What tensors hold on the device while a step is computed."""

from __future__ import annotations

import weakref
from collections.abc import Callable
from typing import Any

import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves


class DeviceBytes(TorchDispatchMode):
    """Counts the memory of every tensor that an operation makes, as long as it exists.

    Args:
        on_host: bytes of these that a GPU's host would hold.

    Attributes:
        live, peak: bytes now, and on the device at most.
    """

    def __init__(self, on_host: Callable[[], int]) -> None:
        super().__init__()
        self.on_host = on_host
        self.live = self.peak = 0
        self._known: set[int] = set()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        out = func(*args, **(kwargs or {}))
        for one in tree_leaves(out):
            if isinstance(one, torch.Tensor) and one.untyped_storage()._cdata not in self._known:
                storage = one.untyped_storage()
                self._known.add(storage._cdata)
                self.live += storage.nbytes()
                weakref.finalize(storage, self._gone, storage._cdata, storage.nbytes())
        self.peak = max(self.peak, self.live - self.on_host())
        return out

    def _gone(self, key: int, size: int) -> None:
        self._known.discard(key)
        self.live -= size
