"""Words end where the library's split patterns end them, wherever a text is cut into stretches."""

from __future__ import annotations

import itertools
import sysconfig
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from odd_text import RUNS
from tokenizers import Regex
from tokenizers.pre_tokenizers import Digits, Sequence, Split

from headrace.tokens.split_patterns import DIGITS, GPT2_PATTERN
from headrace.tokens.words import KNOWN, Scanner, Scratch, next_words, one_word, pattern_scanner

STRETCHES = [9, 16, 64, 4096]


@pytest.fixture(scope="module", params=[*sorted(KNOWN), "digits"])
def pattern(request):
    """A split pattern, or ``digits``: GPT-2's between numbers that stand alone."""
    return request.param


def scanner_of(pattern: str, stretch: int) -> Scanner:
    return pattern_scanner(*KNOWN.get(pattern, (DIGITS, 1)), stretch)


def matches(pattern: str, text: str) -> list[str]:
    """The words of the library."""
    split = Split(Regex(GPT2_PATTERN if pattern == "digits" else pattern), "isolated")
    splits = [Digits(individual_digits=True), split] if pattern == "digits" else [split]
    return [word for word, _ in Sequence(splits).pre_tokenize_str(text)] if text else []


def words(text: str, scanner: Scanner, scratch: Scratch) -> list[str]:
    raw = text.encode()
    data = np.frombuffer(raw + bytes(16), dtype=np.uint8)
    found, start = [], 0
    while start < len(raw):
        count = next_words(data, start, len(raw), scanner, scratch)
        bounds = start + scratch.starts[: count + 1].astype(np.int64)
        found += [raw[low:high].decode() for low, high in itertools.pairwise(bounds)]
        start = int(bounds[-1])
    return found


def one_by_one(text: str, scanner: Scanner) -> list[str]:
    """The plain scanners, a word at a time."""
    raw = text.encode()
    data = np.frombuffer(raw + bytes(16), dtype=np.uint8)
    found, start = [], 0
    while start < len(raw):
        end = one_word(data, start, len(raw), scanner)
        found.append(raw[start:end].decode())
        start = end
    return found


def room(stretch: int) -> Scratch:
    return Scratch(np.full(stretch + 2, 255, dtype=np.uint8), np.empty(stretch + 1, dtype=np.int32))


@settings(max_examples=400, suppress_health_check=list(HealthCheck))
@given(RUNS, st.sampled_from(STRETCHES))
def test_words_are_the_matches_of_the_pattern(pattern, text, stretch):
    expected = matches(pattern, text)
    scanner, scratch = scanner_of(pattern, stretch), room(stretch)
    assert one_by_one(text, scanner) == expected
    words("(\n \n" * 4, scanner, scratch)  # what is left of a stretch before must not be seen
    assert words(text, scanner, scratch) == expected


def test_every_character_in_every_place(pattern):
    points = [chr(point) for point in [*range(0x3400), *range(0xA000, 0xA900), *range(0xF900, 0x12000, 3)]]
    shown = [f"a{c}b {c}1{c}\n{c}'{c}s({c}{c} " for c in points if not 0xD800 <= ord(c) < 0xE000]
    text = "".join(shown)
    expected = matches(pattern, text)
    scanner = scanner_of(pattern, 4096)
    assert words(text, scanner, room(4096)) == expected
    assert one_by_one(text, scanner) == expected


def test_python_files_of_the_environment(pattern):
    scanner, scratch = scanner_of(pattern, 4096), room(4096)
    for path in sorted(Path(sysconfig.get_paths()["stdlib"]).glob("*.py"))[::9]:
        text = path.read_text(encoding="utf-8", errors="replace")
        assert words(text, scanner, scratch) == matches(pattern, text), path
