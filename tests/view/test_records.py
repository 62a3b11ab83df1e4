"""Documents in files that no run has read: pages against the readers, from any row, in every compression; files that
change; hostile and damaged ones."""

from __future__ import annotations

import bz2
import gzip
import json
import lzma
import os
import random
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pages import parsed, waiting
from starlette.testclient import TestClient

from headrace.documents.readers import jsonl, reader
from headrace.documents.readers.base import Bad, Part, Skipped, Tally
from headrace.documents.sources import list_files
from headrace.errors import UserError
from headrace.recipe.schema import Source
from headrace.view import records
from headrace.view.app import application
from headrace.view.pages import records as page
from headrace.view.target import Target

EVIL = "<script>alert(1)</script>\u202e\x1b[31m\x00</pre><img src=x onerror=alert(1)>"
PACKED = {".jsonl": bytes, ".jsonl.gz": gzip.compress, ".jsonl.bz2": bz2.compress, ".jsonl.xz": lzma.compress}


def opened(path: Path) -> TestClient:
    return TestClient(application(Target(path)), base_url="http://localhost")


def loaded(target: Target, **query) -> page.RecordsShown:
    """A page, once its rows are found."""
    return waiting(
        lambda: page.load(target, page.RecordQuery.model_validate(query)), lambda shown: shown.searched is None
    )


def plainly(path: Path) -> list[tuple[int, str, str | None]]:
    """(row, text, what is wrong) of each row, by one pass of the reader."""
    [file] = list_files("files", Source.model_validate({"files": [str(path)]}), 0, path.parent)
    source, out = Source.model_validate({"files": [str(path)]}), []
    for item in reader(file.format).read(file, Part(), source, Tally()):
        if isinstance(item, Bad):
            out += [(item.row + k, item.excerpt, item.error) for k in range(item.rows)]
        elif not isinstance(item, Skipped):
            out.append((item.row, item.text, None))
    return out


def listed(shown: page.RecordsShown) -> list[tuple[int, str, str | None]]:
    return [(one.row + k, one.text, one.wrong) for one in shown.rows for k in range(max(one.rows, 1))]


LINES = st.lists(
    st.one_of(
        st.text(max_size=30).map(lambda text: json.dumps({"text": text, "more": 1}).encode()),
        st.sampled_from([b"", b" ", b'{"text": 3}', b'{"tex', b'{"text": "\xff"}', b'{"other": "x"}']),
    ),
    max_size=80,
)


@given(LINES, st.sampled_from(sorted(PACKED)), st.integers(0, 90), st.integers(1, 40))
def test_pages_are_what_the_reader_reads(tmp_path_factory, lines, suffix, row, part):
    """Walked from the start, and from any row on, whatever the parts that the file is read in."""
    path = tmp_path_factory.mktemp("files") / f"a{suffix}"
    path.write_bytes(PACKED[suffix](b"".join(line + b"\n" for line in [b'{"text": "first"}', *lines])))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(jsonl, "PART_BYTES", part * 10)
        patch.setattr(records, "ROWS", 7)
        wanted = plainly(path)
        target, found, at = Target(path), [], 0
        while at is not None:
            shown = loaded(target, row=at)
            found += listed(shown)
            at = shown.next
        assert found == wanted
        other = Target(path)
        [*begun] = listed(loaded(other, row=row))
        assert begun == [one for one in wanted if one[0] >= row][: len(begun)]
        assert begun or not [one for one in wanted if one[0] >= row]


@pytest.mark.parametrize("format", ["parquet", "arrow", "csv", "json"])
def test_other_formats(tmp_path, format):
    """Any field with text is found; rows are those of the table."""
    texts = [f"text {i} {EVIL}" for i in range(60)]
    table = pa.table({"id": list(range(60)), "content": texts, "more": ["x"] * 60})
    path = tmp_path / f"a.{format}"
    if format == "parquet":
        pq.write_table(table, path, row_group_size=7)
    elif format == "arrow":
        with pa.OSFile(str(path), "wb") as sink, pa.ipc.new_file(sink, table.schema) as writer:
            writer.write_table(table, max_chunksize=9)
    elif format == "csv":
        texts = [text.replace("\0", "") for text in texts]
        path.write_text("id,content\n" + "".join(f'{i},"{text}"\n' for i, text in enumerate(texts)))
    else:
        path.write_text(json.dumps([{"id": i, "content": text} for i, text in enumerate(texts)]))
    target = Target(path)
    for row in (0, 1, 20, 58):
        shown = loaded(target, row=row)
        assert shown.field == "content"
        begin = max(row - 1, 0) if format == "csv" else row  # whose rows are lines, after the header's
        assert [one.text for one in shown.rows] == texts[begin : begin + records.ROWS]
    with opened(path) as client:
        for url in ("/", "/records?row=20", "/records?row=3&only=1"):
            shown = parsed(client.get(url))
            assert any(EVIL.split("\u202e")[0] in text for text in shown.all("pre"))
            assert not any("\u202e" in text or "\x1b" in text for text in shown.all("main"))


def test_conversations(tmp_path):
    """Are read as such."""
    rows = [{"messages": [{"role": "user", "content": f"ask {i}"}, {"role": "assistant", "content": EVIL}]}
            for i in range(3)]  # fmt: skip
    path = tmp_path / "chat.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    shown = loaded(Target(path))
    assert shown.field is None
    assert [one.text for one in shown.rows] == [f"user: ask {i}\n\nassistant: {EVIL}" for i in range(3)]


def test_a_long_text_is_cut(tmp_path, monkeypatch):
    """The links lead through all of it."""
    monkeypatch.setattr(page, "WHOLE", 1000)
    rng = random.Random(1)
    text = "".join(chr(rng.choice([65, 233, 0x4E2D, 0x1F600])) for _ in range(5500))
    path = tmp_path / "long.jsonl"
    path.write_text(json.dumps({"text": "short"}) + "\n" + json.dumps({"text": text}) + "\n")
    with opened(path) as client:
        first = client.get("/records?format=json").json()["rows"][1]
        assert (first["text"], first["length"]) == (text[: page.CUT], 5500)
        href, found = "/records?row=1&only=1", ""
        while href:
            shown = parsed(client.get(href))
            found += shown.text("pre")
            more = [one for one in shown.links("/records") if "from=" in one and f"from={len(found)}" in one]
            href = more[0] if more else ""
        assert found == text


def test_rows_beyond_what_fits(tmp_path, monkeypatch):
    """A line of 30 MB is shown by its beginning, and those around it as they are."""
    path = tmp_path / "large.jsonl"
    lines = [{"text": "before"}, {"text": "x" * (30 << 20)}, {"text": "after"}]
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))
    shown = loaded(Target(path)).rows
    assert [one.wrong is None for one in shown] == [True, False, True]
    assert shown[1].wrong.startswith("too large: 31,457,")
    assert "documents.max_document" not in shown[1].wrong
    assert shown[1].text.startswith('{"text": "xxx')
    assert len(shown[1].text) < 1000


@pytest.mark.parametrize("suffix", ["", ".gz"])
def test_a_text_beyond_what_fits(tmp_path, suffix):
    """A file that is one document is shown by its beginning, and the page says so."""
    path = tmp_path / f"large.txt{suffix}"
    data = b"It begins here. " + b"x" * (30 << 20)
    path.write_bytes(gzip.compress(data, 1) if suffix else data)
    [shown] = loaded(Target(path)).rows
    assert shown.wrong.startswith("too large: 31,457,")
    assert "only the beginning" in shown.wrong
    assert shown.text.startswith("It begins here. xxx")


def test_a_file_that_changes(tmp_path):
    """What is shown is what it holds now; gone, it is said."""
    path = tmp_path / "a.jsonl"
    path.write_text('{"text": "one"}\n')
    with opened(path) as client:
        assert [one["text"] for one in client.get("/records?format=json").json()["rows"]] == ["one"]
        with open(path, "a") as file:
            file.write('{"text": "two"}\n{"text": "three"}\n')
        assert [one["text"] for one in client.get("/records?format=json").json()["rows"]] == ["one", "two", "three"]
        path.write_text('{"body": "other"}\n')
        told = client.get("/records?format=json").json()
        assert ([one["text"] for one in told["rows"]], told["field"]) == (["other"], "body")
        path.unlink()
        for url in ("/", "/records", "/records?row=3"):
            answer = client.get(f"{url}{'&' if '?' in url else '?'}format=json")
            assert answer.status_code == 409
            assert "No such file" in answer.json()["error"]
            assert "alert" in client.get(url).text


@pytest.mark.parametrize("suffix", [".jsonl.gz", ".jsonl.bz2", ".jsonl.xz"])
def test_a_damaged_file(tmp_path, suffix):
    """Its good rows come first; then what is lost, where, and what to do."""
    rng = random.Random(1)
    lines = [json.dumps({"text": rng.randbytes(200).hex()}) for _ in range(300)]
    path = tmp_path / f"a{suffix}"
    whole = PACKED[suffix]("".join(line + "\n" for line in lines).encode())
    path.write_bytes(whole[: len(whole) // 2])
    target, texts, wrong, row = Target(path), [], [], 0
    while row is not None:
        shown = loaded(target, row=row)
        wrong += [one.wrong for one in shown.rows if one.wrong is not None]
        texts += [one.text for one in shown.rows if one.wrong is None]
        row = shown.next
    assert texts == [json.loads(line)["text"] for line in lines[: len(texts)]]
    [said] = wrong
    assert "cut short" in said
    assert "Get the file again." in said


def test_a_folder_of_files(tmp_path):
    """Each file is a page of its own, named by number."""
    for i in range(3):
        (tmp_path / f"{i}.jsonl").write_text(json.dumps({"text": f"of {i}"}) + "\n")
    (tmp_path / "<b>.txt").write_text(EVIL)
    with opened(tmp_path) as client:
        told = client.get("/records?format=json").json()
        names = [one["name"] for one in told["files"]]
        assert sorted(names) == ["0.jsonl", "1.jsonl", "2.jsonl", "<b>.txt"]
        for i, name in enumerate(names):
            [row] = client.get(f"/records?file={i}&format=json").json()["rows"]
            assert row["text"] == (EVIL if name == "<b>.txt" else f"of {name[0]}")
        parsed(client.get(f"/records?file={names.index('<b>.txt')}"))
        assert client.get("/records?file=4&format=json").status_code == 404
        for query in ("file=-1", "row=-1", "row=x", "only=maybe", "path=/etc/passwd"):
            assert client.get(f"/records?{query}&format=json").status_code == 400
        assert client.get("/sequences/rows?format=json").status_code == 404
        assert client.get("/records?text=nothing&format=json").json()["rows"][0]["wrong"]


def test_tables_of_tokens_are_no_documents(tmp_path):
    """What is no sequence either is refused as a sequence."""
    pq.write_table(pa.table({"numbers": np.arange(9)}), tmp_path / "a.parquet")
    with pytest.raises(UserError, match="input_ids"):
        Target(tmp_path / "a.parquet")


def test_damaged_tables(shared, tmp_path):
    """That once crashed a process."""
    for name in ("probe-segv.arrow", "probe-neg.arrow", "one1500m.parquet", "valid900m.jsonl.zst"):
        path = tmp_path / name
        shutil.copy(shared / "cases" / name, path)
        os.chmod(path, 0o644)
        shown = loaded(Target(path))
        assert any(one.wrong for one in shown.rows), name
        with opened(path) as client:
            parsed(client.get("/"))


def test_hostile_documents(shared):
    """Nothing of them reaches a page raw."""
    with opened(shared / "cases" / "hostile.jsonl") as client:
        for row in (0, 25, 50):
            shown = parsed(client.get(f"/records?row={row}"))
            assert not set(shown.all("script")) - {""}
            assert not any(c in text for text in shown.all("main") for c in "\u202e\x1b\x00\u2066")


def test_a_part_that_stands_for_several_rows():
    """Is shown from the row on that is asked for."""
    bad = Bad(10, "wrong", "x", rows=30)
    assert records._from(bad, 25) == replace(bad, row=25, rows=15)
    assert records._from(bad, 5) == bad
