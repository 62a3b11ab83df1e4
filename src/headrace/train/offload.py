"""What a training keeps in host memory: inputs of blocks between forward and backward pass, the optimizer's state.

On a GPU copies are asynchronous: a stream of their own moves one block's input while another block is computed, to and
from pinned memory. On a CPU the same code copies within its memory, and what it counts is what a GPU would hold.
"""

from __future__ import annotations

import weakref
from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.graph import saved_tensors_hooks
from torch.distributed.tensor import DTensor


class CheckpointStore:
    """The inputs of blocks that are computed again in the backward pass (Arctic Long Sequence Training, 2025).

    A block's input is copied to host memory while the block is computed, and given up when the next one's copy begins.
    In the backward pass the input of the block before is fetched while a block is computed. The last input is still
    here when it is needed, and is taken as it is.

    Args:
        device: where the model is.

    Attributes:
        stored, fetched: inputs that have been copied to the host and back.
        on_device, most_on_device: inputs on the device now, and at most so far: two.
        on_host: their bytes in host memory now.
    """

    def __init__(self, device: torch.device) -> None:
        self.device = device
        self.stored = self.fetched = self.on_device = self.most_on_device = self.on_host = 0
        self._stream = torch.cuda.Stream(device) if device.type == "cuda" else None
        self._last: weakref.ref[_Input] | None = None  # of this forward pass
        self._leaving: _Input | None = None

    def around(self, forward: Callable[..., Any]) -> Callable[..., Any]:
        """A block's forward pass whose input is kept here.

        Args:
            forward: as :func:`~headrace.train.parallel.recomputed` makes it for ``full``: torch saves nothing else of
                it, and what it saves of its input saved-tensor hooks can see. The input is its first argument.
        """

        def stored(x: Tensor, *rest: Any, **more: Any) -> Any:
            own = id(x)  # torch holds the hooks, which must not hold the input
            with saved_tensors_hooks(lambda one: self._store(one) if id(one) == own else one, self._back):
                return forward(x, *rest, **more)

        return stored

    def _store(self, x: Tensor) -> _Input:
        kept = _Input(x.detach(), self._last)
        self._count(kept)
        self._give_up()
        kept.host = torch.empty(x.shape, dtype=x.dtype, device="cpu", pin_memory=self._stream is not None)
        self.on_host += kept.host.nbytes
        weakref.finalize(kept, self._freed, kept.host.nbytes)
        kept.event = self._copy(kept.host, x)
        self.stored += 1
        self._leaving, self._last = kept, weakref.ref(kept)
        return kept

    def _back(self, kept: Any) -> Tensor:
        if not isinstance(kept, _Input):
            tensor: Tensor = kept
            return tensor
        if self._leaving is not None and self._leaving is not kept:
            self._give_up()
        self._leaving = None
        if kept.here is None:
            self._fetch(kept)
        found, kept.here = kept.here, None
        assert found is not None
        self._wait(kept)
        before = None if kept.before is None else kept.before()
        if before is not None and before.here is None:
            self._fetch(before)
        return found

    def _fetch(self, kept: _Input) -> None:
        # Its memory is the computation's: the copy waits for what is under way there, and is waited for before its use.
        kept.here = torch.empty_like(kept.host, device=self.device)
        kept.event = self._copy(kept.here, kept.host)
        self.fetched += 1
        self._count(kept)

    def _copy(self, into: Tensor, tensor: Tensor) -> Any:
        if self._stream is None:
            into.copy_(tensor)
            return None
        self._stream.wait_stream(torch.cuda.current_stream(self.device))
        with torch.cuda.stream(self._stream):
            into.copy_(tensor, non_blocking=True)
        return self._stream.record_event()

    def _wait(self, kept: _Input) -> None:
        if kept.event is not None:
            torch.cuda.current_stream(self.device).wait_event(kept.event)

    def _give_up(self) -> None:
        """Let go of the input whose copy is under way, once it is done."""
        if self._leaving is not None:
            self._wait(self._leaving)
            self._leaving.here = None
            self._leaving = None

    def _count(self, kept: _Input) -> None:
        assert kept.here is not None
        self.on_device += 1
        self.most_on_device = max(self.most_on_device, self.on_device)
        weakref.finalize(kept.here.untyped_storage(), self._gone)

    def _gone(self) -> None:
        self.on_device -= 1

    def _freed(self, size: int) -> None:
        self.on_host -= size


class _Input:
    # A block's input: on the host, here, or both; and the one of the block before.
    __slots__ = ("__weakref__", "before", "event", "here", "host")

    host: Tensor
    event: Any

    def __init__(self, here: Tensor, before: weakref.ref[_Input] | None) -> None:
        self.here: Tensor | None = here
        self.before = before
        self.event = None


class Twins:
    """Copies of parameters, or of this process's parts of them, in host memory: an optimizer updates these.

    Args:
        parameters: float32, on any device; they may be sharded.
    """

    def __init__(self, parameters: Iterable[Tensor]) -> None:
        self.of = {parameter: nn.Parameter(_host(local(parameter))) for parameter in parameters}

    def take(self) -> None:
        """Copy weights and gradients to the host."""
        for parameter, twin in self.of.items():
            twin.data.copy_(local(parameter), non_blocking=True)
            if parameter.grad is not None:
                gradient = local(parameter.grad)
                twin.grad = _host(gradient)
                twin.grad.copy_(gradient, non_blocking=True)
        self._wait()

    def give(self) -> None:
        """Copy weights back, and drop the gradients."""
        for parameter, twin in self.of.items():
            local(parameter).copy_(twin.data, non_blocking=True)
            twin.grad = None
        self._wait()

    def _wait(self) -> None:
        if any(parameter.is_cuda for parameter in self.of):
            torch.cuda.current_stream().synchronize()

    def placed(self, parameter: Tensor, state: Tensor) -> Tensor:
        """A tensor of a twin's shape as this process's part of one of the parameter's; they share their memory."""
        if not isinstance(parameter, DTensor) or state.shape != local(parameter).shape:
            return state
        return DTensor(state, parameter._spec, requires_grad=False)


def local(tensor: Tensor) -> Tensor:
    """A tensor, or this process's part of it, without its graph; they share their memory."""
    return (tensor.to_local() if isinstance(tensor, DTensor) else tensor).detach()


def _host(like: Tensor) -> Tensor:
    return torch.empty(like.shape, dtype=like.dtype, device="cpu", pin_memory=like.is_cuda)
