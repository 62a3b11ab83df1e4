"""Infilling: holes are cut where they should; what knows the documents fills them, what does not fills none."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from reciting import Reading
from test_sampling import EOD, MIDDLE, PREFIX, SUFFIX, engine  # noqa: F401 - a fixture

from headrace.evaluate.infilling import LINE, SPAN, SPAN_CHARACTERS, Hole, cut_holes, infilling_exact_match
from headrace.evaluate.language import Own
from headrace.model.config import ModelConfig
from headrace.model.transformer import Transformer
from headrace.sequence.store import SEGMENT

TEXTS = ["".join(f"def name{i}_{k}(a, b):\n    return a * {k} + {i}\n\n" for k in range(7 + i)) for i in range(6)]
WIDTH = 1200


class Held:
    """Rows of a held-out sequence: a document of code, one of prose, and the end of another one of code."""

    sources = ("code", "prose")
    seq_len = WIDTH - 1

    def __len__(self):
        return len(TEXTS)

    def segments(self, row):
        size = len(TEXTS[row])
        pieces = [(0, size, row, 0, 0, 0, 0), (size, 300, row + 50, 0, 1, 0, 0), (size + 300, 250, 77, 9, 0, 0, 0)]
        return np.array(pieces, dtype=SEGMENT)

    def rows(self, start, stop):
        texts = [np.frombuffer((text + "text\n" * 300)[:WIDTH].encode(), np.uint8) for text in TEXTS[start:stop]]
        return np.stack(texts).astype(np.uint16)


class Knowing:
    """Knows every document, but one hole of each kind."""

    stop = (EOD,)

    def __init__(self, tokenizer, holes, forgotten):
        self.engine, self._texts = tokenizer, []
        for hole in holes:
            answer = "?" if hole in forgotten else hole.truth + ("\nmore" if hole.kind == LINE else "")
            side = Held.seq_len // 4
            prefix, suffix = hole.prefix.encode()[-side:], hole.suffix.encode()[:side]
            prompt = [EOD, PREFIX, *prefix, SUFFIX, *suffix, MIDDLE]
            self._texts.append((len(prompt), [*prompt, *answer.encode()]))

    def decode(self, prompt, tokens):
        return bytes(tokens).decode()

    def decoding(self):
        return Reading(self._texts, EOD, 264)


@pytest.fixture
def holes(engine):  # noqa: F811
    return list(cut_holes(Held(), engine, ["code"], 99, 1))


def test_a_line_and_a_span_are_cut_into_each_document(engine, holes):  # noqa: F811
    assert [hole.kind for hole in holes] == [LINE, SPAN] * len(TEXTS)
    for hole in holes:
        text = TEXTS[holes.index(hole) // 2]
        assert hole.prefix + hole.truth + hole.suffix == text
        if hole.kind == LINE:
            assert hole.truth.strip() == hole.truth != ""
            assert hole.prefix.rstrip(" ").endswith("\n")
            assert hole.suffix.startswith("\n")
        else:
            assert 1 <= len(hole.truth) <= SPAN_CHARACTERS
    assert len({len(hole.prefix) for hole in holes}) > 6
    assert list(cut_holes(Held(), engine, ["code"], 2, 1)) == holes[:4]
    assert list(cut_holes(Held(), engine, ["code"], 99, 2)) != holes
    assert len(list(cut_holes(Held(), engine, ["code", "prose"], 99, 1))) == 4 * len(TEXTS)
    assert list(cut_holes(Held(), engine, [], 99, 1)) == []


def test_exact_matches_are_counted(engine, holes):  # noqa: F811
    found = infilling_exact_match(Knowing(engine, holes, holes[2:4]), Held(), ["code"], 99, 1)
    assert found == {LINE: {"exact": 5, "holes": 6}, SPAN: {"exact": 5, "holes": 6}}


def test_a_model_that_knows_nothing_fills_nothing(engine):  # noqa: F811
    torch.set_num_threads(1)
    model = Transformer(ModelConfig(vocab_size=264, layers=1, width=32, heads=2, ffn=40))
    model.initialise(1)
    found = infilling_exact_match(Own(model, engine), Held(), ["code"], 3, 1)
    assert found == {LINE: {"exact": 0, "holes": 3}, SPAN: {"exact": 0, "holes": 3}}
    assert infilling_exact_match(Own(model, engine), Held(), [], 3, 1) is None


def test_of_a_line_that_line_counts():
    line, span = Hole(LINE, "a", "x = 1", "\n"), Hole(SPAN, "a", "x = 1", "\n")
    assert line.filled("x = 1  \nmore")
    assert line.filled("x = 1")
    assert not line.filled("x = 10")
    assert span.filled("x = 1")
    assert not span.filled("x = 1\n")
