"""The Documents step through the real runner: counts, places, shards, determinism, and what it says of bad input."""

from __future__ import annotations

import gzip
import json
import os
import unicodedata
from contextlib import nullcontext
from pathlib import Path

import orjson
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import xxhash
from documents_graph import build, targets

from headrace.documents import step as step_module
from headrace.documents.ids import content_id
from headrace.documents.readers import reader
from headrace.documents.step import Documents
from headrace.documents.store import SCHEMA, fetch
from headrace.errors import UserError
from headrace.flow.artifact import Artifact
from headrace.flow.notices import Notice


@pytest.fixture(autouse=True)
def _workers_find_the_graph(monkeypatch):
    monkeypatch.setenv("PYTHONPATH", str(Path(__file__).parent), prepend=os.pathsep)


def rows(artifact: Artifact) -> list[dict]:
    return [row for i in range(len(artifact.shards)) for row in pq.read_table(artifact.shard_path(i)).to_pylist()]


def quarantined(artifact: Artifact) -> list[dict]:
    files = [artifact.path / e["name"] for e in artifact.manifest.files if e["name"].startswith("quarantine/")]
    return [orjson.loads(line) for path in files for line in path.read_bytes().splitlines()]


def contents(artifact: Artifact) -> dict[str, bytes]:
    return {str(p.relative_to(artifact.path)): p.read_bytes() for p in sorted(artifact.path.rglob("*")) if p.is_file()}


@pytest.fixture
def corpus(tmp_path) -> Path:
    """Small files of several formats with a few bad lines, and one JSON lines file of several byte ranges."""
    root = tmp_path / "corpus"
    (root / "code" / "deep").mkdir(parents=True)
    for i in range(40):
        (root / "code" / "deep" / f"{i:02d}.py").write_text(f"x = {i}\n" * (i + 1))
    (root / "code" / "bad.py").write_bytes(b"\xff\xfe")
    (root / "code" / "empty.py").write_bytes(b"")
    lines = [{"text": f"cafe\u0301 {i}", "license": "CC0-1.0", "url": f"u{i}"} for i in range(500)]
    (root / "web.jsonl.gz").write_bytes(gzip.compress("\n".join(map(json.dumps, lines)).encode()))
    with open(root / "big.jsonl", "wb") as f:
        for i in range(45_000):
            f.write(
                b"oops\n" if i == 31_415 else b"\n" if i == 27_182 else orjson.dumps({"text": f"{i} " * 300}) + b"\n"
            )
    return root


def sources(root: Path) -> dict:
    return {
        "code": {"files": f"{root}/code/**/*.py", "license": "MIT", "repo": "r"},
        "web": {"files": f"{root}/web.jsonl.gz", "license": "unknown", "language": "fr"},
        "big": {"files": f"{root}/big.jsonl"},
    }


def test_documents_of_a_corpus(tmp_path, corpus):
    runs = [build(tmp_path / f"run{w}", sources(corpus), w, max_quarantined=0.1) for w in (1, 2, 3)]
    assert contents(runs[0]) == contents(runs[1]) == contents(runs[2])
    artifact = runs[0]
    counts = artifact.manifest.counts
    assert {k: counts["code"][k] for k in ("files", "documents", "quarantined", "skipped", "read")} == {
        "files": 42, "documents": 40, "quarantined": 1, "skipped": 1, "read": 42,
    }  # fmt: skip
    assert (counts["web"]["documents"], counts["web"]["quarantined"]) == (500, 0)
    assert [counts["big"][k] for k in ("documents", "quarantined", "skipped", "read")] == [44_998, 1, 1, 45_000]
    assert artifact.rows == 40 + 500 + 44_998

    found = rows(artifact)
    assert all(row["id"] == content_id(row["text"].encode()) for row in found)
    for name in counts:
        texts = [row["text"] for row in found if row["source"] == name]
        assert counts[name]["bytes"] == sum(len(text.encode()) for text in texts)
        assert counts[name]["characters"] == sum(map(len, texts))
    first = found[0]
    assert {k: first[k] for k in ("origin_file", "origin_row", "license", "repo", "path", "language", "meta")} == {
        "origin_file": "deep/00.py", "origin_row": 0, "license": "MIT", "repo": "r", "path": "deep/00.py",
        "language": "python", "meta": None,
    }  # fmt: skip
    web = found[40]
    assert web["text"] == unicodedata.normalize("NFC", "cafe\u0301 0")
    assert (web["license"], web["language"], web["meta"]) == ("CC0-1.0", "fr", '{"url":"u0"}')
    # Rows of byte ranges are numbered through the file.
    big = [row for row in found if row["source"] == "big"]
    assert [row["origin_row"] for row in big] == [i for i in range(45_000) if i not in (27_182, 31_415)]
    assert all(row["text"].startswith(f"{row['origin_row']} ") for row in big)

    bad = quarantined(artifact)
    assert [(b["source"], b["file"], b["line"]) for b in bad] == [("code", "bad.py", 1), ("big", "big.jsonl", 31_416)]
    assert bad[1]["excerpt"] == "oops"

    assert len(artifact.shards) > 3
    for i in range(len(artifact.shards)):
        file = pq.ParquetFile(artifact.shard_path(i))
        assert file.schema_arrow.equals(SCHEMA)
        groups = [file.read_row_group(g, ["text"])["text"].nbytes for g in range(file.num_row_groups)]
        assert max(groups) < 9 << 20
        assert sum(groups) < 33 << 20
    assert fetch(artifact, [40, 0], ["text"])["text"].to_pylist() == [web["text"], first["text"]]


def test_identity_knows_content_and_not_place(tmp_path, corpus):
    def identity(run: str, **changed) -> str:
        folder = tmp_path / run
        given = sources(corpus)
        given["web"] |= changed
        build(folder, {"web": given["web"]})
        return targets(folder)[0].identity

    same = identity("a")
    moved = tmp_path / "elsewhere"
    moved.mkdir()
    (moved / "web.jsonl.gz").write_bytes((corpus / "web.jsonl.gz").read_bytes())
    assert identity("b", files=f"{moved}/*.gz") == same
    assert identity("c", license="MIT") != same
    (moved / "web.jsonl.gz").write_bytes(gzip.compress(b'{"text": "other"}'))
    assert identity("d", files=f"{moved}/*.gz") != same


def test_golden_rows(tmp_path, corpus):
    """What is in the rows may change only together with ``Documents.VERSION``."""
    given = {name: source for name, source in sources(corpus).items() if name != "big"}
    found = rows(build(tmp_path / "run", given, max_quarantined=0.1))
    digest = xxhash.xxh3_128_hexdigest(orjson.dumps(found))
    assert (Documents.VERSION, digest) == (9, "d1b314120e6f604ae1bef8b1274898ed")


def test_one_large_document_is_a_shard_of_its_own(tmp_path):
    (tmp_path / "in").mkdir()
    for name, size in (("a", 10), ("b", 100_000_000), ("c", 10)):
        (tmp_path / "in" / f"{name}.txt").write_bytes(b"x" * size)
    artifact = build(tmp_path / "run", {"s": {"files": f"{tmp_path}/in/*.txt"}})
    assert [shard["rows"] for shard in artifact.shards] == [1, 1, 1]
    assert artifact.manifest.counts["s"]["bytes"] == 100_000_020


def test_limit(tmp_path):
    for suffix in ("jsonl", "jsonl.gz"):
        data = b"".join(orjson.dumps({"text": "x" * 80}) + b"\n" for _ in range(1000))
        path = tmp_path / f"a.{suffix}"
        path.write_bytes(gzip.compress(data, 0) if suffix.endswith("gz") else data)
        artifact = build(tmp_path / f"run-{suffix}", {"s": {"files": str(path), "limit": "8kB"}})
        assert artifact.manifest.counts["s"]["bytes"] == 8000
        assert artifact.manifest.counts["s"]["read"] == 100


def test_too_many_bad_lines(tmp_path):
    path = tmp_path / "a.jsonl"
    path.write_text('{"text": "x"}\n' * 90 + "bad\n" * 10)
    run = tmp_path / "run"
    with pytest.raises(UserError, match=r"10 bad rows in 100, 10.00%.*a.jsonl line 91: not JSON") as caught:
        build(run, {"s": {"files": str(path)}}, max_quarantined=0.05)
    quarantine = [orjson.loads(line) for line in Path(caught.value.where).read_bytes().splitlines()]
    assert [entry["line"] for entry in quarantine] == list(range(91, 101))
    # The work is kept: a higher limit only needs the end.
    artifact = build(run, {"s": {"files": str(path)}}, max_quarantined=0.1)
    assert artifact.manifest.counts["s"]["quarantined"] == 10


def test_a_limit_of_all_allows_anything(tmp_path):
    path = tmp_path / "a.jsonl.gz"
    path.write_bytes(gzip.compress(b"bad\n" * 99 + b'{"text": "x"}\n')[:-8])
    counts = build(tmp_path / "run", {"s": {"files": str(path)}}, max_quarantined=1).manifest.counts["s"]
    assert (counts["documents"], counts["quarantined"], counts["lost_bytes"]) == (1, 99, path.stat().st_size)


@pytest.mark.parametrize(
    ("name", "data", "source", "message"),
    [
        ("a.jsonl", b'{"content": "x", "n": 1}\n', {}, "no field 'text'"),
        ("a.jsonl", b'{"content": "x"}\n', {"format": "chat"}, "hold no conversation"),
        ("a.jsonl", b"", {}, "its file is empty"),
        ("a.jsonl", b"\n\n", {}, "its file is empty"),
        ("a.jsonl", b"bad\n", {}, "all 1 rows are bad: a.jsonl line 1: not JSON"),
        ("a.txt", b"\xff", {}, "all 1 rows are bad: a.txt line 1: not UTF-8"),
        ("a.py", b"x = 1", {"format": "docstrings"}, "its file is empty"),
        ("a.parquet", b"PAR1", {}, "its files are damaged: a.parquet line 1: the Parquet file is corrupt"),
    ],
)
def test_a_source_without_documents(tmp_path, name, data, source, message):
    (tmp_path / name).write_bytes(data)
    with pytest.raises(UserError) as caught:
        build(tmp_path / "run", {"empty": {"files": str(tmp_path / name), **source}})
    assert "The source 'empty' yields no document" in caught.value.what
    assert message in caught.value.what
    if "field" in message:
        assert "content, n" in caught.value.fix


def test_lone_surrogates_of_literals_go_to_quarantine(tmp_path):
    (tmp_path / "a.py").write_text('"""Good."""\n')
    (tmp_path / "b.py").write_text('"""Bad \\ud800."""\n')
    artifact = build(
        tmp_path / "run", {"s": {"files": f"{tmp_path}/*.py", "format": "docstrings"}}, max_quarantined=0.5
    )
    assert [row["text"] for row in rows(artifact)] == ["a\n\nGood.\n"]
    (entry,) = quarantined(artifact)
    assert "a lone surrogate at character" in entry["error"]


def test_conversations_keep_their_turns(tmp_path, shared):
    path = shared / "fixtures" / "instruct" / "code_alpaca_2k.json"
    artifact = build(tmp_path / "run", {"chat": {"files": str(path), "format": "chat"}})
    given = json.loads(path.read_text())
    found = rows(artifact)
    assert len(given) == 2017
    assert [row["origin_row"] for row in found] == [i for i, source in enumerate(given) if source["output"]]
    for row in found:
        source = given[row["origin_row"]]
        turns = json.loads(row["turns"])
        assert [turn["role"] for turn in turns] == ["user", "assistant"]
        assert row["text"][turns[1]["start"] : turns[1]["end"]] == unicodedata.normalize("NFC", source["output"])


def test_every_task_plan_tiles_the_files(tmp_path, corpus, monkeypatch):
    build(tmp_path / "run", sources(corpus), max_quarantined=0.1)
    (documents,) = targets(tmp_path / "run")
    monkeypatch.setattr(step_module, "TASK_BYTES", 1000)
    lines = iter(range(100))
    for source in documents.sources:
        split = {(source.name, n): reader(file.format).split(file) for n, file in enumerate(source.files)}
        tasks = list(step_module._tasks(source, lines, split, 1 << 20))
        assert [e["file"] for t in tasks for e in t["parts"] if not e["part"]["begin"]] == list(
            range(len(source.files))
        )


def test_what_a_damaged_file_lost_counts_and_is_said(tmp_path):
    lines = [orjson.dumps({"text": f"{i} {i * 2654435761 % 2**32}"}) + b"\n" for i in range(20_000)]
    (tmp_path / "a.jsonl").write_bytes(b"".join(lines))
    whole = gzip.compress(b"".join(lines), mtime=0)
    cut = whole[: len(whole) // 4]
    (tmp_path / "b.jsonl.gz").write_bytes(cut)
    given = {"s": {"files": [f"{tmp_path}/a.jsonl", f"{tmp_path}/b.jsonl.gz"]}}
    said = r"\d{2},\d{3} bytes lost in damaged files, .*%, but .* b.jsonl.gz line \d+: the gzip stream is cut short; "
    with pytest.raises(UserError, match=said):
        build(tmp_path / "run", given)
    with pytest.warns(Notice, match="source s: .* lost in damaged files"):
        artifact = build(tmp_path / "run", given, max_quarantined=0.3)
    counts = artifact.manifest.counts["s"]
    assert (counts["quarantined"], counts["lost_rows"], counts["lost_bytes"]) == (0, 0, len(cut))
    (entry,) = quarantined(artifact)
    assert (entry["file"], entry["line"]) == ("b.jsonl.gz", counts["documents"] - 20_000 + 1)


def test_a_named_field_that_no_row_has(tmp_path):
    rows_ = [{"text": f"t {i}", "license": "MIT", "meta": {"language": "en"}} for i in range(5)]
    (tmp_path / "a.jsonl").write_bytes(b"".join(orjson.dumps(row) + b"\n" for row in rows_))
    pq.write_table(pa.Table.from_pylist(rows_), tmp_path / "a.parquet")
    for suffix in ("jsonl", "parquet"):
        given = {"files": f"{tmp_path}/a.{suffix}", "fields": {"license": "licnse"}}
        with pytest.raises(UserError, match="No row of the source 's' has the field 'licnse'") as caught:
            build(tmp_path / f"run-{suffix}", {"s": given})
        assert caught.value.where == "sources.s.fields.license"
        assert caught.value.fix == "Did you mean 'license'? Its rows have: license, meta, meta.language."
        given = {"files": f"{tmp_path}/a.{suffix}", "fields": {"language": "meta.language"}}
        (first, *_) = rows(build(tmp_path / f"good-{suffix}", {"s": given}))
        assert (first["language"], first["license"], first["meta"]) == ("en", "MIT", None)


@pytest.mark.parametrize("rows_too", [False, True])
def test_plain_files_need_no_named_fields(tmp_path, rows_too):
    """One recipe for plain files and for rows with fields: a file's own path is its path."""
    (tmp_path / "in").mkdir()
    (tmp_path / "in" / "b.py").write_text("x = 1\n")
    if rows_too:
        line = orjson.dumps({"text": "y = 2", "meta": {"path": "y.py", "license": "MIT"}})
        (tmp_path / "in" / "a.jsonl").write_bytes(line + b"\n")
    fields = {"path": "meta.path", "license": "meta.license"}
    given = {"s": {"files": f"{tmp_path}/in/*", "fields": fields, "license": "ISC"}}
    with nullcontext() if rows_too else pytest.warns(Notice, match="plain files have no fields, so meta.license"):
        made = rows(build(tmp_path / "run", given))
    about = [(row["path"], row["language"], row["license"], row["meta"]) for row in made]
    assert about == [("y.py", None, "MIT", None)] * rows_too + [("b.py", "python", "ISC", None)]
    # A name that no row has stays a mistake.
    if rows_too:
        fields["license"] = "meta.licence"
        with pytest.raises(UserError, match=r"has the field 'meta\.licence'"):
            build(tmp_path / "wrong", given)
