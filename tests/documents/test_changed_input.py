"""Input that is rewritten in place while a run reads it, with its size and time put back, never becomes a document."""

from __future__ import annotations

import gzip
import json
import os
import random
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from documents_graph import inline

from headrace.documents import step as step_module
from headrace.documents.checked_file import ChangedInput
from headrace.documents.inventory import FINGERPRINTS
from headrace.documents.readers import jsonl
from headrace.documents.readers import parquet as parquet_reader
from headrace.documents.readers.streams import zstd
from headrace.errors import UserError
from headrace.flow.task import TaskContext

ROWS = 4000


def texts(word: str) -> list[str]:
    """Rows of equal length for words of equal length, that no compressor makes small."""
    rng = random.Random(0)
    return [f"{word} {i:05d} " + rng.randbytes(300).hex() for i in range(ROWS)]


def lines(word: str) -> bytes:
    return b"".join(json.dumps({"text": text}).encode() + b"\n" for text in texts(word))


def stored(word: str) -> bytes:
    """A gzip member that is stored, so that equal lengths in give equal lengths out."""
    return gzip.compress(lines(word), 0, mtime=0)


def table(word: str) -> pa.Table:
    return pa.table({"text": texts(word)})


def parquet(path: Path, word: str) -> None:
    pq.write_table(table(word), path, compression="none", use_dictionary=False, row_group_size=1000)


def arrow(path: Path, word: str) -> None:
    with pa.OSFile(str(path), "wb") as sink, pa.ipc.new_file(sink, table(word).schema) as writer:
        writer.write_table(table(word), max_chunksize=1000)


def write(path: Path, word: str) -> None:
    match path.name:
        case "a.parquet":
            parquet(path, word)
        case "a.arrow":
            arrow(path, word)
        case "a.jsonl.gz":
            path.write_bytes(stored(word))
        case "a.jsonl.zst":
            path.write_bytes(zstd.compress(lines(word)))
        case "a.json":
            path.write_text(json.dumps([{"text": text} for text in texts(word)]))
        case "a.txt":
            path.write_text("\n".join(texts(word)))
        case _:
            path.write_bytes(lines(word))


def rewrite(path: Path) -> None:
    """Other content in the same file, of its size and with its times."""
    stat = path.stat()
    write(path, "right")
    if path.stat().st_size != stat.st_size:  # a compressor's: the last bytes are altered instead
        write(path, "first")
        data = bytearray(path.read_bytes())
        data[len(data) // 2] ^= 1
        path.write_bytes(data)
    assert path.stat().st_size == stat.st_size
    os.utime(path, ns=(stat.st_atime_ns, stat.st_mtime_ns))


FORMATS = ["a.jsonl", "a.jsonl.gz", "a.jsonl.zst", "a.json", "a.parquet", "a.arrow", "a.txt"]


@pytest.fixture(autouse=True)
def _small_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    """A file of some MB is read in several tasks."""
    monkeypatch.setattr(step_module, "TASK_BYTES", 1 << 18)
    for module in (jsonl, parquet_reader):
        monkeypatch.setattr(module, "PART_BYTES", 1 << 19)


def after(count: int, path: Path) -> Callable[[TaskContext, str], None]:
    """Rewrites the file at the n-th note of what is being handled."""
    real = TaskContext.at

    def at(ctx: TaskContext, where: str) -> None:
        nonlocal count
        real(ctx, where)
        if count == 0:
            rewrite(path)
        count -= 1

    return at


@pytest.mark.parametrize("moment", [0, 1, 3])
@pytest.mark.parametrize("name", FORMATS)
def test_a_file_rewritten_between_two_tasks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, moment: int):
    path = tmp_path / name
    write(path, "first")
    sources: dict[str, Any] = {"a": {"files": str(path)}}
    reached = []
    monkeypatch.setattr(TaskContext, "at", after(moment, path))
    try:
        inline(tmp_path / "run", sources)
    except ChangedInput as error:
        reached.append(error)
    monkeypatch.undo()
    if not reached:  # read in fewer tasks than that
        assert moment
        return
    assert not (tmp_path / "run" / FINGERPRINTS).exists()
    if name == "a.jsonl.zst":  # whose new content is damaged
        return
    again = inline(tmp_path / "run", sources)
    assert again.manifest.identity == inline(tmp_path / "fresh", sources).manifest.identity


@pytest.mark.parametrize("name", FORMATS)
def test_a_file_rewritten_while_a_reader_has_it_open(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str):
    """The rewriting comes between two rows of the reader, anywhere in the file."""
    from headrace.documents import reading

    path = tmp_path / name
    write(path, "first")
    expected = inline(tmp_path / "before", {"a": {"files": str(path)}})
    real = reading.reader_of

    class Rewriting:
        def __init__(self, *which: Any) -> None:
            self.which = which

        def read(self, *arguments: Any) -> Iterator[Any]:
            for number, item in enumerate(real(*self.which).read(*arguments)):
                if number == 100 and not (tmp_path / "done").exists():
                    (tmp_path / "done").touch()
                    rewrite(path)
                yield item

    monkeypatch.setattr(reading, "reader_of", Rewriting)
    try:
        made = inline(tmp_path / "run", {"a": {"files": str(path)}})
    except ChangedInput:
        return
    # All of it had been read by then: what was made is of the old content, as its identity says.
    assert [s["digest"] for s in made.shards] == [s["digest"] for s in expected.shards]


def test_a_benchmark_rewritten_after_it_was_listed(tmp_path: Path):
    from headrace.recipe.cleaning import Decontaminate
    from headrace.select.contamination.benchmarks import list_benchmarks, read_items

    path = tmp_path / "exam.jsonl"
    path.write_text('{"task_id": "1", "question": "What is the one?"}\n')
    config = Decontaminate.model_validate({"benchmarks": {"exam": {"files": [str(path)], "fields": ["question"]}}})
    files = list_benchmarks(config)
    assert len(read_items(files, "nfc")) == 1
    path.write_text('{"task_id": "1", "question": "What is the two?"}\n')
    with pytest.raises(ChangedInput):
        read_items(files, "nfc")


@pytest.mark.parametrize("url", ["s3://bucket/a.jsonl", "hf://datasets/a/b/c.jsonl", "http://127.0.0.1:9/a.jsonl"])
def test_a_network_that_is_not_there_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, url: str):
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    with pytest.raises(UserError) as caught:
        inline(tmp_path / "run", {"a": {"files": url}})
    assert url.split("//")[1][:6] in caught.value.where


def test_a_remote_file_that_changes_is_noticed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    import fsspec

    with fsspec.open("memory://bucket/a.jsonl", "wb") as f:
        f.write(lines("first"))
    sources = {"a": {"files": "memory://bucket/a.jsonl"}}

    def change(ctx: TaskContext, where: str) -> None:
        with fsspec.open("memory://bucket/a.jsonl", "wb") as f:
            f.write(lines("right"))

    inline(tmp_path / "one", sources)
    monkeypatch.setattr(TaskContext, "at", change)
    with pytest.raises(ChangedInput):
        inline(tmp_path / "two", sources)
