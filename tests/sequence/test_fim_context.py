"""Fill-in-the-middle of packed windows: each piece keeps its text, windows keep their size."""

from __future__ import annotations

import numpy as np
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from test_fim import TEXT, within

from headrace.sequence.fim import PLAIN, reassemble
from headrace.sequence.fim_context import transform_windows
from headrace.tokens.engine import special_id
from quick import examples

FUZZ = settings(max_examples=examples(50), suppress_health_check=list(HealthCheck))


def pack(engine, texts, width):
    """Documents with their ends joined and cut into windows, the last one filled with the ends' token."""
    eod = special_id(engine, "eod")
    stream = [token for text in texts for token in [*engine.encode([text]).tokens.tolist(), eod]]
    stream += [eod] * (-len(stream) % width)
    return np.array(stream, dtype=np.uint32).reshape(-1, width)


def raw(engine, tokens):
    """The bytes of a stretch, the dummy space included."""
    return engine.decode(np.asarray(tokens, dtype=np.uint32), first=False)


def unarranged(engine, tokens):
    """The bytes of a rearranged piece in the order of its text, the dummy space included."""
    pre, suf, mid = (special_id(engine, f"fim_{part}") for part in ("prefix", "suffix", "middle"))
    tokens = tokens.tolist()
    assert tokens[0] == pre
    s, m = tokens.index(suf), tokens.index(mid)
    return raw(engine, tokens[1:s] + tokens[m + 1 :] + tokens[s + 1 : m])


@FUZZ
@given(st.lists(TEXT, min_size=1, max_size=10), st.integers(4, 70), st.integers(0, 2**63))
def test_every_whole_piece_keeps_its_text(engine, texts, width, key):
    windows = pack(engine, texts, width)
    eod, pad = special_id(engine, "eod"), special_id(engine, "fim_pad")
    made = transform_windows(windows, np.arange(len(windows)), engine, key, 0.8, 0.5)
    assert made.tokens.shape == windows.shape
    covered = np.zeros(windows.shape, dtype=np.int64)
    for w, start, length, begin, size, kind in zip(*made.pieces, strict=True):
        before, after = windows[w, begin : begin + size], made.tokens[w, start : start + length]
        covered[w, start : start + length] += 1
        if kind == PLAIN:
            assert after.tolist() == before[:length].tolist()
        elif length and start + length < windows.shape[1]:
            ends = before[-1] == eod
            assert (after[-1] == eod) == ends
            body, old = (after[:-1], before[:-1]) if ends else (after, before)
            assert unarranged(engine, body) == raw(engine, old)
    assert ((covered == 1) == made.loss).all()
    assert covered.max() == 1
    assert (made.tokens[~made.loss] == pad).all()
    filled = made.loss.sum(axis=1)
    assert ((filled == width) | (made.lost == 0)).all()


def test_pieces_that_could_not_be_given_back_are_left_alone(small):
    eod = special_id(small, "eod")
    text = small.encode(["the water turns"]).tokens
    half = small.encode(["漢"]).tokens[:1]  # the first byte of a character: no whole UTF-8
    assert small.decode(half) == "漢".encode()[: len(small.decode(half))]
    width = 3 * len(text) + 8
    rows = []
    for body in ([*text, *half], [*text, special_id(small, "im_start"), *text], [], list(text)):
        rows.append(np.array([*body, *[eod] * (width - len(body))], dtype=np.uint32))
    made = transform_windows(np.stack(rows), np.arange(4), small, 3, 1.0, 0.5)
    assert (made.tokens[:3] == np.stack(rows)[:3]).all()
    assert made.pieces.kind[made.pieces.window < 3].max() == PLAIN
    assert (made.pieces.kind[made.pieces.window == 3] != PLAIN).sum() == 1


def test_a_window_depends_on_its_row_only(small):
    windows = pack(small, ["the water turns the wheel, return a + b"] * 60, 64)
    rows = np.arange(len(windows)) + 1000
    together = transform_windows(windows, rows, small, 9, 0.5, 0.5)
    for i in (0, 3, len(windows) - 1):
        alone = transform_windows(windows[i : i + 1], rows[i : i + 1], small, 9, 0.5, 0.5)
        assert (alone.tokens[0] == together.tokens[i]).all()
    other = transform_windows(windows, rows + 1, small, 9, 0.5, 0.5)
    assert (other.tokens != together.tokens).any()


def test_rates_hold_per_piece_and_follow_the_source(small):
    windows = pack(small, ["water wheel"] * 6000, 128)
    rate = np.where(np.arange(len(windows)) % 2 == 0, 0.9, 0.0)[:, None] + np.zeros(windows.shape)
    made = transform_windows(windows, np.arange(len(windows)), small, 21, rate, 0.5)
    full = made.pieces.source_length > 1
    even = made.pieces.window % 2 == 0
    assert (made.pieces.kind[~even] == PLAIN).all()
    assert within(int((made.pieces.kind[even & full] != PLAIN).sum()), int((even & full).sum()), 0.9)
    assert (made.lost[1::2] == 0).all()
    assert made.lost[::2].sum() > 0


def test_whole_documents_of_a_window_reassemble(small):
    text = "def add(a, b): return a + b"
    windows = pack(small, [text], 60)
    made = transform_windows(windows, np.zeros(1), small, 2, 1.0, 0.5)
    length = int(made.pieces.length[0])
    assert made.pieces.kind[0] != PLAIN
    assert reassemble(made.tokens[0, :length], small).decode() == text
