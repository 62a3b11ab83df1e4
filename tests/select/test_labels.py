"""Components in memory and on disk: equal to each other and to a plain implementation, under any budget, resumed."""

from __future__ import annotations

from pathlib import Path

import duplicate_graph as graph
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from test_components import components
from test_duplicates import NEAR, check, families

from headrace.flow.task import TaskContext
from headrace.select.duplicates import contraction, labels
from headrace.select.duplicates.components import row_dtype
from headrace.select.duplicates.contraction import contract, large_star, small_star
from headrace.select.duplicates.labels import fits, label
from headrace.select.duplicates.signatures import Signatures
from headrace.select.duplicates.step import Duplicates

NOTHING = graph.Given([])


def context(folder: Path, memory: int = 1 << 20) -> TaskContext:
    return TaskContext(folder, NOTHING, "components", 0, memory)


def ordered(pairs: np.ndarray) -> np.ndarray:
    """Pairs of different rows, the smaller row first."""
    pairs = np.asarray(pairs, dtype=np.uint64).reshape(-1, 2)
    return np.sort(pairs[pairs[:, 0] != pairs[:, 1]], axis=1)


def pieces(pairs: np.ndarray, size: int = 1000):
    return lambda: (pairs[i : i + size] for i in range(0, len(pairs), size))


def made(folder: Path, rows: int) -> list[np.ndarray]:
    scratch = context(folder).folder / "scratch" / "components"
    return [np.fromfile(scratch / f"{name}.bin", row_dtype(rows)) for name in ("labels", "sizes", "exact")]


def both_ways(folder: Path, rows: int, near: np.ndarray, exact: np.ndarray) -> dict[str, int]:
    """Check that both ways give the same; what they count."""
    small, large = context(folder / "disk", 0), context(folder / "memory", 1 << 30)
    assert fits(rows, large.memory)
    assert rows == 0 or not fits(rows, small.memory)
    counts = label(small, rows, pieces(near), pieces(exact))
    assert counts == label(large, rows, pieces(near), pieces(exact))
    for ours, theirs in zip(made(folder / "disk", rows), made(folder / "memory", rows), strict=True):
        assert (ours == theirs).all()
        assert len(ours) == rows
    return counts


@given(st.data(), st.integers(0, 40))
def test_both_ways_equal_a_plain_implementation(tmp_path_factory, data: st.DataObject, rows: int) -> None:
    folder = tmp_path_factory.mktemp("labels")
    row = st.integers(0, max(rows - 1, 0))
    near = ordered(data.draw(st.lists(st.tuples(row, row), max_size=60 if rows else 0)))
    ids = data.draw(st.lists(st.integers(0, 12), min_size=rows, max_size=rows))
    exact = ordered([(ids.index(x), i) for i, x in enumerate(ids)])
    both_ways(folder, rows, near, exact)
    want = components(rows, [*near.astype(int).tolist(), *exact.astype(int).tolist()])
    got, sizes, first = (array.tolist() for array in made(folder / "disk", rows))
    assert got == want
    assert sizes == [want.count(x) for x in want]
    assert first == [ids.index(x) for x in ids]


@settings(max_examples=20)
@given(st.integers(0, 1 << 20), st.integers(2, 60_000), st.floats(0.1, 2.0), st.booleans())
def test_both_ways_agree_on_random_graphs_beyond_the_budget(tmp_path_factory, seed, rows, degree, local) -> None:
    rng = np.random.default_rng(seed)
    start = rng.integers(0, rows, int(rows * degree))
    other = (start + rng.integers(1, 4, len(start))) % rows if local else rng.integers(0, rows, len(start))
    near = ordered(np.stack([start, other], axis=1))
    ids = rng.integers(0, rows, rows)
    _, first, back = np.unique(ids, return_index=True, return_inverse=True)
    exact = ordered(np.stack([first[back], np.arange(rows)], axis=1))
    both_ways(tmp_path_factory.mktemp("labels"), rows, near, exact)


def rounds(folder: Path) -> int:
    (last,) = (context(folder).folder / "scratch" / "components").glob("round-*.edges")  # earlier ones are gone
    return int(last.stem[-3:])


def shapes() -> dict[str, tuple[int, np.ndarray, int]]:
    """Graphs that are one component, and the most rounds that they may take."""
    n = 10_000
    chain = np.stack([np.arange(n - 1), np.arange(1, n)], axis=1)
    rng = np.random.default_rng(0)
    shuffled = rng.permutation(n)[chain]
    star = np.stack([np.full(4 * n, 17_777), np.arange(4 * n)], axis=1)
    rays, hubs = n // 4, range(0, 5 * n, n // 4)
    bridged = np.concatenate([np.stack([np.full(rays, hub), hub + np.arange(rays)], axis=1) for hub in hubs])
    bridged = np.concatenate([bridged, np.stack([np.array(hubs[1:]) - 1, hubs[1:]], axis=1)])
    # The last round of each is the one that finds nothing to change.
    return {
        "chain": (n, chain, 15),
        "chain backwards": (n, n - 1 - chain, 15),
        "chain in any order": (n, shuffled, 12),
        "star around a middle row": (4 * n, star, 3),
        "stars in a chain": (5 * n, bridged, 8),
    }


@pytest.mark.parametrize("name", shapes())
def test_hard_shapes_take_few_rounds(tmp_path, name: str) -> None:
    rows, pairs, most = shapes()[name]
    counts = both_ways(tmp_path, rows, ordered(pairs), ordered([]))
    assert counts == {"components": 1, "members": rows, "largest": rows}
    assert rounds(tmp_path / "disk") <= most


def test_a_killed_task_goes_on_with_its_round(tmp_path, monkeypatch) -> None:
    _, pairs, _ = shapes()["chain in any order"]
    pairs = ordered(pairs)
    want = np.concatenate(list(contract(context(tmp_path / "a"), pieces(pairs)())))
    assert len(want) == len(pairs)
    whole, real = rounds(tmp_path / "a"), contraction._round
    started = []

    def dies(ctx, edges, out, stars):
        started.append(len(started))
        if len(started) % 2:
            out.write(b"half a round")
            stars.write(b"half of what is set aside")
            raise KeyboardInterrupt
        return real(ctx, edges, out, stars)

    monkeypatch.setattr(contraction, "_round", dies)
    ctx = context(tmp_path / "b")
    for _ in range(whole):
        with pytest.raises(KeyboardInterrupt):
            list(contract(ctx, pieces(pairs)()))
    monkeypatch.setattr(contraction, "_round", real)
    got = np.concatenate(list(contract(ctx, iter(()))))  # rounds that are done are not begun again from the edges
    assert len(started) == 2 * whole - 1
    assert rounds(tmp_path / "b") == whole
    assert (got == want).all()


def test_a_round_that_was_damaged_since_is_not_gone_on_with(tmp_path, monkeypatch) -> None:
    _, pairs, _ = shapes()["chain in any order"]
    pairs = ordered(pairs)
    want = np.concatenate(list(contract(context(tmp_path / "a"), pieces(pairs)())))
    real, left = contraction._round, iter(range(3))

    def dies(*arguments):
        if next(left, None) is None:
            raise KeyboardInterrupt
        return real(*arguments)

    for name in ("stars-001.edges", "round-003.edges", "round-002.json"):
        ctx = context(tmp_path / name)
        left = iter(range(3))
        monkeypatch.setattr(contraction, "_round", dies)
        with pytest.raises(KeyboardInterrupt):
            list(contract(ctx, pieces(pairs)()))
        monkeypatch.setattr(contraction, "_round", real)
        path = ctx.folder / "scratch" / "components" / name
        path.write_bytes(path.read_bytes()[:-1] + b"?")
        assert (np.concatenate(list(contract(ctx, pieces(pairs)()))) == want).all()


SAME = 1 << 63


@given(
    st.dictionaries(st.tuples(st.integers(0, 12), st.integers(0, 12)), st.booleans(), max_size=50), st.integers(1, 9)
)
def test_stars_do_not_depend_on_chunks(marked: dict[tuple[int, int], bool], chunk: int) -> None:
    """``marked``: edges, and whether the round before has left them as they were."""
    marked = {(a, b): same for (a, b), same in marked.items() if a < b}

    def run(kernel, records, outputs):
        array = np.array(records, dtype=np.uint64).reshape(-1, 2)
        state, got, changes = np.zeros(5, dtype=np.uint64), [[] for _ in range(outputs)], 0
        for i in range(0, len(array), chunk):
            outs = [np.empty((len(array[i : i + chunk]), 2), dtype=np.uint64) for _ in range(outputs)]
            *counts, changed = kernel(array[i : i + chunk], state, *outs)
            for made, out, count in zip(got, outs, counts, strict=True):
                made += [tuple(pair) for pair in out[:count].tolist()]
            changes += changed
        return *(sorted(made) for made in got), changes

    both = sorted([(a, b + SAME * same) for (a, b), same in marked.items()] + [(b, a) for a, b in marked])
    near = {u: {v % SAME: v >= SAME for a, v in both if a == u} for u, _ in both}
    whole = {u for u in near if all(near[u].values())}
    lowest = {u: min([u, *near[u]]) for u in near}
    pairs = [(u, v) for u in near for v in near[u] if v > u]
    want = [(v, 2 * lowest[u] + (lowest[u] == u)) for u, v in pairs if u not in whole]
    aside = [(u, v) for u, v in pairs if u in whole]
    assert run(large_star, both, 2) == (sorted(want), sorted(aside), sum(lowest[u] != u for u, v in pairs))

    lower = sorted((b, 2 * a + same) for (a, b), same in marked.items())
    below = {u: {v // 2: v % 2 for a, v in lower if a == u} for u, _ in lower}
    want = [(min(below[u]), u + SAME * below[u][min(below[u])]) for u in below]
    want += [(min(below[u]), v) for u in below for v in below[u] if v != min(below[u])]
    assert run(small_star, lower, 1) == (sorted(want), sum(len(below[u]) - 1 for u in below))


def test_the_bytes_do_not_depend_on_the_way(tmp_path, monkeypatch) -> None:
    texts = families(5, 80)
    step = Duplicates(Signatures(graph.Given([{"text": text} for text in texts], shard_rows=13), NEAR), True)
    ways = []
    for name in ("_by_union", "_by_contraction"):
        real = getattr(labels, name)
        monkeypatch.setattr(labels, name, lambda *args, real=real, name=name: ways.append(name) or real(*args))
    large = graph.run_steps(tmp_path / "large", step)["duplicates"]
    small = graph.run_steps(tmp_path / "small", step, memory=256)["duplicates"]
    assert ways == ["_by_union", "_by_contraction"]
    assert graph.digests(large) == graph.digests(small)
    assert large.manifest == small.manifest
    check(graph.read(small), texts, NEAR, True, small.manifest.counts)


def test_what_fits_is_two_numbers_a_row() -> None:
    assert fits(1000, 2 * 4 * 1000 * 4 // 3 + 1)
    assert not fits(1000, 2 * 4 * 1000)
