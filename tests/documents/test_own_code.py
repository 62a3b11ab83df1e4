"""Readers and maps of the user's own: rows numbered, errors in quarantine by document, nothing lost unsaid."""

from __future__ import annotations

import gzip
import json
import os
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
from documents_graph import build

from headrace.errors import UserError
from headrace.flow.artifact import Artifact

CODE = """\
import headrace

def read(stream, kind="dict"):
    for n, line in enumerate(stream):
        text = line.decode().strip()
        if "broken" in text:
            raise RuntimeError(text)
        if "half" in text:
            yield ValueError(text)
        elif "odd" in text:
            yield 3
        elif kind == "dict":
            yield {"text": text, "license": "MIT", "n": n}
        else:
            yield text

def seek(stream):
    stream.seek(-4, 2)
    yield stream.read().decode() + stream.name.rpartition("/")[2]

def kills(stream):
    import os
    for line in stream:
        if b"two" in line:
            os._exit(3)
        yield line.decode()

def returns(stream):
    return "text"

def upper(document, by=1):
    if "three" in document.text:
        raise KeyError(document.origin_row)
    return document.replace(text=document.text.upper() * by, language="en", meta={**document.meta, "by": by})

def accent(document):
    return document.text + "e\\u0301"

class Silent:
    def __repr__(self):
        raise RuntimeError("no")

def nested(levels):
    value = []
    for _ in range(levels):
        value = [value]
    return value

def odd(stream):
    circle = {"text": "circle"}
    circle["self"] = circle
    yield circle
    yield {"text": "deep", "side": nested(20_000)}
    yield {"text": nested(1000)}
    yield {"text": Silent()}
    yield {"text": "held", "side": Silent()}
    yield Silent()
    yield {"text": "good", "side": [float("nan"), 2**70], "deep": nested(1000)}

def more(document):
    return document.replace(text="kept", meta=document.meta | {"more": float("-inf")})

def surrogate(document):
    return document.replace(license="\\ud800")

def nothing(document):
    if "two" in document.text:
        return None
    return document.text

@headrace.per_batch
def tails(batch):
    if any("THREE" in text or "three" in text for text in batch.column("text").to_pylist()):
        raise ValueError("three is in it")
    return [text[1:] for text in batch.column("text").to_pylist()]
"""


@pytest.fixture(autouse=True)
def _led_here(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(Path(__file__).parent), os.environ.get("PYTHONPATH", "")]))


def made(folder: Path, text: str, reader: dict[str, Any] | str = "jsonl", **config: Any) -> Artifact:
    from headrace.recipe.functions import keep_copy
    from headrace.recipe.schema import DocumentsConfig, Source

    (folder / "code.py").write_text(CODE)
    (folder / "in.txt").write_text(text)
    run = folder / "run"

    def absolute(function: Any) -> Any:
        return (
            {**function, "python": f"{folder}/code.py:{function['python']}"} if isinstance(function, dict) else function
        )

    source = {"files": [str(folder / "in.txt")], "format": absolute(reader)}
    config = {"max_quarantined": 1.0, **config, "map": [absolute(change) for change in config.get("map", ())]}
    section = Source.model_validate(source)
    documents = DocumentsConfig.model_validate(config)
    for function in (*section.readers.values(), *documents.map):
        keep_copy(function, run)
    resolved = section.model_dump(mode="json", by_alias=True, exclude_unset=True)
    return build(run, {"s": resolved}, **documents.model_dump(mode="json", by_alias=True, exclude_unset=True))


def rows(artifact: Artifact) -> list[dict[str, Any]]:
    return [row for i in range(len(artifact.shards)) for row in pq.read_table(artifact.shard_path(i)).to_pylist()]


def quarantine(artifact: Artifact) -> list[dict[str, Any]]:
    files = sorted((artifact.path / "quarantine").glob("*.jsonl"))
    return [json.loads(line) for file in files for line in file.read_text().splitlines()]


LINES = "one\nodd\nhalf a line\ntwo\n"


@pytest.mark.parametrize("kind", ["dict", "text"])
def test_a_reader_yields_records_texts_and_what_is_wrong(tmp_path: Path, kind: str) -> None:
    artifact = made(tmp_path, LINES, {"python": "read", "with": {"kind": kind}})
    assert [(row["text"], row["origin_row"]) for row in rows(artifact)] == [("one", 0), ("two", 3)]
    assert rows(artifact)[1]["license"] == ("MIT" if kind == "dict" else None)
    bad = quarantine(artifact)
    assert [entry["line"] for entry in bad] == [2, 3]
    assert bad[0]["error"] == "code.py:read yields int, not a text or a dict"
    assert bad[1]["error"] == "code.py:read: ValueError: half a line"
    counts = artifact.manifest.counts["s"]
    assert (counts["read"], counts["documents"], counts["quarantined"]) == (4, 2, 2)


def test_what_a_reader_leaves_unread_is_counted_as_lost(tmp_path: Path) -> None:
    text = "one\ntwo\nbroken\n" + "x" * 1000
    artifact = made(tmp_path, text, {"python": "read"})
    assert [row["text"] for row in rows(artifact)] == ["one", "two"]
    counts = artifact.manifest.counts["s"]
    assert (counts["lost_rows"], counts["lost_bytes"]) == (0, 1000)
    assert "RuntimeError: broken (code.py, line 7, in read" in quarantine(artifact)[0]["error"]
    (tmp_path / "again").mkdir()
    with pytest.raises(UserError, match="lost in damaged files"):
        made(tmp_path / "again", text, {"python": "read"}, max_quarantined=0.1)
    (tmp_path / "stop").mkdir()
    with pytest.raises(UserError) as stopped:
        made(tmp_path / "stop", text, {"python": "read", "on_error": "stop"})
    assert stopped.value.where == "document s:in.txt:2"


def test_a_reader_may_seek_and_know_the_name(tmp_path: Path) -> None:
    assert [row["text"] for row in rows(made(tmp_path, "abcdefgh", {"python": "seek"}))] == ["efghin.txt"]


def test_a_reader_that_ends_the_process_is_named_with_the_row(tmp_path: Path) -> None:
    with pytest.raises(UserError) as ended:
        made(tmp_path, "one\ntwo\n", {"python": "kills"})
    assert "exit code 3" in ended.value.what
    assert ended.value.where.endswith("at document s:in.txt:1, in code.py:kills")


def test_a_reader_that_yields_nothing_is_told(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="gives str where it must yield records"):
        made(tmp_path, "abcdefgh", {"python": "returns"})


def test_compressed_files_and_their_damage(tmp_path: Path) -> None:
    from headrace.documents.readers.base import Lost, Part, Record, Tally
    from headrace.documents.readers.user import UserReader
    from headrace.documents.sources import InputFile
    from headrace.functions.calling import Function
    from headrace.functions.loading import load_text
    from headrace.recipe.schema import Source

    whole = gzip.compress("".join(f"line {n}\n" for n in range(50_000)).encode(), mtime=0)
    reader = UserReader(Function(load_text(CODE, "read"), "code.py:read", {}, stop=False), "s")
    source = Source.model_validate({"files": ["in"]})
    for data, damaged in ((whole, False), (whole[: len(whole) // 2], True)):
        path = tmp_path / "in.gz"
        path.write_bytes(data)
        file = InputFile(str(path), "in.gz", "own:read", "gzip", len(data))
        items = list(reader.read(file, Part(), source, Tally()))
        records = [item for item in items if isinstance(item, Record)]
        assert [record.text for record in records] == [f"line {n}" for n in range(len(records))]
        lost = [item for item in items if isinstance(item, Lost)]
        assert (len(records) == 50_000) is not damaged
        assert [item.error for item in lost] == (["the gzip stream is cut short"] if damaged else [])


def jsonl(*texts: str) -> str:
    return "".join(json.dumps({"text": text, "n": n}) + "\n" for n, text in enumerate(texts))


def test_maps_change_text_and_fields_in_turn(tmp_path: Path) -> None:
    maps = [{"python": "upper", "with": {"by": 2}}, {"python": "tails"}, {"python": "accent"}]
    artifact = made(tmp_path, jsonl("one", "two", "three", "four"), map=maps)
    told = rows(artifact)
    assert [row["text"] for row in told] == ["NEONEé", "WOTWOé", "OURFOURé"]  # composed, as all text
    assert [(row["language"], json.loads(row["meta"])) for row in told] == [
        ("en", {"n": n, "by": 2}) for n in (0, 1, 3)
    ]
    assert quarantine(artifact)[0]["error"].startswith("code.py:upper: KeyError: 2 (code.py, line 33, in upper")
    counts = artifact.manifest.counts["s"]
    assert counts["bytes"] == sum(len(row["text"].encode()) for row in told)
    assert counts["characters"] == sum(len(row["text"]) for row in told)
    assert counts["read"] == 4


def test_a_batch_that_fails_costs_only_the_document_it_fails_on(tmp_path: Path) -> None:
    texts = [f"text {n}" for n in range(3000)]
    texts[1234] = "three"
    artifact = made(tmp_path, jsonl(*texts), map=[{"python": "tails"}])
    assert [row["text"] for row in rows(artifact)] == [text[1:] for text in texts if text != "three"]
    assert [(entry["line"], entry["error"][:48]) for entry in quarantine(artifact)] == [
        (1235, "code.py:tails: ValueError: three is in it (code.")
    ]


def test_results_that_are_no_texts(tmp_path: Path) -> None:
    artifact = made(tmp_path, jsonl("one", "two"), map=[{"python": "nothing"}])
    assert [row["text"] for row in rows(artifact)] == ["one"]
    assert "gives None where it must give a text" in quarantine(artifact)[0]["error"]
    (tmp_path / "stop").mkdir()
    with pytest.raises(UserError) as stopped:
        made(tmp_path / "stop", jsonl("one", "two"), map=[{"python": "nothing", "on_error": "stop"}])
    assert stopped.value.where == "document s:in.txt:1"


def test_what_no_json_holds_is_mended_or_set_aside(tmp_path: Path) -> None:
    artifact = made(tmp_path, "x", {"python": "odd"}, map=[{"python": "more"}], max_quarantined=1)
    (row,) = rows(artifact)
    assert row["text"] == "kept"
    meta = json.loads(row["meta"].replace("[" * 1001 + "]" * 1001, "0"))
    assert meta == {"side": ["NaN", 2**70], "deep": 0, "more": "-Infinity"}
    assert artifact.manifest.counts["s"]["quarantined"] == 6
    (tmp_path / "spoilt").mkdir()
    with pytest.raises(UserError, match="lone surrogate"):
        made(tmp_path / "spoilt", jsonl("one"), map=[{"python": "surrogate"}], max_quarantined=1)
