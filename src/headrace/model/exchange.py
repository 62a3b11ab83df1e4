"""Attention over rows that several processes share: each has a stretch of every row (sequence parallelism)."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Iterable
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor

from headrace.errors import UserError
from headrace.model.attention import Documents, attend
from headrace.sequence.stretch import Stretch


class Exchange(ABC):
    """How S processes attend to rows that they share.

    Shapes: H query heads, K key-value heads, n = T / S positions of this process, E dimensions per head.

    Args:
        group: the processes.
    """

    def __init__(self, group: dist.ProcessGroup) -> None:
        self.group, self.size = group, group.size()

    @property
    @abstractmethod
    def stretch(self) -> Stretch:
        """The part of each row that is this process's."""

    @abstractmethod
    def documents(self, segments: Tensor, windows: Iterable[int | None]) -> Any:
        """What :meth:`attend` needs to know of the documents of whole rows.

        Args:
            segments: [B, T]; a document is a run of equal numbers.
            windows: of the layers.
        """

    @abstractmethod
    def attend(
        self,
        q: Tensor,
        k: Tensor,
        v: Tensor,
        scale: float,
        documents: Any,
        window: int | None,
        cap: float | None = None,
        sinks: Tensor | None = None,
    ) -> Tensor:
        """Attention of a stretch's queries over whole rows.

        Args:
            q: [B, H, n, E].
            k: [B, K, n, E].
            v: [B, K, n, F].
            scale: as for :func:`~headrace.model.attention.attend`.
            documents: from :meth:`documents`; None: attend to everything before.
            window, cap, sinks: as for :func:`~headrace.model.attention.attend`; the sinks of all heads.

        Returns:
            [B, H, n, F].
        """

    def check(self, heads: Iterable[int], tensor_size: int = 1) -> None:
        """Check that this is possible.

        Args:
            heads: how many query heads a layer has, of each kind of layer.
            tensor_size: among how many processes these are divided before.

        Raises:
            UserError: it is not.
        """
        return

    @torch.compiler.disable
    def highest(self, numbers: Tensor) -> Tensor:
        """The highest of all processes, of each number."""
        found = numbers.clone()
        dist.all_reduce(found, op=dist.ReduceOp.MAX, group=self.group)
        return found


def check_heads(heads: Iterable[int], size: int, tensor_size: int, where: str) -> None:
    """Check that heads can be divided.

    Args:
        heads: how many query heads a layer has, of each kind of layer.
        size: how many processes share each row.
        tensor_size: among how many processes heads are divided before.
        where: the `train` section, for errors.

    Raises:
        UserError: they cannot.
    """
    for count in (many // tensor_size for many in heads):
        if count % size:
            each = f" of each of {tensor_size} processes that share the matrices" if tensor_size > 1 else ""
            raise UserError(
                f"{count} attention heads{each} cannot be divided among {size} processes that share each row.",
                f"{where}.long.sequence_parallel",
                f"Use {', '.join(str(n) for n in range(1, count + 1) if count % n == 0)}; or set context: ring.",
            )


class Ulysses(Exchange):
    """DeepSpeed Ulysses (Jacobs et al., 2023): for attention, processes trade stretches of all heads for whole rows of
    some heads, and afterwards back.

    H must be a multiple of S; where K is none, each key-value head goes to several processes, whose gradients are
    summed. The process of rank r has positions [r n, (r + 1) n) of each row.
    """

    @property
    def stretch(self) -> Stretch:
        """See :class:`Exchange`."""
        return Stretch((dist.get_rank(self.group),), self.size)

    def check(self, heads: Iterable[int], tensor_size: int = 1) -> None:
        """See :class:`Exchange`."""
        check_heads(heads, self.size, tensor_size, "train")

    def documents(self, segments: Tensor, windows: Iterable[int | None]) -> Documents:
        """See :class:`Exchange`."""
        return Documents.of(segments, windows)

    def attend(
        self,
        q: Tensor,
        k: Tensor,
        v: Tensor,
        scale: float,
        documents: Any,
        window: int | None,
        cap: float | None = None,
        sinks: Tensor | None = None,
    ) -> Tensor:
        """See :class:`Exchange`."""
        q, k, v = self.heads(q, k, v)
        if sinks is not None:
            sinks = sinks.view(self.size, -1)[dist.get_rank(self.group)]
        return self.sequence(attend(q, k, v, scale, documents, window, cap, sinks))

    @torch.compiler.disable
    def heads(self, q: Tensor, k: Tensor, v: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """From stretches of all heads to whole rows of this process's.

        Args:
            q: [B, H, n, E].
            k: [B, K, n, E].
            v: [B, K, n, F].

        Returns:
            [B, H / S, T, E], [B, K', T, E] and [B, K', T, F]: of those query heads their key-value heads, H / S a
            multiple of K'.
        """
        copies = self.size // math.gcd(k.shape[1], self.size)
        if copies > 1:
            k, v = (x.repeat_interleave(copies, dim=1) for x in (k, v))
        parts = [x.unflatten(1, (self.size, -1)).movedim(1, 0) for x in (q, k, v)]  # [S, B, heads, n, E]
        flat = [part.flatten(1) for part in parts]
        found = self._traded(torch.cat(flat, dim=1)).split([one.shape[1] for one in flat], dim=1)
        shaped = (one.view(part.shape) for one, part in zip(found, parts, strict=True))
        q, k, v = (one.permute(1, 2, 0, 3, 4).flatten(2, 3) for one in shaped)
        return q, k, v

    @torch.compiler.disable
    def sequence(self, y: Tensor) -> Tensor:
        """From whole rows of this process's heads [B, H / S, T, E] to its stretch of all heads [B, H, n, E]."""
        parts = y.unflatten(2, (self.size, -1)).permute(2, 0, 1, 3, 4)
        return self._traded(parts).transpose(0, 1).flatten(1, 2)

    def _traded(self, parts: Tensor) -> Tensor:
        """[S, ...], what goes to each process, for [S, ...], what comes from each."""
        out: Tensor = _Traded.apply(parts, self.group)
        return out


class _Traded(torch.autograd.Function):
    # Part r of process s becomes part s of process r; of the gradients the same.

    @staticmethod
    def forward(ctx: Any, parts: Tensor, group: dist.ProcessGroup) -> Tensor:
        ctx.group = group
        return _trade(parts, group)

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, *upstream: Tensor) -> tuple[Tensor | None, ...]:
        return _trade(upstream[0], ctx.group), None


def _trade(parts: Tensor, group: dist.ProcessGroup) -> Tensor:
    sent = parts.contiguous()
    received = torch.empty_like(sent)
    dist.all_to_all_single(received, sent, group=group)
    return received
