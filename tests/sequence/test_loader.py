"""The loader: every state at every step, any world and batch size, and refusals."""

from __future__ import annotations

import json
import pickle
import shutil
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from small_build import build, of_stage, stage

from headrace.errors import UserError
from headrace.flow.artifact import DamagedArtifact
from headrace.sequence import batch as batch_module
from headrace.sequence import layout
from headrace.sequence.loader import Batch, Loader
from headrace.sequence.store import ArrowSequence, open_sequence
from headrace.sequence.windows import PADDING, describe, unpack_targets

SOURCES = {"a": {}, "chat": {}}


@pytest.fixture(scope="module")
def sequence(tmp_path_factory: pytest.TempPathFactory) -> ArrowSequence:
    """Some 90 rows with padding and masks in several small shards."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(layout, "SHARD_BYTES", 20_000)
        config = stage(sources=SOURCES, chat="chatml", pack={"method": "best_fit"}, sequence_length=700)
        made = build(tmp_path_factory.mktemp("run"), of_stage(config))
    assert len(made.artifact.shards) > 3
    assert made.manifest["ledger"]["padding"] > 0
    return made


def equal(a: Batch, b: Batch) -> bool:
    return all(x.dtype == y.dtype and (x == y).all() for x, y in zip(a, b, strict=True))


def joined(batches: list[Batch]) -> Batch:
    return Batch(*(np.concatenate(arrays) for arrays in zip(*batches, strict=True)))


@pytest.mark.parametrize("positions", ["row", "document"])
def test_batches_are_rows_with_what_the_segments_say(sequence: ArrowSequence, positions: str) -> None:
    whole = joined(list(Loader(sequence, 1, positions=positions)))  # type: ignore[arg-type]
    L = sequence.seq_len
    loss = sequence.loss(0, len(sequence))
    assert (whole.tokens == sequence.rows(0, len(sequence))).all()
    assert (whole.loss == loss[:, 1:]).all()
    for row in range(len(sequence)):
        number = 0
        for s in sequence.segments(row):
            start, stop = int(s["start"]), min(int(s["start"] + s["length"]), L)
            number += s["kind"] != PADDING
            name = 0 if s["kind"] == PADDING else number
            assert (whole.segment_ids[row, start:stop] == name).all()
            origin = start if positions == "document" else 0
            assert (whole.positions[row, start:stop] == np.arange(start, stop) - origin).all()


@pytest.mark.parametrize("prefetch", [0, 3])
def test_any_prefix_and_the_rest_are_the_whole(sequence: ArrowSequence, prefetch: int) -> None:
    whole = joined(list(Loader(sequence, 1)))
    for batch, world in ((6, 1), (6, 2), (4, 4)):
        steps = len(sequence) // batch
        for stop in range(steps + 1):
            ranks = [Loader(sequence, batch, rank=r, world_size=world, prefetch=prefetch) for r in range(world)]
            seen: list[list[Batch]] = [[] for _ in ranks]
            for r, loader in enumerate(ranks):
                for _, part in zip(range(stop), loader, strict=False):
                    seen[r].append(part)
            # zip takes one batch more than it gives only if it runs dry first; the state counts what was given.
            states = [json.loads(json.dumps(loader.state_dict())) for loader in ranks]
            assert len({state["rows"] for state in states}) == 1
            rows = states[0]["rows"]
            assert rows == stop * batch
            before = [part for step in zip(*seen, strict=True) for part in step]
            for batch2, world2 in ((6, 3), (5, 1), (2, 2)):
                after = [
                    list(Loader(sequence, batch2, rank=r, world_size=world2, state=states[0], prefetch=prefetch))
                    for r in range(world2)
                ]
                rest = [part for step in zip(*after, strict=True) for part in step]
                end = rows + (len(sequence) - rows) // batch2 * batch2
                assert equal(joined([*before, *rest]), Batch(*(array[:end] for array in whole)))


def test_the_last_batch_is_short_when_it_is_asked_for(sequence: ArrowSequence) -> None:
    whole = joined(list(Loader(sequence, 1)))
    loaders = [Loader(sequence, 16, rank=r, world_size=4, drop_last=False) for r in range(4)]
    assert len(loaders[0]) == -(-len(sequence) // 16)
    parts = [part for step in zip(*map(list, loaders), strict=True) for part in step]
    assert equal(joined(parts), whole)
    assert all(loader.state_dict()["rows"] == len(sequence) for loader in loaders)


def test_a_batch_is_a_function_of_its_row(sequence: ArrowSequence) -> None:
    loader = Loader(sequence, 7, dtype=np.int64)
    batches = list(loader)
    assert batches[0].tokens.dtype == np.int64
    for number in (5, 0, 3):
        assert equal(Loader(sequence, 7, dtype=np.int64).at(number * 7), batches[number])


def test_who_needs_tokens_alone_pays_for_nothing_else(sequence: ArrowSequence, monkeypatch: pytest.MonkeyPatch) -> None:
    calls = []
    kernel = batch_module.describe
    monkeypatch.setattr(batch_module, "describe", lambda *given: calls.append(1) or kernel(*given))
    whole = joined(list(Loader(sequence, 1)))
    calls.clear()
    batches = list(Loader(sequence, 40))
    assert (np.concatenate([batch.tokens for batch in batches]) == whole.tokens[:80]).all()
    assert not calls
    assert (batches[1].positions == whole.positions[40:80]).all()
    spans = len(calls)
    assert spans > 0
    assert (batches[1].loss == whole.loss[40:80]).all()
    assert (batches[1].segment_ids == whole.segment_ids[40:80]).all()
    assert len(calls) == spans
    # A thread that reads ahead leaves nothing to be done.
    [ahead, *_] = list(Loader(sequence, 40, prefetch=1))
    calls.clear()
    assert equal(ahead, Batch(*(array[:40] for array in whole)))
    assert not calls


def test_a_batch_travels_whole(sequence: ArrowSequence) -> None:
    batch = Loader(sequence, 7).at(14)
    kind, arrays = batch.__reduce__()
    assert equal(kind(*arrays), Loader(sequence, 7).at(14))


def test_a_changed_sequence_is_refused_with_what_differs(sequence: ArrowSequence, tmp_path: Path) -> None:
    state = Loader(sequence, 4).state_dict()
    config = stage(sources=SOURCES, chat="chatml", pack={"method": "best_fit"}, sequence_length=701)
    other = build(tmp_path, of_stage(config, seed=2))
    with pytest.raises(UserError) as caught:
        Loader(other, 4, state=state)
    for difference in ("seq_len was 700 and is 701", "seeds.recipe was 1 and is 2", "ledger.sources.a"):
        assert difference in str(caught.value)
    broken = {**state, "fingerprint": {**state["fingerprint"], "digest": "0"}}
    with pytest.raises(UserError, match="bytes of its shards differ"):
        Loader(sequence, 4, state=broken)


@pytest.mark.parametrize(
    ("keys", "message"),
    [
        ({"batch": 6, "world_size": 4}, "divided evenly"),
        ({"batch": 4, "rank": 2, "world_size": 2}, "rank 2 of 2"),
        ({"batch": 0}, "batch of 0"),
        ({"batch": 4, "start": 10**9}, "no row"),
    ],
)
def test_impossible_readers_are_refused(sequence: ArrowSequence, keys: dict, message: str) -> None:
    with pytest.raises(UserError, match=message):
        Loader(sequence, **keys)


def test_a_reader_travels_to_another_process_by_its_path(sequence: ArrowSequence) -> None:
    build_again, what = sequence.__reduce__()
    assert what == (sequence.artifact.path, False)
    assert (build_again(*what).rows(3, 9) == sequence.rows(3, 9)).all()


ROWS = st.lists(st.lists(st.tuples(st.integers(1, 9), st.booleans()), min_size=1, max_size=6), min_size=1, max_size=5)


@given(ROWS, st.booleans(), st.integers(0, 7))
def test_kernels_equal_plain_loops(rows: list, restart: bool, first: int) -> None:
    width = 1 + max(sum(length for length, _ in row) for row in rows)
    B, L = len(rows), width - 1
    bounds, start, length, kind = [0], [], [], []
    for row in rows:
        at = 0
        for n, pad in [*row, (width - sum(n for n, _ in row), True)]:
            start.append(at)
            length.append(n)
            kind.append(PADDING if pad else 0)
            at += n
        bounds.append(len(start))
    bits = np.random.default_rng(0).integers(0, 2, first + B * width).astype(bool)
    masked = np.arange(B) % 2 == 0
    ids, positions = np.full((B, L), -1, dtype=np.int32), np.full((B, L), -1, dtype=np.int32)
    loss = np.zeros((B, L), dtype=bool)
    unpack_targets(np.packbits(bits, bitorder="little"), first, masked, loss)
    describe(
        np.array(bounds, dtype=np.int32), np.array(start, dtype=np.int32), np.array(length, dtype=np.int32),
        np.array(kind, dtype=np.uint8), restart, ids, positions, loss,
    )  # fmt: skip
    for b in range(B):
        owner = np.full(width, -1)
        for s in range(bounds[b], bounds[b + 1]):
            owner[start[s] : start[s] + length[s]] = s
        real = [s for s in range(bounds[b], bounds[b + 1]) if kind[s] != PADDING]
        for i in range(L):
            s, target = owner[i], owner[i + 1]
            assert ids[b, i] == (0 if kind[s] == PADDING else real.index(s) + 1)
            assert positions[b, i] == (i - start[s] if restart else i)
            flag = bool(bits[first + b * width + i + 1]) or not masked[b]
            assert loss[b, i] == (flag and kind[target] != PADDING)


@pytest.mark.parametrize("row", [-1, 10**9, 1.5, "3", None, True, [0]])
def test_a_row_outside_is_refused_wherever_it_stands(sequence: ArrowSequence, row: object) -> None:
    state = Loader(sequence, 4).state_dict() | {"rows": row}
    with pytest.raises(UserError, match="has no row"):
        Loader(sequence, 4, state=state)
    with pytest.raises(UserError, match="has no row"):
        Loader(sequence, 4, start=row)  # type: ignore[arg-type]
    loader = Loader(sequence, 4, start=8)
    with pytest.raises(UserError):
        loader.load_state_dict(state)
    assert loader.consumed == 8


@pytest.mark.parametrize("state", [{}, {"rows": 0}, {"rows": 0, "fingerprint": {}}, {"rows": 0, "fingerprint": 1}, 7])
def test_what_is_no_state_is_refused(sequence: ArrowSequence, state: object) -> None:
    with pytest.raises(UserError, match="not a loader state"):
        Loader(sequence, 4).load_state_dict(state)  # type: ignore[arg-type]


def test_a_flipped_bit_is_seen_by_whoever_verifies(sequence: ArrowSequence, tmp_path: Path) -> None:
    folder = tmp_path / "copy"
    shutil.copytree(sequence.artifact.path, folder)
    path = folder / "00001.arrow"
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)
    first = int(sequence.artifact.row_offsets[1])
    assert len(list(Loader(folder, 1))) == len(sequence)
    loader, read = Loader(folder, 1, verify=True), 0
    with pytest.raises(DamagedArtifact, match=r"00001\.arrow"):  # noqa: PT012 - up to where it comes is what counts
        for _ in loader:
            read += 1
    assert read == first
    again = pickle.loads(pickle.dumps(open_sequence(folder, verify=True)))
    with pytest.raises(DamagedArtifact):
        again.shard(1)
