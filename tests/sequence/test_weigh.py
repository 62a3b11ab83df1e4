"""Weighted sources against a plain reference: whole passes, then documents in the order of sampling to the total."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from small_build import build, expected_documents, of_stage, open_input, stage, texts_of

from headrace.documents.store import fetch
from headrace.errors import UserError
from headrace.flow.keys import keyed, parse_ids, salt, unit
from headrace.flow.running_totals import reached
from headrace.sequence.epochs import counts_of, repeated
from headrace.sequence.step import Sequence
from headrace.sequence.store import ArrowSequence
from headrace.sequence.windows import PADDING
from headrace.tokens.store import open_shard
from quick import examples


@settings(max_examples=examples(200))
@given(
    shards=st.lists(
        st.lists(st.tuples(st.integers(0, 3) | st.just(2**64 - 1), st.integers(1, 50)), max_size=6),
        min_size=1,
        max_size=5,
    ).filter(any),
    share=st.floats(0, 1),
)
@example(shards=[[], [(2**64 - 1, 1)]], share=1.0)
def test_the_document_at_which_a_total_is_reached(shards: list[list[tuple[int, int]]], share: float) -> None:
    tables, everything, row = [], [], 0
    for shard in shards:
        rows = [(key, row + i, length) for i, (key, length) in enumerate(shard)]
        row += len(shard)
        everything += rows
        table = np.array(sorted(rows), dtype=np.uint64).reshape(-1, 3).T.copy()
        np.cumsum(table[2], out=table[2])
        tables.append(table)
    whole = sum(length for _, _, length in everything)
    total = max(1, round(share * whole))
    at = 0
    for key, number, length in sorted(everything):
        at += length
        if at >= total:
            assert reached(tables, total) == (key, number)
            return
    raise AssertionError


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One run folder, so that sequences share their inputs."""
    return tmp_path_factory.mktemp("run")


def copies_in(sequence: ArrowSequence) -> Counter[tuple[int, int]]:
    """(row, epoch) of every copy that lies in the rows."""
    found: set[tuple[int, int]] = set()
    for row in range(len(sequence)):
        found |= {(int(s["row"]), int(s["epoch"])) for s in sequence.segments(row) if s["kind"] != PADDING}
    return Counter(found)


def reference(
    sequence: ArrowSequence, step: Sequence, name: str, wanted: int
) -> tuple[set[tuple[int, int]], int, int, int]:
    """The copies of a source, their tokens, those of the last, and the documents there are, by a plain loop."""
    tokens, document = open_input(sequence, step, "tokens"), expected_documents(sequence, step)
    low, high = step.parameters.section.sources[name].slice
    order = []
    for number in range(len(tokens.shards)):
        shard = open_shard(tokens, number)
        mine = (shard.source == sequence.sources.index(name)) & (shard.split == 0)
        rows = shard.rows[mine].astype(np.int64)
        table = fetch(open_input(sequence, step, "documents"), rows, ["id"]).column("id")
        ids = parse_ids(table)
        place, key = (
            keyed(salt(step.parameters.seed, *purpose), ids) for purpose in (("slice",), ("epoch", step.stage))
        )
        inside = (low <= unit(place)) & (unit(place) < high)
        order += list(zip(key[inside].tolist(), rows[inside].tolist(), strict=True))
    order.sort()
    taken: set[tuple[int, int]] = set()
    total = last = copy = 0
    while total < wanted:
        for _, row in order:
            last = len(document(row, copy)[0])
            total += last
            taken.add((row, copy))
            if total >= wanted:
                break
        copy += 1
    return taken, total, last, len(order)


FIM = {"rate": 0.9, "spm": 0.5}


@settings(max_examples=8)
@given(data=st.data())
def test_weights_are_met_to_the_document(run: Path, data: Any) -> None:
    """Plain, rearranged and rendered sources, less than a pass to many, slices: the documents that a loop takes."""
    sources: dict[str, Any] = {}
    for name in data.draw(st.lists(st.sampled_from(["a", "b", "chat"]), min_size=1, max_size=3, unique=True)):
        low = data.draw(st.sampled_from([0.0, 0.25]))
        sources[name] = {"weight": data.draw(st.sampled_from([1, 3, 0.1])), "slice": [low, 1.0]}
        if name != "chat" and data.draw(st.booleans()):
            sources[name]["fim"] = FIM
    config = stage(
        sources=sources,
        tokens=data.draw(st.sampled_from([300, 5_000, 60_000, 150_001])),
        chat=data.draw(st.sampled_from(["chatml", "crystalchat"])),
        # Packed without cuts, so that no document is lost in the tail.
        pack={"method": "best_fit"},
        name=data.draw(st.sampled_from(["one", "two"])),
    )
    step = of_stage(config)
    sequence = build(run, step)
    found, ledger = copies_in(sequence), sequence.manifest["ledger"]["sources"]
    expected: set[tuple[int, int]] = set()
    whole = sum(source["weight"] for source in sources.values())
    for name, source in sources.items():
        wanted = ledger[name]["wanted"]
        assert wanted - 1 < config.tokens * source["weight"] / whole <= wanted
        taken, total, last, documents = reference(sequence, step, name, wanted)
        assert ledger[name]["reached"] == total
        assert ledger[name]["epochs"] == len(taken) / documents
        assert wanted <= total < wanted + last
        expected |= taken
    assert set(found) == expected


def test_a_stage_fills_all_the_rows_of_its_total(run: Path) -> None:
    sequence = build(run, of_stage(stage(sources={"a": {"weight": 3}, "b": {"weight": 1}}, tokens=100_000)))
    longest = max(len(text) for name in ("a", "b") for text in texts_of(name, 300, 0)) * 4 + 1
    assert 100_000 // 64 <= len(sequence) <= (100_000 + 2 * longest) // 64
    ledger = sequence.manifest["ledger"]["sources"]
    assert {name: entry["wanted"] for name, entry in ledger.items()} == {"a": 75_000, "b": 25_000}


def test_sources_with_epochs_want_no_total(run: Path) -> None:
    ledger = build(run, of_stage(stage()))
    for entry in ledger.manifest["ledger"]["sources"].values():
        assert entry["wanted"] is None
        assert entry["reached"] == entry["tokens_in"] + entry["ends"]


def test_a_slice_without_documents_is_told(run: Path) -> None:
    config = stage(sources={"b": {"weight": 1, "slice": [0.5, 0.50001]}}, tokens=1000)
    with pytest.raises(UserError, match="has no documents"):
        build(run, of_stage(config))


def test_many_passes_are_told(run: Path) -> None:
    step = of_stage(stage(sources={"b": {"weight": 1}, "a": {"weight": 1e-4}}, tokens=300_000))
    with pytest.warns(match=r"Stage 'one' reads source 'b' \d+(\.\d+)? times by its weight. Up to 4 passes"):
        sequence = build(run, step)
    counts = counts_of(open_input(sequence, step, "tokens"), "train")
    passes = sequence.manifest["ledger"]["sources"]["b"]["epochs"]
    assert passes == pytest.approx(300_000 / 1.0001 / counts["b"].stream, rel=0.05)
    few, many = stage(sources={"a": {"epochs": 4}}), stage(sources={"a": {"epochs": 4.5}})
    assert list(repeated(few, [("a", None, 4)])) == []
    (told,) = repeated(many, [("a", None, 4.5)])
    assert told.startswith("Stage 'one' reads source 'a' 4.5 times. Up to 4 passes")
