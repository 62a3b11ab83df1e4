"""Added tokens that are not special are cut out of text as the library does it, or left to the library."""

from __future__ import annotations

import orjson
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pipelines import gpt_neox, with_added
from tokenizers.normalizers import NFC

from headrace.errors import UserError
from headrace.tokens.covered import NotCoveredError
from headrace.tokens.definition import byte_level_definition
from headrace.tokens.fast import FastEngine
from headrace.tokens.library import LibraryEngine
from headrace.tokens.load import _say_once, engine_from
from headrace.tokens.vocabulary import byte_alphabet
from quick import examples

FUZZ = settings(max_examples=examples(100), suppress_health_check=list(HealthCheck))
LETTERS = "ab\xe9\u0301 "
CONTENT = st.text(LETTERS, min_size=1, max_size=4)


@pytest.fixture(scope="module")
def letters():
    """Every byte a token, and a few words."""
    vocab = dict(byte_alphabet())
    merges = [["a", "b"], ["\u0120", "a"], ["ab", "ab"]]
    for pair in merges:
        vocab.setdefault("".join(pair), len(vocab))
    return byte_level_definition(vocab, merges)


@FUZZ
@given(st.lists(st.tuples(CONTENT, st.booleans(), st.booleans()), max_size=8, unique_by=lambda token: token[0]),
       st.lists(st.text(LETTERS, max_size=20), max_size=4), st.booleans())  # fmt: skip
def test_any_tokens_are_found_where_the_library_finds_them(letters, tokens, texts, nfc):
    definition = {**letters, "normalizer": {"type": "NFC"} if nfc else None}
    for content, special, normal in tokens:
        definition = with_added(definition, content, special=special, normalized=normal)
    cut = not all(special for _, special, _ in tokens)
    if nfc and cut and any(normal and NFC().normalize_str(content) != content for content, _, normal in tokens):
        with pytest.raises(NotCoveredError, match="normal form"):
            FastEngine(definition, {})
        return
    try:
        theirs = LibraryEngine(definition, {})
    except UserError:  # a special token that other tokens spell
        with pytest.raises(UserError):
            FastEngine(definition, {})
        return
    ours = FastEngine(definition, {})
    assert ours.encode(texts).tokens.tolist() == theirs.encode(texts).tokens.tolist()
    assert ours.count(texts).tolist() == theirs.count(texts).tolist()


def test_runs_of_spaces(trained_definition):
    definition = gpt_neox(trained_definition)
    engine = FastEngine(definition, {})
    ids = {token["content"]: token["id"] for token in definition["added_tokens"]}
    assert engine.encode(["  ", " " * 30]).tokens.tolist() == [ids["  "], ids[" " * 24], ids[" " * 6]]
    text = "def f():\n    return 1\n"
    encoded = engine.encode([text, "", text])
    assert ids["    "] in encoded.tokens
    assert (encoded.of(0) == encoded.of(2)).all()
    spans = engine.spans(encoded)[: encoded.offsets[1]]
    assert (spans[1:, 0] == spans[:-1, 1]).all()
    assert spans[-1, 1] == len(text)


@pytest.mark.parametrize(
    ("change", "why"),
    [
        ({"lstrip": True}, "loses text through lstrip"),
        ({"single_word": True}, "depend on the text around them"),
        ({"id": 9999}, "ids differ"),
        ({"content": ""}, "one is empty"),
        ({"content": "e\u0301", "normalized": True}, "normal form"),
    ],
)
def test_what_is_left_to_the_library(letters, change, why):
    definition = with_added({**letters, "normalizer": {"type": "NFC"}}, "xyz")
    definition["added_tokens"][-1] |= change
    with pytest.raises(NotCoveredError, match=why):
        FastEngine(definition, {})


def test_spellings_alike_spaces_before_texts_and_other_models_are_left_to_the_library(letters):
    twice = with_added(letters, "xyz")
    twice["added_tokens"].append({**twice["added_tokens"][-1], "normalized": True})
    with pytest.raises(NotCoveredError, match="added tokens are equal"):
        FastEngine(twice, {})
    spaced = with_added(letters, "xyz")
    spaced["pre_tokenizer"] = {**spaced["pre_tokenizer"], "add_prefix_space": True}
    with pytest.raises(NotCoveredError, match="added_tokens"):
        FastEngine(spaced, {})


def test_special_tokens_alone_cut_nothing(letters):
    definition = with_added(letters, "<x>", special=True)
    engine = FastEngine(definition, {})
    assert engine._changes == ([], [])
    assert engine.encode(["<x>"]).tokens.tolist() == [letters["model"]["vocab"][char] for char in "<x>"]


def test_tokens_with_a_duty_are_special_whatever_the_definition_says(letters):
    definition = with_added(letters, "<fim>", "<tool>")
    fim, tool = (token["id"] for token in definition["added_tokens"])
    stripping = orjson.loads(orjson.dumps(definition))
    stripping["added_tokens"][1]["lstrip"] = True
    ours = engine_from(definition, {"fim_prefix": fim})
    _say_once.cache_clear()
    with pytest.warns(UserWarning, match="loses text through lstrip"):
        library = engine_from(stripping, {"fim_prefix": fim})
    assert isinstance(ours, FastEngine)
    assert isinstance(library, LibraryEngine)
    for engine in (ours, library):
        tokens = engine.encode(["a <fim>b<tool>"]).tokens
        assert fim not in tokens
        assert tool in tokens


def test_runs_of_meta_spaces_that_are_added_tokens_decode_to_spaces(on_ours, on_library, request):
    engine, library = on_ours("gemma", request), on_library("gemma", request)
    text = "a    b\n\n\n\nc<table>d's \xe9 e\u0301a b"
    for made in (engine, library):
        encoded = made.encode([text])
        assert made.decode(encoded.tokens) == text.encode()
        assert made.spans(encoded)[-1, 1] == len(text.encode())
