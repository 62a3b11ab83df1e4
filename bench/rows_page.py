"""Pages of rows: at random places of a sequence of 10^9, and of documents in a large file that nobody has read."""

from __future__ import annotations

import resource
import shutil
import time
from collections.abc import Iterator

import numpy as np
import orjson
from starlette.testclient import TestClient

from bench.built import sequence
from bench.corpus import texts
from bench.harness import Result, Setting, result
from bench.seek import billion, scattered
from bench.vocabularies import byte_level
from headrace.view.app import application
from headrace.view.target import Target

PAGES = 24
VIEWS = ("tokens", "text", "ids")
FILE_BYTES = 2_000_000_000
TARGET = 300  # milliseconds of a page


def run(setting: Setting) -> Iterator[Result]:
    """Milliseconds of a page, as HTML, without the network."""
    folder = setting.work / "billion"
    rows, make = billion(sequence(setting), folder)
    places = scattered(rows, make, PAGES * setting.rounds)
    tokenizer = setting.work / "rows-page-tokenizer.json"
    tokenizer.write_bytes(orjson.dumps(byte_level(setting, texts(setting.corpus))))
    addresses = [f"/sequences/rows?row={place}&view={VIEWS[i % len(VIEWS)]}" for i, place in enumerate(places)]
    yield _pages(setting, "view, a row of 10^9", Target(folder, tokenizer), addresses, f"{rows:,} rows")
    shutil.rmtree(folder)
    file = setting.work / "large.jsonl"
    line = orjson.dumps({"text": "a line of some words " * 50, "url": "https://example.org"}) + b"\n"
    block = line * (1 + (8 << 20) // len(line))
    with open(file, "wb") as out:
        while out.tell() < FILE_BYTES:
            out.write(block)
    addresses = [f"/records?row={25 * page}" for page in range(PAGES * setting.rounds)]
    yield _pages(
        setting, "view, documents of a 2 GB file", Target(file), addresses, "one after another, from the first"
    )
    file.unlink()


def _pages(setting: Setting, name: str, target: Target, addresses: list[str], note: str) -> Result:
    taken = []
    with TestClient(application(target), base_url="http://localhost") as client:
        client.get("/")  # imports
        for address in addresses:
            start = time.perf_counter()
            answer = client.get(address, headers={"accept": "text/html"})
            taken.append((time.perf_counter() - start) * 1e3)
            assert answer.status_code == 200, answer.text
            assert "spinner" not in answer.text, "its rows are looked for"
    rounds = [float(np.median(taken[i :: setting.rounds])) for i in range(setting.rounds)]
    memory = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e3
    told = f"{note}; the slowest of {len(taken)} took {max(taken):.0f} ms; at most {memory:.0f} MB of memory"
    return result(setting, name, None, "ms", rounds, None, TARGET, "ours", told)
