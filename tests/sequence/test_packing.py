"""Packing kernels against plain references, on every awkward length hypothesis thinks of."""

from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from headrace.sequence.pack import left_out
from headrace.sequence.packing import Segments, best_fit, concatenate, longest_first, rows_of, with_ends

LENGTHS = st.lists(st.integers(0, 40), max_size=40)
SEQ_LEN = st.integers(1, 17)


def as_tuples(segments: Segments) -> list[tuple[int, ...]]:
    return [tuple(int(v) for v in item) for item in zip(*segments, strict=True)]


def concatenate_plainly(lengths: list[int], seq_len: int, rows: int) -> tuple[list[tuple[int, ...]], list[int]]:
    """Write the whole stream down and cut windows out of it."""
    stream = [(doc, offset) for doc, n in enumerate(lengths) for offset in range(n)]
    segments = []
    for r in range(rows):
        window = stream[r * seq_len : r * seq_len + seq_len + 1]
        for position, (doc, offset) in enumerate(window):
            if position == 0 or window[position - 1][0] != doc:
                segments.append([doc, r, position, 0, offset])
            segments[-1][3] += 1
    covered = set(stream[: rows * seq_len + 1]) if rows else set()
    tail = [sum((doc, o) not in covered for o in range(n)) for doc, n in enumerate(lengths)]
    return sorted(tuple(s) for s in segments), tail


@given(LENGTHS, SEQ_LEN)
def test_concatenation_equals_windows_of_the_written_out_stream(lengths: list[int], seq_len: int) -> None:
    total = sum(lengths)
    rows = rows_of(total, seq_len)
    segments, overlap, tail = concatenate(np.array(lengths, dtype=np.int64), 0, seq_len, rows)
    expected, expected_tail = concatenate_plainly(lengths, seq_len, rows)
    assert sorted(as_tuples(segments)) == expected
    assert tail.tolist() == expected_tail
    assert segments.length.sum() == rows * (seq_len + 1)
    assert total == rows * (seq_len + 1) - overlap.sum() + tail.sum()
    assert overlap.sum() == max(0, rows - 1)
    assert tail.sum() <= seq_len


@given(LENGTHS, LENGTHS, SEQ_LEN, st.integers(0, 5))
def test_concatenation_in_two_calls_equals_one(one: list[int], two: list[int], seq_len: int, fewer: int) -> None:
    rows = max(0, rows_of(sum(one) + sum(two), seq_len) - fewer)
    whole, overlap, tail = concatenate(np.array(one + two, dtype=np.int64), 0, seq_len, rows)
    a, overlap_a, tail_a = concatenate(np.array(one, dtype=np.int64), 0, seq_len, rows)
    b, overlap_b, tail_b = concatenate(np.array(two, dtype=np.int64), sum(one), seq_len, rows)
    b = b._replace(document=b.document + len(one))
    assert as_tuples(whole) == as_tuples(a) + as_tuples(b)
    assert overlap.tolist() == [*overlap_a, *overlap_b]
    assert tail.tolist() == [*tail_a, *tail_b]


def best_fit_plainly(tokens: list[int], seq_len: int, least: int = 0) -> tuple[list[tuple[int, ...]], int]:
    """Best-fit decreasing with a linear search over the rows."""
    capacity = seq_len + 1
    pieces = []
    for doc, n in enumerate(tokens):
        total = n if n == capacity else n + 1
        at = 0
        while True:
            pieces.append((doc, at, min(capacity, total - at)))
            at += seq_len
            if at + 1 >= total:
                break
    rooms: list[int] = []
    changed: list[int] = []
    placed = []
    for clock, (doc, offset, length) in enumerate(sorted(pieces, key=lambda piece: -piece[2])):
        fits = [r for r in range(len(rooms)) if rooms[r] >= length]
        if fits:
            r = min(fits, key=lambda r: (rooms[r], -changed[r]))
        elif length < least:
            continue
        else:
            r = len(rooms)
            rooms.append(capacity)
            changed.append(clock)
        placed.append((doc, r, capacity - rooms[r], length, offset))
        rooms[r] -= length
        changed[r] = clock
    return sorted(placed), len(rooms)


@given(LENGTHS, SEQ_LEN)
def test_best_fit_equals_a_linear_search(tokens: list[int], seq_len: int) -> None:
    segments, rows = best_fit(with_ends(np.array(tokens, dtype=np.int64), seq_len), seq_len)
    assert (sorted(as_tuples(segments)), rows) == best_fit_plainly(tokens, seq_len)


@given(LENGTHS, SEQ_LEN)
def test_best_fit_of_long_documents_equals_a_linear_search(tokens: list[int], seq_len: int) -> None:
    least, totals = (seq_len + 2) // 2, with_ends(np.array(tokens, dtype=np.int64), seq_len)
    segments, rows = best_fit(totals, seq_len, least)
    placed = as_tuples(segments)
    assert (sorted(placed), rows) == best_fit_plainly(tokens, seq_len, least)
    longest = np.zeros(rows, dtype=int)
    np.maximum.at(longest, segments.row, segments.length)
    assert (longest >= least).all()
    # What is in no row would fit in none.
    room = seq_len + 1 - np.bincount(segments.row, weights=segments.length, minlength=rows)
    left = left_out(segments, np.arange(len(tokens)), totals)
    held = [{offset + i for doc, _, _, n, offset in placed if doc == d for i in range(n)} for d in range(len(tokens))]
    assert left.tolist() == [total - len(has) for total, has in zip(totals.tolist(), held, strict=True)]
    assert all(rest + (rest < total) > room.max(initial=0) for rest, total in zip(left, totals, strict=True) if rest)


@given(st.lists(st.lists(st.integers(0, 9), min_size=1, max_size=4), max_size=12))
def test_the_longest_documents_come_first_with_their_files_in_order(documents: list[list[int]]) -> None:
    lengths = np.array([n for files in documents for n in files], dtype=np.int64)
    first = np.cumsum([0, *(len(files) for files in documents)])[:-1].astype(np.int64)
    if not documents:
        return
    numbers = iter(range(len(lengths)))
    numbered = [[next(numbers) for _ in files] for files in documents]
    order = sorted(range(len(documents)), key=lambda d: -sum(documents[d]))
    assert longest_first(lengths, first).tolist() == [file for d in order for file in numbered[d]]


@given(LENGTHS, SEQ_LEN)
def test_best_fit_keeps_its_promises(tokens: list[int], seq_len: int) -> None:
    capacity = seq_len + 1
    totals = with_ends(np.array(tokens, dtype=np.int64), seq_len)
    segments, rows = best_fit(totals, seq_len)
    used = np.zeros((rows, capacity), dtype=int)
    pieces: dict[int, list[tuple[int, int]]] = {}
    for doc, row, start, length, offset in as_tuples(segments):
        used[row, start : start + length] += 1
        pieces.setdefault(doc, []).append((offset, length))
    assert used.max(initial=0) <= 1
    assert all(line.any() and (np.diff(line) <= 0).all() for line in used), "room is left at the end only"
    for doc, n in enumerate(tokens):
        parts = sorted(pieces[doc])
        if n <= capacity:
            assert parts == [(0, min(n + 1, capacity))], "a document that fits is whole, with its end if that fits"
        else:
            assert all(offset % seq_len == 0 for offset, _ in parts)
            assert [offset + length for offset, length in parts[:-1]] == [offset + 1 for offset, _ in parts[1:]]
            assert sum(parts[-1]) == n + 1


def test_best_fit_wastes_little_on_ordinary_lengths() -> None:
    lengths = np.random.default_rng(5).lognormal(5.5, 1.2, 20_000).astype(np.int64) + 1
    totals = with_ends(lengths, 2048)
    segments, rows = best_fit(totals, 2048)
    assert segments.length.sum() / (rows * 2049) > 0.999


def test_one_document_longer_than_everything() -> None:
    _, rows = best_fit(with_ends(np.array([1_000_003]), 512), 512)
    assert rows == -(-1_000_003 // 512)
    concatenated, overlap, tail = concatenate(np.array([1_000_004]), 0, 512, rows_of(1_000_004, 512))
    assert len(concatenated.row) == rows_of(1_000_004, 512) == overlap[0] + 1
    assert tail[0] == (1_000_004 - 1) % 512


def test_nothing_makes_no_rows() -> None:
    assert rows_of(0, 8) == rows_of(1, 8) == rows_of(8, 8) == 0
    assert rows_of(9, 8) == 1
    nothing = np.zeros(0, dtype=np.int64)
    assert len(concatenate(nothing, 0, 8, 0)[0].row) == 0
    assert best_fit(nothing, 8)[1] == 0
