"""Texts as pieces: slices of text, and tokens that stand for themselves between them."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from headrace.tokens.engine import Texts

TEXT = -1
"""The value in place of a token's id for a piece that is text."""


class Pieces(NamedTuple):
    """Texts cut into consecutive pieces.

    Attributes:
        data: uint8, valid UTF-8.
        bounds: int64[n_pieces + 1]; piece i is ``data[bounds[i]:bounds[i + 1]]``.
        ids: int32[n_pieces]: each piece's token, or ``TEXT``.
        firsts: int64[n_texts + 1]; text i has pieces ``firsts[i]`` to ``firsts[i + 1]``.
    """

    data: np.ndarray
    bounds: np.ndarray
    ids: np.ndarray
    firsts: np.ndarray


def whole(batch: Texts) -> Pieces:
    """Each text as one piece; nothing is copied."""
    return Pieces(batch.data, batch.offsets, np.full(batch.count, TEXT, np.int32), np.arange(batch.count + 1))
