"""Attention of transformers' models by :func:`headrace.model.attention.attend`, through transformers' registries.

Models that take part make a mask with a registered function, hand it to each layer, and there call a registered
function for attention. Ours hand on a :class:`Sight`, which says in little memory what a mask says in T * T numbers.
"""

from __future__ import annotations

import contextvars
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from headrace.errors import UserError
from headrace.model.attention import attend

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
class Sight:
    """What each position sees: those before it, near enough, of its document.

    Attributes:
        window: how many at most, itself included; None: all.
        documents: where documents lie, in the form that ``over`` takes; None: each row is one.
        over: attention, such as :func:`~headrace.model.attention.attend`.
    """

    window: int | None
    documents: Any = None
    over: Callable[..., Tensor] = attend

    def attend(self, q: Tensor, k: Tensor, v: Tensor, scale: float) -> Tensor:
        """[B, H, T, E], [B, K, T, E] and [B, K, T, F] -> [B, H, T, F]."""
        kind = q.device.type
        if torch.is_autocast_enabled(kind):
            q, k, v = (x.to(torch.get_autocast_dtype(kind)) for x in (q, k, v))
        with torch.autocast(kind, enabled=False):
            return self.over(q, k, v, scale, self.documents, self.window)


_seen: contextvars.ContextVar[Callable[[int | None], Sight]] = contextvars.ContextVar("seen")


@contextmanager
def seeing(sight: Callable[[int | None], Sight]) -> Iterator[None]:
    """Let masks that models make here be what ``sight`` says of each window."""
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
    y = attention_mask.attend(query, key, value, query.shape[-1] ** -0.5 if scaling is None else scaling)
    return y.transpose(1, 2).contiguous(), None


def _refused(module: nn.Module, what: str) -> UserError:
    return UserError(
        f"The attention of {type(module).__name__} {what}, which headrace's does not.",
        "model.huggingface",
        "Use another model, or leave out train.long.",
    )


def _mask(mask_function: Callable[..., Any], local_size: int | None = None, **_: Any) -> Sight:
    """What transformers calls to make a mask.

    Args:
        mask_function: of row, head, query and key: whether it sees it.
        local_size: the window, or something like it.

    Raises:
        UserError: that function is not causal attention within the window.
    """
    window = local_size
    edges = [1, *(n * (window or 2) for n in (1, 2, 3))]
    at = torch.tensor(sorted({edge + near for edge in edges for near in (-1, 0, 1)}), device="cpu")
    query, key, first = at[:, None], at[None, :], torch.zeros(1, 1, dtype=torch.int64, device="cpu")
    expected = key <= query if window is None else (key <= query) & (query - key < window)
    try:
        same = torch.equal(mask_function(first, first, query, key).expand_as(expected), expected)
    except Exception:  # it is no function of numbers alone
        same = False
    if not same:
        kind = getattr(mask_function, "__qualname__", "unknown")
        raise UserError(
            f"A mask of the model is not that of causal attention in a window ({kind}).",
            "model.huggingface",
            "Use another model, or leave out train.long.",
        )
    return _seen.get()(window)


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
