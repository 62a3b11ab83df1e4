"""Any definition gives the ids of the tokenizers library or is refused with the reason; a loss is asked for."""

from __future__ import annotations

import random
import re
import unicodedata
import warnings

import orjson
import pytest
from generated import TEXTS, definition
from tokenizers import Tokenizer

from headrace.errors import UserError
from headrace.flow.notices import Notice
from headrace.recipe.stages import SpecialTokens
from headrace.tokens.fast import FastEngine
from headrace.tokens.load import open_file

SEEDS = 300
MORE = 6_000


def outcome(seed, folder):
    """How a definition fared: refused, lossy, ours or the library's; ids and texts are checked on the way."""
    made = definition(seed)
    path = folder / "tokenizer.json"
    path.write_bytes(orjson.dumps(made))
    loses: list[str] = []
    try:
        engine = open_file(path, SpecialTokens())
    except UserError as error:
        found = re.search(r"loses: \[(.*)\]", str(error))
        if not found:
            return "refused"
        loses = found[1].split(", ")
        try:
            engine = open_file(path, SpecialTokens(), loses=loses)
        except UserError:
            return "refused"
    reference = Tokenizer.from_str(path.read_text())
    reference.encode_special_tokens = True
    reference.no_truncation()
    for text in TEXTS:
        try:
            ids = engine.encode([text]).tokens.tolist()
        except UserError:  # what only this text tells
            return "refused"
        assert ids == reference.encode(text, add_special_tokens=False).ids, (seed, text)
        if not loses:
            back = engine.decode(engine.encode([text]).tokens).decode()
            assert same(text, back, made), (seed, text, back)
    return "lossy" if loses else "ours" if isinstance(engine, FastEngine) else "library"


def same(text, back, made):
    """Whether a text was had back, but for what is lost by all tokenizers of its kind."""
    if "NFC" in str(made["normalizer"]):
        text, back = unicodedata.normalize("NFC", text), unicodedata.normalize("NFC", back)
    if "\u2581" in str(made["normalizer"]) + str(made["pre_tokenizer"]):
        text = text.replace("\u2581", " ")
    return back == text or (text.startswith(" ") and back == text[1:])


def outcomes(seeds, folder):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", Notice)
        made = [outcome(seed, folder) for seed in seeds]
    return {kind: made.count(kind) for kind in ("refused", "lossy", "ours", "library")}


def test_any_definition_is_equal_or_refused(tmp_path):
    counts = outcomes(range(SEEDS), tmp_path)
    # The generator makes all four kinds, so that none of them goes untested.
    assert min(counts.values()) >= 10, counts


def damaged(value, rng):
    """A copy of JSON values in which one was taken away or changed for something of another kind."""
    odd = [None, -1, 2**40, 1.5, True, "x", "", [], {}, [[]], {"type": "x"}]
    if not isinstance(value, dict | list) or not value or rng.random() < 0.15:
        return rng.choice(odd)
    key = rng.choice([*value] if isinstance(value, dict) else range(len(value)))
    keep = {**value} if isinstance(value, dict) else [*value]
    if rng.random() < 0.1:
        del keep[key]
    else:
        keep[key] = damaged(value[key], rng)
    return keep


@pytest.mark.filterwarnings("ignore::headrace.flow.notices.Notice")
def test_damaged_definitions_are_told(tmp_path):
    rng, path = random.Random(1), tmp_path / "tokenizer.json"
    opened = 0
    for seed in range(400):
        path.write_bytes(orjson.dumps(damaged(definition(seed % 50), rng)))
        try:
            opened += open_file(path).vocab_size > 0
        except UserError:
            continue
    assert opened > 20


@pytest.mark.slow
def test_many_more_definitions(tmp_path):
    outcomes(range(SEEDS, SEEDS + MORE), tmp_path)
