"""The counting kernels against the expressions that define them."""

from __future__ import annotations

import re

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from headrace.select import code_points
from headrace.select.clean import clean_text
from headrace.select.measures.encoded_data import encoded_characters
from headrace.select.measures.text_statistics import Statistics, statistics
from headrace.select.measures.visible_text import visible_characters

texts = st.lists(
    st.one_of(
        st.text(st.characters(exclude_categories=["Cs"])),
        st.text(st.sampled_from("aB1 \t\n\r\x0b\x1c\x85\u2028\u00a0.,_-İΣßé\u3000\U0001f600")),
    ),
    max_size=6,
)


def buffers(documents: list[str]) -> tuple[np.ndarray, np.ndarray]:
    parts = [document.encode() for document in documents]
    data = np.frombuffer(b"".join(parts) or b"\0", dtype=np.uint8)
    return data, np.cumsum([0] + [len(part) for part in parts], dtype=np.int64)


def reference(text: str) -> dict[str, int]:
    lines = text.splitlines(keepends=True)
    bare = text.splitlines()
    cleaned = clean_text(text)
    return {
        "characters": len(text),
        "alphanumeric": sum(map(str.isalnum, text)),
        "alphabetic": sum(map(str.isalpha, text)),
        "words": len(text.split()),
        "lines": len(bare),
        "line_characters": sum(map(len, bare)),
        "max_line": max(map(len, bare), default=0),
        "clean": len(cleaned),
        "clean_no_spaces": len(cleaned.replace(" ", "")),
        "head": len("".join(lines[:5]).encode()),
    }


@given(texts)
def test_statistics_equal_python(documents: list[str]) -> None:
    got = statistics(*buffers(documents))
    for d, text in enumerate(documents):
        want = reference(text)
        found = {field: int(getattr(got, field)[d]) for field in Statistics._fields}
        # A fifth line that ends in \r\n may end at either byte: both hold the same lines.
        assert want["head"] - found["head"] in (0, 1)
        assert {**found, "head": 0} == {**want, "head": 0}


def test_statistics_of_every_code_point() -> None:
    documents = [chr(c) for c in range(0, code_points.LAST + 1, 7) if not 0xD800 <= c < 0xE000]
    documents += ["".join(documents)]
    got = statistics(*buffers(documents))
    for d, text in enumerate(documents):
        if len(text) > 1 or d % 16 == 0:
            want = reference(text)
            assert all(int(getattr(got, f)[d]) == want[f] for f in Statistics._fields if f != "head")


def test_lower_case_never_makes_space_or_punctuation() -> None:
    """The cleaned length is counted before lower-casing: only U+0130 may change it."""
    classes, lower = code_points.classes(), code_points.lower_case()
    unusual = code_points.SPACE | code_points.PUNCTUATION
    assert ((classes & unusual) == (classes[lower] & unusual)).all()
    wide = [c for c in range(code_points.LAST + 1) if len(chr(c).lower()) > 1]
    assert wide == [code_points.DOTTED_I]
    assert chr(code_points.DOTTED_I).lower() == "i" + chr(code_points.DOT_ABOVE)
    assert all(chr(lower[c]) == chr(c).lower() for c in range(code_points.LAST + 1) if c != code_points.DOTTED_I)


WORD = "[0-9A-Za-z_]"
BYTE = rf"(?:0[xX]|\\x)?[0-9a-fA-F]{{2}}(?!{WORD})"
ENCODED = [
    r"[a-zA-Z0-9+/\n=]{64,}",
    rf"(?:(?<!{WORD})(?!\\)|(?=\\)){BYTE}(?:(?:[ \t\n\r\f\v]*,[ \t\n\r\f\v]*|[ \t\n\r\f\v]+|(?=\\x)){BYTE}){{7,}}",
    r"(?:\\u[0-9a-fA-F]{4}){8,}",
]


def encoded_reference(text: str) -> int:
    covered = np.zeros(len(text), dtype=bool)
    for pattern in ENCODED:
        for match in re.finditer(pattern, text):
            covered[match.start() : match.end()] = True
    return int(covered.sum())


pieces = st.sampled_from(
    ["0x4f", "\\x41", "\\u00e9", "41", "ff", ", ", ",", " ", "\n", "x", "_", "é", "=", "QUJD" * 17, "\\u12", "0xg"]
)
repeated = st.builds(lambda piece, times: piece * times, pieces, st.sampled_from([1, 1, 2, 7, 8, 9]))
listed = st.builds(
    lambda piece, mark, times: mark.join([piece] * times),
    st.sampled_from(["0x4f", "\\x41", "0XAB", "7f"]),
    st.sampled_from([", ", ",", " ", ",\n  ", "", ";"]),
    st.integers(1, 12),
)


# Texts are looked through in pieces of 4096 bytes.
filled = st.builds(
    lambda filler, parts: "." * filler + "".join(parts),
    st.one_of(st.just(0), st.integers(4070, 4100)),
    st.lists(st.one_of(repeated, listed), max_size=8),
)


@given(st.lists(filled, max_size=4))
def test_encoded_equals_the_expressions(documents: list[str]) -> None:
    assert encoded_characters(*buffers(documents)).tolist() == [encoded_reference(text) for text in documents]


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("char a[] = {0x41, 0x42, 0x43, 0x44, 0x45, 0x46, 0x47, 0x48};", 46),
        ('s = "\\x41\\x42\\x43\\x44\\x45\\x46\\x47\\x48"', 32),
        ("0x41, 0x42, 0x43", 0),
        ("plain prose has no encoded data in it at all, however long the sentence may become", 0),
        ("A" * 63, 0),
        ("A" * 64, 64),
    ],
)
def test_encoded_examples(text: str, found: int) -> None:
    assert encoded_characters(*buffers([text])).tolist() == [found]


REMOVED = re.compile(
    r"<!--.*?-->|<(script|style)(?![0-9A-Za-z_-]).*?</\1(?![0-9A-Za-z_-])[^>]*>|<[A-Za-z/!?][^>]*>",
    re.DOTALL | re.IGNORECASE | re.ASCII,
)
REFERENCE = re.compile(r"&#?[0-9A-Za-z]{1,31};")


def visible_reference(text: str) -> int:
    return sum(len(REFERENCE.sub("?", part)) for part in REMOVED.sub("\x00", text).split("\x00"))


MARKUP = "<p>|</p>|<!-- a > b -->|<!--|-->|<script src='x'>|</script>|<STYLE>|</style >|<scripts>|<br/>|<?xml ?>"
TEXT = "&amp;|&#8212;|&|;|text é |<|>|< a|<!DOCTYPE html>"
html = st.lists(st.sampled_from(f"{MARKUP}|{TEXT}".split("|")), max_size=14).map("".join)


@given(st.lists(html, max_size=4))
def test_visible_text_equals_the_expressions(documents: list[str]) -> None:
    chosen = np.arange(len(documents), dtype=np.int64)
    assert visible_characters(*buffers(documents), chosen).tolist() == [visible_reference(text) for text in documents]


def test_visible_text_of_a_page() -> None:
    page = "<html><head><style>p {color: red}</style><script>if (a < b) f()</script></head><body><p>Tea &amp; cake</p>"
    data, offsets = buffers(["nothing", page])
    assert visible_characters(data, offsets, np.array([1])).tolist() == [len("Tea & cake")]


def test_visible_text_takes_linear_time_on_what_is_never_closed() -> None:
    """Half a million openings: a search from each to the end would take hours."""
    hostile = "<!--<script><a " * 200_000
    assert visible_characters(*buffers([hostile]), np.array([0])).tolist() == [visible_hostile(hostile)]


def visible_hostile(text: str) -> int:
    """Each ``<script>`` closes the tag before it; only the last ``<a `` has no end."""
    return len(re.sub(r"<[^>]*>", "", text))
