"""The whole build against what the documents say: every segment, every token, every count."""

from __future__ import annotations

from collections import Counter
from itertools import zip_longest
from pathlib import Path
from typing import Any

import numpy as np
import orjson
import pytest
from small_build import Sequence, build, engine_of, expected_documents, of_stage, open_input, stage

from headrace.errors import UserError
from headrace.sequence import layout
from headrace.sequence.store import ArrowSequence
from headrace.sequence.windows import KINDS, PADDING
from headrace.tokens.store import open_shard

FIM = {"fim": {"rate": 0.9, "spm": 0.5}}
STRICT = str(Path(__file__).with_name("strict.jinja"))
CONFIGURATIONS: dict[str, dict[str, Any]] = {
    "plain": {},
    "apart": {"pack": {"mix_sources": False}},
    "best fit": {"pack": {"method": "best_fit"}, "sequence_length": 100},
    "best fit apart": {"pack": {"method": "best_fit", "mix_sources": False}, "sources": {"a": {"epochs": 2}, "b": {}}},
    "short rows": {"sequence_length": 2},
    "fim": {"sources": {"a": {"epochs": 2.5, **FIM}, "b": {"slice": [0.25, 0.75]}}},
    "chat": {"sources": {"chat": {"epochs": 2}, "b": {}}, "chat": "crystalchat"},
    "jinja": {
        "sources": {"chat": {"epochs": 1.5}, "b": {}},
        "chat": {"template": STRICT, "truncate": "drop"},
        "sequence_length": 200,
    },
    "jinja weights": {"sources": {"chat": {"weight": 3}, "b": {"weight": 1}}, "tokens": 30_000, "chat": STRICT},
    "all": {
        "sources": {"a": {"epochs": 3, **FIM}, "b": {"slice": [0, 0.5]}, "chat": {"epochs": 1.5}},
        "chat": "chatml",
        "pack": {"method": "best_fit"},
        "sequence_length": 50,
    },
    "weights": {"sources": {"a": {"weight": 3}, "b": {"weight": 1}}, "tokens": 100_000},
}


# Of these, more documents than a row's end are in no row.
LONG: dict[str, dict[str, Any]] = {
    "long": {"pack": {"prefer": "long"}, "sequence_length": 300},
    "long fit": {
        "pack": {"method": "best_fit", "prefer": "long"},
        "sequence_length": 200,
        "sources": {"a": FIM, "b": {}},
    },
}


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Any:
    """Builds each configuration once, all in one run folder, so that they share their inputs."""
    run = tmp_path_factory.mktemp("run")
    made: dict[str, tuple[ArrowSequence, Sequence]] = {}

    def get(name: str) -> tuple[ArrowSequence, Sequence]:
        if name not in made:
            step = of_stage(stage(**{**CONFIGURATIONS, **LONG}[name]))
            made[name] = build(run, step), step
        return made[name]

    return get


@pytest.mark.parametrize("name", [*CONFIGURATIONS, *LONG])
def test_every_segment_holds_what_its_document_says(built: Any, name: str) -> None:
    sequence, step = built(name)
    document = expected_documents(sequence, step)
    names = sequence.sources
    tokens, loss = sequence.rows(0, len(sequence)), sequence.loss(0, len(sequence))
    pad = sequence.manifest["pad"]
    for row in range(len(sequence)):
        at = 0
        for segment in sequence.segments(row):
            start, length, offset = int(segment["start"]), int(segment["length"]), int(segment["offset"])
            assert start == at, "segments cover the row in order"
            at += length
            mine, flags = tokens[row, start:at].tolist(), loss[row, start:at].tolist()
            if segment["kind"] == PADDING:
                assert mine == [pad] * length
                assert not any(flags)
                continue
            whole, carried, kind = document(int(segment["row"]), int(segment["epoch"]))
            assert mine == whole[offset : offset + length]
            assert segment["kind"] == kind
            assert names[segment["source"]] in step.parameters.section.sources
            carried = carried[offset : offset + length]
            if start > 0 and offset > 0:
                carried = [False, *carried[1:]]
            assert flags == carried
        assert at == sequence.seq_len + 1


@pytest.mark.parametrize("name", CONFIGURATIONS)
def test_every_token_is_a_target_once_and_the_ledger_equals_a_recount(built: Any, name: str) -> None:
    sequence, step = built(name)
    document = expected_documents(sequence, step)
    seen: dict[tuple[int, int], Counter[int]] = {}
    targets: dict[tuple[int, int], Counter[int]] = {}
    placed: Counter[str] = Counter()
    source_of: dict[int, str] = {}
    carried: Counter[str] = Counter()
    padding = 0
    kinds: Counter[str] = Counter()
    loss = sequence.loss(0, len(sequence))
    for row in range(len(sequence)):
        for s in sequence.segments(row):
            kinds[KINDS[int(s["kind"])]] += 1
            if s["kind"] == PADDING:
                padding += int(s["length"])
                continue
            copy, source = (int(s["row"]), int(s["epoch"])), sequence.sources[s["source"]]
            placed[source] += int(s["length"])
            source_of[copy[0]] = source
            first, stop = int(s["offset"]), int(s["offset"] + s["length"])
            seen.setdefault(copy, Counter()).update(range(first, stop))
            again = s["start"] == 0 or s["offset"] > 0
            targets.setdefault(copy, Counter()).update(range(first + int(again), stop))
            span = loss[row, max(1, int(s["start"])) : int(s["start"] + s["length"])]
            carried[source] += int(span.sum())
    ledger = sequence.manifest["ledger"]
    assert ledger["rows"] == len(sequence)
    assert ledger["padding"] == padding
    assert {k: v for k, v in ledger["segments"].items() if v} == dict(kinds)
    unique: Counter[str] = Counter()
    for (row, epoch), offsets in seen.items():
        unique[source_of[row]] += len(offsets)
        assert set(offsets) == set(range(len(offsets))), "from the start without a gap"
        assert max(targets[row, epoch].values(), default=1) == 1, "no token is predicted twice"
        missing = set(offsets) - set(targets[row, epoch])
        # Only what stands first in a row has nothing before it to be predicted from.
        assert missing <= {0}
        length = len(document(row, epoch)[0])
        assert len(offsets) in (length, length - 1) or ledger["sources"][source_of[row]]["tail"]
    for source, entry in ledger["sources"].items():
        assert entry["tokens_placed"] == placed[source]
        assert entry["overlap"] == placed[source] - unique[source]
        assert entry["loss_tokens"] == carried[source]
        came = entry["tokens_in"] + entry["added"] + entry["ends"]
        assert came == unique[source] + entry["tail"]
        copies = [copy for copy in seen if source_of[copy[0]] == source]
        found = [sum(epoch == c for _, epoch in copies) for c in range(len(entry["copies_by_epoch"]))]
        # A copy that lies in the tail whole leaves no trace in the rows.
        assert sum(entry["copies_by_epoch"]) - sum(found) in ((0,) if not entry["tail"] else range(3))
        for field, kind in (("fim_psm", 1), ("fim_spm", 2), ("chat", 3)):
            assert entry[field] >= sum(document(*copy)[2] == kind for copy in copies) >= entry[field] - 2


def test_copies_are_exact_and_fractions_are_slices_of_their_own(built: Any) -> None:
    sequence, step = built("fim")
    entry = sequence.manifest["ledger"]["sources"]["a"]
    tokens = open_input(sequence, step, "tokens")
    kept = tokens.manifest.counts["a"]["train"]["documents"]
    assert entry["copies_by_epoch"][:2] == [kept, kept]
    assert abs(entry["copies_by_epoch"][2] - kept / 2) < 4 * np.sqrt(kept / 4)
    assert entry["copies"] == sum(entry["copies_by_epoch"])


def documents_in(sequence: ArrowSequence) -> Counter[int]:
    found: Counter[int] = Counter()
    for row in range(len(sequence)):
        for s in sequence.segments(row):
            if s["offset"] == 0 and s["kind"] != PADDING and s["length"] > 1:
                found[int(s["row"])] += 1
    return found


def test_slices_of_different_stages_are_disjoint_and_complete(tmp_path: Path) -> None:
    parts = []
    for name, part in (("one", [0, 0.3]), ("two", [0.3, 0.31]), ("three", [0.31, 1])):
        config = stage(name=name, sources={"a": {"slice": part}}, pack={"method": "best_fit"})
        step = of_stage(config)
        parts.append(documents_in(build(tmp_path, step)))
    assert not set(parts[0]) & set(parts[1])
    assert not set(parts[0]) & set(parts[2])
    assert not set(parts[1]) & set(parts[2])
    whole = documents_in(build(tmp_path, of_stage(stage(sources={"a": {}}, pack={"method": "best_fit"}))))
    assert set(whole) == set(parts[0]) | set(parts[1]) | set(parts[2])
    assert set(whole.values()) == {1}


def test_fim_draws_differ_between_copies_and_meet_their_rates(built: Any) -> None:
    sequence, _ = built("all")
    kinds: dict[int, dict[int, int]] = {}
    for row in range(len(sequence)):
        for s in sequence.segments(row):
            if sequence.sources[s["source"]] == "a" and s["kind"] != PADDING:
                kinds.setdefault(int(s["epoch"]), {})[int(s["row"])] = int(s["kind"])
    assert kinds[0] != kinds[1] != kinds[2]
    drawn = np.array([kind for copy in kinds.values() for kind in copy.values()])
    n = len(drawn)
    assert abs((drawn > 0).mean() - 0.9) < 4 * np.sqrt(0.09 / n)
    assert abs((drawn[drawn > 0] == 2).mean() - 0.5) < 4 * np.sqrt(0.25 / n)


def test_sources_apart_share_no_row(built: Any) -> None:
    for name in ("apart", "best fit apart"):
        sequence, _ = built(name)
        for row in range(len(sequence)):
            segments = sequence.segments(row)
            assert len({int(s["source"]) for s in segments if s["kind"] != PADDING}) == 1
    assert any(len({int(s["source"]) for s in built("plain")[0].segments(row)}) > 1 for row in range(100))


@pytest.mark.parametrize("method", ["concatenate", "best_fit"])
def test_context_level_fim_keeps_rows_full_and_counts_true(tmp_path: Path, method: str) -> None:
    keys: dict[str, Any] = {"chat": "chatml", "pack": {"method": method}}
    config = stage(fim_level="context", sources={"a": FIM, "b": {}, "chat": {}}, **keys)
    step = of_stage(config)
    sequence = build(tmp_path, step)
    engine = engine_of(sequence, step)
    plain = build(tmp_path, of_stage(stage(sources={"a": {}, "b": {}, "chat": {}}, **keys)))
    assert len(plain) == len(sequence)
    placed: Counter[str] = Counter()
    kinds: Counter[str] = Counter()
    loss = sequence.loss(0, len(sequence))
    for row in range(len(sequence)):
        at = 0
        before = plain.rows(row, row + 1)[0]
        for s, old in zip_longest(sequence.segments(row), plain.segments(row)):
            if s is None:
                break  # cut off by what others brought in
            assert s["start"] == at
            tokens = sequence.rows(row, row + 1)[0, at : at + s["length"]]
            at += int(s["length"])
            if s["kind"] == PADDING:
                assert np.isin(tokens, [engine.special["fim_pad"], engine.special["pad"]]).all()
                assert not loss[row, s["start"] : at].any()
                continue
            assert s["row"] == old["row"], "the same documents in the same rows"
            placed[sequence.sources[s["source"]]] += int(s["length"])
            kinds[KINDS[int(s["kind"])]] += 1
            was = before[old["start"] : old["start"] + old["length"]]
            if s["kind"] in (0, 3):
                assert (tokens == was[: len(tokens)]).all(), "left as it was, but for what the row's end cut off"
                flags = plain.loss(row, row + 1)[0, old["start"] : old["start"] + s["length"]]
                assert (loss[row, s["start"] : at] == flags).all()
            else:
                assert tokens[0] == engine.special["fim_prefix"]
        assert at == sequence.seq_len + 1 or sequence.segments(row)[-1]["kind"] == PADDING
    ledger = sequence.manifest["ledger"]
    assert {name: e["tokens_placed"] for name, e in ledger["sources"].items()} == dict(placed)
    assert ledger["sources"]["a"]["fim_psm"] == kinds["fim-psm"] > 100
    assert ledger["sources"]["a"]["fim_spm"] == kinds["fim-spm"] > 100


def test_held_out_rows_are_of_held_out_documents_and_end_at_the_limit(tmp_path: Path) -> None:
    config = stage(sources={"a": {}, "b": {}, "empty": {}}, pack={"mix_sources": False})
    step = of_stage(config, split="validation", limit=1000)
    sequence = build(tmp_path, step)
    tokens = open_input(sequence, step, "tokens")
    held = np.concatenate([s.rows[s.split == 1] for s in (open_shard(tokens, i) for i in range(len(tokens.shards)))])
    assert set(documents_in(sequence)) <= set(held.tolist())
    ledger = sequence.manifest["ledger"]["sources"]
    assert set(ledger) == {"a", "b"}
    assert ledger["a"]["tokens_placed"] == -(-1000 // 64) * 65
    assert ledger["a"]["beyond_limit"] > 0
    nothing = build(tmp_path, of_stage(stage(sources={"empty": {}}), split="validation"))
    assert len(nothing) == 0
    assert nothing.rows(0, 0).shape == (0, 65)


def contents(sequence: ArrowSequence) -> list[bytes]:
    return [path.read_bytes() for path in sorted(sequence.artifact.path.iterdir())]


@pytest.mark.parametrize("name", ["all", "fim"])
def test_small_memory_gives_the_same_bytes(built: Any, name: str, tmp_path: Path) -> None:
    sequence, step = built(name)
    assert contents(build(tmp_path, step, memory=1 << 14)) == contents(sequence)


def test_shards_and_blocks_change_nothing_but_the_cuts(
    built: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    sequence, step = built("chat")
    monkeypatch.setattr(layout, "SHARD_BYTES", 4000)
    monkeypatch.setattr(layout, "MOST_PARTITIONS", 3)
    monkeypatch.setattr(layout, "BLOCK_RECORDS", 20)
    for memory in (64 << 20, 1 << 14):
        many = build(tmp_path / str(memory), step, memory)
        assert len(many.artifact.shards) > 10
        assert (many.rows(0, len(many)) == sequence.rows(0, len(sequence))).all()
        assert (many.loss(0, len(many)) == sequence.loss(0, len(sequence))).all()
        for row in range(len(sequence)):
            assert (many.segments(row) == sequence.segments(row)).all()


def test_a_row_of_one_target(tmp_path: Path) -> None:
    for pack in ({"method": "best_fit"}, {}):
        config = stage(pack=pack, name="x").model_copy(update={"sequence_length": 1})
        sequence = build(tmp_path, of_stage(config))
        assert sequence.rows(0, 3).shape == (3, 2)
        assert sequence.manifest["ledger"]["rows"] == len(sequence) > 50_000


def test_too_little_for_a_row_is_told(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="too few for one row") as caught:
        build(tmp_path, of_stage(stage(sources={"b": {}}, sequence_length=1_000_000)))
    assert "sequence_length" in caught.value.fix


def test_an_empty_source_is_told_before_any_work(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="'empty' has no tokens"):
        build(tmp_path, of_stage(stage(sources={"a": {}, "empty": {}})))


def test_what_does_not_decide_the_rows_is_not_in_the_identity() -> None:
    one, two = of_stage(stage(train={"batch": 8})), of_stage(stage(train={"batch": 16}))
    assert one.identity == two.identity
    assert one.identity != of_stage(stage(), seed=2).identity
    assert one.identity != of_stage(stage(sequence_length=65)).identity


def test_refused_conversations_are_left_out_and_told(built: Any) -> None:
    sequence, step = built("jinja")
    entry = sequence.manifest["ledger"]["sources"]["chat"]
    folder = next(sequence.path.rglob("quarantine"))
    told = [orjson.loads(line) for path in sorted(folder.iterdir()) for line in path.read_bytes().splitlines()]
    assert len(told) == entry["refused"] > 10
    reasons = {line["error"].split(":")[0].split(" has ")[0] for line in told}
    assert reasons == {"the template refuses it", "it"}
    assert all((line["source"], line["file"]) == ("chat", "chat.jsonl") and line["line"] > 0 for line in told)
    stored = open_input(sequence, step, "tokens").manifest.counts["chat"]["train"]
    assert entry["documents"] + entry["refused"] == stored["documents"]


def test_a_template_that_renders_nothing_stops_the_run(tmp_path: Path) -> None:
    (tmp_path / "no.jinja").write_text("{% generation %}{{ raise_exception('never') }}{% endgeneration %}")
    config = stage(sources={"chat": {}, "b": {}}, chat=str(tmp_path / "no.jinja"))
    with pytest.raises(UserError, match=r"renders none .*chat.jsonl line \d+: the template refuses it: never"):
        build(tmp_path / "run", of_stage(config))


def test_the_bytes_of_this_version(built: Any) -> None:
    """The golden digests: if these change, raise Sequence.VERSION."""
    digests = {name: built(name)[0].fingerprint["digest"] for name in ("plain", "best fit", "fim")}
    assert Sequence.VERSION == 3
    assert digests == GOLDEN


GOLDEN = {
    "plain": "fff5e9e0e633ce29930ad35c61150b4e",
    "best fit": "4e6aecfd6991aa985cdb9a25efbbb0c7",
    "fim": "0b975f5608c69fb3f1209db8572d6c16",
}
