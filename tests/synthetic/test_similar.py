"""The index of ROUGE-L finds what comparing with everything finds."""

from __future__ import annotations

import random

from hypothesis import given
from hypothesis import strategies as st

from headrace.synthetic.similar import Similar, rouge, words


def common(a, b):
    """The longest common subsequence, by the table."""
    row = [0] * (len(b) + 1)
    for x in a:
        before = 0
        for j, y in enumerate(b):
            before, row[j + 1] = row[j + 1], before + 1 if x == y else max(row[j + 1], row[j])
    return row[-1]


def brute_force(text, earlier, limit):
    a = words(text)
    best = None
    for number, other in enumerate(earlier):
        b = words(other)
        found = rouge(common(a, b), len(a), len(b)) if a and b else 0.0
        if found > limit and (best is None or found > best[0]):
            best = found, number
    return best


SENTENCES = st.lists(st.sampled_from(["a", "b", "c", "d", "e", "f"]), max_size=12).map(" ".join)


@given(st.lists(SENTENCES, max_size=25), st.sampled_from([0.2, 0.5, 0.7, 0.9, 1.0, 2 / 3]))
def test_the_same_as_comparing_with_all(texts, limit):
    index = Similar(limit)
    for number, text in enumerate(texts):
        assert index.nearest(text) == brute_force(text, texts[:number], limit)
        index.add(text)


def test_the_same_on_sentences_like_real_ones():
    rng = random.Random(4)
    vocabulary = [f"word{int(rng.paretovariate(0.6))}" for _ in range(4000)]
    texts = []
    for _ in range(400):
        if texts and rng.random() < 0.5:  # an earlier one with a few words changed
            told = rng.choice(texts).split()
            for _ in range(rng.randrange(6)):
                told[rng.randrange(len(told))] = rng.choice(vocabulary)
        else:
            told = [rng.choice(vocabulary) for _ in range(rng.randrange(4, 30))]
        texts.append(" ".join(told))
    index, found = Similar(0.7), 0
    for number, text in enumerate(texts):
        expected = brute_force(text, texts[:number], 0.7)
        assert index.nearest(text) == expected
        found += expected is not None
        index.add(text)
    assert 50 < found < 350


def test_as_rouge_score_says():
    """The value is that of rouge_score 0.1.2 without stemming."""
    index = Similar(0.1)
    index.add("Write a poem about the sea, in 4 lines.")
    assert index.nearest("Write a short poem about the cold sea!") == (0.7058823529411765, 0)
