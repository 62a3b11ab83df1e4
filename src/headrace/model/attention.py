"""Scaled dot-product attention: causal, within documents or a window, in memory that grows with the row's length."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
import torch.nn.functional as fn
from torch import Tensor

from headrace.model.blockwise import (
    BLOCK,
    Block,
    Scores,
    attend_by_blocks,
    blocks_of_documents,
    causal_blocks,
    windowed,
)

KeyValues = tuple[Tensor, Tensor]
"""A layer's keys and values so far, each [B, K, S, E]."""

# Up to this many blocks, torch.compile sees each of them; more would be minutes of compiling.
CPU_TRACED = 8


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
            return Documents(blocks=tuple(blocks_of_documents(segments.numpy())))
        return Documents(masks={window: flex_mask(segments, _compiled_mask(), window) for window in windows})


def attend(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    scale: float,
    documents: Documents | None = None,
    window: int | None = None,
    cap: float | None = None,
    sinks: Tensor | None = None,
) -> Tensor:
    """Causal attention of T queries over the last T of S >= T keys; S > T only for T = 1 without cap or sinks.

    Args:
        q: [B, H, T, E].
        k: [B, K, S, E], H a multiple of K (grouped-query attention: each key head serves H / K query heads).
        v: [B, K, S, F].
        scale: factor applied to the scores.
        documents: attend only within a document, for T = S; None: to everything before.
        window: how many keys a query sees at most, its own included; None: all.
        cap: scores are ``cap * tanh(scores / cap)`` (Gemma 2: Gemma Team, 2024); None: as they are.
        sinks: [H], the score of one more key of each head, whose value is 0 (GPT-OSS: OpenAI, 2025); None: no such key.

    Returns:
        [B, H, T, F].
    """
    T, plain = q.shape[2], cap is None and sinks is None
    grouped = k.shape[1] < q.shape[1]
    if T == 1 and plain:  # the newest token sees every key
        if window is not None:
            k, v = k[:, :, -window:], v[:, :, -window:]
        return fn.scaled_dot_product_attention(q, k, v, scale=scale, enable_gqa=grouped)
    whole = documents is None and (window is None or window >= T)
    if q.device.type != "cpu":
        if whole and plain:
            return fn.scaled_dot_product_attention(q, k, v, is_causal=True, scale=scale, enable_gqa=grouped)
        mask = _window_mask(T, window, q.device) if documents is None else documents.masks[window]
        return flexible(_compiled_flex(), q, k, v, mask, scale, cap, sinks)
    scores = Scores(scale, cap)
    if whole and T <= CPU_TRACED * BLOCK:
        return attend_by_blocks(q, k, v, sinks, scores, causal_blocks(slice(0, len(q)), 0, T))
    return _untraced(q, k, v, sinks, scores, documents, window)


@torch.compiler.disable
def _untraced(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    sinks: Tensor | None,
    scores: Scores,
    documents: Documents | None,
    window: int | None,
) -> Tensor:
    # Each batch has other blocks, and would be compiled anew.
    blocks = causal_blocks(slice(0, len(q)), 0, q.shape[2]) if documents is None else documents.blocks
    if window is not None:
        blocks = [windowed(block, window) for block in blocks]
    return attend_by_blocks(q, k, v, sinks, scores, blocks)


def flexible(
    flex: Callable[..., Any],
    q: Tensor,
    k: Tensor,
    v: Tensor,
    mask: Any,
    scale: float,
    cap: float | None = None,
    sinks: Tensor | None = None,
) -> Tensor:
    """Attention by ``flex_attention``, compiled or not: see :func:`attend`; ``mask``: from :func:`flex_mask`."""
    more: dict[str, Any] = {"block_mask": mask, "scale": scale, "enable_gqa": k.shape[1] < q.shape[1]}
    if cap is not None:
        more["score_mod"] = _capped(cap)
    if sinks is None:
        whole: Tensor = flex(q, k, v, **more)
        return whole
    from torch.nn.attention.flex_attention import AuxRequest

    y, told = flex(q, k, v, return_aux=AuxRequest(lse=True), **more)
    share: Tensor = torch.sigmoid(told.lse - sinks[:, None])  # what the sink leaves of the weights
    return y * share[..., None].to(y.dtype)


@functools.cache  # a function of its own would be compiled anew
def _capped(cap: float) -> Callable[..., Tensor]:
    return lambda score, row, head, query, key: cap * torch.tanh(score / cap)


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
