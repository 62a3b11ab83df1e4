"""Attention of transformers' models by :func:`headrace.model.attention.attend`, through transformers' registries.

Models that take part make a mask with a registered function, hand it to each layer, and there call a registered
function for attention. Ours hand on a :class:`Sight`, which says in little memory what a mask says in T * T numbers.
"""

from __future__ import annotations

import contextvars
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from headrace.errors import UserError
from headrace.model.attention import Documents, attend
from headrace.model.exchange import Exchange

NAME = "headrace"  # in the registries

# What attention may be handed and does not depend on: where tokens are, which queries and keys contain by then, and
# what is to be returned besides.
_WITHOUT_EFFECT = {
    "position_ids",
    "cache_position",
    "position_embeddings",
    "layer_idx",
    "num_items_in_batch",
    "output_hidden_states",
    "output_router_logits",
}


@dataclass(frozen=True)
class Reach:
    """How far the positions of a layer see, which are those before them.

    Attributes:
        window: how many at most, their own included; None: all.
        chunk: of pieces of so many, from the beginning of the document, those in their own; None: of all.
    """

    window: int | None = None
    chunk: int | None = None

    def mask(self, query: Tensor, key: Tensor) -> Tensor:
        """Whether positions see others: bool."""
        seen = key <= query
        if self.window is not None:
            seen = seen & (query - key < self.window)
        return seen if self.chunk is None else seen & (query // self.chunk == key // self.chunk)


@dataclass(frozen=True)
class Sight:
    """What each position sees: those before it, near enough, of its document.

    Attributes:
        window: how many at most, itself included; None: all.
        documents: where documents, or chunks of them, lie, in the form that ``over`` takes; None: each row is one.
        over: attention, such as :func:`~headrace.model.attention.attend`.
    """

    window: int | None = None
    documents: Any = None
    over: Callable[..., Tensor] = attend

    def attend(
        self, q: Tensor, k: Tensor, v: Tensor, scale: float, cap: float | None = None, sinks: Tensor | None = None
    ) -> Tensor:
        """[B, H, T, E], [B, K, T, E] and [B, K, T, F] -> [B, H, T, F]."""
        kind = q.device.type
        if torch.is_autocast_enabled(kind):
            q, k, v = (x.to(torch.get_autocast_dtype(kind)) for x in (q, k, v))
        with torch.autocast(kind, enabled=False):
            return self.over(q, k, v, scale, self.documents, self.window, cap, sinks)


def sights(
    tokens: Tensor, segments: Tensor | None, reaches: Iterable[Reach], exchange: Exchange | None = None
) -> Callable[[Reach], Sight]:
    """What positions of a batch see, for each reach.

    Args:
        tokens: [B, n], this process's part of each row.
        segments: int [B, T] of whole rows; a document is a run of equal numbers; None: each row is one.
        reaches: of the layers.
        exchange: with the processes that share rows.
    """
    found, over = (Documents.of, attend) if exchange is None else (exchange.documents, exchange.attend)
    size = tokens.shape[1] * (1 if exchange is None else exchange.size)
    of_chunks: dict[int | None, Any] = {}
    for chunk in {reach.chunk for reach in reaches}:
        parts = segments
        if chunk is not None:
            whole = tokens.new_zeros(len(tokens), size) if segments is None else segments
            parts = (within(whole) % chunk == 0).cumsum(1)
        windows = {reach.window for reach in reaches if reach.chunk == chunk}
        of_chunks[chunk] = None if parts is None else found(parts, windows)

    def sight(reach: Reach) -> Sight:
        known = reach.chunk in of_chunks
        return Sight(reach.window, of_chunks[reach.chunk], over) if known else Sight(over=_unused)

    return sight


def _unused(*_: Any) -> Tensor:
    """Attention of a mask that a model makes whether or not one of its layers uses it."""
    raise AssertionError("a layer sees what no layer of the model is known to see")


def within(segments: Tensor) -> Tensor:
    """int64 [B, T], positions that begin anew in each document, of numbers [B, T] of these."""
    at = torch.arange(segments.shape[1], device=segments.device).expand_as(segments)
    new = torch.ones_like(segments, dtype=torch.bool)
    new[:, 1:] = segments[:, 1:] != segments[:, :-1]
    return at - (at * new).cummax(dim=1).values


_seen: contextvars.ContextVar[Callable[[Reach], Sight]] = contextvars.ContextVar("seen")


@contextmanager
def seeing(sight: Callable[[Reach], Sight]) -> Iterator[None]:
    """Let masks that models make here be what ``sight`` says of each reach."""
    token = _seen.set(sight)
    try:
        yield
    finally:
        _seen.reset(token)


def attention(
    module: nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Any,
    dropout: float = 0.0,
    scaling: float | None = None,
    sliding_window: int | None = None,
    softcap: float | None = None,
    s_aux: Tensor | None = None,
    **more: Any,
) -> tuple[Tensor, None]:
    """The function of attention that transformers' models call.

    Args:
        module: the layer.
        query: [B, H, T, E].
        key: [B, K, T, E].
        value: [B, K, T, F].
        attention_mask: a :class:`Sight`.
        dropout: none.
        scaling: of scores; None: the root of E.
        sliding_window: as the mask says, if anything.
        softcap: see ``cap`` of :func:`~headrace.model.attention.attend`.
        s_aux: [H], its ``sinks``.
        more: nothing that changes the result.

    Returns:
        [B, T, H, F], and no weights.

    Raises:
        UserError: it is asked for something else.
    """
    if not isinstance(attention_mask, Sight):
        raise _refused(module, "makes its own mask")
    if sliding_window is not None and sliding_window != attention_mask.window:
        raise _refused(module, f"has a window of {sliding_window} and a mask of {attention_mask.window}")
    if query.shape[2] != key.shape[2]:
        raise _refused(module, "has other keys than queries")
    if dropout or getattr(module, "is_causal", True) is False or more.pop("is_causal", None) is False:
        raise _refused(module, "drops some tokens out" if dropout else "sees later tokens")
    for name, given in more.items():
        if given is not None and given is not False and name not in _WITHOUT_EFFECT:
            raise _refused(module, f"uses {name}")
    scale = query.shape[-1] ** -0.5 if scaling is None else scaling
    y = attention_mask.attend(query, key, value, scale, softcap, s_aux)
    return y.transpose(1, 2).contiguous(), None


def _refused(module: nn.Module, what: str) -> UserError:
    return UserError(
        f"The attention of {type(module).__name__} {what}, which headrace's does not.",
        "model.huggingface",
        "Use another model, or leave out train.long.",
    )


def _mask(mask_function: Callable[..., Any], local_size: int | None = None, device: Any = "cpu", **_: Any) -> Sight:
    """What transformers calls to make a mask.

    Args:
        mask_function: of row, head, query and key: whether it sees it.
        local_size: the window, or something like it.
        device: of what the function holds.

    Raises:
        UserError: that function is not causal attention within a window or chunks.
    """
    known = (Reach(),) if local_size is None else (Reach(window=local_size), Reach(chunk=local_size))
    edges = [1, *(n * (local_size or 2) for n in (1, 2, 3))]
    at = sorted({edge + near for edge in edges for near in (-1, 0, 1)})
    told = _evaluated(mask_function, at, "cpu")
    if told is None and torch.device(device).type == "meta":
        # Chunks count from where padding ends, and on meta no numbers tell where: this is asked again on the CPU.
        return _seen.get()(known[-1])
    told = _evaluated(mask_function, at, device) if told is None else told
    grid = torch.tensor(at, device="cpu")
    for reach in known:
        if told is not None and torch.equal(told, reach.mask(grid[:, None], grid[None, :])):
            return _seen.get()(reach)
    kind = getattr(mask_function, "__qualname__", "unknown")
    raise UserError(
        f"A mask of the model is not that of causal attention, in a window or in chunks ({kind}).",
        "model.huggingface",
        "Use another model, or leave out train.long.",
    )


def _evaluated(mask_function: Callable[..., Any], at: list[int], device: Any) -> Tensor | None:
    """bool [n, n] of n positions, on the CPU; None: it is no function of numbers on the device alone."""
    grid, first = torch.tensor(at, device=device), torch.zeros(1, 1, dtype=torch.int64, device=device)
    try:
        told: Tensor = mask_function(first, first, grid[:, None], grid[None, :])
        return None if told.is_meta else told.expand(len(at), len(at)).cpu()
    except Exception:  # of many kinds
        return None


def register() -> None:
    """Let models of transformers have the attention ``headrace``."""
    from transformers import AttentionInterface, AttentionMaskInterface

    AttentionInterface.register(NAME, attention)
    AttentionMaskInterface.register(NAME, _mask)


@contextmanager
def attending(model: Any, name: str = NAME) -> Iterator[None]:
    """Let a model of transformers compute attention by the function of that name here."""
    config = model.config
    before, config._attn_implementation_internal = config._attn_implementation_internal, name
    try:
        yield
    finally:
        config._attn_implementation_internal = before
