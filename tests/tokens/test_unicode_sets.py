"""The sets of characters are those of the library's regular expressions, at every code point."""

from __future__ import annotations

import unicodedata

import numpy as np
import pytest
from tokenizers import Regex
from tokenizers.pre_tokenizers import Digits, Split

from headrace.tokens.unicode_sets import PROPERTIES, numeric, property_set, white_space

POINTS = np.array([point for point in range(0x110000) if not 0xD800 <= point < 0xE000])
TEXT = "".join(map(chr, POINTS))


def of_library(pattern: str) -> np.ndarray:
    found = np.zeros(0x110000, dtype=bool)
    for _, (start, end) in Split(Regex(pattern), "removed", invert=True).pre_tokenize_str(TEXT):
        found[POINTS[start:end]] = True
    return found


@pytest.mark.parametrize("name", PROPERTIES)
def test_properties_are_those_of_the_library(name):
    assert (property_set(name) == of_library(rf"\p{{{name}}}+")).all()


def test_white_space_is_that_of_the_library():
    assert (white_space() == of_library(r"\s+")).all()


def test_digits_are_those_of_the_library():
    split, numbers = Digits(individual_digits=True), numeric()
    words = split.pre_tokenize_str("".join(f"a{chr(point)}a" for point in POINTS if not numbers[point]))
    assert len(words) == 1
    text = "".join(chr(point) for point in POINTS if numbers[point])
    assert len(split.pre_tokenize_str(text)) == len(text)


def test_names_are_read_as_the_library_reads_them():
    assert (property_set("H a_N") == property_set("han")).all()
    assert property_set("Klingon") is None


def test_sets_agree_with_unicodedata_where_python_knows_the_character():
    sets = {name: property_set(name) for name in PROPERTIES if name != "han"}
    space = white_space()
    for point in POINTS.tolist():
        category = unicodedata.category(chr(point))
        if category not in ("Cn", "Cs"):
            assert space[point] == (chr(point).isspace() and not 0x1C <= point <= 0x1F), hex(point)
            for name, chars in sets.items():
                assert chars[point] == category.lower().startswith(name), (hex(point), name)
