"""The first results of a search in a gigabyte of text, and the time to search all of it, beside DuckDB and grep."""

from __future__ import annotations

import os
import shutil
import subprocess
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import duckdb
import orjson

from bench import pipelines
from bench.corpus import texts
from bench.harness import Result, Setting, Side, in_turn, require, result
from bench.repeated import copied, repeat
from bench.served import Client, Server, load
from bench.viewed import recipe
from headrace.documents.store import read_columns
from headrace.flow.artifact import Artifact

TIMES = 10  # that the corpus is repeated: 1 GB of 100 MB
TARGET = 2.0  # seconds to the first results
MOST = 20  # results of a page
RARE, NEVER = "zxqvjkwyphl", "qqxzvjjkw"
KINDS = ("documents", "verdicts", "licences")


@dataclass(frozen=True)
class Case:
    """Something to search for.

    Attributes:
        name: in the table.
        q, how, case: as the page asks.
        condition: the same for DuckDB.
        grep: the same for grep; None where lines are not what counts.
        whole: whether few enough documents have it that all of them are found.
    """

    name: str
    q: str
    how: str
    case: bool
    condition: str
    grep: list[str] | None
    whole: bool


CASES = (
    Case("a word in every document", "e", "text", False, "text ILIKE '%e%'", None, False),
    Case("a phrase", "return the first", "phrase", False, "text ILIKE '%return the first%'", None, False),
    Case("a regular expression", r"def \w+_iter\(self, *key", "regex", True,
         r"regexp_matches(text, 'def \w+_iter\(self, *key')", ["-P", r"def \w+_iter\(self, *key"], True),
    Case("a rare word", RARE, "phrase", True, f"contains(text, '{RARE}')", ["-F", RARE], True),
    Case("a rare word, any case", RARE, "phrase", False, f"text ILIKE '%{RARE}%'", ["-F", "-i", RARE], True),
    Case("a word that never occurs", NEVER, "phrase", True, f"contains(text, '{NEVER}')", ["-F", NEVER], True),
    Case("a word that never occurs, any case", NEVER, "phrase", False,
         f"text ILIKE '%{NEVER}%'", ["-F", "-i", NEVER], True),
    Case("words that never occur together", f"import {NEVER}", "text", False,
         f"text ILIKE '%import%' AND text ILIKE '%{NEVER}%'", None, True),
)  # fmt: skip


def run(setting: Setting) -> Iterator[Result]:
    """Seconds to the first results, and through all documents."""
    folder, plain = _run(setting)
    documents = Artifact.open(next((folder / "artifacts").glob("documents-????????")))
    paths = [str(documents.shard_path(i)) for i in range(len(documents.shards))]
    size = sum(_bytes(Path(path)) for path in paths) / 1e9
    with Server(folder) as server, duckdb.connect() as connection:
        connection.execute(f"SET threads = {setting.cores}")
        connection.execute("CREATE VIEW documents AS SELECT * FROM read_parquet($1)".replace("$1", repr(paths)))
        for case in CASES:
            yield from _case(setting, case, server, connection, plain, size)
        yield from _pasted(setting, server, texts(setting.corpus)[-1], size)
    shutil.rmtree(folder.parent)


def _bytes(path: Path) -> int:
    return int(sum(read_columns(path, ["bytes"]).column(0).to_pylist()))


def _run(setting: Setting) -> tuple[Path, Path]:
    """A run of the corpus many times over, with a rare word in its last document; and its texts as a plain file."""
    folder = setting.work / "searched"
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir()
    told = recipe(setting)
    rare = orjson.dumps(
        {"text": f"The last document has {RARE} in its last line, \n and no other has it: {RARE.upper()}."}
    )
    (folder / "rare.jsonl").write_bytes(rare + b"\n")
    told["sources"] |= {"zzz": {"files": str(folder / "rare.jsonl")}}
    pipelines.run(told, folder / "run", "verdicts", setting.cores)
    made = {path.name.rsplit("-", 1)[0]: path for path in (folder / "run" / "artifacts").iterdir()}
    for name in made.keys() & set(KINDS):
        repeat(Artifact.open(made[name]), TIMES, copied, once=1)
    for name in set(made) - set(KINDS):
        shutil.rmtree(made[name])
    plain, documents = folder / "plain.txt", Artifact.open(made["documents"])
    with open(plain, "wb") as file:
        for shard in range(len(documents.shards)):
            for text in read_columns(documents.shard_path(shard), ["text"]).column(0).to_pylist():
                file.write(text.encode() + b"\n")
    return folder / "run", plain


def _case(setting: Setting, case: Case, server: Server, connection: Any, plain: Path, size: float) -> Iterator[Result]:
    asked: dict[str, Any] = {"q": case.q, "how": case.how, "n": MOST} | ({"case": 1} if case.case else {})
    firsts, processor = [], []
    for _ in range(setting.rounds):
        before, start = server.processor, time.perf_counter()
        shown = server.client.told("/documents", **asked)
        while not shown["hits"] and shown["next"] is not None:
            shown = server.client.told("/documents", **asked, after=shown["next"])
        firsts.append(time.perf_counter() - start)
        processor.append(server.processor - before)
    hits = len(shown["hits"])
    note = f"{size:.2f} GB of text, {hits} documents on the first page, {min(processor):.2f} s of processors; {load()}"
    yield result(setting, f"view-search, {case.name}: first results", None, "s", firsts, None, TARGET, "ours", note)
    if not case.whole:
        return
    ours = Side(lambda: _all(server.client, asked), 1)
    theirs = Side(lambda: _ids(connection, case.condition), 1)
    found, expected = ours.run(), theirs.run()
    require(found == expected, f"{case.name}: headrace finds {len(found)} documents, DuckDB {len(expected)}")
    sides = [ours, theirs]
    if case.grep is not None:
        grep = [*case.grep, str(plain)]
        sides.append(Side(lambda: _grep(grep), 1))
    taken = in_turn(setting, sides, "s")
    name = f"view-search, {case.name}: all documents"
    yield result(setting, name, "duckdb", "s", taken[0], taken[1], note=f"{size:.2f} GB of text; {load()}")
    if case.grep is not None:
        note = "of the plain text, on one processor, ours and the file both in the page cache"
        yield result(setting, name, "grep", "s", taken[0], taken[2], note=note)


def _all(client: Client, asked: dict[str, Any]) -> list[str]:
    """The ids of all documents found."""
    found, after = [], 0
    while True:
        shown = client.told("/documents", **asked, after=after)
        found += [hit["id"] for hit in shown["hits"]]
        if shown["next"] is None:
            return sorted(found)
        after = shown["next"]


def _ids(connection: Any, condition: str) -> list[str]:
    return sorted(id for (id,) in connection.execute(f"SELECT id FROM documents WHERE {condition}").fetchall())


def _grep(arguments: list[str]) -> int:
    done = subprocess.run(
        ["grep", "-c", "-a", *arguments], capture_output=True, text=True, env={**os.environ, "LC_ALL": "C.UTF-8"}
    )
    assert done.returncode in (0, 1), done.stderr
    return int(done.stdout)


def _pasted(setting: Setting, server: Server, text: str, size: float) -> Iterator[Result]:
    """A text of which parts stand in documents, and one that stands nowhere."""
    for name, pasted in (("text that stands in documents", text[:3000]), ("text that stands nowhere", _nowhere(text))):
        firsts, wholes = [], []
        for turn in range(setting.rounds):
            start = time.perf_counter()
            # A text that was asked for is remembered.
            asked = {"q": f"{turn} {pasted}"}
            shown = server.client.told("/copied", **asked)
            while not shown["stretches"] and shown["searched"] < shown["rows"]:
                time.sleep(0.02)
                shown = server.client.told("/copied", **asked)
            firsts.append(time.perf_counter() - start)
            while shown["searched"] < shown["rows"]:
                time.sleep(0.02)
                shown = server.client.told("/copied", **asked)
            wholes.append(time.perf_counter() - start)
        note = f"{size:.2f} GB of text; all of it searched after {sorted(wholes)[len(wholes) // 2]:.2f} s; {load()}"
        yield result(setting, f"view-search, {name}", None, "s", firsts, None, TARGET, "ours", note)


def _nowhere(text: str) -> str:
    return "".join(chr(ord("a") + (7 * i * i + ord(one)) % 26) for i, one in enumerate(text[:3000]))
