"""The worker processes of one machine, watched through their pipes.

A dead worker is noticed at once, because its pipe closes: nothing depends on a timeout.
"""

from __future__ import annotations

import contextlib
import os
import selectors
import signal
import subprocess
import sys
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any, BinaryIO

import orjson

from headrace.flow.executors import TaskFailed
from headrace.flow.executors.fork_server import Forked, ForkServer
from headrace.flow.storage import process_name

# With fixed thresholds, glibc returns large blocks at once instead of learning to keep them. Arrow's own pools keep
# even more: reading and writing documents peaked 101 MB above the base with them, 49 MB with the system allocator.
# Blocks below 16 MB are reused, because new pages cost more than the work done in them: with a threshold of 1 MB,
# documents took a fifth longer and all steps up to the sequences a tenth (200 MB of the corpus), for 14 to 48 MB less
# per worker.
_ALLOCATOR = {
    "MALLOC_MMAP_THRESHOLD_": "16777216",
    "MALLOC_TRIM_THRESHOLD_": "33554432",
    "MALLOC_ARENA_MAX": "2",
    "ARROW_DEFAULT_MEMORY_POOL": "system",
    "JE_ARROW_MALLOC_CONF": "background_thread:false",  # unused; forking needs a single thread
}
_THREADS = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS", "NUMBA_NUM_THREADS", "RAYON_NUM_THREADS")
FORKS = sys.platform == "linux"

Message = dict[str, Any]


@dataclass
class _Worker:
    process: subprocess.Popen[bytes] | Forked
    stdin: IO[bytes]
    stdout: IO[bytes]
    log: Path
    threads: int
    request: Message | None = None
    written: int = 0  # bytes of the log when the task was given
    buffer: bytearray = field(default_factory=bytearray)

    def hear(self) -> list[Message] | None:
        """The messages that have arrived whole; None if the worker is dead."""
        data = os.read(self.stdout.fileno(), 1 << 16)
        self.buffer += data
        if b"\n" not in data:  # an answer may take thousands of reads
            return [] if data else None
        *lines, self.buffer = self.buffer.split(b"\n")
        return [orjson.loads(line) for line in lines]

    def ask(self, request: Message) -> None:
        self.request, self.written = request, self.log.stat().st_size
        with contextlib.suppress(BrokenPipeError):  # it died before the request arrived: its other pipe will say so
            self.stdin.write(orjson.dumps(request, option=orjson.OPT_APPEND_NEWLINE))
            self.stdin.flush()

    def output(self) -> Message:
        """Where the log has what its task printed, if it printed anything."""
        end = self.log.stat().st_size
        return {"output": [self.log.name, self.written, end]} if end > self.written else {}

    @property
    def task(self) -> Message:
        """What it works on, as every message about that says."""
        assert self.request is not None
        return {name: self.request[name] for name in ("artifact", "phase", "task")}


class Workers:
    """Worker processes, started as they are needed.

    Args:
        run: the run folder.
        graph: ``module:function`` that rebuilds the graph from the run folder.
        most: how many there will be at once.
        name: begins the names of their logs, unique among machines and coordinators.
    """

    def __init__(self, run: Path, graph: str, most: int, name: str) -> None:
        self._run, self._graph, self._most, self._name = run, graph, most, name
        self._pool: list[_Worker] = []
        self._numbers = 0
        self._selector = selectors.DefaultSelector()
        self._server: ForkServer | None = None

    def ask(self, request: Message) -> None:
        """Have a worker run a task.

        Args:
            request: ``artifact``, ``phase`` and ``task``; ``memory``, the bytes it may hold; ``threads``, the cores it
                may use; ``careful``, whether its last worker died, so that it needs a new one; ``exclusive``, whether
                it is alone here.
        """
        threads = request["threads"]
        # An idle worker may be dying too.
        worker = self._start(threads) if request["careful"] else self._idle(threads)
        worker.ask(request)

    def hear(self, seconds: float | None = None) -> list[Message]:
        """Wait until workers say something, or others wrote to a file given to :meth:`watch`, or the time is over.

        Returns:
            Each has ``message`` and, unless that is ``ready``, the task's ``artifact``, ``phase`` and ``task``:
            ``ready``, ``progress``, ``compiling``, ``notice``, ``done`` and ``failed`` (with ``log``) as
            :mod:`headrace.flow.worker` sends them; ``died`` has ``reason``, ``at`` (the document it was processing)
            and ``log``. Those of a task's end have ``output`` if it printed anything: the log's name, and from where
            to where.
        """
        ready = [key.data for key, _ in self._selector.select(seconds)]
        return [message for worker in ready if worker is not None for message in self._heard(worker)]

    def watch(self, file: int) -> None:
        """Have :meth:`hear` return also when a file can be read."""
        self._selector.register(file, selectors.EVENT_READ)

    def close(self) -> None:
        """Kill all workers. A training first writes a checkpoint."""
        try:
            for worker in self._pool:
                if worker.request is not None and worker.request["exclusive"]:
                    _ask_to_stop(worker)
        finally:
            for worker in list(self._pool):
                worker.process.kill()
                self._discard(worker)
            if self._server is not None:
                self._server.close()

    def _idle(self, threads: int) -> _Worker:
        """An idle worker. Single-core and all-core workers do not coexist."""
        for worker in [worker for worker in self._pool if worker.request is None]:
            if worker.threads == threads:
                return worker
            self._selector.unregister(worker.stdout)
            worker.process.kill()
            self._discard(worker)
        return self._start(threads)

    def _start(self, threads: int) -> _Worker:
        self._numbers += 1
        logs = self._run / "logs"
        logs.mkdir(exist_ok=True)
        path = logs / f"worker-{self._name}-{self._numbers}.log"
        cores = dict.fromkeys(_THREADS, str(threads))
        with open(path, "ab") as log:
            process = self._forked(cores, log.fileno()) if FORKS else self._spawned(cores, log)
        assert process.stdin is not None
        assert process.stdout is not None
        worker = _Worker(process, process.stdin, process.stdout, path, threads)
        self._pool.append(worker)
        self._selector.register(worker.stdout, selectors.EVENT_READ, worker)
        return worker

    def _forked(self, cores: dict[str, str], log: int) -> Forked:
        path = self._run / "logs" / f"fork-server-{self._name}.log"
        for _ in range(2):  # replace a server that was killed after it started the last worker
            if self._server is None or self._server.gone:
                environment = {**os.environ, **_ALLOCATOR, **dict.fromkeys(_THREADS, "1")}
                self._server = ForkServer(self._run, self._graph, environment, path, self._most)
            if forked := self._server.start(cores, log):
                return forked
        raise TaskFailed(f"workers cannot be started; see {path}")

    def _spawned(self, cores: dict[str, str], log: BinaryIO) -> subprocess.Popen[bytes]:
        return subprocess.Popen(
            [sys.executable, "-m", "headrace.flow.worker", str(self._run), self._graph, str(os.getpid())],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=log,
            env={**os.environ, **_ALLOCATOR, **cores},
            process_group=0,  # Ctrl-C goes to the coordinator, which stops the workers in order
        )

    def _discard(self, worker: _Worker) -> int:
        """Forget a dead worker; returns its exit code, negative for a signal."""
        self._pool.remove(worker)
        code = worker.process.wait()
        for pipe in (worker.stdin, worker.stdout):
            with contextlib.suppress(BrokenPipeError):
                pipe.close()
        if worker.log.exists() and worker.log.stat().st_size == 0:
            worker.log.unlink()
        return code

    def _heard(self, worker: _Worker) -> list[Message]:
        heard = worker.hear()
        if heard is None:
            return self._bury(worker)
        messages = []
        for message in heard:
            if message["message"] != "ready":
                if worker.request is None:
                    continue
                message |= worker.task
            if message["message"] in ("done", "failed"):
                worker.request = None
                message |= worker.output()
                message |= {"log": str(worker.log)} if message["message"] == "failed" else {}
            messages.append(message)
        return messages

    def _bury(self, worker: _Worker) -> list[Message]:
        """A worker's pipe has closed: it is dead, whatever the reason."""
        self._selector.unregister(worker.stdout)
        at, output = self._last_words(worker), worker.output()
        code = self._discard(worker)
        if worker.request is None:
            return []
        reason = f"signal {-code} ({signal.Signals(-code).name})" if code < 0 else f"exit code {code}"
        return [{"message": "died", **worker.task, "reason": reason, "at": at, "log": str(worker.log), **output}]

    def _last_words(self, worker: _Worker) -> str:
        """The document that the worker was processing."""
        if worker.request is None:
            return ""
        folder = self._run / "artifacts" / f"{worker.request['artifact']}.partial" / "at"
        try:
            return (folder / process_name(worker.process.pid)).read_bytes().decode("utf-8", "replace").rstrip()
        except FileNotFoundError:
            return ""


def _ask_to_stop(worker: _Worker) -> None:
    """Send SIGTERM and wait for an answer, or the end: a task that does not listen for the signal ends at once."""
    with contextlib.suppress(ProcessLookupError):
        os.kill(worker.process.pid, signal.SIGTERM)
    while (messages := worker.hear()) is not None:
        if any(message["message"] in ("done", "failed") for message in messages):
            return
