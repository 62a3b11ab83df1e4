"""Fill-in-the-middle: rates, orders, exact reassembly, and draws that depend on the document alone."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from headrace.errors import UserError
from headrace.flow.keys import salt
from headrace.sequence.cuts import character_cuts
from headrace.sequence.fim import PLAIN, PSM, SPM, draw, reassemble, transform
from headrace.tokens.engine import Texts, special_id
from headrace.tokens.load import open_file
from quick import examples

TEXT = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\u2581"), max_size=60)
FUZZ = settings(max_examples=examples(60), suppress_health_check=list(HealthCheck))
SENTINELS = ("<|fim_prefix|>", "<|fim_middle|>", "<|fim_suffix|>", "<|fim_pad|>")


def ids_of(count: int, start: int = 0) -> np.ndarray:
    return np.arange(2 * start, 2 * (start + count), dtype=np.uint64).reshape(-1, 2)


def documents(result, index):
    return result.tokens[result.offsets[index] : result.offsets[index + 1]]


def reference_cut(text: str, first: float, second: float) -> tuple[int, int]:
    """Two cuts by code points of the decoded text, as byte positions."""
    low, high = sorted((int(first * (len(text) + 1)), int(second * (len(text) + 1))))
    return len(text[:low].encode()), len(text[:high].encode())


@FUZZ
@given(st.lists(st.tuples(TEXT, st.floats(0, 1, exclude_max=True), st.floats(0, 1, exclude_max=True)), max_size=6))
def test_cuts_equal_the_plain_ones(cases):
    texts = Texts.of([text for text, _, _ in cases])
    draws = np.array([[a, b] for _, a, b in cases], dtype=np.float64).reshape(-1, 2)
    cuts = character_cuts(texts.data, texts.offsets, draws) - texts.offsets[:-1, None]
    assert [tuple(cut) for cut in cuts.tolist()] == [reference_cut(*case) for case in cases]


def test_cuts_are_uniform_over_all_boundaries_both_ends_included():
    n = 6000
    texts = Texts.of(["aé漢😀"] * n)
    _, draws = draw(ids_of(n), salt(1, "fim"), 1.0, 0.5)
    cuts = character_cuts(texts.data, texts.offsets, draws) - texts.offsets[:-1, None]
    found, counts = np.unique(cuts, return_counts=True)
    assert found.tolist() == [0, 1, 3, 6, 10]
    expected = 2 * n / 5
    assert ((counts - expected) ** 2 / expected).sum() < 20  # chi-square with 4 degrees: p < 0.001


@FUZZ
@given(st.lists(TEXT, max_size=8), st.integers(0, 2**64 - 1), st.sampled_from([0.0, 0.5, 1.0]))
def test_every_document_reassembles_to_its_bytes(engine, texts, key, spm):
    made = transform(Texts.of(texts), ids_of(len(texts)), engine, key, 0.9, spm)
    for i, text in enumerate(texts):
        assert reassemble(documents(made, i), engine).decode() == text
        closed = np.append(documents(made, i), engine.special["eod"])
        assert reassemble(closed, engine).decode() == text


@pytest.mark.parametrize("spm", [0.0, 1.0])
def test_the_orders_are_those_of_the_paper(engine, spm):
    texts = ["def add(a, b):\n    return a + b\n"] * 40
    made = transform(Texts.of(texts), ids_of(40), engine, salt(3, "fim"), 1.0, spm)
    pre, suf, mid = (special_id(engine, f"fim_{part}") for part in ("prefix", "suffix", "middle"))
    assert set(made.kind.tolist()) == {SPM if spm else PSM}
    for i in range(40):
        tokens = documents(made, i).tolist()
        assert tokens[0] == pre
        assert [t for t in tokens if t in (pre, suf, mid)] == [pre, suf, mid]
        if spm:
            assert tokens[1] == suf
        lead = np.array(tokens[1 : tokens.index(suf)], dtype=np.uint32)
        assert texts[i].startswith(engine.decode(lead).decode())


def test_plain_documents_are_what_the_token_store_holds(engine):
    texts = Texts.of(["one text", "another one\n", "", "漢字"])
    made = transform(texts, ids_of(4), engine, 5, 0.0, 0.5)
    plain = engine.encode(texts)
    assert (made.kind == PLAIN).all()
    assert (made.tokens == plain.tokens).all()
    assert (made.offsets == plain.offsets).all()


def within(count: int, n: int, p: float) -> bool:
    return abs(count - n * p) < 4 * np.sqrt(n * p * (1 - p))


def test_rates_are_binomial():
    n = 20_000
    for rate, spm in ((0.9, 0.5), (0.3, 0.5), (0.5, 0.1)):
        kind, cuts = draw(ids_of(n), salt(1, "fim", "stage2", 0), rate, spm)
        assert within(int((kind != PLAIN).sum()), n, rate)
        assert within(int((kind == SPM).sum()), int((kind != PLAIN).sum()), spm)
        # What happens to a document says nothing about where it is cut, nor one cut about the other.
        assert abs(cuts[kind == SPM].mean() - cuts[kind == PSM].mean()) < 0.02
        assert abs(np.corrcoef(cuts.T)[0, 1]) < 0.03
    assert (draw(ids_of(n), 7, 1.0, 1.0)[0] == SPM).all()


def test_epochs_stages_and_seeds_draw_differently():
    n = 4000
    purposes = [(1, "fim", "stage2", 0), (1, "fim", "stage2", 1), (1, "fim", "stage3", 0), (2, "fim", "stage2", 0)]
    drawn = [draw(ids_of(n), salt(seed, *rest), 0.5, 0.5) for seed, *rest in purposes]
    for i, (kind, cuts) in enumerate(drawn):
        for other, other_cuts in drawn[:i]:
            assert within(int(((kind != PLAIN) & (other != PLAIN)).sum()), n, 0.25)
            assert abs(np.corrcoef(cuts[:, 0], other_cuts[:, 0])[0, 1]) < 0.08


@FUZZ
@given(st.lists(TEXT, min_size=1, max_size=8), st.randoms(use_true_random=False))
def test_neither_the_batch_nor_the_order_matters(small, texts, random):
    ids = ids_of(len(texts))
    together = transform(Texts.of(texts), ids, small, 11, 0.7, 0.5)
    order = list(range(len(texts)))
    random.shuffle(order)
    shuffled = transform(Texts.of([texts[i] for i in order]), ids[order], small, 11, 0.7, 0.5)
    for place, i in enumerate(order):
        alone = transform(Texts.of([texts[i]]), ids[i : i + 1], small, 11, 0.7, 0.5)
        assert documents(together, i).tolist() == documents(shuffled, place).tolist() == alone.tokens.tolist()


def test_an_empty_document_gets_no_sentinels(small):
    made = transform(Texts.of(["", ""]), ids_of(2), small, 1, 1.0, 0.5)
    assert made.tokens.tolist() == []
    assert made.kind.tolist() == [PLAIN, PLAIN]


def test_a_tokenizer_without_sentinels_is_told(shared):
    bare = open_file(shared / "fixtures/tokenizers/gpt2-vocab.json")
    assert len(transform(Texts.of(["a"]), ids_of(1), bare, 1, 0.0, 0.5).tokens) == 1
    with pytest.raises(UserError, match="fim_prefix"):
        transform(Texts.of(["a"]), ids_of(1), bare, 1, 1.0, 0.5)


def test_special_tokens_in_the_text_stay_text(engine):
    text = "".join(SENTINELS) + "</s><|endoftext|>"
    for key in range(20):
        made = transform(Texts.of([text]), ids_of(1), engine, key, 1.0, 0.5)
        assert np.isin(made.tokens, engine.special_ids).sum() == 3
        assert reassemble(made.tokens, engine).decode() == text
