"""`headrace view` in a process of its own, as a user starts it, and a client that asks it."""

from __future__ import annotations

import http.client
import os
import re
import subprocess
import sys
import threading
import time
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, Self
from urllib.parse import urlencode

import orjson
import psutil

PATIENCE = 120  # seconds that an answer may take before the benchmark gives up
IDLE = 3  # seconds after which a connection is not used again: the server closes it after five


@dataclass(frozen=True)
class Answer:
    """An answer.

    Attributes:
        status: of HTTP.
        body: as it came.
        seconds: from asking until all of it was there.
    """

    status: int
    body: bytes
    seconds: float

    @property
    def pending(self) -> bool:
        """Whether it is a page that shows some figures later."""
        return b'class="pending"' in self.body

    @property
    def json(self) -> Any:
        """The value of an answer to a program."""
        return orjson.loads(self.body)


class Client:
    """A connection that is kept, as browsers keep theirs.

    Args:
        port: of the server on this machine.
    """

    def __init__(self, port: int) -> None:
        self._connection = http.client.HTTPConnection("127.0.0.1", port, timeout=PATIENCE)
        self._used = time.monotonic()

    def get(self, address: str, accept: str = "text/html") -> Answer:
        """Ask for a page."""
        if time.monotonic() - self._used > IDLE:
            self._connection.close()  # the next request opens it again
        start = time.perf_counter()
        self._connection.request("GET", address, headers={"accept": accept})
        answer = self._connection.getresponse()
        self._used = time.monotonic()
        body = answer.read()
        return Answer(answer.status, body, time.perf_counter() - start)

    def told(self, path: str, **query: object) -> Any:
        """What a page shows, as JSON."""
        answer = self.get(f"{path}?{urlencode(query, doseq=True)}", "application/json")
        assert answer.status == 200, (path, query, answer.body[:500])
        return answer.json

    def close(self) -> None:
        """Close the connection."""
        self._connection.close()


class Server:
    """A server of its own process, from its start to the end of a ``with`` block.

    Args:
        target: what it shows.
        options: further arguments of the command.

    Attributes:
        port: that it listens on.
        start: seconds from the start of the command until its first page was there.
        first: that page.
        memory: what it holds.
    """

    def __init__(self, target: Path, *options: object) -> None:
        begun = time.perf_counter()
        command = [sys.executable, "-m", "headrace", "view", str(target), "--no-browser", "--port", "0"]
        self._process = subprocess.Popen([*command, *map(str, options)], stdout=subprocess.PIPE, text=True)
        assert self._process.stdout is not None
        said = self._process.stdout.readline()
        found = re.search(r":(\d+)/", said)
        assert found is not None, f"{command} says {said!r}"
        self.port = int(found[1])
        self.client = Client(self.port)
        self.first = self.client.get("/")
        self.start = time.perf_counter() - begun
        self.memory = Watched(self._process.pid)
        self.memory.start()

    @property
    def processor(self) -> float:
        """Processor seconds of the server so far."""
        told = psutil.Process(self._process.pid).cpu_times()
        return float(told.user + told.system)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.memory.stop()
        self.client.close()
        self._process.terminate()
        try:
            self._process.wait(10)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()


class Watched(threading.Thread):
    """What a process holds in memory.

    Attributes:
        own: at most so many bytes of its own, as sampled.
        mapped: at most so many bytes of files, which the system takes back when it needs them.
    """

    def __init__(self, pid: int) -> None:
        super().__init__(daemon=True)
        self._status = Path(f"/proc/{pid}/status")
        self._done = threading.Event()
        self.own = self.mapped = 0

    def run(self) -> None:
        while not self._done.wait(0.02):
            told = self._told()
            self.own = max(self.own, told.get("RssAnon", 0))
            self.mapped = max(self.mapped, told.get("RssFile", 0))

    def _told(self) -> dict[str, int]:
        try:
            text = self._status.read_text()
        except OSError:
            return {}
        return {name: 1024 * int(kilobytes) for name, kilobytes in re.findall(r"(\w+):\s+(\d+) kB", text)}

    @property
    def peak(self) -> int:
        """The most resident bytes that the process has had, as the kernel counted them."""
        return self._told()["VmHWM"]

    def stop(self) -> None:
        """Watch no more."""
        self._done.set()
        self.join()


def load() -> str:
    """How busy the machine is."""
    return f"load {os.getloadavg()[0]:.1f} on {os.cpu_count()} processors"
