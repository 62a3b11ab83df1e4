"""The classes of characters are those of the library's regular expressions, at every code point."""

from __future__ import annotations

import unicodedata

import numpy as np
import pytest
from tokenizers import Regex
from tokenizers.pre_tokenizers import Digits, Split

from headrace.tokens.case_classes import LOWER, MARK, UPPER, case_classes
from headrace.tokens.unicode_classes import LETTER, NUMBER, OTHER, SPACE, code_point_classes, digits_classes

POINTS = [point for point in range(0x110000) if not 0xD800 <= point < 0xE000]
PLAIN = [(LETTER, r"\p{L}+"), (NUMBER, r"\p{N}+"), (SPACE, r"\s+")]
CASES = [(UPPER, r"[\p{Lu}\p{Lt}]+"), (LOWER, r"\p{Ll}+"), (MARK, r"\p{M}+")]


@pytest.mark.parametrize(("classes", "patterns"), [(code_point_classes, PLAIN), (case_classes, PLAIN + CASES)])
def test_classes_are_those_of_the_library(classes, patterns):
    text = "".join(map(chr, POINTS))
    found = np.full(0x110000, OTHER, dtype=np.uint8)
    for code, pattern in patterns:
        for _, (start, end) in Split(Regex(pattern), "removed", invert=True).pre_tokenize_str(text):
            found[POINTS[start:end]] = code
    assert (found == classes()).all()


def test_digits_are_those_of_the_library():
    split = Digits(individual_digits=True)
    classes = digits_classes()
    words = split.pre_tokenize_str("".join(f"a{chr(point)}a" for point in POINTS if classes[point] != NUMBER))
    assert len(words) == 1
    numbers = "".join(chr(point) for point in POINTS if classes[point] == NUMBER)
    assert len(split.pre_tokenize_str(numbers)) == len(numbers)


def test_classes_agree_with_unicodedata_where_python_knows_the_character():
    classes = code_point_classes()
    for point in range(0x110000):
        category = unicodedata.category(chr(point))
        if category not in ("Cn", "Cs"):
            space = chr(point).isspace() and not 0x1C <= point <= 0x1F
            expected = {"L": LETTER, "N": NUMBER}.get(category[0], SPACE if space else OTHER)
            assert classes[point] == expected, hex(point)
