"""The bound of the Jaccard similarity: never below it, close to it, and counts that equal a plain count."""

from __future__ import annotations

import random

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from headrace.select.clean import clean
from headrace.select.duplicates.jaccard import shingle_set, text_jaccard
from headrace.select.duplicates.jaccard_bound import BITS, Sketches, jaccard_at_most, sketch


def sketches(texts: list[str], ngram: int, words: bool, most_counted: int = 1 << 20) -> Sketches:
    raw = [text.encode() for text in texts]
    offsets = np.cumsum([0, *map(len, raw)], dtype=np.int64)
    return sketch(*clean(np.frombuffer(b"".join(raw), np.uint8), offsets), ngram, words, most_counted)


def bound(s: Sketches, a: int, b: int) -> float:
    one, other = ((s.bits, s.bit_starts[d], s.bit_words[d], s.least[d], s.most[d]) for d in (a, b))
    return jaccard_at_most(*one, *other)


TEXTS = st.lists(st.text("ab é", max_size=300) | st.text(max_size=40), min_size=2, max_size=6)


@given(TEXTS, st.integers(1, 13), st.booleans(), st.sampled_from([0, 5, 1 << 20]))
def test_never_below_the_similarity(texts: list[str], ngram: int, words: bool, most_counted: int) -> None:
    texts = [*texts, texts[0] + texts[1], texts[1] * 9]
    s = sketches(texts, ngram, words, most_counted)
    unit = "words" if words else "characters"
    for a, one in enumerate(texts):
        count = len(shingle_set(one, ngram, unit))
        assert s.least[a] <= count <= s.most[a]
        if most_counted == 1 << 20:
            assert s.least[a] == count == s.most[a]
        for b, other in enumerate(texts):
            assert bound(s, a, b) >= text_jaccard(one, other, ngram, unit)


def test_close_to_the_similarity_and_a_power_of_two_of_words() -> None:
    rng = random.Random(3)
    base = rng.choices("abcdefghijklmnopqrstuvwxyz ", k=6000)
    texts = ["".join(base)]
    for share in (0.001, 0.005, 0.01, 0.02, 0.05):
        texts.append("".join(rng.choice("abcdefghij") if rng.random() < share else c for c in base))
    texts.append("".join(base[:3900]))  # half as large a bitmap
    s = sketches(texts, 13, False)
    assert (np.bitwise_count(s.bit_words) == 1).all() if hasattr(np, "bitwise_count") else True
    assert (s.bit_words * 64 >= BITS * s.lengths * 0.99).all()
    assert s.bit_words[-1] == s.bit_words[0] // 2
    for other in range(1, len(texts)):
        true = text_jaccard(texts[0], texts[other], 13, "characters")
        assert true <= bound(s, 0, other) <= true + 0.08


def test_documents_without_shingles() -> None:
    s = sketches(["", "...", "some text"], 13, False)
    assert s.bit_words.tolist()[:2] == [0, 0]
    assert bound(s, 0, 1) == bound(s, 0, 2) == bound(s, 2, 0) == 0.0
    assert not len(sketches([], 13, False).bits)
