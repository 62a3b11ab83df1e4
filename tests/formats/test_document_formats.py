"""Exports of documents: byte-identical, complete, and read by others and by headrace itself."""

from __future__ import annotations

import gzip
import json
import random
from pathlib import Path
from typing import Any

import datasets
import numpy as np
import pyarrow.parquet as pq
import pytest
import zstandard
from exporting import contents, kill_until_done
from test_exports_page import pieces

import headrace
from headrace.documents import sink
from headrace.documents.store import read_columns
from headrace.errors import UserError
from headrace.export import Wanted, _step, export, request, write
from headrace.flow.artifact import Artifact
from headrace.formats.megatron import Index
from headrace.formats.opening import open_files
from headrace.formats.options import Options
from headrace.formats.registry import DOCUMENTS
from headrace.run_folder import artifact
from headrace.tokens.engine import Texts
from headrace.tokens.load import open_engine
from quick import quick

SMALL = Options(bytes_per_file=15_000)
ALL = Wanted(documents=True)
RECIPE: dict[str, Any] = {
    "name": "small",
    "filters": {"short": {"min_characters": 100}},
    "split": {"validation": 0.1, "test": 0.1},
    "tokenizer": {"train": {"vocab_size": 300}},
    "model": {"layers": 1, "width": 16, "heads": 1},
    "stages": [{"name": "one", "sequence_length": 64, "sources": {"prose": {}, "chat": {}}, "chat": "chatml"}],
}


@pytest.fixture(scope="session")
def run(tmp_path_factory) -> Path:
    """A run whose documents have side fields of all kinds, conversations, licenses; in several shards of row groups."""
    folder = tmp_path_factory.mktemp("documents")
    rng = random.Random(3)
    words = ["mill", "wheel", "größe", "水車", "🌊", 'a "quote"', "\\", "\n", "\t", "\u2028", "x = 1"]
    prose = []
    for i in range(150):
        row: dict[str, Any] = {"text": f"{i} " + " ".join(rng.choice(words) for _ in range(rng.randrange(1, 200)))}
        if i % 3 == 0:
            row["meta"] = {"redpajama_set_name": "RedPajamaArXiv", "n": 10**30 + i}
        if i % 3 == 1:
            row |= {"stars": [i, "many", None], "license": "MIT", "repo": "a/b", "path": f"{i}.py"}
        prose.append(row)
    chats = []
    for i in range(60):
        said = [f"{i} " + " ".join(rng.choice(words[:4]) for _ in range(30)) for _ in range(3)]
        turns: list[dict[str, Any]] = [
            {"role": "system", "content": said[0]},
            {"role": "user", "content": said[1], "name": "Ann"},
            {"role": "assistant", "content": said[2], **({"weight": 0} if i % 4 == 0 else {})},
        ]
        chats.append({"messages": turns, "lang": "en"})
    (folder / "prose.jsonl").write_text("".join(json.dumps(row) + "\n" for row in prose))
    (folder / "chat.jsonl").write_text("".join(json.dumps(row) + "\n" for row in chats))
    (folder / "asked.jsonl").write_text(json.dumps({"text": "How does one ask? " * 10}) + "\n")
    sources = {
        "prose": {"files": str(folder / "prose.jsonl")},
        "chat": {"files": str(folder / "chat.jsonl"), "format": "chat", "license": "CC0-1.0"},
        "stack-exchange": {"files": str(folder / "asked.jsonl")},
    }
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sink, "SHARD_BYTES", 30_000)
        patch.setattr(sink, "GROUP_BYTES", 6_000)
        recipe = headrace.load_recipe({**RECIPE, "sources": sources})
        for until in ("sequence-one", "sequence-heldout"):
            headrace.run(recipe, folder / "run", workers=0, until=until)
    assert len(artifact(folder / "run", "documents").shards) > 3
    return folder / "run"


def rows_of(run: Path) -> list[dict[str, Any]]:
    """Every document with its verdict."""
    documents, verdicts = artifact(run, "documents"), artifact(run, "verdicts")
    out = []
    for shard in range(len(documents.shards)):
        rows = read_columns(documents.shard_path(shard)).to_pylist()
        told = read_columns(verdicts.shard_path(shard)).to_pylist()
        out += [row | verdict for row, verdict in zip(rows, told, strict=True)]
    return out


def read(path: Path) -> list[dict[str, Any]]:
    """A file's records, by others' readers."""
    if path.suffix == ".parquet":
        return pq.read_table(path).to_pylist()
    if path.suffix == ".gz":
        return [json.loads(line) for line in gzip.open(path)]
    data = path.read_bytes()
    # A decoder that stops after one frame, and allows 8 MB of window.
    text = zstandard.ZstdDecompressor(max_window_size=1 << 23).decompressobj().decompress(data)
    return [json.loads(line) for line in text.split(b"\n") if line]


@pytest.mark.parametrize("format", quick([*DOCUMENTS, "hub"], "jsonl.zst", "hub"))
def test_bytes_do_not_depend_on_workers_or_kills(format, run, tmp_path):
    step = _step(run, format, Wanted(everything=True), SMALL)
    alone = write(step, tmp_path / "alone", workers=0)
    asked = tmp_path / "request.json"
    asked.write_text(json.dumps(request(step)))
    assert kill_until_done(asked, tmp_path / "killed", 4, 9)
    assert contents(tmp_path / "killed") == contents(alone)


@pytest.mark.parametrize("format", ["jsonl.zst", "jsonl.gz", "parquet"])
def test_every_document_is_there_in_order_with_all_that_is_known(format, run, tmp_path):
    out = export(run, tmp_path / "out", format, Wanted(documents=True, removed=True), SMALL, workers=0)
    made = Artifact.open(out)
    assert len(made.entries) > 10
    rows = rows_of(run)
    for folder in ("documents", "conversations", "removed"):
        for split in ("train", "validation", "test"):
            found = []
            for path in sorted((out / folder).glob(f"{split}-*")):
                found += read(path)
            kept = folder != "removed"
            of = [r for r in rows if r["split"] == split and r["keep"] == kept]
            expected = [r for r in of if not kept or (r["turns"] is None) == (folder == "documents")]
            assert [r["id"] for r in found] == [r["id"] for r in expected]
            for theirs, ours in zip(found, expected, strict=True):
                for name in ("source", "license", "repo", "path", "language", "origin_file", "origin_row"):
                    assert theirs[name] == ours[name]
                assert theirs["meta"] == ours["meta"]
                if folder == "conversations":
                    assert "\n\n".join(m["content"] for m in theirs["messages"]) == ours["text"]
                    assert [m["role"] for m in theirs["messages"]] == ["system", "user", "assistant"]
                    assert theirs["messages"][1]["fields"] == '{"name":"Ann"}'
                else:
                    assert theirs["text"] == ours["text"]
                if folder == "removed":
                    assert theirs["reason"] == ours["reason"]
                    assert theirs["evidence"] == ours["evidence"]
    counts = made.manifest.counts
    assert sum(count["documents"] for count in counts.values()) == len(rows)
    assert counts["removed/train"]["documents"]


@pytest.mark.parametrize("format", ["jsonl.zst", "jsonl.gz", "parquet"])
def test_datasets_loads_them(format, run, tmp_path):
    out = export(run, tmp_path / "out", format, ALL, SMALL, workers=0)
    rows = [row for row in rows_of(run) if row["keep"]]
    for config, field in (("documents", "text"), ("conversations", "messages")):
        loaded = datasets.load_dataset(str(out), config, cache_dir=str(tmp_path / "cache"))
        streamed = datasets.load_dataset(str(out), config, streaming=True)
        expected = [row for row in rows if (row["turns"] is None) == (config == "documents")]
        for split in ("train", "validation", "test"):
            ids = [row["id"] for row in expected if row["split"] == split]
            assert loaded[split]["id"] == ids
            assert [row["id"] for row in streamed[split]] == ids
            assert all(loaded[split][field])


@pytest.mark.parametrize("format", ["jsonl.zst", "jsonl.gz", "parquet"])
def test_headrace_reads_them_back(format, run, tmp_path):
    out = export(run, tmp_path / "out", format, ALL, SMALL, workers=0)
    suffix = DOCUMENTS[format].suffix
    sources = {
        "documents": {"files": f"{out}/documents/*{suffix}"},
        "conversations": {"files": f"{out}/conversations/*{suffix}", "format": "chat"},
    }
    again = headrace.load_recipe({"name": "again", "sources": sources})
    headrace.run(again, tmp_path / "run", workers=0, until="documents")
    ours = {(row["id"], row["text"], row["license"]) for row in rows_of(run) if row["keep"]}
    documents = artifact(tmp_path / "run", "documents")
    found = [
        row for shard in range(len(documents.shards)) for row in read_columns(documents.shard_path(shard)).to_pylist()
    ]
    assert {(row["id"], row["text"], row["license"]) for row in found} == ours
    assert not sum(count["quarantined"] for count in documents.manifest.counts.values())
    marked = [row for row in rows_of(run) if row["keep"] and row["turns"] and '"loss":false' in row["turns"]]
    assert marked
    turns = {row["id"]: row["turns"] for row in found}
    assert all('"loss":false' in turns[row["id"]] for row in marked)


def test_slimpajama_is_laid_out_and_shuffled(run, tmp_path):
    out = export(run, tmp_path / "out", "slimpajama", ALL, Options(bytes_per_file=500), workers=0)
    rows = [row for row in rows_of(run) if row["keep"]]
    for split, chunks in (("train", 20), ("validation", 5), ("test", 5)):
        files = sorted(out.glob(f"{split}/chunk*/*.jsonl.zst"))
        assert {path.parent.name for path in files} <= {f"chunk{i + 1}" for i in range(chunks)}
        lines = [line for path in files for line in read(path)]
        expected = [row for row in rows if row["split"] == split]
        assert sorted(line["text"] for line in lines) == sorted(row["text"] for row in expected)
        if split == "train":
            assert len({path.parent for path in files}) == 20
            assert len(files) > 30
            assert [line["text"] for line in lines] != [row["text"] for row in expected]
    sets = {"prose": "prose", "chat": "chat", "stack-exchange": "RedPajamaStackExchange"}
    named = {row["text"]: sets[row["source"]] for row in rows}
    named |= {row["text"]: "RedPajamaArXiv" for row in rows if "RedPajamaArXiv" in (row["meta"] or "")}
    for line in [line for path in out.glob("*/*/*.zst") for line in read(path)]:
        assert line == {"text": line["text"], "meta": {"redpajama_set_name": named[line["text"]]}}
    loaded = datasets.load_dataset(str(out), cache_dir=str(tmp_path / "cache"))
    assert {split: len(part) for split, part in loaded.items()} == {
        split: sum(row["split"] == split for row in rows) for split in ("train", "validation", "test")
    }


def test_headrace_reads_slimpajama_back(run, tmp_path):
    out = export(run, tmp_path / "out", "slimpajama", ALL, workers=0)
    recipe = headrace.load_recipe({"name": "again", "sources": {"train": {"files": f"{out}/train"}}})
    headrace.run(recipe, tmp_path / "run", workers=0, until="documents")
    documents = artifact(tmp_path / "run", "documents")
    found = [r for i in range(len(documents.shards)) for r in read_columns(documents.shard_path(i)).to_pylist()]
    ours = [row for row in rows_of(run) if row["keep"] and row["split"] == "train"]
    assert sorted((row["id"], row["text"]) for row in found) == sorted((row["id"], row["text"]) for row in ours)


def test_many_files_share_a_partition(run, tmp_path, monkeypatch):
    """With more files than partitions, each task writes several: the same bytes."""
    options = Options(bytes_per_file=500)
    one = export(run, tmp_path / "one", "slimpajama", ALL, options, workers=0)
    monkeypatch.setattr("headrace.formats.slimpajama.MOST_PARTITIONS", 4)
    other = export(run, tmp_path / "other", "slimpajama", ALL, options, workers=0)
    assert contents(one) == contents(other)


def test_splits_and_sources_are_chosen(run, tmp_path):
    wanted = Wanted(documents=True, splits=["validation"], sources=["chat"])
    out = export(run, tmp_path / "out", "jsonl.zst", wanted, workers=0)
    ids = [row["id"] for path in out.glob("*/*.zst") for row in read(path)]
    of = [r for r in rows_of(run) if r["keep"] and r["split"] == "validation" and r["source"] == "chat"]
    assert ids == [r["id"] for r in of]
    assert ids


def test_a_hub_folder_of_everything(run, tmp_path):
    out = export(run, tmp_path / "out", "hub", Wanted(everything=True), workers=0)
    assert datasets.get_dataset_config_names(str(out)) == ["one", "documents", "conversations"]
    one = datasets.load_dataset(str(out), "one", streaming=True)
    ours, held_out = open_files(out, "one"), open_files(out, "heldout")
    assert [row["input_ids"] for row in one["train"]] == ours.rows(0, len(ours)).tolist()
    assert [row["input_ids"] for row in one["validation"]] == held_out.rows(0, len(held_out)).tolist()
    documents = datasets.load_dataset(str(out), "documents", streaming=True)
    assert set(documents) == {"train", "validation", "test"}
    assert "| documents | train |" in (out / "README.md").read_text()
    names = {"out": str(out), "stage": "one"}
    for piece in pieces("hub"):
        exec(piece, names)
    assert [row["input_ids"] for row in names["rows"]] == ours.rows(0, len(ours)).tolist()
    assert [row["id"] for row in names["documents"]] == [row["id"] for row in documents["train"]]


@pytest.mark.parametrize(
    ("format", "heading"),
    [("parquet", "jsonl.zst, jsonl.gz, parquet"), ("slimpajama", "slimpajama")],
)
def test_the_page(format, heading, run, tmp_path, monkeypatch):
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "cache")
    out = export(run, tmp_path / "out", format, ALL, workers=0)
    names = {"out": str(out)}
    for piece in pieces(heading):
        exec(piece, names)
    trained = [row for row in rows_of(run) if row["keep"] and row["split"] == "train"]
    texts = [row["text"] for row in trained if row["turns"] is None or format == "slimpajama"]
    assert sorted(row["text"] for row in names["texts"]) == sorted(texts)


@pytest.mark.parametrize(
    ("to", "wanted", "options", "said"),
    [
        ("jsonl.zst", Wanted(stages=["one"]), Options(), "jsonl.zst holds documents, no sequence"),
        ("jsonl.zst", Wanted(), Options(), "Export them with --documents"),
        ("parquet", Wanted(documents=True), Options(rows_per_file=5), "Give --bytes-per-file"),
        ("hdf5", Wanted(documents=True), Options(), "hdf5 holds sequences, no documents"),
        ("megatron", Wanted(documents=True, removed=True), Options(), "those that are kept, as tokens"),
        ("megatron", Wanted(documents=True, stages=["one"]), Options(), "Export stages apart"),
        ("hub", Wanted(splits=["train"]), Options(), "Add --documents"),
        ("hub", Wanted(stages=["one"]), Options(bytes_per_file=5), "Add --documents"),
        ("jsonl.zst", Wanted(documents=True, sources=["pros"]), Options(), "no source 'pros'"),
        ("jsonl.zst", Wanted(documents=True, splits=["valid"]), Options(), "no split 'valid'"),
        ("slimpajama", Wanted(documents=True, removed=True), Options(), "no place for removed"),
        ("jsonl", Wanted(documents=True), Options(), "no format 'jsonl'"),
    ],
)
def test_what_does_not_go_together_is_told(to, wanted, options, said, run, tmp_path):
    with pytest.raises(UserError) as error:
        export(run, tmp_path / "out", to, wanted, options, workers=0)
    assert said in str(error.value)
    assert not list(tmp_path.iterdir())


def test_documents_become_megatrons_sequences(run, tmp_path):
    """Decoded, they are the texts; each ends with the end-of-document token."""
    out = export(run, tmp_path / "out", "megatron", Wanted(documents=True, splits=["train"]), workers=0)
    engine, special = open_engine(artifact(run, "tokenizer")), artifact(run, "tokenizer").manifest.extra["special"]
    rows = [row for row in rows_of(run) if row["keep"] and row["split"] == "train"]
    for source in {row["source"] for row in rows}:
        tokens, index = np.fromfile(out / source / "train.bin", np.uint16), Index(out / source / "train.bin")
        texts = [row["text"] for row in rows if row["source"] == source]
        assert len(index.lengths) == len(texts)
        for text, begin, length in zip(texts, index.pointers // 2, index.lengths, strict=True):
            expected = engine.encode(Texts.of([text])).tokens.tolist()
            assert tokens[begin : begin + length].tolist() == [*expected, special["eod"]]
