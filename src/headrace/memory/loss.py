"""What the loss holds: the last hidden states, a tile of logits, and the gradients that are made along with it."""

from __future__ import annotations

import math
from dataclasses import dataclass

from headrace.memory.settings import Settings
from headrace.memory.shape import Shape

# As headrace.model.cross_entropy and headrace.model.machine have them, which need torch.
CHUNK, LEAST_ROWS, TILE, CACHED = 1 << 25, 512, 1 << 22, 1 << 18


@dataclass(frozen=True)
class Loss:
    """Bytes of the loss.

    Attributes:
        states: the last block's output and its norm's, which are there from the end of the forward pass on.
        peak: those, and what is there besides while it is computed; without the gradient of the head.
    """

    states: int
    peak: int


def loss_bytes(shape: Shape, settings: Settings) -> Loss:
    """The memory of the loss.

    Args:
        shape: the model.
        settings: how it is trained.
    """
    a, N, V, D = settings.a, settings.tokens, shape.vocab, shape.width
    states, padded = 2 * a * N * D, 0
    if not settings.accelerator and rounded(N) != N:
        N, padded = rounded(N), a * rounded(N) * D
    rows = tile_rows(N, V) if settings.tile_loss is None else min(N, settings.tile_loss)
    cast = 2 * shape.table if settings.bits16 else 0
    parts = math.ceil(rows / max(1, (TILE if settings.accelerator else CACHED) // V))
    # While probabilities are found: logits in float32, if they are not yet, and their logarithms; from the second part
    # on beside one of the part before. Then products with the whole chunk of gradients.
    each = 4 * math.ceil(rows / parts) * V
    own = (2 if settings.bits16 else 1) * each
    products = max(rows * D * (a + 4), a * min(TILE, shape.table) + rows * D * (a + 4))
    chunk = a * rows * V
    found = chunk + own + max(each if parts > 1 else 0, products)
    return Loss(states, states + padded + a * N * D + cast + found)


def tile_rows(tokens: int, vocab: int) -> int:
    """Tokens whose logits exist at a time by default."""
    most = max(LEAST_ROWS, CHUNK // vocab)
    return math.ceil(tokens / math.ceil(tokens / most))


def rounded(tokens: int) -> int:
    """As headrace.model.cross_entropy rounds a number of tokens up on a CPU."""
    step = 1 << max(0, tokens.bit_length() - 4)
    return -(-tokens // step) * step
