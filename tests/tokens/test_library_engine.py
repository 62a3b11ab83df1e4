"""The engine gives the library's ids, keeps every byte, and never makes a special token out of text."""

from __future__ import annotations

import itertools
import json
from copy import copy

import numpy as np
import orjson
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from tokenizers import Tokenizer

from headrace.errors import UserError
from headrace.recipe.stages import SpecialTokens
from headrace.tokens.chunking import chunker
from headrace.tokens.definition import byte_level_definition, fingerprint, read_definition
from headrace.tokens.dummy_prefix import dummy_prefix_rule, without_dummy_prefix
from headrace.tokens.engine import Encoded, Texts, special_id, token_dtype
from headrace.tokens.library import LibraryEngine
from headrace.tokens.load import open_file
from headrace.tokens.split_patterns import LLAMA3_PATTERN
from headrace.tokens.vocabulary import byte_alphabet
from quick import examples

# U+2581 is how SentencePiece writes a space: for its models the two are one (tested apart).
TEXT = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\u2581"), max_size=80)
WORDS = st.lists(
    st.sampled_from(
        ["it's", " a", "word", "  ", "\n", "\n\n", "\t", "12345", "é", "漢字", "😀", "don't", "_x", "</s>"]
    ),
    max_size=60,
).map("".join)
FUZZ = settings(max_examples=examples(60), suppress_health_check=list(HealthCheck))


@FUZZ
@given(st.lists(TEXT | WORDS, max_size=5), st.booleans())
def test_every_text_decodes_to_its_bytes(engine, texts, first):
    batch = Texts.of(texts)
    encoded = engine.encode(batch, first)
    assert encoded.tokens.dtype == np.uint32
    assert [len(text) > 0 for text in texts] == (np.diff(encoded.offsets) > 0).tolist()
    decoded = engine.decode_batch(encoded)
    for i, text in enumerate(texts):
        assert engine.decode(encoded.of(i), first).decode() == text
        dummy = " " if first and engine.dummy_prefix and text else ""
        assert decoded.bytes_of(i).decode() == dummy + text
    assert not np.isin(encoded.tokens, engine.special_ids).any()


@FUZZ
@given(TEXT | WORDS, st.lists(st.integers(0, 80), max_size=4))
def test_pieces_encoded_apart_join_to_the_text(engine, text, cuts):
    bounds = [0, *sorted(min(cut, len(text)) for cut in cuts), len(text)]
    pieces = [text[a:b] for a, b in itertools.pairwise(bounds)]
    filled = [i for i, piece in enumerate(pieces) if piece]
    first = np.array([bool(filled) and i == filled[0] for i in range(len(pieces))])
    assert engine.decode(engine.encode(pieces, first).tokens).decode() == text


@FUZZ
@given(st.lists(TEXT, max_size=6))
def test_a_batch_gives_what_each_text_gives_alone(engine, texts):
    together = engine.encode(texts)
    for i, text in enumerate(texts):
        assert (together.of(i) == engine.encode([text]).tokens).all()


@pytest.fixture(scope="module")
def library(shared):
    tokenizer = Tokenizer.from_file(str(shared / "fixtures/tokenizers/crystalcoder.json"))
    tokenizer.encode_special_tokens = True
    return tokenizer


@FUZZ
@given(TEXT | WORDS)
def test_ids_are_those_of_the_library(library, crystal, text):
    assert crystal.encode([text]).tokens.tolist() == library.encode(text, add_special_tokens=False).ids


def test_known_ids(gpt2, llama):
    assert gpt2.encode(["Hello world", ""]).tokens.tolist() == [15496, 995]
    assert llama.encode(["Hello world"]).tokens.tolist() == [15043, 3186]
    assert llama.encode(["Hello world"], first=False).tokens.tolist() == [10994, 3186]


def test_sentencepiece_model_equals_its_converted_json(shared, llama, crystal):
    text = (shared / "fixtures/text/wikitext2_a.txt").read_text()[:200_000]
    texts = [*text.split("\n"), text, "\t\tx  =  1\r\n", "漢字😀\x00\x7f"]
    ours, theirs = llama.encode(texts), crystal.encode(texts)
    assert (ours.tokens == theirs.tokens).all()
    assert (ours.offsets == theirs.offsets).all()


def test_spelled_out_special_tokens_are_text(engine):
    spelled = [engine.decode(np.array([i]), first=False).decode() for i in engine.special_ids]
    text = "a" + " b".join(spelled) + spelled[0]
    tokens = engine.encode([text, *spelled]).tokens
    assert not np.isin(tokens, engine.special_ids).any()
    assert engine.decode(engine.encode([text]).tokens).decode() == text


def test_a_special_token_that_is_a_word_is_refused(trained):
    vocab = {char: i for i, char in enumerate(byte_alphabet())} | {"he": 256}
    definition = byte_level_definition(vocab, [["h", "e"]])
    token = {"id": 256, "content": "he", "single_word": False, "lstrip": False, "rstrip": False, "normalized": False}
    definition["added_tokens"] = [{**token, "special": True}]
    with pytest.raises(UserError, match="'he' also occurs as a token of ordinary text"):
        LibraryEngine(definition, {"eod": 256})


def test_the_meta_space_is_a_space_to_sentencepiece(llama, gpt2):
    assert llama.decode(llama.encode(["a\u2581b"]).tokens) == b"a b"
    assert gpt2.decode(gpt2.encode(["a\u2581b"]).tokens).decode() == "a\u2581b"


def test_arrow_texts_are_read_without_a_copy(trained):
    import pyarrow as pa

    array = pa.array(["nothing", "Grüße", "", "a b"], type=pa.large_string())
    texts = Texts.of(array)
    assert texts.data.ctypes.data == array.buffers()[2].address
    sliced = trained.encode(Texts.of(array.slice(1, 2)))
    assert (sliced.tokens == trained.encode(["Grüße"]).tokens).all()
    assert sliced.count == 2
    assert trained.encode(Texts.of(pa.array([], type=pa.string()))).count == 0


# Runs and joints of every class that the split patterns tell apart.
RUNS = st.lists(
    st.tuples(
        st.sampled_from([*"aZ09 '!=_\x00\n\r\t", "\u2581", "é", "漢", "\u0301", "\xa0", "'s", " a", "٣"]),
        st.sampled_from([1, 1, 2, 3, 9]),
    ),
    max_size=30,
).map(lambda runs: "".join(char * count for char, count in runs))


@settings(FUZZ, max_examples=examples(200))
@given(WORDS | TEXT | RUNS, st.integers(1, 12))
def test_long_texts_encoded_in_chunks_give_the_ids_of_the_whole(chunked_engine, text, size):
    chunked = copy(chunked_engine)
    chunked._chunk_bytes = size
    assert chunked._chunker is not None
    assert (chunked.encode([text]).tokens == chunked_engine.encode([text]).tokens).all()


def test_real_text_and_long_runs_are_cut_into_chunks_of_about_the_size(shared, chunked_engine):
    shakespeare = (shared / "fixtures/text/shakespeare.txt").read_bytes()
    for data in (shakespeare, b"\x00" * 200_000, b"aGk3" * 50_000):
        cuts = chunked_engine._chunker.cuts(np.frombuffer(data, np.uint8), 10_000)
        assert np.diff([0, *cuts, len(data)]).max() < 11_000 + 10_000 * (data is not shakespeare)
        assert len(cuts) > 15


def test_chunking_is_refused_where_it_is_not_known_to_be_exact(trained_definition, shared):
    definition = orjson.loads(orjson.dumps(trained_definition))
    assert chunker(definition).pattern
    added = {**definition["added_tokens"][0], "special": False}
    assert chunker({**definition, "added_tokens": [added]}) is None
    assert chunker({**definition, "normalizer": {"type": "Lowercase"}}) is None
    definition["pre_tokenizer"]["pretokenizers"][0]["pattern"]["Regex"] = LLAMA3_PATTERN + "|x y"
    assert chunker(definition) is None
    definition = read_definition(shared / "fixtures/tokenizers/llama.model")
    assert not chunker(definition).pattern
    definition["model"]["byte_fallback"] = False
    assert chunker(definition) is None


@pytest.mark.parametrize(
    "pre_tokenizer",
    [
        {"type": "Metaspace", "replacement": "\u2581", "prepend_scheme": "first", "split": False},
        {"type": "ByteLevel", "add_prefix_space": True, "trim_offsets": True, "use_regex": True},
    ],
)
def test_every_spelling_of_the_dummy_prefix_is_understood(pre_tokenizer):
    definition = {"normalizer": None, "pre_tokenizer": pre_tokenizer, "model": {}}
    assert dummy_prefix_rule(definition) == "unless there is one"
    assert dummy_prefix_rule(without_dummy_prefix(definition)) == "none"


def test_fingerprint_is_of_what_determines_the_ids(shared):
    folder = shared / "fixtures/tokenizers"
    crystal, llama = read_definition(folder / "crystalcoder.json"), read_definition(folder / "llama.model")
    assert fingerprint(crystal) != fingerprint(llama)
    again = {**llama, "decoder": None, "post_processor": None, "padding": None}
    again["model"] = {**llama["model"], "merges": [" ".join(merge) for merge in llama["model"]["merges"]]}
    assert fingerprint(again) == fingerprint(llama)
    again["model"]["merges"] = again["model"]["merges"][1:]
    assert fingerprint(again) != fingerprint(llama)


def test_fingerprint_tells_where_added_tokens_are_found(trained_definition):
    def with_token(**flags):
        token = {"id": 999, "content": "<|x|>", "special": False, "lstrip": False, "normalized": False, **flags}
        return fingerprint({**trained_definition, "added_tokens": [token]})

    assert len({with_token(), with_token(lstrip=True), with_token(normalized=True), with_token(special=True)}) == 4
    assert with_token(special=True) == with_token(special=True, rstrip=True)


def test_decode_reads_any_ids(engine):
    ids = np.arange(engine.vocab_size, dtype=np.uint32)
    lists = engine.decode_batch(Encoded(ids, np.arange(len(ids) + 1)))
    assert (np.diff(lists.offsets) == engine.lengths).all()
    assert lists.bytes_of(engine.special["eod"]).decode() in ("<|endoftext|>", "</s>")
    assert engine.decode(np.empty(0, np.uint32)) == b""


def test_roles_and_widths(gpt2, crystal):
    assert special_id(crystal, "fim_middle") == 32001
    assert crystal.vocab_size == 32022
    with pytest.raises(UserError, match="no special token for 'fim_prefix'"):
        special_id(gpt2, "fim_prefix")
    assert token_dtype(65_536) == np.uint16
    assert token_dtype(65_537) == np.uint32


def test_files_that_are_no_tokenizer_are_told(tmp_path, shared):
    model = (shared / "fixtures/tokenizers/llama.model").read_bytes()
    files = {
        "text.json": b"nothing",
        "list.json": b"[1]",
        "vocab.json": b'{"a": 0}',
        "half.model": model[:1000],
        "noise.model": bytes(range(256)),
        "word.json": json.dumps({"model": {"type": "WordPiece", "vocab": {"a": 0}}, "pre_tokenizer": None}).encode(),
    }
    for name, data in files.items():
        (tmp_path / name).write_bytes(data)
        with pytest.raises(UserError):
            open_file(tmp_path / name)
    for path in (tmp_path / "absent.json", tmp_path / "sub"):
        with pytest.raises(UserError):
            open_file(path)
    (tmp_path / "sub").mkdir()
    with pytest.raises(UserError, match="contains no tokenizer"):
        open_file(tmp_path / "sub")
    (tmp_path / "sub" / "tokenizer.model").write_bytes(model)
    assert open_file(tmp_path / "sub", SpecialTokens(eod="</s>")).vocab_size == 32_000


def test_a_long_text_of_one_that_loses_text_is_not_cut(shared):
    definition = read_definition(shared / "fixtures/tokenizers/crystalcoder.json")
    definition["normalizer"]["normalizers"][0]["prepend"] = "x"
    engine = LibraryEngine(definition, {}, chunk_bytes=10)
    text = "the mill wheel turns the stone"
    assert engine.decode(engine.encode([text]).tokens) == b"x" + text.encode()
    again = read_definition(shared / "fixtures/tokenizers/crystalcoder.json")
    assert again["normalizer"]["normalizers"][0]["prepend"] != "x", "a definition is its reader's own"
