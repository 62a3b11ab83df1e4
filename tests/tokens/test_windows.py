"""What windows decide is what the automata find, and they leave little open."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pipelines import PIPELINES

from bench.published_patterns import CL100K_PATTERN
from headrace.tokens.automaton import Automata
from headrace.tokens.automaton_words import piece_end
from headrace.tokens.boundaries import ALONE, BEFORE, BEGINS, OPEN
from headrace.tokens.split_patterns import GPT2_PATTERN
from headrace.tokens.splitting import split_scanner
from headrace.tokens.vocabulary import parts
from headrace.tokens.words import Scanner
from quick import examples

CHARS = st.text(st.sampled_from([*"aAsrevl'  \n\r\t12(/", "\xe9", "\u6f22", "\u3000", "\u0663", "\u0301"]), max_size=60)
PROSE = "It's 1850 o'clock:\n\n    we'll have x[i] += 3.14159 (or 'so'), said DON'T  -- \"Llama's\" <p>25,000</p>\n" * 9


@pytest.fixture(scope="module", params=["gpt2", "cl100k", *PIPELINES])
def scanner(request, trained_definition) -> Scanner:
    patterns = {"gpt2": GPT2_PATTERN, "cl100k": CL100K_PATTERN}
    if request.param in patterns:
        split = {"type": "Split", "pattern": {"Regex": patterns[request.param]}, "behavior": "Isolated"}
        return split_scanner([split, {"type": "ByteLevel", "use_regex": False}])
    return split_scanner(parts(PIPELINES[request.param](trained_definition), "pre_tokenizer"))


def flags_of(text: str, scanner: Scanner) -> np.ndarray:
    """The flags of each character's window."""
    windows, points = scanner.windows, np.array([ord(char) for char in text], dtype=np.int64)
    codes = windows.codes[scanner.automata.classes[points]]
    padded = np.concatenate([np.full(BEFORE, windows.codes[-1]), codes, windows.codes[-2:-1]])
    numbers = sum(padded[k : k + len(text)] & mask for k, mask in enumerate(windows.masks))
    return windows.flags[numbers]


def begins_of(text: str, scanner: Scanner) -> set[int]:
    """The characters at which words begin, by the automata alone: each pattern within the pieces of the one before."""
    data, automata = np.frombuffer(text.encode(), dtype=np.uint8), scanner.automata
    number = {len(text[:i].encode()): i for i in range(len(text) + 1)}
    pieces = [(0, len(data))]
    for start in automata.starts.tolist():
        pieces = [piece for low, high in pieces for piece in split(data, low, high, automata, start)]
    return {number[low] for low, _ in pieces}


def split(data: np.ndarray, low: int, high: int, automata: Automata, start: int) -> Iterator[tuple[int, int]]:
    """The pieces of one pattern."""
    while low < high:
        end = piece_end(data, low, high, automata, start)
        yield low, end
        low = end


@settings(max_examples=examples(60))
@given(CHARS)
def test_windows_say_what_the_automata_find(scanner, text):
    if not text:
        return
    flags, begins = flags_of(text, scanner), begins_of(text, scanner)
    for i, flag in enumerate(flags.tolist()):
        if not flag & OPEN:
            assert bool(flag & BEGINS) == (i in begins), i
        if flag & ALONE:  # what follows is split as if the text began there
            assert {i + place for place in begins_of(text[i:], scanner)} == {place for place in begins if place >= i}, i


def test_little_is_left_open(scanner):
    flags = flags_of(PROSE, scanner)
    assert np.count_nonzero(flags & OPEN) < len(PROSE) / 10
    assert scanner.windows.flags.size <= 1 << 19
