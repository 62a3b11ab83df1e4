"""Windows of long texts, and the batches they are computed in."""

from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from headrace.recipe.quality import PLACES
from headrace.select.quality.units import units
from headrace.select.quality.windows import averaged, batches, windows


def encode(texts: list[str]) -> list[np.ndarray]:
    """A token for each word: its number."""
    return [np.array([int(word) for word in text.split() if word.isascii()], np.int32) for text in texts]


def buffers(texts: list[str]) -> tuple[np.ndarray, np.ndarray]:
    parts = [text.encode() for text in texts]
    return np.frombuffer(b"".join(parts), np.uint8), np.cumsum([0, *map(len, parts)]).astype(np.int64)


@given(st.lists(st.integers(0, 60), max_size=8), st.integers(1, 20))
def test_short_texts_are_whole_and_of_longer_ones_both_ends_and_the_middle_are_taken(sizes, length):
    texts = [" ".join(map(str, range(1000, 1000 + size))) for size in sizes]
    found, owners = windows(*buffers(texts), encode, length, PLACES)
    for text, size in enumerate(sizes):
        mine = [found[k].tolist() for k in np.flatnonzero(owners == text)]
        whole = list(range(1000, 1000 + size))
        if size <= length:
            assert mine == ([whole] if size else [])
        else:
            middle = (size - length) // 2
            assert mine == [whole[:length], whole[middle : middle + length], whole[-length:]]


def test_of_a_text_of_100_mb_only_the_parts_around_windows_are_tokenized():
    seen = []

    def counted(texts: list[str]) -> list[np.ndarray]:
        seen.extend(map(len, texts))
        return encode(texts)

    text = "7 " + "123456 é変 " * 9_000_000 + "8"
    found, owners = windows(*buffers([text]), counted, 100, PLACES)
    assert sum(seen) < 10_000
    assert [len(one) for one in found] == [100, 100, 100]
    assert (found[0][0], found[2][-1]) == (7, 8)
    assert owners.tolist() == [0, 0, 0]


def test_texts_without_tokens_have_no_window_and_no_score():
    found, owners = windows(*buffers(["", "  ", "1 2", "é"]), encode, 5, PLACES)
    assert owners.tolist() == [2]
    scores = averaged(np.full(len(found), 0.25, np.float32), owners, 4)
    assert np.isnan(scores).tolist() == [True, True, False, True]
    assert scores[2] == 0.25


@given(st.lists(st.integers(1, 50), max_size=40), st.integers(1, 200))
def test_every_window_is_in_one_batch_that_is_not_too_large(lengths, tokens):
    made = list(batches(lengths, tokens))
    assert sorted(row for rows in made for row in rows.tolist()) == list(range(len(lengths)))
    for rows in made:
        assert len(rows) == 1 or len(rows) * max(lengths[row] for row in rows.tolist()) <= tokens


@given(st.text(alphabet="ab_9(=)\n\t é変", max_size=40))
def test_units_are_words_signs_and_beginnings_of_lines(text):
    import re

    parts = re.findall(r"[ab_9é変]+|[(=)]|\n[ \t]*(?!\n)|\n", text.strip())
    told = units(text)
    assert told.min(initial=1) >= 1
    seen: dict[str, int] = {}
    if len(parts) == len(told):
        assert all(seen.setdefault(part, int(k)) == k for part, k in zip(parts, told.tolist(), strict=True))
    else:  # a line break takes all that is blank after it, blank lines too
        assert "\n" in text
