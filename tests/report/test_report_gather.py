"""Facts of a real run, against its manifests and against plain recounts from its columns."""

import math
import re
import shutil
import xml.etree.ElementTree as ET
from collections import Counter
from dataclasses import replace

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from small_pipeline import EVIL, add_model, copied

import headrace
from headrace.environment import versions
from headrace.errors import UserError
from headrace.flow.events import EventLog, read_events
from headrace.report.build import write_report
from headrace.report.corpus_facts import corpus_facts
from headrace.report.facts import Environment
from headrace.report.gather import gather
from headrace.report.latest import latest_artifacts
from headrace.report.length_facts import with_lengths
from headrace.report.sections.removed import removed
from headrace.report.summary import summary_lines
from headrace.sequence.store import open_sequence


@pytest.fixture(scope="module")
def run(once, tmp_path_factory):
    return copied(once, tmp_path_factory.mktemp("report") / "tiny")


@pytest.fixture(scope="module")
def facts(run):
    return gather(run)


@pytest.fixture(scope="module")
def table(run):
    """Every document with its verdict and the length of its tokens."""
    made = latest_artifacts(run)
    columns = []
    for kind, names in (("documents", ["source", "license", "text", "id"]), ("verdicts", ["keep", "reason", "split"])):
        artifact = made[kind, None]
        columns.append(
            pa.concat_tables(
                [pq.read_table(artifact.shard_path(i), columns=names) for i in range(len(artifact.shards))]
            )
        )
    rows = [a | b for a, b in zip(columns[0].to_pylist(), columns[1].to_pylist(), strict=True)]
    tokens = made["tokens", None]
    for shard in range(len(tokens.shards)):
        batch = pa.ipc.open_file(pa.memory_map(str(tokens.shard_path(shard)))).read_all().to_pydict()
        for row, ids in zip(batch["row"], batch["tokens"], strict=True):
            rows[int(made["documents", None].row_offsets[shard]) + row]["tokens"] = len(ids)
    return rows


def test_sources_and_reasons_are_those_of_the_columns(facts, table):
    for source in facts.sources:
        mine = [row for row in table if row["source"] == source.name]
        assert source.documents == len(mine)
        assert source.bytes == sum(len(row["text"].encode()) for row in mine)
        assert source.kept == sum(row["keep"] for row in mine)
        assert source.removed == Counter(row["reason"] for row in mine if not row["keep"])
        splits = Counter(row["split"] for row in mine if row["keep"])
        assert {name: n for name, n in source.splits.items() if n} == splits
        assert source.tokens == sum(row.get("tokens", 0) for row in mine)
    assert facts.sources[0].quarantined == 1
    assert {"duplicate", "short", "contaminated"} <= set(facts.removed)
    assert facts.kept == sum(row["keep"] for row in table)


@pytest.mark.parametrize("without", [(), ("measures",), ("measures", "signatures")])
def test_lengths_and_removed_bytes_are_those_of_the_texts(run, facts, table, without):
    made = latest_artifacts(run)
    documents, verdicts, tokens = (made[kind, None] for kind in ("documents", "verdicts", "tokens"))
    beside = {kind: made[kind, None] for kind in ("measures", "signatures")}
    told = corpus_facts(documents, verdicts, tokens, [s.name for s in facts.sources]).sources
    told = with_lengths(told, documents, verdicts, **beside | dict.fromkeys(without))
    assert told == facts.sources
    for source in told:
        mine = [(row, len(row["text"].encode())) for row in table if row["source"] == source.name]
        read, kept, gone = Counter(), Counter(), Counter()
        for row, length in mine:
            read[length.bit_length()] += 1
            if row["keep"]:
                kept[length.bit_length()] += 1
            else:
                gone[row["reason"]] += length
        assert {k: n for k, n in enumerate(source.lengths) if n} == read
        assert {k: n for k, n in enumerate(source.kept_lengths) if n} == kept
        assert source.removed_bytes == gone
        assert source.bytes - source.stored_bytes == sum(gone.values())
        tokens = sum(row.get("tokens", 0) for row, _ in mine)
        about = sum(gone.values()) * tokens / source.stored_bytes
        assert source.removed_tokens() == pytest.approx(about)
        assert sum(source.removed_tokens(reason) for reason in gone) == pytest.approx(about)


def test_duplicates_within_and_between_sources(facts):
    assert facts.duplicates["prose", "code"] == 1
    assert sum(facts.duplicates.values()) == facts.removed["duplicate"]
    assert facts.contamination == {("exam", "prose"): 1}


def test_items_stand_beside_the_documents(facts, table):
    assert facts.hits.total == {"exam": 1}
    [hit] = facts.hits.shown
    assert hit.item == "exam:exam/<1>"
    assert hit.text.startswith("how many roads")
    assert table[hit.row]["id"] == hit.document.id
    both = "".join(hit.document.text[start:end] for start, end in hit.document.marks)
    assert both.split() == table[hit.row]["text"][hit.start : hit.end].split()
    drawn = str(removed(facts))
    assert "exam: 1 of 1" in drawn
    assert "exam:exam/&lt;1&gt;" in drawn
    assert facts.hits.folder in drawn


def test_examples_show_the_documents_and_their_evidence(facts, table):
    texts = {row["id"]: row for row in table}
    for example in facts.examples:
        document = texts[example.document.id]
        assert example.document.text.strip("…") in document["text"]
        for start, end in example.document.marks:
            assert example.document.text[start:end] in document["text"]
    duplicates = [example for example in facts.examples if example.reason == "duplicate"]
    assert all(
        example.other is not None and example.other.text.strip("…") in texts[example.other.id]["text"]
        for example in duplicates
    )
    [contaminated] = [example for example in facts.examples if example.reason == "contaminated"]
    [(start, end)] = contaminated.document.marks
    assert contaminated.document.text[start:end].startswith("how many roads")
    [short] = [example for example in facts.examples if example.reason == "short"]
    assert short.document.text == f"short {EVIL}"


def test_licences_add_up(facts, table):
    kept = [row for row in table if row["keep"]]
    for licence in facts.licences:
        mine = [row for row in kept if (row["source"], row["license"] or "") == (licence.source, licence.name)]
        assert licence.found == ({"prose": "source", "code": "field"}[licence.source] if licence.name else "")
        assert licence.documents == len(mine)
        assert licence.tokens == sum(row["tokens"] for row in mine)
    assert sum(licence.documents for licence in facts.licences) == len(kept)
    assert {(one.name, one.documents) for one in facts.by_licence} == set(
        Counter(row["license"] or "" for row in kept).items()
    )


def test_stages_are_those_of_the_rows(run, facts):
    made = latest_artifacts(run)
    assert [stage.name for stage in facts.stages] == ["first", "second"]
    for stage in facts.stages:
        reader = open_sequence(made["sequence", stage.name].path)
        segments = [(row, segment) for row in range(len(reader)) for segment in reader.segments(row)]
        assert stage.rows == len(reader)
        assert stage.tokens == len(reader) * reader.seq_len
        for source in stage.sources:
            index = reader.sources.index(source.name)
            lengths = Counter()
            for _, segment in segments:
                if segment["source"] == index and segment["kind"] != 255:
                    lengths[segment["kind"] in (1, 2)] += int(segment["length"])
            assert source.fim == pytest.approx(lengths[True] / lengths.total())
            assert lengths.total() - stage.rows <= source.tokens <= lengths.total()
        total = sum(source.tokens for source in stage.sources)
        assert total == stage.tokens + 1
    code = facts.stages[1].sources[1]
    assert (code.slice, code.epochs, code.copies) == ((0, 1), 2, 2 * code.documents)
    assert 0.4 < code.fim <= 1
    assert code.fim_psm + code.fim_spm > 0


def test_sample_rows_are_what_the_rows_hold(run, facts):
    from headrace.tokens.load import open_engine

    made = latest_artifacts(run)
    engine = open_engine(made["tokenizer", None])
    for stage in facts.stages:
        reader = open_sequence(made["sequence", stage.name].path)
        assert stage.samples
        for sample in stage.samples:
            assert not sample.cut
            text = "".join(text for piece in sample.pieces for text, _, _ in piece.runs)
            whole = engine.decode(reader.rows(sample.row, sample.row + 1)[0]).decode("utf-8", "replace")
            assert text == whole
    assert {piece.kind for sample in facts.stages[1].samples for piece in sample.pieces} & {"fim-psm", "fim-spm"}


def test_time_and_memory_are_told_for_every_artifact(run, facts):
    assert {work.artifact for work in facts.work} == {artifact.path.name for artifact in latest_artifacts(run).values()}
    assert all(work.seconds is not None and work.tasks >= 1 and work.peak > 1 << 20 for work in facts.work)
    assert facts.seconds >= max(work.seconds for work in facts.work)


def test_hardware_and_versions_are_those_that_the_runs_recorded(run, facts, tmp_path):
    [first] = [event for event in read_events(run) if event["event"] == "run"]
    [told] = facts.environments
    assert (told.runs, told.artifacts, told.workers, told.memory) == ([1], len(latest_artifacts(run)), 1, 500_000_000)
    assert told.versions == {"headrace": headrace.__version__, **versions()}
    assert {"python", "numpy", "numba", "pyarrow", "tokenizers"} <= set(told.versions)
    assert (told.processor, told.cores) == (first["hardware"]["processor"], first["hardware"]["cores"])
    # A later run elsewhere makes one artifact anew; the one after it makes nothing, and is not spoken of.
    copy = tmp_path / "run"
    shutil.copytree(run, copy)
    log = EventLog(copy)
    elsewhere = {"hardware": {"processor": "another", "cores": 3, "cores_in_all": 4, "memory": 5, "gpus": ["a", "a"]}}
    log.emit("run", workers=7, memory=8, version="0.0.9", versions={"numpy": "9.9"}, **elsewhere)
    log.emit("artifact", artifact=latest_artifacts(run)["verdicts", None].path.name, state="published", seconds=1.5)
    log.emit("run", workers=11, memory=12, version="0.0.8", versions={}, hardware={})
    log.close()
    here, there = gather(copy).environments
    assert here == replace(told, artifacts=told.artifacts - 1)
    assert there == Environment([2], 1, 7, 8, {"headrace": "0.0.9", "numpy": "9.9"}, "another", 3, 4, 5, ["a", "a"])
    page = write_report(copy).read_text(encoding="utf-8")
    assert "2 x a" in page
    assert "0.0.8" not in page


def test_the_report_was_written_and_is_the_same_again(run):
    page = (run / "report" / "index.html").read_text(encoding="utf-8")
    assert EVIL not in page
    assert "&lt;script&gt;alert(&#x27;from the corpus&#x27;)&lt;/script&gt;" in page
    assert "MIT &amp; &lt;b&gt;" in page
    assert page.count("<script") == 0
    here = re.sub(r"[^\s<>]+/corpus/run\b", str(run), page)  # it was written before the run was copied
    assert write_report(run).read_text(encoding="utf-8") == here
    assert sorted(path.name for path in (run / "report").iterdir()) == ["index.html", "token_split.svg"]
    ET.parse(run / "report" / "token_split.svg")


def test_training_is_read_from_the_model_and_its_times_from_the_checkpoints(run, tmp_path):
    copy = tmp_path / "run"
    shutil.copytree(run, copy)
    add_model(copy, "first")
    write_report(copy)
    told = gather(copy)
    trained = told.stages[0].training
    assert (trained.steps, trained.tokens, trained.seconds) == (6, 1536, 3.0)
    assert (trained.first, trained.last, trained.parameters) == (5.0, 3.75, 12345)
    assert math.isnan(trained.loss[1])
    assert trained.held_out == {"prose": [(0, 6.0), (6, 4.5)], "code": [(0, 7.0), (6, 5.5)]}
    assert told.stages[1].training is None
    page = (copy / "report" / "index.html").read_text(encoding="utf-8")
    assert "6.000 → 4.500" in page
    assert EVIL not in page
    ET.parse(copy / "report" / "loss.svg")
    assert any("5.00 → 3.75" in line for line in summary_lines(told))
    # A log of another training says nothing of this one's time; a chart that no longer holds goes.
    with open(copy / "checkpoints" / "first" / "t" / "metrics.jsonl", "ab") as f:
        f.write(b'{"step": 7, "loss": 1.0, "seconds": 9.0}\n')
    assert gather(copy).stages[0].training.seconds is None
    for kind in ("model", "evaluation", "samples"):
        shutil.rmtree(copy / "artifacts" / f"{kind}-first-00000000")
    write_report(copy)
    assert not (copy / "report" / "loss.svg").exists()


def test_a_run_that_stopped_early(run, tmp_path):
    copy = tmp_path / "run"
    shutil.copytree(run, copy)
    for path in (copy / "artifacts").iterdir():
        if path.name.split("-")[0] in ("sequence", "tokens", "tokenizer"):
            shutil.rmtree(path)
    told = gather(copy)
    assert told.stages == []
    assert told.vocabulary is None
    assert told.kept
    assert all(source.tokens is None for source in told.sources)
    assert all(licence.tokens is None for licence in told.licences)
    for path in (copy / "artifacts").iterdir():
        if not path.name.startswith("documents"):
            shutil.rmtree(path)
    told = gather(copy)
    assert told.kept is None
    assert told.duplicates is None
    assert write_report(copy).exists()
    shutil.rmtree(copy / "artifacts")
    assert gather(copy).sources == []
    assert write_report(copy).exists()


def test_a_folder_that_is_no_run(tmp_path):
    with pytest.raises(UserError):
        gather(tmp_path)
