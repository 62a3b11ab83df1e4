"""Documents taken by length against a plain loop over the token store, alone and in groups."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from small_build import build, of_stage, open_input, stage

from headrace.documents.store import fetch
from headrace.errors import UserError
from headrace.flow.keys import keyed, parse_ids, salt, unit
from headrace.sequence.group_lengths import parts
from headrace.sequence.step import Sequence
from headrace.sequence.store import ArrowSequence
from headrace.sequence.windows import PADDING
from headrace.tokens.store import open_shard


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One run folder, so that sequences share their inputs."""
    return tmp_path_factory.mktemp("run")


def copies_in(sequence: ArrowSequence) -> set[tuple[int, int]]:
    """(row, epoch) of every copy that lies in the rows."""
    found: set[tuple[int, int]] = set()
    for row in range(len(sequence)):
        found |= {(int(s["row"]), int(s["epoch"])) for s in sequence.segments(row) if s["kind"] != PADDING}
    return found


def stored(sequence: ArrowSequence, step: Sequence, name: str) -> list[tuple[int, float, float, int]]:
    """Document row, place in slices, sampling key and tokens of a source's training documents."""
    tokens, out = open_input(sequence, step, "tokens"), []
    for number in range(len(tokens.shards)):
        shard = open_shard(tokens, number)
        mine = (shard.source == sequence.sources.index(name)) & (shard.split == 0)
        rows = shard.rows[mine].astype(np.int64)
        ids = parse_ids(fetch(open_input(sequence, step, "documents"), rows, ["id"]).column("id"))
        place = unit(keyed(salt(step.parameters.seed, "slice"), ids))
        key = keyed(salt(step.parameters.seed, "epoch", step.stage), ids)
        lengths = np.diff(shard.offsets)[mine]
        out += list(zip(rows.tolist(), place.tolist(), key.tolist(), lengths.tolist(), strict=True))
    return out


def taken_plainly(
    documents: list[tuple[int, float, float, int]], epochs: dict[int, float], low: float
) -> set[tuple[int, int]]:
    """The copies that epochs by length ask for."""
    found = set()
    for row, place, key, tokens in documents:
        least = max((length for length in epochs if length <= tokens), default=None)
        if least is None or place < low:
            continue
        whole, part = divmod(epochs[least], 1)
        found |= {(row, copy) for copy in range(int(whole))}
        if key / 2**64 < part:
            found.add((row, int(whole)))
    return found


LENGTHS = st.dictionaries(
    st.sampled_from([0, 40, 100, 200, 333]), st.sampled_from([0.25, 1, 1.5, 3]), min_size=1, max_size=4
)


@settings(max_examples=8)
@given(a=LENGTHS, b=LENGTHS, low=st.sampled_from([0.0, 0.3]))
def test_epochs_by_length_are_those_of_a_loop(run: Path, a: dict[int, float], b: dict[int, float], low: float) -> None:
    sources: dict[str, Any] = {"a": {"epochs": a, "slice": [low, 1]}, "b": {"epochs": b}}
    step = of_stage(stage(sources=sources, pack={"method": "best_fit"}))
    sequence = build(run, step)
    expected, ledger = set(), sequence.manifest["ledger"]["sources"]
    for name, epochs, least in (("a", a, low), ("b", b, 0.0)):
        documents = stored(sequence, step, name)
        mine = taken_plainly(documents, epochs, least)
        lengths = {row: tokens for row, _, _, tokens in documents}
        assert ledger[name]["tokens_in"] == sum(lengths[row] for row, _ in mine)
        assert ledger[name]["copies"] == len(mine)
        assert ledger[name]["documents"] == len({row for row, _ in mine})
        for part in ledger[name]["by_length"]:
            low_, high = part["lengths"]
            of = [row for row, _ in mine if low_ <= lengths[row] < (high or 10**9)]
            assert (part["copies"], part["tokens_in"]) == (len(of), sum(lengths[row] for row in of))
        expected |= mine
    assert copies_in(sequence) == expected


def test_weights_by_length_are_met_to_the_document(run: Path) -> None:
    sources = {
        "a": {"weight": {0: 1, 100: 2, 400: 1}, "fim": {"rate": 0.5}},
        "b": {"weight": {50: 2, 300: 0}, "slice": [0.2, 1]},
        "chat": {"weight": 1},
    }
    config = stage(sources=sources, tokens=70_000, chat="chatml", pack={"method": "best_fit"})
    step = of_stage(config)
    sequence = build(run, step)
    ledger = sequence.manifest["ledger"]["sources"]
    wanted = {name: [part["wanted"] for part in ledger[name]["by_length"]] for name in ("a", "b")}
    assert wanted == {"a": [10_000, 20_000, 10_000], "b": [20_000]}
    assert "by_length" not in ledger["chat"]
    assert ledger["a"]["wanted"] == 40_000
    for name in wanted:
        lengths = {row: tokens for row, _, _, tokens in stored(sequence, step, name)}
        copies = [row for row, _ in copies_in(sequence) if row in lengths]
        for part in ledger[name]["by_length"]:
            low, high = part["lengths"]
            of = [lengths[row] for row in copies if low <= lengths[row] < (high or 10**9)]
            assert sum(of) == part["tokens_in"]
            # Sentinels, and the differences from encoding parts, are counted too.
            assert part["wanted"] <= part["reached"] < part["wanted"] + max(of) + 8


def test_one_length_that_all_documents_have_is_as_no_length(run: Path) -> None:
    """Sampling and order know nothing of lengths: the same rows."""
    plain = build(run, of_stage(stage(sources={"a": {"epochs": 1.5}, "b": {}})))
    by = build(run, of_stage(stage(sources={"a": {"epochs": {0: 1.5}}, "b": {"epochs": {0: 1, 90: 1}}})))
    assert (plain.rows(0, len(plain)) == by.rows(0, len(by))).all()


def test_the_same_stage_written_otherwise_is_the_same() -> None:
    one = of_stage(stage(sources={"a": {"epochs": {0: 1, "1k": 2}}}))
    two = of_stage(stage(sources={"a": {"epochs": {"1_000": 2.0, 0: 1.0}}}))
    assert one.name == two.name
    assert one.name != of_stage(stage(sources={"a": {"epochs": {0: 1, "1k": 3}}})).name


def test_a_length_that_no_document_has_is_told_with_those_there_are(run: Path) -> None:
    with pytest.raises(UserError, match=r"no documents of 64,000 tokens or more.*longest 1,6\d\d") as refused:
        build(run, of_stage(stage(sources={"a": {"epochs": {0: 1, "64k": 2}}})))
    assert "83 of 64 to 127" in str(refused.value)


@given(
    st.lists(st.tuples(st.sampled_from([0, 1, 2**63, 2**64 - 1]), st.integers(0, 2), st.integers(0, 9)), max_size=20)
)
def test_parts_of_groups_are_sums(files: list[tuple[int, int, int]]) -> None:
    units = np.array([(high, low) for high, low, _ in files], dtype=np.uint64).reshape(-1, 2)
    found = parts(units, np.array([n for *_, n in files], dtype=np.int64), np.full(len(files), 3), 5)
    tokens: Counter[tuple[int, int]] = Counter()
    for high, low, n in files:
        tokens[high, low] += n
    assert {(int(p["high"]), int(p["low"])): int(p["tokens"]) for p in found} == dict(tokens)
    assert found["files"].sum() == len(files)
    assert set(found["source"].tolist()) <= {3}
    assert set(found["shard"].tolist()) <= {5}
