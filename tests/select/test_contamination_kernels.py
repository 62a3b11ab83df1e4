"""N-grams and substrings against plain Python."""

from __future__ import annotations

import re

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from headrace.select.clean import PUNCTUATION
from headrace.select.contamination import substrings
from headrace.select.contamination.index import gram_table
from headrace.select.contamination.ngrams import find_ngrams
from headrace.select.contamination.substrings import LEAST, find_patterns, normal_form, pattern_table


def buffers(documents: list[str]) -> tuple[np.ndarray, np.ndarray]:
    parts = [document.encode() for document in documents]
    data = np.frombuffer(b"".join(parts) or b"\0", dtype=np.uint8)
    return data, np.cumsum([0] + [len(part) for part in parts], dtype=np.int64)


def words(text: str) -> list[tuple[str, int, int]]:
    """Each word with the span of its first to its last kept character."""
    found = []
    for run in re.finditer(r"\S+", text):
        kept = [i for i in range(run.start(), run.end()) if text[i].translate(PUNCTUATION)]
        if kept:
            word = "".join(c.lower() for c in run[0].translate(PUNCTUATION))
            found.append((word, kept[0], kept[-1] + 1))
    return found


def tokens(text: str) -> list[tuple[str, int, int]]:
    return [(m[0], m.start(), m.end()) for m in re.finditer(r"\w+|[^\w\s]", text)]


def grams(text: str, n: int, code: bool) -> list[tuple[tuple[str, ...], int, int]]:
    units = tokens(text) if code else words(text)
    groups = [units[i : i + n] for i in range(len(units) - n + 1)]
    return [(tuple(unit for unit, _, _ in group), group[0][1], group[-1][2]) for group in groups]


pieces = st.sampled_from(
    ["a", "B", "the", "if", "x1", "_", " ", " ", "\n", "(", ",", "é", "İ", "Σ", "ς", "\u2028", "٣"]
)
texts = st.lists(pieces, max_size=25).map("".join)


@given(st.lists(texts, max_size=3), st.lists(texts, max_size=4), st.integers(1, 4), st.booleans())
def test_ngrams_equal_python(fields: list[str], documents: list[str], n: int, code: bool) -> None:
    wanted = {gram for field in fields for gram, _, _ in grams(field, n, code)}
    table, owners = gram_table(fields, n, code)
    assert len(table.hashes) == len(wanted)
    found = find_ngrams(*buffers(documents), table)
    got = [
        (d, documents[d].encode()[start:stop].decode())
        for d, start, stop in zip(found.document.tolist(), found.start.tolist(), found.stop.tolist(), strict=True)
    ]
    expected = [
        (d, text[start:stop])
        for d, text in enumerate(documents)
        for gram, start, stop in grams(text, n, code)
        if gram in wanted
    ]
    assert got == expected
    assert [len({gram for gram, _, _ in grams(field, n, code)}) for field in fields] == [
        sum(f in fields_of for fields_of in owners) for f in range(len(fields))
    ]


def test_a_hash_alone_is_not_believed() -> None:
    """A table whose hashes are those of other n-grams finds nothing."""
    table, _ = gram_table(["one two three four"], 2, False)
    other, _ = gram_table(["five six seven eight"], 2, False)
    forged = other._replace(hashes=table.hashes, directory=table.directory, shift=table.shift)
    assert len(find_ngrams(*buffers(["one two three four"]), table).gram) == 3
    assert len(find_ngrams(*buffers(["one two three four"]), forged).gram) == 0


letters = st.text(st.sampled_from("abAB \n\té\u00a0İ.,Σ"), max_size=30)
seeds = st.lists(st.text(st.sampled_from("ab C\n.é"), min_size=LEAST, max_size=LEAST + 9), min_size=1, max_size=3)


def normal_starts(text: str) -> list[int]:
    """For each character of the normal form, the character of the text that it came from; -1 inside U+0130."""
    out: list[int] = []
    blank = None
    for i, char in enumerate(text):
        if char.isspace():
            blank = i if blank is None else blank
            continue
        if blank is not None and out:
            out.append(blank)
        blank = None
        out += [i] + [-1] * (len(char.lower()) - 1)
    return out


@given(seeds, st.data())
def test_substrings_equal_python(patterns: list[str], data: st.DataObject) -> None:
    part = st.one_of(
        letters, st.sampled_from(patterns), st.sampled_from([p.upper().replace(" ", " \n") for p in patterns])
    )
    # Documents are looked through in pieces of 4096 characters.
    filler = st.one_of(st.just(""), st.integers(4000, 4110).map("q".__mul__))
    documents = data.draw(st.lists(st.tuples(filler, st.lists(part, max_size=4)), max_size=3))
    documents = [before + "".join(parts) for before, parts in documents]
    found = find_patterns(*buffers(documents), pattern_table(patterns))
    got = sorted(zip(found.document.tolist(), found.pattern.tolist(), found.start.tolist(), strict=True))
    expected = []
    for d, text in enumerate(documents):
        normal, starts = normal_form(text), normal_starts(text)
        for p, pattern in enumerate(patterns):
            form = normal_form(pattern)
            if len(form) < LEAST:
                continue
            at = normal.find(form)
            while at >= 0:
                if starts[at] >= 0:
                    expected.append((d, p, len(text[: starts[at]].encode())))
                at = normal.find(form, at + 1)
    assert got == sorted(expected)
    for d, p, start, stop in zip(*(column.tolist() for column in found), strict=True):
        held = documents[d].encode()[start:stop].decode()
        assert normal_form(held).startswith(normal_form(patterns[p]))


def test_short_patterns_are_left_out() -> None:
    just, short = "x" * LEAST, "x" * (LEAST - 1)
    assert pattern_table([short, just]).number.tolist() == [1]
    assert len(pattern_table([]).number) == 0
    assert find_patterns(*buffers([just]), pattern_table([short])).pattern.tolist() == []


def test_pattern_hash_is_not_believed() -> None:
    table = pattern_table(["a" * LEAST])
    forged = table._replace(points=np.full_like(table.points, ord("b")))
    assert len(find_patterns(*buffers(["a" * 60]), table).pattern) == 60 - LEAST + 1
    assert len(find_patterns(*buffers(["a" * 60]), forged).pattern) == 0
    assert substrings.normal_form(" A\n\nb ") == "a b"
