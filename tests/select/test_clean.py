"""The cleaning kernel against the Python expression of SlimPajama."""

from __future__ import annotations

import re
import string

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from headrace.select.clean import clean, clean_text

# Letters that change length or depend on neighbours in lower case, every sort of white space, and all of Unicode.
AWKWARD = st.sampled_from("İΣσςẞßKAz09 \t\n\r\x0b\x0c\x1c\x1d\x1e\x1f\x85\xa0\u2003\u2028\u3000\u200b\x00.,-_'\"~")
TEXTS = st.text(st.one_of(AWKWARD, st.characters(exclude_categories=("Cs",)), st.sampled_from("abc XYZ.\n")))


def reference(text: str) -> str:
    text = text.lower().translate(str.maketrans("", "", string.punctuation))
    return re.sub(r"\s+", " ", text.strip())


def pack(texts: list[str], lead: bytes = b"") -> tuple[np.ndarray, np.ndarray]:
    raw = [text.encode() for text in texts]
    offsets = np.cumsum([len(lead), *map(len, raw)], dtype=np.int64)
    return np.frombuffer(lead + b"".join(raw), dtype=np.uint8), offsets


def cleaned(texts: list[str], lead: bytes = b"") -> list[str]:
    points, starts, lengths = clean(*pack(texts, lead))
    return [
        points[s : s + n].tobytes().decode("utf-32-le", "surrogatepass") for s, n in zip(starts, lengths, strict=True)
    ]


@given(st.lists(TEXTS, max_size=6))
def test_equals_the_expression(texts: list[str]) -> None:
    assert cleaned(texts) == [reference(text) for text in texts] == [clean_text(text) for text in texts]


@given(st.lists(st.text(st.sampled_from("aB. \n\té"), min_size=60, max_size=300), max_size=4))
def test_blocks_of_ascii_join_seamlessly(texts: list[str]) -> None:
    assert cleaned(texts, lead=b"before") == [reference(text) for text in texts]


def test_every_code_point() -> None:
    texts = [chr(c) for c in range(0x110000) if not 0xD800 <= c < 0xE000]
    around = ["a" + "".join(texts[i : i + 1000]) + "B" for i in range(0, len(texts), 1000)]
    assert cleaned(around) == [reference(text) for text in around]


def test_edges() -> None:
    assert cleaned([]) == []
    assert cleaned(["", " \n ", "...", "\x00" * 100, " . a . "]) == ["", "", "", "\x00" * 100, "a"]


def test_bytes_that_are_not_utf8_stay_in_bounds() -> None:
    for raw in (b"\xff", b"a\xc3", b"\xe2\x82", b"\xf0\x9f\x98", b"\x80" * 70, b"\xf4\xbf\xbf\xbf"):
        data = np.frombuffer(raw, dtype=np.uint8)
        _, _, lengths = clean(data, np.array([0, len(raw)], dtype=np.int64))
        assert 0 <= lengths[0] <= len(raw)
