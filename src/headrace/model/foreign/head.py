"""From last states to logits: what a model's head does, so that the loss can be computed without holding logits."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from torch import Tensor, nn

# Of numbers that stand in for logits: below those that any model reaches, and above them.
SMALLEST, LARGEST = 1e-3, 1e5
_EXACT = 1e-5


@dataclass(frozen=True)
class Head:
    """``logits = squash(scale * (states @ matrix.T + bias))``.

    Attributes:
        scale: a factor, such as Cohere's and Granite's.
        cap: logits lie in (-cap, cap) by ``cap * tanh(logits / cap)``, as in Gemma 2; None: anywhere.
    """

    scale: float = 1.0
    cap: float | None = None

    def __call__(self, products: Tensor) -> Tensor:
        """Logits of the products with the head's matrix."""
        scaled = products * self.scale
        return scaled if self.cap is None else self.cap * torch.tanh(scaled / self.cap)

    @staticmethod
    def of(products: Tensor, logits: Tensor) -> Head | None:
        """The head that makes logits of :func:`stand_ins`; None: it is none of these."""
        if logits.shape != products.shape or logits.is_meta:
            return None
        logits = logits.float()
        last, small = products[..., -1], products.abs() < 2 * SMALLEST
        scale = (logits[small] / products[small]).mean().item()
        whole = (logits[..., -1] / last).mean().item()
        if scale == 0:
            return None
        cap = None if abs(whole / scale - 1) < _EXACT else logits.abs().max().item()
        found = Head(scale if cap else whole, cap)
        return found if torch.allclose(found(products), logits, rtol=_EXACT, atol=0) else None


def stand_ins(like: Tensor) -> Tensor:
    """Numbers of every size and both signs, float32 on the CPU, in the place of a head's output."""
    size = like.numel()
    spread = torch.logspace(torch.tensor(SMALLEST).log10(), torch.tensor(LARGEST).log10(), size, device="cpu")
    return spread.where(torch.arange(size, device="cpu") % 3 > 0, -spread).view(like.shape)


@contextmanager
def overheard(head: nn.Module) -> Iterator[list[Tensor]]:
    """Keep the states that a head is given, and give it those of each row's first token alone.

    Yields:
        The states of each call, [B, T, D].
    """
    heard: list[Tensor] = []

    def shorten(_: nn.Module, given: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        heard.append(given[0])
        return (given[0][:, :1],)

    hook = head.register_forward_pre_hook(shorten)
    try:
        yield heard
    finally:
        hook.remove()
