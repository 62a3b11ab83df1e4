"""Tasks are cut by names: each file is in one, sizes are bounded, and a change stays where it is."""

from __future__ import annotations

import random

from hypothesis import given, settings
from hypothesis import strategies as st

from headrace.documents.boundaries import LEAST, MEAN, MOST, runs, text_bytes
from headrace.documents.sources import InputFile
from quick import examples


def listing(sizes: list[int], compression: str | None = None) -> list[InputFile]:
    return [InputFile(f"/x/{n}", f"{n:06d}.txt", "text", compression, size) for n, size in enumerate(sizes)]


def named(files: list[InputFile]) -> set[tuple[str, ...]]:
    """The runs by the names of their files."""
    return {tuple(files[at].name for at in run) for run in runs(files)}


@given(st.lists(st.one_of(st.integers(0, 1 << 16), st.integers(1 << 20, 1 << 25)), max_size=60))
def test_every_file_is_in_one_run_in_order(sizes):
    files = listing(sizes)
    cut = [list(run) for run in runs(files)]
    assert [at for run in cut for at in run] == list(range(len(files)))
    for run in cut:
        assert len(run) == 1 or sum(text_bytes(files[at]) for at in run) <= MOST
        assert len(run) == 1 or max(text_bytes(files[at]) for at in run) < LEAST


@settings(max_examples=examples(30))
@given(st.integers(0, 1 << 32), st.sampled_from(["add", "remove", "change"]))
def test_one_file_changes_few_runs(seed, what):
    rng = random.Random(seed)
    files = listing([rng.randint(20_000, 400_000) for _ in range(3000)])
    before = named(files)
    assert len(before) > 15
    at = rng.randrange(len(files))
    if what == "add":
        files.insert(at, InputFile("/x/new", f"{at:06d}-new.txt", "text", None, 50_000))
    elif what == "remove":
        del files[at]
    else:
        files[at] = InputFile("/x/new", files[at].name, "text", None, 50_000)
    # The next cut by a name, after at most a few that the most forces, is where both agree again.
    assert len(named(files) - before) <= 6
    assert len(named(files) - before) < len(before) / 2


def test_a_file_beside_larger_ones_is_a_task_of_its_own():
    files = listing([LEAST] * 10)
    before = named(files)
    files.insert(4, InputFile("/x/new", "000003-new.txt", "text", None, 1000))
    assert named(files) == before | {("000003-new.txt",)}


def test_runs_are_of_even_size():
    rng = random.Random(0)
    files = listing([rng.randint(1000, 30_000) for _ in range(100_000)])
    sizes = [sum(files[at].size for at in run) for run in runs(files)]
    assert min(sizes[:-1]) >= LEAST
    assert LEAST < sum(sizes) / len(sizes) < LEAST + MEAN


def test_a_compressed_file_counts_as_what_it_holds():
    files = listing([5 << 20] * 8, "zstd")
    assert [list(run) for run in runs(files)] == [[at] for at in range(8)]
