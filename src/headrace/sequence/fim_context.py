"""Fill-in-the-middle of the pieces of packed windows: the CrystalCoder way (LLM360/crystalcoder-data-prep).

"Context level" in Bavarian et al. 2022 (2207.14255, appendix C). A window of a packed sequence falls into pieces after
each end-of-document token. A piece is decoded, cut at two uniform characters, encoded in three parts and laid out as
:mod:`headrace.sequence.fim` does, its end-of-document token kept behind it. The pieces are joined again; what goes
beyond the window's end is cut off there, and a window that comes out short is filled with ``<fim_pad>``, without loss.

Unlike the scripts of that system, a piece is left as it is when it is empty, when its bytes are no whole UTF-8 (the
window's edge went through a character), or when it holds special tokens, which would come back as plain text; and no
seam spaces appear.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from headrace.flow.stretches import gather
from headrace.sequence.fim import PLAIN, draw, rearrange
from headrace.tokens.engine import Encoded, Engine, Texts, special_id

PADDING = 255
"""Kind of the stretch that fills a short window."""


class Pieces(NamedTuple):
    """The pieces of windows, in order; those that were cut off whole have length 0.

    Attributes:
        window: int64[m]: which window.
        start: int64[m]: first position in the new window.
        length: int64[m]: tokens in the new window, the end-of-document token included.
        source_start: int64[m]: first position in the window as it was.
        source_length: int64[m]: tokens in the window as it was.
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
        loss: bool[n, W]: False for the filling, True for all else.
        lost: int64[n]: tokens that were cut off each window's end.
        pieces: what lies where; what no piece covers is filling (kind 255).
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
    """Rearrange the pieces of packed windows. A window's outcome depends on its tokens and row number only.

    Args:
        windows: integers[n, W], packed, with end-of-document tokens.
        rows: uint64[n]: the windows' row numbers in the stage, which key the draws with the number of the piece.
        engine: the tokenizer.
        salt_key: ``keys.salt(seed, "fim", stage)``.
        rate: share of pieces that are rearranged, for all or float64[n, W]: a piece takes that of its first token.
        spm: share of the rearranged in SPM order, likewise.

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
    # Two stretches a piece: its body, old or new, and its end-of-document token.
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
    """bool[m]: whether a special token stands within the piece's body."""
    before = np.concatenate([[0], np.cumsum(np.isin(flat, engine.special_ids))])
    return before[starts + body] > before[starts]


def _decodable(
    flat: np.ndarray, starts: np.ndarray, body: np.ndarray, kind: np.ndarray, engine: Engine
) -> tuple[np.ndarray, Texts]:
    """Which of the drawn pieces decode to whole UTF-8 (int64[k]), and their texts."""
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
