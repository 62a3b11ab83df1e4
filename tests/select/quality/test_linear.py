"""The linear annotator's kernels, compared with a plain implementation of what they say; and hostile texts."""

from __future__ import annotations

import math
import re

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from headrace.recipe.quality import Linear
from headrace.select.quality import linear
from headrace.select.quality.linear import BITS, LinearScorer, features

MASK = (1 << 64) - 1
TOKEN = re.compile(rb"[0-9A-Za-z_\x80-\xff]+|[^ \t\n\r\v\f\0]")
TEXT = st.text(st.sampled_from("abAB_ 09\n\t.,(){}=é漢\0"), max_size=60)


def hashed(token: bytes) -> int:
    value = 0xCBF29CE484222325
    for byte in token.lower() if token[0] >= 0x80 or re.match(rb"\w", token) else token:
        value = ((value ^ byte) * 0x100000001B3) & MASK
    return value


def plain_features(text: bytes) -> set[int]:
    """Every run of five bytes (the first ones shorter), every word and sign, and every pair of these."""
    shift, found, before = 64 - BITS, set(), 0xCBF29CE484222325
    for i in range(1, len(text) + 1):
        run = int.from_bytes(text[max(0, i - 5) : i], "big")
        found.add(((run * 0x94D049BB133111EB) & MASK) >> shift)
    for token in TOKEN.findall(text):
        value = hashed(token)
        found.add(((value * 0x9E3779B97F4A7C15) & MASK) >> shift)
        pair = (value + before * 0xBF58476D1CE4E5B9) & MASK
        found.add(((pair * 0x9E3779B97F4A7C15) & MASK) >> shift)
        before = value
    return found


def plain_logit(text: bytes, weights: dict[int, float], bias: float, window: int) -> float:
    total = 0.0
    for start in range(0, len(text), window):
        part = text[start : start + window]
        found = plain_features(part)
        total += len(part) * sum(weights.get(f, 0.0) for f in found) / math.sqrt(len(found))
    return bias + (total / len(text) if text else 0.0)


def batch(texts: list[str], labels: list[int] | None = None) -> pa.RecordBatch:
    labels = [0] * len(texts) if labels is None else labels
    columns = [pa.array(texts, pa.large_string()), pa.array(labels, pa.uint8())]
    return pa.record_batch(columns, names=["text", "label"])


class Examples:
    """Batches in place of the exchange that holds them."""

    def __init__(self, *batches: pa.RecordBatch) -> None:
        self.batches = batches

    def training(self, share: float):
        return iter(self.batches)


CONFIG = Linear.model_validate({"positives": "none", "passes": 2})


@given(TEXT)
def test_features_are_those_of_the_definition(text):
    data = np.frombuffer(text.encode(), dtype=np.uint8)
    out = np.empty(3 * len(data) + 2, dtype=np.uint32)
    n = features(data, 0, len(data), out)
    assert set(out[:n].tolist()) == plain_features(text.encode())


@given(st.lists(TEXT, min_size=1, max_size=6), st.integers(0, 5))
def test_scores_are_those_of_the_definition(texts, seed):
    weights = np.random.default_rng(seed).normal(0, 1, 1 << BITS).astype(np.float32)
    scorer = LinearScorer(weights, 0.25)
    known = dict(enumerate(weights.astype(float).tolist())) if seed == 0 else None
    table = known or {f: float(weights[f]) for text in texts for f in plain_features(text.encode())}
    for text, score in zip(texts, scorer.score(batch(texts)).tolist(), strict=True):
        logit = plain_logit(text.encode(), table, 0.25, linear.WINDOW)
        assert score == pytest.approx(1 / (1 + math.exp(-logit)), rel=1e-5)
    again = scorer.score(batch(texts[::-1]))[::-1]
    assert again.tolist() == scorer.score(batch(texts)).tolist()


def test_long_texts_are_averaged_by_window():
    rng = np.random.default_rng(1)
    weights = rng.normal(0, 1, 1 << BITS).astype(np.float32)
    text = "".join(rng.choice(list("abcdef (){}\n"), 80_000))
    parts = {f for i in range(0, 80_000, linear.WINDOW) for f in plain_features(text[i : i + linear.WINDOW].encode())}
    logit = plain_logit(text.encode(), {f: float(weights[f]) for f in parts}, 0.0, linear.WINDOW)
    assert LinearScorer(weights, 0.0).score(batch([text]))[0] == pytest.approx(1 / (1 + math.exp(-logit)), rel=1e-4)


@given(st.lists(st.tuples(TEXT, st.integers(0, 1)), min_size=1, max_size=8))
def test_learning_is_adagrad_on_the_logistic_loss(examples):
    texts, labels = [text for text, _ in examples], [label for _, label in examples]
    scorer = LinearScorer.train(CONFIG, Examples(batch(texts, labels)), 1.0)
    weights: dict[int, float] = {}
    squares: dict[int, float] = {}
    bias = bias_squares = 0.0
    for _ in range(CONFIG.passes):
        for text, label in examples:
            if not text:
                continue
            found = plain_features(text.encode())
            norm = 1 / math.sqrt(len(found))
            logit = bias + norm * sum(weights.get(f, 0.0) for f in found)
            error = 1 / (1 + math.exp(-logit)) - label
            for f in found:
                squares[f] = squares.get(f, 0.0) + (error * norm) ** 2
                weights[f] = weights.get(f, 0.0) - linear.RATE * error * norm / math.sqrt(squares[f] + 1e-12)
            bias_squares += error**2
            bias -= linear.RATE * error / math.sqrt(bias_squares + 1e-12)
    assert scorer.bias == pytest.approx(bias, rel=1e-4, abs=1e-6)
    told = np.flatnonzero(scorer.weights).tolist()
    assert set(told) <= set(weights)
    for f, value in weights.items():
        assert scorer.weights[f] == pytest.approx(value, rel=1e-3, abs=1e-4)


def test_what_was_saved_scores_the_same(tmp_path):
    texts = [f"def f{i}(x): return x" if i % 2 else f"buy {i} cheap things" for i in range(40)]
    made = LinearScorer.train(CONFIG, Examples(batch(texts, [i % 2 for i in range(40)])), 1.0)
    for name, content in made.save().items():
        (tmp_path / name).write_bytes(content)
    opened = LinearScorer.open(CONFIG, lambda name: tmp_path / name, 0)
    assert opened.score(batch(texts)).tolist() == made.score(batch(texts)).tolist()
    assert made.save() == LinearScorer.train(CONFIG, Examples(batch(texts, [i % 2 for i in range(40)])), 1.0).save()


def test_hostile_texts_have_scores():
    texts = ["", "\0", " " * 1000, "\n", "x" * (3 << 20), "é" * 40_000, "(" * 100_000, "a b " * 50_000]
    made = LinearScorer.train(CONFIG, Examples(batch(texts, [i % 2 for i in range(len(texts))])), 1.0)
    scores = made.score(batch(texts))
    assert np.isfinite(scores).all()
    assert ((scores >= 0) & (scores <= 1)).all()


def test_marks_start_again_before_they_run_out():
    texts = ["one two three", "four five six one"]
    made = LinearScorer.train(CONFIG, Examples(batch(texts, [0, 1])), 1.0)
    before = made.score(batch(texts)).tolist()
    made._mark = np.uint32((1 << 32) - 2)
    assert made.score(batch(texts)).tolist() == before
    assert int(made._mark) < 10
