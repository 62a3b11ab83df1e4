"""Sequences of grouped files against the same written out in plain Python."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from grouped_build import Expected, of_stage, stream_of
from small_build import build, stage

from headrace.sequence import pack
from headrace.sequence.batch import read
from headrace.sequence.grouping import join
from headrace.sequence.store import ArrowSequence
from headrace.sequence.torch_dataset import TorchDataset
from headrace.sequence.windows import JOINED, PADDING

FIM = {"fim": {"rate": 0.6, "spm": 0.5}}
CONFIGURATIONS: dict[str, tuple[dict[str, Any], dict[str, Any]]] = {
    "plain": ({}, {"a": {}, "b": {}}),
    "one source": ({"sources": {"a": {"epochs": 2.5}, "b": {}}}, {"a": {"within": None}}),
    "path": ({"sources": {"a": {"epochs": 2}}}, {"a": {"order": "path", "limit": 300, "separator": ""}}),
    "imports": ({}, {"a": {"order": "dependencies"}, "b": {"order": "path", "by": "folder"}}),
    "starcoder2": (
        {"sources": {"a": {"epochs": 1.5, **FIM}, "b": {"slice": [0.2, 0.9]}}},
        {"a": {"format": "starcoder2", "metadata": 0.5}, "b": {"format": "starcoder2", "limit": 500}},
    ),
    "qwen": ({"sources": {"a": FIM}}, {"a": {"format": "qwen2.5-coder", "order": "dependencies", "within": None}}),
    "header": ({"sources": {"a": FIM}}, {"a": {"header": "# {path} {{x}}\n", "limit": 1000}}),
    "token": ({"sources": {"a": FIM, "b": {}}}, {"a": {"separator": "<file_sep>\n"}}),
    "fim": ({"sources": {"a": {**FIM, "epochs": 2}, "b": FIM}}, {"a": {"order": "path"}}),
    "short rows": ({"sequence_length": 3}, {"a": {"format": "starcoder2"}}),
}


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Any:
    """Builds each configuration once, all in one run folder, so that they share their inputs."""
    run = tmp_path_factory.mktemp("run")
    made: dict[tuple[str, str], Any] = {}

    def get(name: str, **keys: Any) -> Any:
        key = name, str(keys)
        if key not in made:
            config, groups = CONFIGURATIONS[name]
            step = of_stage(stage(**{**config, **keys}), groups)
            sequence = build(run, step)
            made[key] = sequence, step, Expected(sequence, step)
        return made[key]

    return get


@pytest.mark.parametrize("name", CONFIGURATIONS)
def test_the_stream_is_the_training_documents_in_order(built: Any, name: str) -> None:
    sequence, step, told = built(name)
    expected = [token for files in told.documents for file in files for token in file]
    stream = stream_of(sequence, step)
    assert stream == expected[: len(stream)]
    assert len(expected) - len(stream) <= sequence.seq_len


@pytest.mark.parametrize("name", CONFIGURATIONS)
def test_files_of_a_training_document_share_a_segment_id(built: Any, name: str) -> None:
    sequence, _, told = built(name)
    number = {(row, epoch): k for k, files in enumerate(told.documents) for file in files for _, row, epoch, _ in file}
    batch = read(sequence, 0, len(sequence), sequence.dtype, True)
    whole = TorchDataset(sequence, positions="document").tensors(0, len(sequence))["position_ids"].numpy()
    for row in range(len(sequence)):
        of = np.zeros(sequence.seq_len + 1, dtype=np.int64)
        for s in sequence.segments(row):
            of[s["start"] : s["start"] + s["length"]] = number[int(s["row"]), int(s["epoch"])]
        same = of[1:-1] == of[:-2]
        assert (np.diff(batch.segment_ids[row]) == np.where(same, 0, 1)).all()
        assert (batch.positions[row][1:] == np.where(same, batch.positions[row][:-1] + 1, 0)).all()
        assert (whole[row][1:] == np.where(of[1:] == of[:-1], whole[row][:-1] + 1, 0)).all()


def fitted(sequence: ArrowSequence, documents: list[list[list[Any]]]) -> None:
    """Best-fit rows hold every token of every document, pieces in order, and no target twice."""
    place = {}
    for k, files in enumerate(documents):
        for at, token in enumerate(token for file in files for token in file):
            place[token[1:]] = k, at, token[0]
    seen: Counter[tuple[int, int]] = Counter()
    targets: Counter[tuple[int, int]] = Counter()
    loss = sequence.loss(0, len(sequence))
    for row in range(len(sequence)):
        tokens, before = sequence.rows(row, row + 1)[0].tolist(), None
        for s in sequence.segments(row):
            if s["kind"] == PADDING:
                assert not loss[row, s["start"] :].any()
                continue
            first = place[int(s["row"]), int(s["epoch"]), int(s["offset"])][:2]
            goes_on = before is not None and before == (first[0], first[1] - 1)
            assert bool(int(s["kind"]) & JOINED) == goes_on
            for i in range(int(s["length"])):
                k, at, token = place[int(s["row"]), int(s["epoch"]), int(s["offset"]) + i]
                assert tokens[int(s["start"]) + i] == token
                before = k, at
                seen[before] += 1
                targets[before] += bool(loss[row, int(s["start"]) + i]) and int(s["start"]) + i > 0
    assert max(targets.values()) == 1
    for k, files in enumerate(documents):
        length = sum(map(len, files))
        # A document that fills a row exactly goes without its end.
        assert all(seen[k, at] for at in range(length - 1))
        assert seen[k, length - 1] or length == sequence.seq_len + 2


@pytest.mark.parametrize("name", ["plain", "starcoder2", "fim", "path"])
@pytest.mark.parametrize("length", [40, 301])
def test_best_fit_keeps_training_documents_together(built: Any, name: str, length: int) -> None:
    sequence, _, told = built(name, pack={"method": "best_fit"}, sequence_length=length)
    fitted(sequence, told.documents)


@pytest.mark.parametrize("name", CONFIGURATIONS)
def test_the_ledger_counts_groups(built: Any, name: str) -> None:
    sequence, step, told = built(name)
    for source, group in step.parameters.groups.items():
        mine = [files for files in told.documents if told.rows[files[0][0][1]]["source"] == source]
        joined = [files for files in mine if told.unit_of(files[0][0][1])[1]]
        found = sequence.manifest["ledger"]["sources"][source]["groups"]
        assert found["files"] == sum(map(len, joined))
        assert found["documents"] == len(joined)
        assert found["alone"] == len(mine) - len(joined) > 0
        assert found["most_files"] == max(map(len, joined))
        assert found["most_tokens"] == max(sum(map(len, files)) for files in mine)
        assert (found["cut"] > 0) == (group.limit is not None)


def contents(sequence: ArrowSequence) -> list[bytes]:
    return [path.read_bytes() for path in sorted(sequence.artifact.path.rglob("*")) if path.is_file()]


@pytest.mark.parametrize(("name", "method"), [("starcoder2", "best_fit"), ("imports", "concatenate")])
def test_small_memory_gives_the_same_bytes(built: Any, name: str, method: str, tmp_path: Path) -> None:
    sequence, step, _ = built(name, pack={"method": method})
    assert contents(build(tmp_path, step, memory=1 << 14)) == contents(sequence)


def test_pieces_of_best_fit_end_with_documents(built: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pack, "FIT_BLOCK", 16)
    config, groups = CONFIGURATIONS["fim"]
    step = of_stage(stage(**config, pack={"method": "best_fit"}), groups)
    sequence = build(tmp_path, step)
    fitted(sequence, Expected(sequence, step).documents)


def test_weights_take_whole_groups(tmp_path: Path) -> None:
    for k, fim in enumerate(({}, FIM)):
        sources = {"a": {"weight": 3, **fim}, "b": {"weight": 1}}
        step = of_stage(stage(sources=sources, tokens=150_000), {"a": {"order": "path"}})
        sequence = build(tmp_path / str(k), step)
        entry = sequence.manifest["ledger"]["sources"]["a"]
        assert entry["wanted"] <= entry["reached"]
        expected = Expected(sequence, step)
        whole: dict[bytes, set[int]] = {}
        for row in expected.train:
            if expected.rows[row]["source"] == "a":
                whole.setdefault(expected.unit_of(row)[0].tobytes(), set()).add(row)
        held: dict[tuple[int, bytes], set[int]] = {}
        for _, row, copy, _ in stream_of(sequence, step):
            held.setdefault((copy, expected.unit_of(row)[0].tobytes()), set()).add(row)
        partial = [found for (_, unit), found in held.items() if unit in whole and found != whole[unit]]
        assert len(partial) <= 1  # what the tail cuts off
        assert len({copy for copy, _ in held}) > 1
        last = max(copy for copy, unit in held if unit in whole)
        assert 0 < sum(copy == last and unit in whole for copy, unit in held) < len(whole)


def test_join_does_not_depend_on_the_pieces_that_it_gets() -> None:
    rng = np.random.default_rng(3)
    records = np.zeros(500, dtype=join.GROUPED)
    records["group"] = np.sort(rng.integers(0, 40, 500))
    records["key"] = records["group"]
    records["row"] = 1000 + np.arange(500)
    records["length"] = rng.integers(0, 50, 500)
    records["lead"] = np.minimum(records["length"], rng.integers(0, 4, 500))
    records["kind"] = rng.integers(0, 3, 500)
    sizes = join.Sizes(np.array([90]), np.array([2]), np.array([1]))

    def whole(bounds: list[int]) -> tuple[bytes, list[int]]:
        tally = np.zeros((1, len(join.COUNTED)), dtype=np.int64)
        chunks = (records[a:b] for a, b in zip([0, *bounds], [*bounds, 500], strict=True))
        out = [joined for _, joined in join.joined_chunks((c for c in chunks if len(c)), sizes, tally)]
        return np.concatenate(out).tobytes(), tally[0].tolist()

    expected = whole([])
    for _ in range(20):
        assert whole(sorted(rng.integers(0, 500, int(rng.integers(1, 60))).tolist())) == expected
