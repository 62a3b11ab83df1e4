"""Rows of few long documents: by best fit, where short ones only fill gaps, and by concatenation, longest first."""

from __future__ import annotations

from collections import Counter
from itertools import pairwise
from pathlib import Path

import grouped_build
import pytest
import small_build
from grouped_build import Expected
from small_build import build, stage

from headrace.errors import UserError
from headrace.sequence.windows import JOINED, PADDING

FIT = {"method": "best_fit", "prefer": "long"}


@pytest.mark.parametrize("groups", [{}, {"format": "starcoder2", "within": None}])
def test_rows_begin_with_long_documents_and_what_is_left_out_is_counted(tmp_path: Path, groups: dict) -> None:
    config = stage(sources={"a": {"epochs": 2}, "b": {}}, pack=FIT, sequence_length=301)
    step = grouped_build.of_stage(config, {"a": groups} if groups else {"b": {"by": "folder"}})
    sequence = build(tmp_path, step)
    told = Expected(sequence, step)
    placed: set[tuple[int, int, int]] = set()
    for row in range(len(sequence)):
        largest = length = 0
        for s in sequence.segments(row):
            length = int(s["length"]) + (length if int(s["kind"]) != PADDING and int(s["kind"]) & JOINED else 0)
            if s["kind"] == PADDING:
                continue
            largest = max(largest, length)
            at, stop = int(s["offset"]), int(s["offset"]) + int(s["length"])
            placed |= {(int(s["row"]), int(s["epoch"]), i) for i in range(at, stop)}
        assert largest >= 151
    ledger = sequence.manifest["ledger"]["sources"]
    tail: Counter[str] = Counter()
    for files in told.documents:
        tokens = [token[1:] for file in files for token in file]
        there = [token in placed for token in tokens]
        full = len(tokens) == sequence.seq_len + 2  # goes without its end
        assert there == sorted(there, reverse=True), "only the end of a document is left out"
        tail[told.rows[tokens[0][0]]["source"]] += there.count(False) - full
        assert all(there[: len(tokens) - full]) or not any(there) or len(tokens) > sequence.seq_len + 1
    assert {name: ledger[name]["tail"] for name in ("a", "b")} == {name: tail[name] for name in ("a", "b")}
    assert tail["b"] > 0


def test_concatenated_documents_come_longest_first(tmp_path: Path) -> None:
    step = small_build.of_stage(stage(pack={"prefer": "long"}, sequence_length=300))
    sequence = build(tmp_path, step)
    document = small_build.expected_documents(sequence, step)
    rows = []
    for row in range(len(sequence)):
        lengths = [len(document(int(s["row"]), int(s["epoch"]))[0]) for s in sequence.segments(row)]
        assert lengths == sorted(lengths, reverse=True)
        rows.append((lengths[0], lengths[-1]))
    rows.sort(reverse=True)
    assert all(shortest >= longest for (_, shortest), (longest, _) in pairwise(rows))
    plain = build(tmp_path, small_build.of_stage(stage(sequence_length=300)))
    assert len(plain) == len(sequence)


def test_a_stage_without_long_documents_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"as long as half of a row of 65,537"):
        build(tmp_path, small_build.of_stage(stage(pack=FIT, sequence_length=65_536)))


def test_preferring_nothing_is_no_other_sequence() -> None:
    plain, same = (small_build.of_stage(stage(pack=pack)) for pack in ({}, {"prefer": None}))
    assert plain.name == same.name
    assert "prefer" not in plain.params()["pack"]
    assert plain.name != small_build.of_stage(stage(pack={"prefer": "long"})).name
