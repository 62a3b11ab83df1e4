"""Scaled dot-product attention: causal, optionally within documents, in memory that grows with the row's length."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Any

import numpy as np
import torch
import torch.nn.functional as fn
from torch import Tensor

KeyValues = tuple[Tensor, Tensor]
"""A layer's keys and values so far, each [B, K, S, E]."""

# Query rows per block on a CPU. Forward and backward of 8 rows x 4 heads x 512 x 64 on two cores with AVX-512 bfloat16:
# blocks of 64, 128, 256, 512 take 25, 18, 14, 28 ms, torch's fused kernel 44 to 52 ms (float32: 41, 35, 36, 87 and 50).
CPU_BLOCK = 256

# A block that sees more keys than this computes its weights again in the backward pass instead of keeping them.
CPU_KEPT = 2048

# Up to this many blocks, torch.compile sees each of them; more would be minutes of compiling.
CPU_TRACED = 8


@dataclass(frozen=True)
class Block:
    """Queries that are attended for together.

    Attributes:
        rows: the rows of the batch.
        start, end: the positions of the queries.
        first: the position of the first key that they see; the last is each query's own.
        unseen: bool [end - start, n], which of the last n keys each query does not see; None: of the block's own, those
            that are later.
    """

    rows: slice
    start: int
    end: int
    first: int
    unseen: Tensor | None = None


@dataclass(frozen=True)
class Documents:
    """Where documents lie in a batch's rows, in the form that the device's attention takes.

    Attributes:
        blocks: the blocks on a CPU.
        masks: flex attention's mask of each window elsewhere.
    """

    blocks: tuple[Block, ...] = ()
    masks: Mapping[int | None, Any] = field(default_factory=dict)

    @staticmethod
    @torch.compiler.disable
    def of(segments: Tensor, windows: Iterable[int | None] = (None,)) -> Documents:
        """The documents of a batch.

        Args:
            segments: [B, T]; a document is a run of equal numbers.
            windows: of the layers.
        """
        if segments.device.type == "cpu":
            return Documents(blocks=tuple(_blocks_of_documents(segments.numpy())))
        return Documents(masks={window: flex_mask(segments, _compiled_mask(), window) for window in windows})


def attend(
    q: Tensor, k: Tensor, v: Tensor, scale: float, documents: Documents | None = None, window: int | None = None
) -> Tensor:
    """Causal attention of T queries over the last T of S >= T keys; S > T only for T = 1.

    Args:
        q: [B, H, T, E].
        k: [B, K, S, E], H a multiple of K (grouped-query attention: each key head serves H / K query heads).
        v: [B, K, S, F].
        scale: factor applied to the scores.
        documents: attend only within a document, for T = S; None: to everything before.
        window: how many keys a query sees at most, its own included; None: all.

    Returns:
        [B, H, T, F].
    """
    T = q.shape[2]
    grouped = k.shape[1] < q.shape[1]
    if T == 1:  # the newest token sees every key
        if window is not None:
            k, v = k[:, :, -window:], v[:, :, -window:]
        return fn.scaled_dot_product_attention(q, k, v, scale=scale, enable_gqa=grouped)
    whole = documents is None and (window is None or window >= T)
    if q.device.type != "cpu":
        if whole:
            return fn.scaled_dot_product_attention(q, k, v, is_causal=True, scale=scale, enable_gqa=grouped)
        mask = _window_mask(T, window, q.device) if documents is None else documents.masks[window]
        return _compiled_flex()(q, k, v, block_mask=mask, scale=scale, enable_gqa=grouped)
    if whole and T <= CPU_TRACED * CPU_BLOCK:
        out: Tensor = _ByBlocks.apply(q, k, v, scale, _causal_blocks(slice(0, len(q)), 0, T))
        return out
    return _untraced(q, k, v, scale, documents, window)


def _causal_blocks(rows: slice, first: int, last: int) -> list[Block]:
    return [Block(rows, start, min(start + CPU_BLOCK, last), first) for start in range(first, last, CPU_BLOCK)]


def _blocks_of_documents(segments: np.ndarray) -> list[Block]:
    # Long documents are cut into blocks; short ones next to each other share one, with a mask.
    blocks = []
    for row, numbers in enumerate(segments):
        changes = np.flatnonzero(numbers[1:] != numbers[:-1]) + 1
        rows, since = slice(row, row + 1), 0
        for start, end in pairwise([0, *changes.tolist(), len(numbers)]):
            if end - since > CPU_BLOCK:
                blocks += _shared_block(rows, numbers, since, start)
                since = start
            if end - start > CPU_BLOCK:
                blocks += _causal_blocks(rows, start, end)
                since = end
        blocks += _shared_block(rows, numbers, since, len(numbers))
    return blocks


def _shared_block(rows: slice, numbers: np.ndarray, start: int, end: int) -> list[Block]:
    if start == end:
        return []
    here = numbers[start:end]
    document = np.cumsum(np.append(False, here[1:] != here[:-1]))
    if document[-1] == 0:
        return [Block(rows, start, end, start)]
    unseen = torch.from_numpy(document[:, None] != document).logical_or_(_later(end - start))
    return [Block(rows, start, end, start, unseen)]


def _windowed(block: Block, window: int) -> Block:
    """A block whose queries see only so many keys, their own included."""
    if block.end - block.first <= window:
        return block
    first, size = max(block.first, block.start - window + 1), block.end - block.start
    ahead = torch.arange(block.start - first, block.end - first)[:, None] - torch.arange(block.end - first)
    unseen = ahead >= window
    unseen[:, -size:] |= _later(size) if block.unseen is None else block.unseen
    return Block(block.rows, block.start, block.end, first, unseen)


def _later(size: int) -> Tensor:
    return torch.ones(size, size, dtype=torch.bool).triu_(1)


@torch.compiler.disable
def _untraced(q: Tensor, k: Tensor, v: Tensor, scale: float, documents: Documents | None, window: int | None) -> Tensor:
    # Each batch has other blocks, and would be compiled anew.
    blocks = _causal_blocks(slice(0, len(q)), 0, q.shape[2]) if documents is None else documents.blocks
    if window is not None:
        blocks = [_windowed(block, window) for block in blocks]
    out: Tensor = _ByBlocks.apply(q, k, v, scale, blocks)
    return out


class _ByBlocks(torch.autograd.Function):
    # Attention block by block: about half of the products of whole rows, fewer with documents. A key head and the G
    # query heads that it serves are one product: [b * K, G * n, E] with [b * K, m, E].

    @staticmethod
    def forward(ctx: Any, q: Tensor, k: Tensor, v: Tensor, scale: float, blocks: Sequence[Block]) -> Tensor:
        q, k, v = q.contiguous(), k.contiguous(), v.contiguous()
        B, H, T, _ = q.shape
        out = torch.empty(B, T, H, v.shape[-1], dtype=q.dtype).transpose(1, 2)  # as the next product wants it
        kept = []
        for block in blocks:
            weights = _weights(q, k, scale, block)
            part = out[block.rows, :, block.start : block.end]
            part.copy_(torch.bmm(weights, _keys(v, block)).view(part.shape))
            if any(ctx.needs_input_grad) and block.end - block.first <= CPU_KEPT:
                kept.append(weights)
        ctx.save_for_backward(q, k, v, *kept)
        ctx.scale, ctx.blocks = scale, blocks
        return out

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, *upstream: Tensor) -> tuple[Tensor | None, ...]:
        q, k, v, *kept = ctx.saved_tensors
        of_q = torch.empty_like(q)
        # Sums of a few blocks; of many in full precision.
        few = all(block.end - block.first <= CPU_KEPT for block in ctx.blocks)
        dtype = q.dtype if few else torch.promote_types(q.dtype, torch.float32)
        of_k, of_v = torch.zeros_like(k, dtype=dtype), torch.zeros_like(v, dtype=dtype)
        for block in ctx.blocks:
            weights = kept.pop(0) if block.end - block.first <= CPU_KEPT else _weights(q, k, ctx.scale, block)
            queries, of_out = _queries(q, k, block), _queries(upstream[0], k, block)
            of_weights = torch.bmm(of_out, _keys(v, block).mT)
            of_scores = torch._softmax_backward_data(of_weights, weights, -1, weights.dtype)
            part = of_q[block.rows, :, block.start : block.end]
            part.copy_(_scaled(of_scores, _keys(k, block), ctx.scale).view(part.shape))
            _add(_keys(of_k, block), of_scores.mT, queries, ctx.scale)
            _add(_keys(of_v, block), weights.mT, of_out, 1.0)
        return of_q, of_k.to(k.dtype), of_v.to(v.dtype), None, None


def _weights(q: Tensor, k: Tensor, scale: float, block: Block) -> Tensor:
    size = block.end - block.start
    scores = _scaled(_queries(q, k, block), _keys(k, block).mT, scale)
    unseen = _later(size) if block.unseen is None else block.unseen
    own = scores.view(-1, size, scores.shape[-1])[..., -unseen.shape[1] :]
    own.add_(torch.zeros(unseen.shape, dtype=q.dtype).masked_fill_(unseen, float("-inf")))
    return scores.softmax(dim=-1)


def _scaled(a: Tensor, b: Tensor, scale: float) -> Tensor:
    return torch.baddbmm(a.new_empty(1, 1, 1), a, b, beta=0, alpha=scale)


def _add(total: Tensor, a: Tensor, b: Tensor, scale: float) -> None:
    if total.dtype == a.dtype:
        total.baddbmm_(a, b, alpha=scale)
    else:
        total.add_(_scaled(a, b, scale))


def _queries(q: Tensor, k: Tensor, block: Block) -> Tensor:
    part = q[block.rows, :, block.start : block.end]
    return part.reshape(len(part) * k.shape[1], -1, q.shape[-1])


def _keys(k: Tensor, block: Block) -> Tensor:
    return k[block.rows, :, block.first : block.end].flatten(0, 1)


def flex_mask(segments: Tensor, create: Callable[..., Any], window: int | None = None) -> Any:
    """The mask of causal attention within documents for flex attention.

    Args:
        segments: [B, T]; a document is a run of equal numbers.
        create: ``create_block_mask``, compiled or not.
        window: how many keys a query sees at most; None: all.
    """
    document = fn.pad((segments[:, 1:] != segments[:, :-1]).cumsum(1), (1, 0))
    B, T = segments.shape
    near = T if window is None else window

    def seen(row: Tensor, head: Tensor, query: Tensor, key: Tensor) -> Tensor:
        return (query >= key) & (query - key < near) & (document[row, query] == document[row, key])

    return create(seen, B, None, T, T, device=segments.device)


@torch.compiler.disable
@functools.lru_cache(maxsize=8)
def _window_mask(size: int, window: int | None, device: torch.device) -> Any:
    return flex_mask(torch.zeros(1, size, device=device), _compiled_mask(), window)


@functools.cache
def _compiled_mask() -> Callable[..., Any]:
    from torch.nn.attention.flex_attention import create_block_mask

    return torch.compile(create_block_mask)  # otherwise it makes the dense mask first


@functools.cache
def _compiled_flex() -> Callable[..., Any]:
    from torch.nn.attention.flex_attention import flex_attention

    return torch.compile(flex_attention)
