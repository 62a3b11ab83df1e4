"""Worker processes on this machine, watched through their pipes.

A dead worker is noticed at once, because its pipe closes: nothing depends on a timeout. Its task is retried once, in a
new worker and one document at a time; if that dies too, the run stops and names the document.

Memory is assigned with the tasks. Each gets an equal share of the budget, a larger share if its phase has fewer tasks
than there are workers, or the least it needs; running tasks never exceed the budget together, unless a single task
needs more than all of it. Tasks start in the order they were submitted: one that must wait for memory, or for others to
end because it is exclusive, holds up those behind it, so none starves.
"""

from __future__ import annotations

import contextlib
import os
import selectors
import signal
import socket
import subprocess
import sys
from collections import deque
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any, BinaryIO

import orjson

from headrace.errors import UserError
from headrace.flow.artifact import DamagedArtifact
from headrace.flow.events import EventLog
from headrace.flow.executors import Request, TaskFailed
from headrace.flow.executors.fork_server import Forked, ForkServer

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


@dataclass
class _Worker:
    process: subprocess.Popen[bytes] | Forked
    stdin: IO[bytes]
    stdout: IO[bytes]
    log: Path
    threads: int
    request: Request | None = None
    memory: int = 0
    buffer: bytes = b""

    def ask(self, request: Request, memory: int, careful: bool) -> None:
        self.request, self.memory = request, memory
        line = {
            "artifact": request.artifact,
            "phase": request.phase,
            "task": request.task,
            "memory": memory,
            "threads": self.threads,
            "careful": careful,
        }
        with contextlib.suppress(BrokenPipeError):  # it died before the request arrived: its other pipe will say so
            self.stdin.write(orjson.dumps(line, option=orjson.OPT_APPEND_NEWLINE))
            self.stdin.flush()


class LocalExecutor:
    """Runs tasks in ``workers`` processes under one memory budget.

    Args:
        run: the run folder.
        graph: ``module:function`` that rebuilds the graph from the run folder.
        workers: how many processes at most.
        memory: bytes of data that all of them may hold together.
        log: receives all events.
    """

    def __init__(self, run: Path, graph: str, workers: int, memory: int, log: EventLog) -> None:
        self.run, self.graph, self.workers, self.memory, self.log = run, graph, workers, memory, log
        self._pool: list[_Worker] = []
        self._numbers = 0
        self._waiting: deque[tuple[Request, int]] = deque()
        self._done: deque[Request] = deque()
        self._deaths: dict[Request, int] = {}
        self._alone: set[Request] = set()
        self._error: Exception | None = None
        self._selector = selectors.DefaultSelector()
        self._server: ForkServer | None = None

    # The executor's interface.

    def submit(self, requests: list[Request]) -> None:
        """Submit the tasks of a phase."""
        share = self.memory // max(1, min(self.workers, len(requests)))
        self._waiting += [(request, min(share, request.most or share)) for request in requests]
        self._hand_out()

    def wait(self) -> Request:
        """Wait until any task is done.

        Raises:
            UserError: a task failed for a reason that the user can fix, or killed its worker twice.
            TaskFailed: a task raised an unexpected error. In both cases the other running tasks have ended.
        """
        while not self._done and (self._error is None or self._running):
            for key, _ in self._selector.select():
                self._hear(key.data)
        if self._error is not None:
            raise self._error
        return self._done.popleft()

    @property
    def idle(self) -> bool:
        """Whether a worker has nothing to do and no task is waiting."""
        return not self._waiting and len(self._running) < self.workers and not self._exclusive

    def close(self) -> None:
        """Kill all workers; whatever they were doing is done again next time. A training first writes a checkpoint."""
        try:
            for worker in self._running:
                if worker.request is not None and worker.request.exclusive:
                    _ask_to_stop(worker)
        finally:
            for worker in list(self._pool):
                worker.process.kill()
                self._discard(worker)
            if self._server is not None:
                self._server.close()

    # Assigning tasks.

    @property
    def _running(self) -> list[_Worker]:
        return [worker for worker in self._pool if worker.request is not None]

    @property
    def _exclusive(self) -> bool:
        return any(worker.request.exclusive for worker in self._running if worker.request)

    def _hand_out(self) -> None:
        while self._waiting and self._error is None:
            running = self._running
            request, wanted = self._waiting[0]
            alone = request.exclusive or request in self._alone
            if running and (alone or self._exclusive or len(running) >= self.workers):
                return
            free = self.memory - sum(worker.memory for worker in running)
            share = min(wanted, self.memory // self.workers) if request.most is None else wanted
            if running and free < max(request.least, share):
                return
            self._waiting.popleft()
            threads, again = self.workers if request.exclusive else 1, request in self._deaths
            worker = self._start(threads) if again else self._worker(threads)  # an idle one may be dying too
            worker.ask(request, min(max(wanted, request.least), free), careful=again)

    def _worker(self, threads: int) -> _Worker:
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
        logs = self.run / "logs"
        logs.mkdir(exist_ok=True)
        path = logs / f"worker-{os.getpid()}-{self._numbers}.log"
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
        path = self.run / "logs" / f"fork-server-{os.getpid()}.log"
        for _ in range(2):  # replace a server that was killed after it started the last worker
            if self._server is None or self._server.gone:
                environment = {**os.environ, **_ALLOCATOR, **dict.fromkeys(_THREADS, "1")}
                self._server = ForkServer(self.run, self.graph, environment, path, self.workers)
            if forked := self._server.start(cores, log):
                return forked
        raise TaskFailed(f"workers cannot be started; see {path}")

    def _spawned(self, cores: dict[str, str], log: BinaryIO) -> subprocess.Popen[bytes]:
        return subprocess.Popen(
            [sys.executable, "-m", "headrace.flow.worker", str(self.run), self.graph, str(os.getpid())],
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

    # Receiving messages.

    def _hear(self, worker: _Worker) -> None:
        data = os.read(worker.stdout.fileno(), 1 << 16)
        if not data:
            self._bury(worker)
            return
        *lines, worker.buffer = (worker.buffer + data).split(b"\n")
        for line in lines:
            self._handle(worker, orjson.loads(line))

    def _handle(self, worker: _Worker, message: dict[str, Any]) -> None:
        kind, request = message.pop("message"), worker.request
        if kind == "ready":
            self.log.emit("worker", **message)
            return
        if request is None:
            return
        where = {"artifact": request.artifact, "phase": request.phase}
        if kind in ("progress", "compiling"):
            self.log.emit(kind, **where, **message)
            return
        if kind == "notice":
            self.log.notice(message["text"])
            return
        worker.request = None
        if kind == "done":
            self.log.emit("task", **where, task=request.task, **message)
            self._done.append(request)
        elif message.get("more") and worker.memory < self.memory:
            self._alone.add(request)
            self._waiting.append((request, self.memory))
        elif message["user"]:
            text = message["what"], message["where"], message["fix"]
            self._fail(DamagedArtifact(*text, message["damaged"]) if message["damaged"] else UserError(*text))
        else:
            name = f"{request.artifact}, phase {request.phase}, task {request.task}"
            self._fail(TaskFailed(f"{message['what']} ({name}; the traceback is in {worker.log})"))
        self._hand_out()

    def _fail(self, error: Exception) -> None:
        self._error = self._error or error

    def _bury(self, worker: _Worker) -> None:
        """A worker's pipe has closed: it is dead, whatever the reason."""
        self._selector.unregister(worker.stdout)
        request, memory, at = worker.request, worker.memory, self._last_words(worker)
        code = self._discard(worker)
        if request is None:
            return
        reason = f"signal {-code} ({signal.Signals(-code).name})" if code < 0 else f"exit code {code}"
        where = {"artifact": request.artifact, "phase": request.phase}
        self.log.emit("died", **where, task=request.task, reason=reason, at=at)
        self._deaths[request] = self._deaths.get(request, 0) + 1
        if self._deaths[request] < 2:
            self._waiting.appendleft((request, memory))
            self._hand_out()
        else:
            self._fail(
                UserError(
                    f"A task killed its worker twice: {reason}.",
                    f"{request.artifact}, phase {request.phase}, task {request.task}" + (f", at {at}" if at else ""),
                    f"Exclude that document, or use fewer --workers if memory ran out; log: {worker.log}",
                )
            )

    def _last_words(self, worker: _Worker) -> str:
        """The document that the worker was processing."""
        if worker.request is None:
            return ""
        folder = self.run / "artifacts" / f"{worker.request.artifact}.partial" / "at"
        try:
            told = (folder / f"{socket.gethostname()}-{worker.process.pid}").read_bytes()
            return told.decode("utf-8", "replace").rstrip()
        except FileNotFoundError:
            return ""


def _ask_to_stop(worker: _Worker) -> None:
    """Send SIGTERM and wait for an answer, or the end: a task that does not listen for the signal ends at once."""
    with contextlib.suppress(ProcessLookupError):
        os.kill(worker.process.pid, signal.SIGTERM)
    while data := os.read(worker.stdout.fileno(), 1 << 16):
        *lines, worker.buffer = (worker.buffer + data).split(b"\n")
        if any(orjson.loads(line)["message"] in ("done", "failed") for line in lines):
            return
