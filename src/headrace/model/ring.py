"""Attention over rows that several processes share, for more of them than heads: keys and values go round in a ring."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
import torch.distributed as dist
import torch.nn.functional as fn
from torch import Tensor

from headrace.model.blockwise import Scores
from headrace.model.exchange import Exchange
from headrace.sequence.stretch import Stretch

# Queries and keys whose scores exist at a time: for 32 heads 64 MB in float32.
QUERIES, KEYS = 256, 2048


@dataclass(frozen=True)
class Numbered:
    """Where documents lie in whole rows: int64 [B, L], each position's number, ascending; ``known``: on the CPU."""

    numbers: Tensor
    known: np.ndarray


@dataclass(frozen=True)
class Tile:
    """Scores that are computed together.

    Attributes:
        queries: their places in this process's stretch.
        keys: their places in the stretch of the process that they come from.
        unseen: bool [B or 1, 1, queries, keys], which of the keys each query does not see; None: it sees all.
    """

    queries: slice
    keys: slice
    unseen: Tensor | None


class Ring(Exchange):
    """Ring attention (Liu et al., 2023): each process keeps its queries and passes keys and values on, S - 1 times.

    Softmax is computed online (Milakov and Gimelshein, 2018); in the backward pass keys and values go round once more,
    and their gradients with them. Of 2 S equal pieces of a row process r has pieces r and 2 S - 1 - r, so that all see
    about as many keys (Brandon et al., 2023); tiles that nobody sees, later or in another document, are left out.

    Args:
        group: the processes.
    """

    @property
    def stretch(self) -> Stretch:
        """See :class:`Exchange`."""
        return self._of(dist.get_rank(self.group))

    def documents(self, segments: Tensor, windows: Any) -> Numbered:
        """See :class:`Exchange`."""
        changes = segments[:, 1:] != segments[:, :-1]
        numbers = fn.pad(changes.cumsum(1), (1, 0))
        return Numbered(numbers, numbers.cpu().numpy())

    @torch.compiler.disable
    def attend(
        self,
        q: Tensor,
        k: Tensor,
        v: Tensor,
        scale: float,
        documents: Numbered | None,
        window: int | None,
        cap: float | None = None,
        sinks: Tensor | None = None,
    ) -> Tensor:
        """See :class:`Exchange`."""
        size, values = max(q.shape[-1], v.shape[-1]), v.shape[-1]
        q, k, v = (fn.pad(x, (0, size - x.shape[-1])) for x in (q, k, v))  # keys and values go round as one
        out: Tensor = _Round.apply(q, k, v, sinks, Scores(scale, cap), self, documents, window)
        return out[..., :values]

    def _of(self, process: int) -> Stretch:
        return Stretch((process, 2 * self.size - 1 - process), 2 * self.size)

    def tiles(self, source: int, q: Tensor, documents: Numbered | None, window: int | None) -> Iterator[Tile]:
        """What this process's queries [B, H, n, E] see of the keys of another, in the order of both."""
        m = q.shape[2] // 2
        for i, a in enumerate(self.stretch.parts):
            for j, b in enumerate(self._of(source).parts):
                for query in range(0, m, QUERIES):
                    for key in range(0, m, KEYS):
                        ends = min(query + QUERIES, m), min(key + KEYS, m)
                        rows, columns = range(a * m + query, a * m + ends[0]), range(b * m + key, b * m + ends[1])
                        seen, unseen = _sight(rows, columns, documents, window, q.device)
                        if seen:
                            places = slice(i * m + query, i * m + ends[0]), slice(j * m + key, j * m + ends[1])
                            yield Tile(*places, unseen)

    def passed(self, tensor: Tensor) -> tuple[Tensor, list[Any]]:
        """Begin to give the next process a tensor, and to take that of the one before; it is there once all are waited
        for."""
        rank, received = dist.get_rank(self.group), torch.empty_like(tensor)
        sent = dist.P2POp(dist.isend, tensor, group=self.group, group_peer=(rank + 1) % self.size)
        taken = dist.P2POp(dist.irecv, received, group=self.group, group_peer=(rank - 1) % self.size)
        return received, dist.batch_isend_irecv([sent, taken])


def _sight(
    queries: range, keys: range, documents: Numbered | None, window: int | None, device: torch.device
) -> tuple[bool, Tensor | None]:
    """Whether any query sees any key, by their positions in whole rows; and, unless all see all, which do not."""
    q, k = slice(queries.start, queries.stop), slice(keys.start, keys.stop)
    if keys[0] > queries[-1] or (window is not None and queries[0] - keys[-1] >= window):
        return False, None
    apart = False
    if documents is not None:
        known = documents.known
        if (known[:, queries[0]] > known[:, keys[-1]]).all():
            return False, None
        apart = bool((known[:, queries[-1]] != known[:, keys[0]]).any())
    if not apart and keys[-1] <= queries[0] and (window is None or queries[-1] - keys[0] < window):
        return True, None
    ahead = torch.arange(q.start, q.stop, device=device)[:, None] - torch.arange(k.start, k.stop, device=device)
    unseen = (ahead < 0) if window is None else (ahead < 0) | (ahead >= window)
    if documents is None:
        return True, unseen[None, None]
    return True, (unseen | (documents.numbers[:, q, None] != documents.numbers[:, None, k]))[:, None]


class _Round(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,
        q: Tensor,
        k: Tensor,
        v: Tensor,
        sinks: Tensor | None,
        how: Scores,
        ring: Ring,
        documents: Numbered | None,
        window: int | None,
    ) -> Tensor:
        B, H, n, E = q.shape
        exact = torch.promote_types(q.dtype, torch.float32)
        rank = dist.get_rank(ring.group)
        total = torch.zeros(B, H, n, E, dtype=exact, device=q.device)
        highest = torch.full((B, H, n, 1), -torch.inf, dtype=exact, device=q.device)
        powers = torch.zeros_like(highest)
        own = there = torch.stack((k, v))
        for i in range(ring.size):
            arriving, waits = ring.passed(there) if i + 1 < ring.size else (there, [])
            for tile in ring.tiles((rank - i) % ring.size, q, documents, window):
                part = tile.queries
                keys, values = there[:, :, :, tile.keys]
                scores, _ = _scores(q[:, :, part], keys, how, tile)
                before = highest[:, :, part]
                now = torch.maximum(before, scores.amax(-1, keepdim=True))
                low = now.masked_fill(now == -torch.inf, 0)  # of a query that has seen no key yet
                weights, kept = scores.sub_(low).exp_(), (before - low).exp_()
                powers[:, :, part] = powers[:, :, part] * kept + weights.sum(-1, keepdim=True)
                total[:, :, part] = total[:, :, part] * kept + _times(weights.to(q.dtype), values)
                highest[:, :, part] = now
                del scores, weights  # as in the backward pass
            for wait in waits:
                wait.wait()
            there = arriving
        total, logs = total / powers, highest + powers.log()
        if sinks is not None:  # one more key that everybody sees, and whose value is 0
            alone, logs = logs, torch.logaddexp(logs, sinks.to(exact).view(1, -1, 1, 1))
            total = total * (alone - logs).exp()
        out = total.to(q.dtype)
        ctx.save_for_backward(q, own, sinks, out, logs)
        ctx.how, ctx.ring, ctx.documents, ctx.window = how, ring, documents, window
        return out

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, *upstream: Tensor) -> tuple[Tensor | None, ...]:
        (q, there, sinks, out, logs), ring = ctx.saved_tensors, ctx.ring
        exact, [of_out] = logs.dtype, upstream
        rank, K = dist.get_rank(ring.group), there.shape[2]
        shift = (of_out.to(exact) * out.to(exact)).sum(-1, keepdim=True)
        of_q, of_there = torch.zeros_like(q, dtype=exact), torch.zeros_like(there, dtype=exact)
        for i in range(ring.size):
            arriving, waits = ring.passed(there) if i + 1 < ring.size else (there, [])
            for tile in ring.tiles((rank - i) % ring.size, q, ctx.documents, ctx.window):
                part = tile.queries
                keys, values = there[:, :, :, tile.keys]
                scores, slope = _scores(q[:, :, part], keys, ctx.how, tile, again=True)
                weights = scores.sub_(logs[:, :, part]).exp_()
                above = of_out[:, :, part]
                of_scores = _times(above, values.mT).to(exact)
                of_scores.sub_(shift[:, :, part]).mul_(weights).mul_(ctx.how.scale)
                of_scores = (of_scores if slope is None else of_scores.mul_(slope)).to(q.dtype)
                of_q[:, :, part] += _times(of_scores, keys)
                of_there[0, :, :, tile.keys] += _summed(of_scores, q[:, :, part], K)
                of_there[1, :, :, tile.keys] += _summed(weights.to(q.dtype), above, K)
                del scores, weights, of_scores, slope  # or two tiles' would exist while the next are made
            for wait in waits:
                wait.wait()
            there = arriving
            of_there, waits = ring.passed(of_there)  # behind its keys, and at the end at home
            for wait in waits:
                wait.wait()
        of_k, of_v = of_there.to(q.dtype)
        of_sinks = None
        if sinks is not None and ctx.needs_input_grad[3]:  # of these queries; the others' are other processes'
            sunk = (sinks.to(exact).view(1, -1, 1, 1) - logs).exp_()
            of_sinks = -(sunk * shift).sum((0, 2, 3)).to(sinks.dtype)
        return of_q.to(q.dtype), of_k, of_v, of_sinks, None, None, None, None


def _scores(q: Tensor, keys: Tensor, how: Scores, tile: Tile, again: bool = False) -> tuple[Tensor, Tensor | None]:
    """[B, H, queries, keys] in float32 or more; minus infinity where a query does not see. ``again``: and the slope of
    the soft cap, if there is one."""
    exact = torch.promote_types(q.dtype, torch.float32)
    scores = _times(q, keys.mT).to(exact).mul_(how.scale)
    slope = how.put_under_cap(scores, again)
    return scores if tile.unseen is None else scores.masked_fill_(tile.unseen, -torch.inf), slope


def _times(a: Tensor, b: Tensor) -> Tensor:
    """[B, H, n, x] @ [B, K, x, m], each of K for H / K of H."""
    grouped = a.unflatten(1, (b.shape[1], -1)).flatten(2, 3)  # [B, K, H / K * n, x]
    return (grouped @ b).view(*a.shape[:3], b.shape[-1])


def _summed(a: Tensor, b: Tensor, heads: int) -> Tensor:
    """[B, H, n, m].T @ [B, H, n, E], summed over the H / K that share each of K: [B, K, m, E]."""
    a, b = (x.unflatten(1, (heads, -1)).flatten(2, 3) for x in (a, b))
    return a.mT @ b
