"""The order of rows is a uniform permutation, as far as statistics can tell; another seed or stage is another one."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from small_build import build, of_stage, stage

from headrace.sequence.store import ArrowSequence


@pytest.fixture(scope="module")
def sequence(tmp_path_factory: pytest.TempPathFactory) -> ArrowSequence:
    """Some 30,000 short rows, so that deviations would show."""
    return build(tmp_path_factory.mktemp("run"), of_stage(stage(sequence_length=2)))


def first_segments(sequence: ArrowSequence) -> np.ndarray:
    return np.stack([sequence.segments(row)[0] for row in range(len(sequence))])


def test_every_source_is_spread_evenly(sequence: ArrowSequence) -> None:
    segments = first_segments(sequence)
    n, bins = len(segments), 50
    where = np.arange(n) * bins // n
    for source in (0, 1):
        mine = segments["source"] == source
        counts = np.bincount(where[mine], minlength=bins)
        expected = np.bincount(where, minlength=bins) * mine.mean()
        chi2 = ((counts - expected) ** 2 / (expected * (1 - mine.mean()))).sum()
        # 49 degrees of freedom: mean 49, deviation about 10.
        assert abs(chi2 - 49) < 50


def test_neighbours_are_strangers(sequence: ArrowSequence) -> None:
    segments = first_segments(sequence)
    rows = segments["row"]
    n = len(rows)
    share = np.bincount(rows.astype(np.int64)) / n
    for distance in (1, 2, 3, 64):
        same = int((rows[distance:] == rows[:-distance]).sum())
        expected = (n - distance) * float((share**2).sum())
        assert abs(same - expected) < 5 * np.sqrt(expected)


def test_place_in_the_document_says_nothing_of_place_in_the_order(sequence: ArrowSequence) -> None:
    offsets = first_segments(sequence)["offset"]
    ranks = np.argsort(np.argsort(offsets, kind="stable"), kind="stable")
    n = len(ranks)
    assert abs(np.corrcoef(np.arange(n), ranks)[0, 1]) < 4 / np.sqrt(n)
    assert abs(np.corrcoef(ranks[1:], ranks[:-1])[0, 1]) < 4 / np.sqrt(n)


def test_documents_that_share_a_row_are_strangers(sequence: ArrowSequence) -> None:
    last, first = [], []
    for row in range(len(sequence)):
        segments = sequence.segments(row)
        last += segments["row"][:-1].tolist()
        first += segments["row"][1:].tolist()
    assert len(last) > 300
    assert abs(np.corrcoef(last, first)[0, 1]) < 4 / np.sqrt(len(last))


def test_another_seed_and_another_stage_are_other_orders(tmp_path: Path) -> None:
    starts = []
    for seed, name in ((1, "one"), (2, "one"), (1, "two")):
        sequence = build(tmp_path, of_stage(stage(name=name), seed=seed))
        starts.append(first_segments(sequence)["row"])
    n = min(map(len, starts))
    for a, b in ((0, 1), (0, 2), (1, 2)):
        assert (starts[a][:n] == starts[b][:n]).mean() < 0.05
        assert abs(np.corrcoef(starts[a][:n], starts[b][:n])[0, 1]) < 4 / np.sqrt(n)
