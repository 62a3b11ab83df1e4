"""Attention on a CPU, block by block of queries: memory grows with the row's length, gradients are exact.

Products are about half of those of whole rows, fewer with documents. A key head and the G query heads that it serves
are one product: [b * K, G * n, E] with [b * K, m, E].
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np
import torch
from torch import Tensor

# Query rows per block. Forward and backward of 8 rows x 4 heads x 512 x 64 on two cores with AVX-512 bfloat16: blocks
# of 64, 128, 256, 512 take 25, 18, 14, 28 ms, torch's fused kernel 44 to 52 ms (float32: 41, 35, 36, 87 and 50).
BLOCK = 256

# A block that sees more keys than this computes its weights again in the backward pass instead of keeping them.
KEPT = 2048


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
class Scores:
    """What becomes of products of queries and keys.

    Attributes:
        scale: a factor.
        cap: scores lie in (-cap, cap), by ``cap * tanh(scores / cap)``; None: anywhere.
    """

    scale: float
    cap: float | None = None

    def put_under_cap(self, scores: Tensor, again: bool) -> Tensor | None:
        """Change scores in place; ``again``: return by what their gradient is to be multiplied."""
        if self.cap is None:
            return None
        scores.div_(self.cap).tanh_()
        slope = scores.square().neg_().add_(1) if again else None
        scores.mul_(self.cap)
        return slope


def causal_blocks(rows: slice, first: int, last: int) -> list[Block]:
    """The blocks of positions [first, last), which see one another."""
    return [Block(rows, start, min(start + BLOCK, last), first) for start in range(first, last, BLOCK)]


def blocks_of_documents(segments: np.ndarray) -> list[Block]:
    """The blocks of rows [B, T] in which a document is a run of equal numbers.

    Long documents are cut into blocks; short ones next to each other share one, with a mask.
    """
    blocks = []
    for row, numbers in enumerate(segments):
        changes = np.flatnonzero(numbers[1:] != numbers[:-1]) + 1
        rows, since = slice(row, row + 1), 0
        for start, end in pairwise([0, *changes.tolist(), len(numbers)]):
            if end - since > BLOCK:
                blocks += _shared_block(rows, numbers, since, start)
                since = start
            if end - start > BLOCK:
                blocks += causal_blocks(rows, start, end)
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


def windowed(block: Block, window: int) -> Block:
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


def attend_by_blocks(
    q: Tensor, k: Tensor, v: Tensor, sinks: Tensor | None, scores: Scores, blocks: Sequence[Block]
) -> Tensor:
    """Attention, as :func:`headrace.model.attention.attend` has it.

    Args:
        q: [B, H, T, E].
        k: [B, K, T, E].
        v: [B, K, T, F].
        sinks: [H] or None.
        scores: what becomes of products.
        blocks: of queries; each is in one.

    Returns:
        [B, H, T, F], which can be differentiated once.
    """
    out: Tensor = _ByBlocks.apply(q, k, v, sinks, scores, blocks)
    return out


class _ByBlocks(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, q: Tensor, k: Tensor, v: Tensor, sinks: Tensor | None, scores: Scores, blocks: Sequence[Block]
    ) -> Tensor:
        q, k, v = q.contiguous(), k.contiguous(), v.contiguous()
        B, H, T, _ = q.shape
        out = torch.empty(B, T, H, v.shape[-1], dtype=q.dtype).transpose(1, 2)  # as the next product wants it
        learns, kept = any(ctx.needs_input_grad), []
        for block in blocks:
            weights = _Weights.of(q, k, sinks, scores, block)
            part = out[block.rows, :, block.start : block.end]
            part.copy_(torch.bmm(weights.whole, _keys(v, block)).view(part.shape))
            if learns and _keeps(block, sinks, scores):
                kept.append(weights.whole)
            del weights  # or two blocks' would exist while the next are made
        ctx.save_for_backward(q, k, v, sinks, None if sinks is None else out, *kept)
        ctx.scores, ctx.blocks = scores, blocks
        return out

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, *upstream: Tensor) -> tuple[Tensor | None, ...]:
        q, k, v, sinks, out, *kept = ctx.saved_tensors
        scale = ctx.scores.scale
        of_q = torch.empty_like(q)
        # Sums of a few blocks; of many in full precision.
        few = all(block.end - block.first <= KEPT for block in ctx.blocks)
        exact = torch.promote_types(q.dtype, torch.float32)
        dtype = q.dtype if few else exact
        of_k, of_v = torch.zeros_like(k, dtype=dtype), torch.zeros_like(v, dtype=dtype)
        of_sinks = torch.zeros_like(sinks, dtype=exact) if sinks is not None and ctx.needs_input_grad[3] else None
        for block in ctx.blocks:
            if _keeps(block, sinks, ctx.scores):
                weights = _Weights(kept.pop(0))
            else:
                weights = _Weights.of(q, k, sinks, ctx.scores, block, again=True)
            queries, of_out = _queries(q, k, block), _queries(upstream[0], k, block)
            of_weights = torch.bmm(of_out, _keys(v, block).mT)
            of_scores = torch._softmax_backward_data(of_weights, weights.whole, -1, q.dtype)
            del of_weights
            if weights.slope is not None:
                of_scores.mul_(weights.slope)
            part = of_q[block.rows, :, block.start : block.end]
            part.copy_(_scaled(of_scores, _keys(k, block), scale).view(part.shape))
            _add(_keys(of_k, block), of_scores.mT, queries, scale)
            _add(_keys(of_v, block), weights.whole.mT, of_out, 1.0)
            if of_sinks is not None and weights.sunk is not None:
                # A sink's value is 0, so of its weight the softmax has the gradient 0 less the mean of all.
                mean = (of_out.to(exact) * _queries(out, k, block)).sum(-1, keepdim=True)
                of_sinks -= (mean * weights.sunk).view(-1, len(sinks), block.end - block.start).sum((0, 2))
            del weights, of_scores
        own = None if of_sinks is None else of_sinks.to(sinks.dtype)
        return of_q, of_k.to(k.dtype), of_v.to(v.dtype), own, None, None


@dataclass
class _Weights:
    """The weights of a block.

    Attributes:
        whole: [b * K, G * n, m], in the type of the queries.
        slope: of the soft cap, for the backward pass.
        sunk: [b * K, G * n, 1], the weight of the sink, in float32 or more.
    """

    whole: Tensor
    slope: Tensor | None = None
    sunk: Tensor | None = None

    @staticmethod
    def of(q: Tensor, k: Tensor, sinks: Tensor | None, how: Scores, block: Block, again: bool = False) -> _Weights:
        size = block.end - block.start
        scores = _scaled(_queries(q, k, block), _keys(k, block).mT, how.scale)
        slope = how.put_under_cap(scores, again)
        unseen = _later(size) if block.unseen is None else block.unseen
        own = scores.view(-1, size, scores.shape[-1])[..., -unseen.shape[1] :]
        own.add_(torch.zeros(unseen.shape, dtype=q.dtype).masked_fill_(unseen, float("-inf")))
        whole = scores.softmax(dim=-1)
        if sinks is None:
            return _Weights(whole, slope)
        exact = torch.promote_types(q.dtype, torch.float32)
        total = scores.amax(-1, keepdim=True).to(exact) - whole.amax(-1, keepdim=True).to(exact).log()
        rows = len(scores) // k.shape[1]
        each = sinks.to(exact).view(1, k.shape[1], -1, 1).expand(rows, -1, -1, size).reshape(total.shape)
        sunk = torch.sigmoid(each - total)
        return _Weights(whole.mul_((1 - sunk).to(whole.dtype)), slope, sunk)


def _keeps(block: Block, sinks: Tensor | None, scores: Scores) -> bool:
    # Of soft caps and sinks the weights alone do not tell the gradients.
    return sinks is None and scores.cap is None and block.end - block.first <= KEPT


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
