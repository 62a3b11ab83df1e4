"""Generate tokens for many prompts at once, with cached keys and values, without padding.

Rows of one batch have the same length at every step: it starts with as many tokens as the shortest prompt has, and each
row reads on in its own prompt, a token a step, until that ends and it writes. Rows that are done leave the batch.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from typing import Protocol

import numpy as np
import torch
from torch import Tensor

from headrace.flow.keys import keyed, unit
from headrace.model.attention import KeyValues
from headrace.model.transformer import Transformer


class Decoding(Protocol):
    """A model with the keys and values of what it has read so far."""

    def read(self, tokens: np.ndarray) -> Tensor:
        """Read int64 [B, T], at first any T, then T = 1; returns the next token's logits [B, V]."""
        ...

    def keep(self, rows: Sequence[int]) -> None:
        """Go on with these rows, in this order; a row may be named several times."""
        ...


class Cached:
    """:class:`Decoding` with headrace's own model."""

    def __init__(self, model: Transformer) -> None:
        self._model = model
        self._cache: list[KeyValues] = []

    def read(self, tokens: np.ndarray) -> Tensor:
        """See :class:`Decoding`."""
        device = self._model.embedding.weight.device
        hidden = self._model.hidden(torch.from_numpy(tokens).to(device), cache=self._cache)
        return self._model.logits(hidden[:, -1])

    def keep(self, rows: Sequence[int]) -> None:
        """See :class:`Decoding`."""
        chosen = torch.tensor(rows, device=self._model.embedding.weight.device)
        self._model.keep_rows(self._cache, chosen)


@torch.no_grad()
def generate(
    decoding: Decoding,
    prompts: Sequence[Sequence[int] | np.ndarray],
    count: int,
    keys: Sequence[int],
    temperature: float = 0.0,
    top_p: float = 1.0,
    stop: Collection[int] = (),
    ended: Callable[[int, list[int]], bool] | None = None,
) -> list[list[int]]:
    """Generate tokens after each of some prompts.

    Args:
        decoding: a model that has read nothing.
        prompts: ids, at least one each.
        count: maximum tokens to generate.
        keys: a salt for each prompt. Token i is drawn with ``unit(keyed(key, i))``: the same key gives the same text.
        temperature: 0 takes the most likely token; otherwise the softmax of logits / temperature is sampled.
        top_p: sample only from the most likely tokens that have this probability together (Holtzman et al., 2020).
        stop: ids that end a text; not returned.
        ended: asked, with the prompt's number and its tokens so far, whether that text has ended.

    Returns:
        The new tokens of each prompt.
    """
    out: list[list[int]] = [[] for _ in prompts]
    if not prompts or count == 0:
        return out
    draws = [unit(keyed(key, np.arange(count, dtype=np.uint64))) for key in keys]
    rows = list(range(len(prompts)))
    length = min(map(len, prompts))
    tokens = np.array([prompt[:length] for prompt in prompts], dtype=np.int64)
    if len(rows) > 1 and (tokens == tokens[0]).all():  # samples of one prompt: it is read once
        logits = decoding.read(tokens[:1]).expand(len(rows), -1)
        decoding.keep([0] * len(rows))
    else:
        logits = decoding.read(tokens)
    while True:
        if temperature == 0:
            chosen = logits.argmax(dim=-1)
        else:
            at = [draws[row][len(out[row])] for row in rows]
            chosen = draw(logits.double() / temperature, torch.tensor(at, device=logits.device), top_p)
        left, following = [], []
        for place, (row, new) in enumerate(zip(rows, chosen.tolist(), strict=True)):
            if length < len(prompts[row]):
                new = int(prompts[row][length])
            elif new in stop:
                continue
            else:
                out[row].append(new)
                if len(out[row]) == count or (ended is not None and ended(row, out[row])):
                    continue
            left.append(place)
            following.append([new])
        if not left:
            return out
        if len(left) < len(rows):
            decoding.keep(left)
            rows = [rows[place] for place in left]
        length += 1
        logits = decoding.read(np.array(following, dtype=np.int64))


def draw(logits: Tensor, at: Tensor, top_p: float = 1.0) -> Tensor:
    """The ids at points of the cumulative distributions.

    Args:
        logits: float64 [B, V].
        at: float64 [B] in [0, 1).
        top_p: leave out the least likely ids, as long as the others have this probability.

    Returns:
        int64 [B].
    """
    weights = torch.exp(logits - logits.amax(dim=-1, keepdim=True))
    order = None
    if top_p < 1:
        weights, order = weights.sort(dim=-1, descending=True, stable=True)
        before = weights.cumsum(dim=-1) - weights
        weights = weights * (before < top_p * weights.sum(dim=-1, keepdim=True))
    total = weights.cumsum(dim=-1)
    place = torch.searchsorted(total, (at * total[:, -1])[:, None], right=True)
    # Rounding may lead beyond the last id that can be drawn.
    last = (weights > 0).cumsum(dim=-1).argmax(dim=-1, keepdim=True)
    place = torch.minimum(place, last)
    return (place if order is None else order.gather(1, place))[:, 0]
