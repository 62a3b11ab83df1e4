"""The classes of characters are those of the library's regular expressions, at every code point."""

from __future__ import annotations

import unicodedata

import numpy as np
from tokenizers import Regex
from tokenizers.pre_tokenizers import Split

from headrace.tokens.unicode_classes import LETTER, NUMBER, OTHER, SPACE, code_point_classes


def test_classes_are_those_of_the_library():
    points = [point for point in range(0x110000) if not 0xD800 <= point < 0xE000]
    text = "".join(map(chr, points))
    found = np.full(0x110000, OTHER, dtype=np.uint8)
    for code, pattern in ((LETTER, r"\p{L}+"), (NUMBER, r"\p{N}+"), (SPACE, r"\s+")):
        for _, (start, end) in Split(Regex(pattern), "removed", invert=True).pre_tokenize_str(text):
            found[points[start:end]] = code
    assert (found == code_point_classes()).all()


def test_classes_agree_with_unicodedata_where_python_knows_the_character():
    classes = code_point_classes()
    for point in range(0x110000):
        category = unicodedata.category(chr(point))
        if category not in ("Cn", "Cs"):
            space = chr(point).isspace() and not 0x1C <= point <= 0x1F
            expected = {"L": LETTER, "N": NUMBER}.get(category[0], SPACE if space else OTHER)
            assert classes[point] == expected, hex(point)
