"""Every page of the viewer: of a run, of one with 10 GB of documents and of rows, and of one that is under way."""

from __future__ import annotations

import random
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from statistics import median
from urllib.parse import urlencode

import yaml

from bench.harness import Result, Setting, result
from bench.served import Answer, Client, Server, load
from bench.viewed import grown, recipe
from bench.viewed import run as viewed_run

ROOT = Path(__file__).resolve().parents[1]
DEMO = ROOT / "runs" / "demo"  # where `make demo` puts it
FIRST, PAGE, MEMORY = 1.0, 300, 0.5  # seconds, milliseconds, GB
TIMES_TEXT = 160  # bytes on disk of the large run for each byte of the corpus: 10 GB of 64 MB
EACH = 8  # addresses of a kind of page that is about one of many things
COUNTED = 900  # seconds that figures may take that a page shows later

Addresses = dict[str, list[str]]
"""Kind of page -> addresses."""


def run(setting: Setting) -> Iterator[Result]:
    """The time to the first page, of each kind of page, and memory."""
    small = viewed_run(setting)
    if DEMO.exists():
        yield from _of(setting, "the demo", DEMO, small)
    yield from _of(setting, "a run", small, small)
    large = grown(small, setting.work / "viewed-large", TIMES_TEXT * setting.mb * 1e6)
    yield from _of(setting, "10 GB", large, small)
    shutil.rmtree(large)
    yield from _under_way(setting)


@dataclass
class Taken:
    """What the pages of a kind took.

    Attributes:
        rounds: seconds of each page, by round.
        processor: seconds of the server's processor, in all.
        first: the longest that one took when it was asked for the first time.
        counted: the longest until a page had all its figures.
        size: the largest, in bytes.
    """

    rounds: list[list[float]] = field(default_factory=list)
    processor: float = 0.0
    first: float = 0.0
    counted: float = 0.0
    size: int = 0

    def note(self) -> str:
        """In words."""
        every = [one for some in self.rounds for one in some]
        each = 1e3 * self.processor / max(1, len(every))
        said = f"{len(every)} pages, the slowest {1e3 * max(every):.0f} ms, {1e3 * self.first:.0f} when first asked "
        said += f"for; {each:.0f} ms of a processor each; at most {self.size / 1e3:.0f} kB"
        return said + (f"; all figures there after {self.counted:.1f} s" if self.counted else "")


def _of(setting: Setting, name: str, target: Path, other: Path) -> Iterator[Result]:
    with Server(target, "--with", other) as server:
        assert server.first.status == 200, server.first.body
        starts = [server.start]
        taken = ask(server, addresses(server.client, random.Random(1)), setting.rounds)
        used, own, mapped = server.memory.peak, server.memory.own, server.memory.mapped
    while len(starts) < setting.rounds:
        with Server(target) as server:
            starts.append(server.start)
    yield result(
        setting, f"view-pages, {name}: first page", None, "s", starts, None, FIRST, "ours",
        f"from the start of the command; {load()}",
    )  # fmt: skip
    yield from _rows(setting, name, taken)
    note = f"at most {own / 1e6:.0f} MB of its own, {mapped / 1e6:.0f} MB of mapped files"
    yield result(
        setting, f"view-pages, {name}: memory", None, "GB", [used / 1e9], None, MEMORY, "ours", note
    )  # fmt: skip


def _rows(setting: Setting, name: str, taken: dict[str, Taken]) -> Iterator[Result]:
    for kind, one in taken.items():
        rounds = [1e3 * median(some) for some in one.rounds]
        note = f"{one.note()}; {load()}"
        yield result(setting, f"view-pages, {name}: {kind}", None, "ms", rounds, None, PAGE, "ours", note)


def ask(server: Server, wanted: Addresses, rounds: int) -> dict[str, Taken]:
    """Ask for pages, first each for the first time, then in rounds when their figures are there."""
    taken = {kind: Taken() for kind in wanted}
    for kind, some in wanted.items():
        for address in some:
            answer = checked(server.client, address)
            taken[kind].first = max(taken[kind].first, answer.seconds)
            if answer.pending:
                taken[kind].counted = max(taken[kind].counted, until_counted(server.client, address))
    for _ in range(rounds):
        for kind, some in wanted.items():
            before = server.processor
            answers = [checked(server.client, address) for address in some]
            taken[kind].processor += server.processor - before
            taken[kind].rounds.append([answer.seconds for answer in answers])
            taken[kind].size = max(taken[kind].size, *(len(answer.body) for answer in answers))
    return taken


def checked(client: Client, address: str) -> Answer:
    """A page, which is one."""
    answer = client.get(address)
    assert answer.status in (200, 303), (address, answer.status, answer.body[-1000:])
    return answer


def until_counted(client: Client, address: str) -> float:
    """Seconds until a page has all its figures, asked for as its own script does."""
    start = time.perf_counter()
    while checked(client, address).pending:
        seconds = time.perf_counter() - start
        assert seconds < COUNTED, f"{address} still counts after {seconds:.0f} s"
        time.sleep(0.2)
    return time.perf_counter() - start


def addresses(client: Client, rng: random.Random) -> Addresses:
    """Addresses of every kind of page of a run, as far as it is done."""
    documents = client.told("/documents", n=200)
    rows, stages = documents["rows"], client.told("/stages")
    found: Addresses = {"run": ["/"], "stages": ["/stages"], "compare": ["/compare", "/compare?only=other"]}
    for stage in [one["name"] for one in stages["stages"]]:
        _stage(client, rng, stage, found)
    if not rows:
        return found
    some = [rng.randrange(rows) for _ in range(EACH)]
    about = [client.told(f"/documents/{row}")["about"] for row in some[:3]]
    found["documents"] = ["/documents", "/documents?kept=no", f"/documents?source={about[0]['source']}"]
    found["documents"] += [_with("/documents", q=word, how="phrase") for word in ("return", "the", "import os")]
    found["document"] = [f"/documents/{row}" for row in some] + [f"/documents/{some[0]}?beside={some[1]}"]
    names = [
        about[0]["id"][:12],
        about[1]["id"],
        f"{about[2]['source']}:{about[2]['origin_file']}:{about[2]['origin_row']}",
    ]
    found["find a document"] = [_with("/find", name=name) for name in names]
    found["copied text"] = ["/copied", _with("/copied", q=client.told(f"/documents/{some[2]}")["text"]["text"][:400])]
    found["corpus"] = ["/corpus", "/corpus?kept=yes", "/corpus?between=bytes:1000:5000", "/corpus?kind=python&kept=no"]
    found["SQL"] = ["/corpus/query", *(_with("/corpus/query", sql=sql) for sql in SQL)]
    removed = client.told("/removed")
    found["removed"] = ["/removed"]
    for reason in list(removed["reasons"])[:4]:
        orders = client.told("/removed", reason=reason)["orders"]
        found["removed"] += [_with("/removed", reason=reason, order=order, at=at) for order in orders for at in (0, 3)]
    limits = [one["path"] for one in client.told("/removed/limit")["limits"]]
    found["a limit"] = ["/removed/limit"]
    for limit in limits[:3]:
        value = client.told("/removed/limit", limit=limit)["value"]
        found["a limit"] += [_with("/removed/limit", limit=limit, value=value * by) for by in (0.5, 1, 1.5)]
    return found


SQL = (
    "SELECT source, count(*) AS documents, sum(bytes) AS bytes FROM corpus GROUP BY source",
    "SELECT row, path, bytes, reason FROM corpus WHERE NOT keep ORDER BY bytes DESC LIMIT 20",
    "SELECT repo, count(*) AS documents FROM corpus WHERE keep GROUP BY repo ORDER BY documents DESC LIMIT 20",
)


def _stage(client: Client, rng: random.Random, stage: str, found: Addresses) -> None:
    path = f"/stages/{stage}"
    found.setdefault("stage", []).extend([path, f"{path}?first=10&last=60&by=mean", f"{path}?log=1"])
    rows = client.told(f"/sequences/{stage}")["of"]
    for view in ("tokens", "text", "ids"):
        some = [rng.randrange(rows) for _ in range(EACH)]
        found.setdefault(f"row as {view}", []).extend(f"/sequences/{stage}?row={row}&view={view}" for row in some)
    many = rng.randrange(max(1, rows - 64))
    found.setdefault("64 rows", []).append(f"/sequences/{stage}?row={many}&rows=64")
    last = client.told(f"/sequences/{stage}")["last_step"]
    found.setdefault("step", []).extend(f"{path}/steps/{rng.randint(1, last)}" for _ in range(EACH))


def _with(path: str, **query: object) -> str:
    return f"{path}?{urlencode(query)}"


def _under_way(setting: Setting) -> Iterator[Result]:
    """The same pages while a run makes what they show."""
    folder = setting.work / "viewed-under-way"
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir()
    told = recipe(setting)
    (folder / "recipe.yaml").write_text(yaml.safe_dump(told))
    target = folder / "run"
    command = [sys.executable, "-m", "headrace", "run", str(folder / "recipe.yaml"), "--out", str(target)]
    taken: dict[str, Taken] = {}
    with subprocess.Popen([*command, "--workers", "1"], stdout=subprocess.DEVNULL, stderr=subprocess.PIPE) as running:
        try:
            _until(lambda: (target / "recipe.yaml").is_file())
            with Server(target) as server:
                start = server.start
                while running.poll() is None:
                    _look(server, random.Random(1), taken)
                used, own, mapped = server.memory.peak, server.memory.own, server.memory.mapped
        finally:
            running.terminate()
    assert running.returncode == 0
    name = "under way"
    note = f"while a worker is busy; {load()}"
    yield result(setting, f"view-pages, {name}: first page", None, "s", [start], None, FIRST, "ours", note)
    yield from _rows(setting, name, taken)
    note = f"at most {own / 1e6:.0f} MB of its own, {mapped / 1e6:.0f} MB of mapped files"
    yield result(setting, f"view-pages, {name}: memory", None, "GB", [used / 1e9], None, MEMORY, "ours", note)
    shutil.rmtree(folder)


def _until(true: Callable[[], bool]) -> None:
    ends = time.monotonic() + COUNTED
    while not true():
        assert time.monotonic() < ends
        time.sleep(0.05)


def _look(server: Server, rng: random.Random, taken: dict[str, Taken]) -> None:
    """Ask for each page that there is so far, once."""
    wanted: Addresses = {"run": ["/"]}
    with suppress(AssertionError):  # not there yet, or gone since
        wanted = addresses(server.client, rng)
    for kind, some in wanted.items():
        one = taken.setdefault(kind, Taken([[]]))
        before = server.processor
        for address in some:
            answer = server.client.get(address)
            assert answer.status in (200, 303, 404, 409), (address, answer.status, answer.body[-1000:])
            one.rounds[0].append(answer.seconds)
            one.size = max(one.size, len(answer.body))
        one.processor += server.processor - before
    time.sleep(0.2)
