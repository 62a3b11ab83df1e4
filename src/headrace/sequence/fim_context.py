"""Fill-in-the-middle on pieces of packed windows, as for CrystalCoder (LLM360/crystalcoder-data-prep).

"Context level" in Bavarian et al. 2022 (2207.14255, appendix C). A window of a packed sequence is split into pieces
after each end-of-document token. A piece is decoded, cut at two uniformly chosen characters, encoded in three parts and
arranged as in :mod:`headrace.sequence.fim`, followed by its end-of-document token. The pieces are joined again; what
exceeds the window is cut off, and a window that comes out short is filled with ``<fim_pad>``, without loss.

Unlike in that system's scripts, a piece is left unchanged if it is empty, if its bytes are not valid UTF-8 (because the
window's edge split a character), or if it contains special tokens, which would become plain text; and no extra spaces
appear.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from headrace.flow.slices import gather
from headrace.sequence.fim import PLAIN, draw, rearrange
from headrace.tokens.engine import Encoded, Engine, Texts, special_id

PADDING = 255
"""Kind of the padding in a short window."""


class Pieces(NamedTuple):
    """The pieces of windows, in order; those cut off entirely have length 0.

    Attributes:
        window: int64[m]: which window.
        start: int64[m]: first position in the new window.
        length: int64[m]: tokens in the new window, including the end-of-document token.
        source_start: int64[m]: first position in the original window.
        source_length: int64[m]: tokens in the original window.
        kind: uint8[m]: 0 plain, 1 PSM, 2 SPM.
    """

    window: np.ndarray
    start: np.ndarray
    length: np.ndarray
    source_start: np.ndarray
    source_length: np.ndarray
    kind: np.ndarray


class Windows(NamedTuple):
    """Windows after fill-in-the-middle.

    Attributes:
        tokens: uint32[n, W].
        loss: bool[n, W]: False for padding, True for everything else.
        lost: int64[n]: tokens cut off the end of each window.
        pieces: the contents; what no piece covers is padding (kind 255).
    """

    tokens: np.ndarray
    loss: np.ndarray
    lost: np.ndarray
    pieces: Pieces


def transform_windows(
    windows: np.ndarray,
    rows: np.ndarray,
    engine: Engine,
    salt_key: int,
    rate: float | np.ndarray,
    spm: float | np.ndarray,
) -> Windows:
    """Rearrange the pieces of packed windows. A window's result depends only on its tokens and row number.

    Args:
        windows: integers[n, W], packed, with end-of-document tokens.
        rows: uint64[n]: the windows' row numbers in the stage, which key the draws together with the piece number.
        engine: the tokenizer.
        salt_key: ``keys.salt(seed, "fim", stage)``.
        rate: share of pieces to rearrange, one value or float64[n, W]: a piece uses that of its first token.
        spm: share of these in SPM order, likewise.

    Raises:
        UserError: the tokenizer lacks a sentinel, ``eod`` or ``fim_pad``.
    """
    windows = np.asarray(windows, dtype=np.uint32)
    n, width = windows.shape
    flat = windows.ravel()
    closes = flat == special_id(engine, "eod")
    last = closes.copy()
    last[width - 1 :: width] = True
    ends = np.flatnonzero(last) + 1
    starts = np.concatenate([[0], ends[:-1]]).astype(np.int64)
    window = starts // width
    number = np.arange(len(starts)) - np.searchsorted(window, window, side="left")
    tail = closes[ends - 1].astype(np.int64)
    body = ends - starts - tail

    ids = np.stack([np.asarray(rows, dtype=np.uint64)[window], number.astype(np.uint64)], axis=1)
    rates, orders = (np.broadcast_to(share, windows.shape).reshape(-1)[starts] for share in (rate, spm))
    kind, draws = draw(ids, salt_key, rates, orders)
    kind[(body == 0) | _holds_special(flat, starts, body, engine)] = PLAIN
    chosen, texts = _decodable(flat, starts, body, kind, engine)
    unchosen = np.ones(len(kind), dtype=bool)
    unchosen[chosen] = False
    kind[unchosen] = PLAIN

    made = rearrange(texts, kind[chosen], draws[chosen], engine, first=False)
    source = np.concatenate([flat, made.tokens])
    # Two slices per piece: its body, old or new, and its end-of-document token.
    stretch_start = np.stack([starts, ends - tail], axis=1)
    stretch_length = np.stack([body, tail], axis=1)
    stretch_start[chosen, 0] = len(flat) + made.offsets[:-1]
    stretch_length[chosen, 0] = np.diff(made.offsets)

    size = stretch_length.sum(axis=1)
    total = np.bincount(window, weights=size, minlength=n).astype(np.int64)
    at = np.cumsum(size) - size - (np.cumsum(total) - total)[window]
    place = np.stack([at, at + stretch_length[:, 0]], axis=1)
    kept = np.clip(width - place, 0, stretch_length)

    tokens = np.full((n, width), special_id(engine, "fim_pad"), dtype=np.uint32)
    loss = np.arange(width) < np.minimum(total, width)[:, None]
    tokens[loss] = gather(source, stretch_start.ravel(), kept.ravel())
    pieces = Pieces(window, at, kept.sum(axis=1), starts - window * width, ends - starts, kind)
    return Windows(tokens, loss, np.maximum(total - width, 0), pieces)


def _holds_special(flat: np.ndarray, starts: np.ndarray, body: np.ndarray, engine: Engine) -> np.ndarray:
    """bool[m]: whether the piece's body contains a special token."""
    before = np.concatenate([[0], np.cumsum(np.isin(flat, engine.special_ids))])
    return before[starts + body] > before[starts]


def _decodable(
    flat: np.ndarray, starts: np.ndarray, body: np.ndarray, kind: np.ndarray, engine: Engine
) -> tuple[np.ndarray, Texts]:
    """Which of the drawn pieces decode to valid UTF-8 (int64[k]), and their texts."""
    drawn = np.flatnonzero(kind != PLAIN)
    offsets = np.zeros(len(drawn) + 1, dtype=np.int64)
    np.cumsum(body[drawn], out=offsets[1:])
    decoded = engine.decode_batch(Encoded(gather(flat, starts[drawn], body[drawn]), offsets))
    texts = [decoded.bytes_of(i) for i in range(decoded.count)]
    whole = [i for i, text in enumerate(texts) if _is_utf8(text)]
    return drawn[whole], Texts.of(texts[i] for i in whole)


def _is_utf8(text: bytes) -> bool:
    try:
        text.decode("utf-8")
    except UnicodeDecodeError:
        return False
    return True
