"""What the viewer's server holds at most: documents and rows of 100 MB, wide queries, and many clients at once."""

from __future__ import annotations

import random
import shutil
import threading
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import urlencode

import orjson

from bench import pipelines
from bench.corpus import texts
from bench.harness import Result, Setting, result
from bench.served import Client, Server, load
from bench.view_pages import MEMORY, TIMES_TEXT, addresses, ask
from bench.viewed import grown
from bench.viewed import run as viewed_run

HUGE = 1.6  # millions of bytes of a huge document for each of the corpus: 100 MB of 64
CLIENTS = 24
TURNS = 2  # times that each of them asks for every page

SQL = (
    "SELECT * FROM documents",
    "SELECT * FROM corpus ORDER BY row DESC",
    "SELECT text FROM documents ORDER BY bytes DESC",
    "SELECT list(text) FROM documents",
    "SELECT string_agg(text, '') FROM documents",
    "SELECT upper(text) AS a, lower(text) AS b, reverse(text) AS c FROM documents ORDER BY bytes DESC LIMIT 50",
    "SELECT a.*, b.* FROM corpus a, corpus b ORDER BY a.bytes + b.bytes LIMIT 1000",
    "SELECT id, count(*) FROM corpus GROUP BY ALL ORDER BY 2 DESC",
    "SELECT repeat('x', 50000000) FROM range(20)",
    "SELECT range(20000000)",
    "SELECT repeat('<&', 4000) AS a, * FROM range(1000)",
)


def run(setting: Setting) -> Iterator[Result]:
    """GB that are resident at most."""
    small = viewed_run(setting)
    huge = _huge(setting)
    yield _stressed(setting, "documents and rows of 100 MB", huge, small)
    shutil.rmtree(huge.parent)
    large = grown(small, setting.work / "viewed-large", TIMES_TEXT * setting.mb * 1e6)
    yield _stressed(setting, "10 GB", large, small)
    shutil.rmtree(large)


def _huge(setting: Setting) -> Path:
    """A run of some huge documents: one line, many lines, wide characters, hardly any information; and copies."""
    folder = setting.work / "viewed-huge"
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir()
    size, some = int(HUGE * setting.mb * 1e6), texts(setting.corpus)
    lines = _filled("\n".join(some), size)
    made = [lines, lines[: size // 2] + "another" + lines[size // 2 :], lines.replace("\n", " "), " " * size]
    made.append(_filled("\n".join(some[::-1]).replace("e", "\u00e9").replace("a", "\U0001f600"), size // 2))
    with open(folder / "huge.jsonl", "wb") as file:
        for number, text in enumerate(made):
            file.write(
                orjson.dumps({"text": text, "meta": {"path": f"{number}.txt", "more": text[: size // 8]}}) + b"\n"
            )
    told = pipelines.recipe(setting, **pipelines.all_steps(setting))
    told["sources"] |= {"huge": {"files": str(folder / "huge.jsonl")}}
    told["documents"] = {"max_document": 4 * size}
    told["deduplicate"]["near"] = {"verify": True}
    told |= {"tokenizer": {"train": {"vocab_size": 8192}}}
    long = {
        "name": "long",
        "sequence_length": max(1 << 12, size // 8),
        "sources": {name: {} for name in told["sources"]},
    }
    told |= {"stages": [long]}
    pipelines.run(told, folder / "run", None, 1)
    return folder / "run"


def _filled(text: str, size: int) -> str:
    """A text of so many bytes, about."""
    return (text * (1 + size // len(text)))[:size]


def _stressed(setting: Setting, name: str, target: Path, other: Path) -> Result:
    peaks, wrong = {}, 0
    with Server(target, "--with", other) as server:
        peaks["the first page"] = server.memory.peak
        wanted = addresses(server.client, random.Random(2))
        ask(server, wanted, 1)
        peaks["every page"] = server.memory.peak
        rows = server.client.told("/documents")["rows"]
        largest = [f"/documents/{row}?at={at}" for row in range(rows - 5, rows) for at in (0, 1 << 60)]
        largest += [f"/documents/{rows - 5}?beside={rows - 4}"]
        wrong += _each(server, largest)
        peaks["the last documents"] = server.memory.peak
        found = [
            _search(q, how) for q, how in (("e", "text"), (".+", "regex"), ("(?s).*", "regex"), ("zqxj", "phrase"))
        ]
        wrong += _each(server, found)
        peaks["searches"] = server.memory.peak
        wrong += _each(server, [f"/corpus/query?{urlencode({'sql': sql})}" for sql in SQL], (200, 400))
        peaks["wide queries"] = server.memory.peak
        every = [*largest, *found, *(address for some in wanted.values() for address in some)]
        every += [f"/corpus/query?{urlencode({'sql': sql})}" for sql in SQL[:6]]
        wrong += _at_once(server, every)
        peaks[f"{CLIENTS} clients at once"] = used = server.memory.peak
        own, mapped = server.memory.own, server.memory.mapped
    note = ", ".join(f"{peak / 1e6:.0f} MB after {what}" for what, peak in peaks.items())
    note += f"; at most {own / 1e6:.0f} MB of its own, {mapped / 1e6:.0f} MB of mapped files; {wrong} answers failed; "
    return result(setting, f"view-memory, {name}", None, "GB", [used / 1e9], None, MEMORY, "ours", note + load())


def _search(q: str, how: str) -> str:
    return f"/documents?{urlencode({'q': q, 'how': how})}"


def _each(server: Server, wanted: list[str], fine: tuple[int, ...] = (200,)) -> int:
    """Ask for pages; how many failed."""
    return sum(server.client.get(address).status not in fine for address in wanted)


def _at_once(server: Server, wanted: list[str]) -> int:
    """Many clients ask for all pages, each in an order of its own; how many answers failed."""
    failed = [0] * CLIENTS

    def asks(number: int) -> None:
        client, order = Client(server.port), wanted * TURNS
        random.Random(number).shuffle(order)
        for address in order:
            failed[number] += client.get(address).status not in (200, 303, 400)
        client.close()

    threads = [threading.Thread(target=asks, args=(number,)) for number in range(CLIENTS)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return sum(failed)
