"""The project's own engine gives the library's ids on every text, however strange, and whatever it did before."""

from __future__ import annotations

import itertools
import random
import sysconfig
import unicodedata
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from odd_text import RUNS
from pipelines import PIPELINES, QWEN2_PATTERN, with_pattern
from tokenizers.normalizers import NFC

from bench.published_patterns import CL100K_PATTERN
from headrace.errors import UserError
from headrace.tokens.definition import byte_level_definition
from headrace.tokens.engine import Texts
from headrace.tokens.fast import FastEngine
from headrace.tokens.library import LibraryEngine
from headrace.tokens.load import engine_from
from headrace.tokens.split_patterns import LLAMA3_PATTERN
from headrace.tokens.vocabulary import byte_alphabet
from quick import examples, quick

ALL = ["trained", "gpt2", "llama", "crystal", *PIPELINES, "gemma"]
FUZZ = settings(max_examples=examples(150), suppress_health_check=list(HealthCheck))

ANY = st.text(st.characters(exclude_categories=["Cs"]), max_size=60)


def same(ours, theirs, texts, first=True) -> bool:
    batch = Texts.of(texts)
    a, b = ours.encode(batch, first), theirs.encode(batch, first)
    return np.array_equal(a.offsets, b.offsets) and np.array_equal(a.tokens, b.tokens)


@FUZZ
@given(st.lists(RUNS | ANY, max_size=4), st.booleans())
def test_fuzzed_text_gives_the_ids_of_the_library(both, texts, first):
    assert same(*both, texts, first)


@pytest.mark.parametrize("both", quick(ALL, "trained", "crystal", "gpt-oss"), indirect=True)
def test_every_code_point(both):
    points = [chr(point) for point in range(0x110000) if not 0xD800 <= point < 0xE000]
    text = "".join(points)
    assert same(*both, ["".join(char for char in points[::7]), text[: 1 << 16], text[1 << 16 :: 3]])
    # Each between letters, digits, spaces and signs: its class decides where words end.
    shown = [f"a{char}b {char}1{char}\n{char}'{char}s" for char in points[:0x3400] + points[0xF000:0x12000:3]]
    assert same(*both, shown)


PATHOLOGICAL = {
    "one word": "a" * 30_000,
    "a word of two letters": "ab" * 20_000,
    "no pattern": "".join(random.Random(1).choices("abcdefghijklmnopqrstuvwxyz", k=40_000)),
    "spaces": " " * 1_000_000,
    "spaces and a letter": " " * 70_000 + "a",
    "tabs": "\t" * 30_000,
    "line ends": "\r\n" * 20_000 + "x" + "\n" * 9_001,
    "line ends after signs": "(\n" * 9_000 + ")" + "\n" * 20_000 + "  x",
    "combining marks": "\u0301\u0323" * 12_000,
    "four bytes": "\U0001f600\U00020000\U0001d7d9" * 6_000,
    "digits": "7" * 30_001,
    "apostrophes": "'" * 10_001 + "s" + "'s" * 9_000,
    "wide spaces": "\u3000" * 9_000 + "a" + "\u3000b" * 5_000 + "\xa0" * 4_100,
    "meta spaces": "\u2581" * 9_000 + "a\u2581 b" * 900,
    "Cyrillic": "".join(random.Random(2).choices("\u0430\u0431\u0432\u0433", k=20_000)),
    "random digits": "".join(random.Random(3).choices("0123456789", k=30_000)),
    "every pair of bytes": "".join(chr(a) + chr(b) for a in range(256) for b in range(0, 256, 5)),
    "random bytes": random.Random(4).randbytes(30_000).decode("latin-1"),
    "random bytes, replaced": random.Random(5).randbytes(30_000).decode("utf-8", "replace"),
    "decomposed": "e\u0301" * 9_000 + "\xe9\u0323x" * 3_000 + "\u1100\u1161" * 4_000,
    "signs and line ends": "(\n/" * 9_000 + "(\n \n" * 5_000,
    "upper case after Chinese": "\u6f22" + "A" * 20_000 + "\u6f22AB" * 5_000 + "\u6f22" + "A" * 9_000 + "b",
    "changes of case": "aB" * 12_000 + "aBC\u0301" * 3_000,
    "replacement characters": "\ufffd" * 15_000,
}


@pytest.mark.parametrize("name", PATHOLOGICAL)
def test_pathological_text(both, name):
    assert same(*both, [PATHOLOGICAL[name]])


@pytest.mark.parametrize("pattern", [LLAMA3_PATTERN, CL100K_PATTERN, QWEN2_PATTERN])
def test_pathological_text_with_other_patterns(trained_definition, pattern):
    definition = with_pattern(trained_definition, pattern)
    assert same(FastEngine(definition, {}), LibraryEngine(definition, {}), [*PATHOLOGICAL.values()])


@pytest.mark.parametrize("both", quick(ALL, "gpt2", "llama", "qwen"), indirect=True)
def test_python_files_of_the_environment(both):
    files = sorted(Path(sysconfig.get_paths()["stdlib"]).glob("*.py"))
    texts = [path.read_text(encoding="utf-8", errors="replace") for path in files[::6]]
    assert sum(map(len, texts)) > 500_000
    assert same(*both, texts)
    assert same(*both, texts[:20], first=False)


def reference(definition, text: str) -> list[int]:
    """BPE of one word in the plainest way: merge the leftmost pair of the best rank until none is left."""
    model = definition["model"]
    spelled = {byte: char for char, byte in byte_alphabet().items()}
    ranks = {tuple(merge): rank for rank, merge in enumerate(model["merges"])}
    symbols = [spelled[byte] for byte in text.encode()]
    while True:
        pairs = [ranks.get(pair, len(ranks)) for pair in itertools.pairwise(symbols)]
        if not pairs or min(pairs) == len(ranks):
            return [model["vocab"][symbol] for symbol in symbols]
        at = pairs.index(min(pairs))
        symbols[at : at + 2] = [symbols[at] + symbols[at + 1]]


@FUZZ
@given(st.text("abc", max_size=200), st.randoms(use_true_random=False))
def test_any_merges_give_what_the_plainest_way_gives(text, rng):
    """Merges in an order that no training gives, where a result may come of several pairs and be used before it is."""
    vocab = {char: index for index, char in enumerate(byte_alphabet())}
    pieces, merges = ["a", "b", "c"], []
    for _ in range(rng.randrange(1, 40)):
        pair = [rng.choice(pieces), rng.choice(pieces)]
        if pair not in merges and len("".join(pair)) < 40:
            merges.append(pair)
            pieces.append("".join(pair))
            vocab.setdefault(pieces[-1], len(vocab))
    rng.shuffle(merges)
    definition = byte_level_definition(vocab, merges)
    assert FastEngine(definition, {}).encode([text]).tokens.tolist() == reference(definition, text)


def test_words_that_are_tokens_whatever_the_merges_say(trained_definition):
    vocab = {**trained_definition["model"]["vocab"], "wheelbarrow": 600, "\u0120qqq": 601}
    for ignore in (True, False):
        definition = with_pattern(trained_definition, QWEN2_PATTERN)
        definition["model"] |= {"vocab": vocab, "ignore_merges": ignore}
        ours, library = FastEngine(definition, {}), LibraryEngine(definition, {})
        texts = ["wheelbarrow qqq wheelbarrows", "wheel"]
        assert same(ours, library, texts)
        assert (601 in ours.encode(texts).tokens) == ignore


def test_the_removed_spelling_of_a_pattern_is_the_same(trained_definition):
    definition = with_pattern(trained_definition, CL100K_PATTERN)
    split = definition["pre_tokenizer"]["pretokenizers"][0]
    split["behavior"], split["invert"] = "Removed", True
    text = ["it's a 12345 (test)\n\n  of \u017f'\u017f ..."]
    assert same(FastEngine(definition, {}), LibraryEngine(definition, {}), text)


def test_a_space_before_texts_that_are_normalised(trained_definition):
    level = {"type": "ByteLevel", "add_prefix_space": True, "trim_offsets": True, "use_regex": True}
    definition = {**trained_definition, "normalizer": {"type": "NFC"}, "pre_tokenizer": level}
    ours, library = FastEngine(definition, {}), LibraryEngine(definition, {})
    for first in (True, np.array([False, True, False, True, True])):
        assert same(ours, library, ["\u0338a", "e\u0301", "\u0301", "", " a\u0323\u0301"], first)


def test_what_was_encoded_before_makes_no_difference(both, trained_definition):
    ours, library = both
    rng = random.Random(2)
    # More different words than the tables hold, so that entries are overwritten.
    noise = [" ".join(str(rng.randrange(10**9)) for _ in range(2000)) for _ in range(30)]
    text = ["the wheel turns; it's 1850 " * 3, *noise[:2]]
    before = ours.encode(text).tokens.tolist()
    ours.encode(noise)
    assert ours.encode(text).tokens.tolist() == before == library.encode(text).tokens.tolist()


def test_text_that_is_not_utf8_is_refused(trained):
    for bad in (b"\xff", b"a\xc3", b"\xed\xa0\x80", b"\xf4\x90\x80\x80"):
        with pytest.raises(UserError, match="not UTF-8"):
            trained.encode(Texts.of([b"good", bad, b"good"]))


def test_what_is_not_covered_runs_on_the_library_and_is_said(trained_definition):
    definition = {**trained_definition, "normalizer": {"type": "NFKC"}}
    with pytest.warns(UserWarning, match="it loses text through NFKC"):
        engine = engine_from(definition, {})
    assert isinstance(engine, LibraryEngine)
    text = "e\u0301\ufb01"
    assert engine.decode(engine.encode([text]).tokens).decode() == unicodedata.normalize("NFKC", text)
    assert isinstance(engine_from(trained_definition, {}), FastEngine)


@FUZZ
@given(st.lists(RUNS | ANY, max_size=4), st.booleans())
def test_spans_are_the_bytes_that_tokens_spell(engine, texts, first):
    encoded = engine.encode(texts, first)
    spans = engine.spans(encoded, first, texts)
    assert engine.count(texts, first).tolist() == np.diff(encoded.offsets).tolist()
    for i, text in enumerate(texts):
        own = spans[encoded.offsets[i] : encoded.offsets[i + 1]]
        data = text.encode()
        assert b"".join(data[low:high] for low, high in own) == data
        dummy = engine.dummy_prefix and first
        for token, (low, high) in zip(encoded.of(i), own, strict=True):
            spelled, span = engine.decode(np.array([token]), first=False), data[low:high]
            # To SentencePiece's tokenizers U+2581 is a space; the dummy space lies before the text.
            meant = [span, span.replace("\u2581".encode(), b" ")]
            assert spelled in meant or (dummy and low == 0 and spelled in [b" " + value for value in meant])
    plain = [text.replace("\u2581", " ") for text in texts]
    encoded = engine.encode(plain, first)
    assert (engine.spans(encoded, first) == engine.spans(encoded, first, Texts.of(plain))).all()


@FUZZ
@given(st.lists(RUNS | ANY, min_size=1, max_size=4))
def test_spans_agree_with_the_offsets_of_the_library(both, texts):
    """The library's are in characters, and a part of a character is the whole of it there."""
    ours, theirs = both
    if "NFC" in str(theirs._tokenizer.normalizer):  # the spans are those of the changed text
        texts = [NFC().normalize_str(text) for text in texts]
    encoded = ours.encode(texts)
    spans = ours.spans(encoded, True, texts)
    prefixed = [" " + text if ours.dummy_prefix and text else text for text in texts]
    for i, found in enumerate(theirs._tokenizer.encode_batch(prefixed, add_special_tokens=False)):
        own = spans[encoded.offsets[i] : encoded.offsets[i + 1]]
        assert found.ids == encoded.of(i).tolist()
        assert characters(texts[i], own) == [
            (max(0, low - ours.dummy_prefix), high - ours.dummy_prefix) for low, high in found.offsets
        ]


def characters(text, spans):
    """The characters that spans of bytes touch, as (first, after the last)."""
    owner = [i for i, char in enumerate(text) for _ in char.encode()]
    return [(owner[low], owner[high - 1] + 1) if high > low else (0, 0) for low, high in spans.tolist()]
