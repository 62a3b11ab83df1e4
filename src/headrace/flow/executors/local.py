"""Worker processes on this machine, watched through their pipes.

A dead worker is seen at once, because its pipe ends: nothing is decided by a time-out. Its task is tried once more,
in a new worker and one document at a time; if that dies too, the run stops and names the document.
"""

from __future__ import annotations

import contextlib
import os
import selectors
import signal
import subprocess
import sys
from collections import deque
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import orjson

from headrace.errors import UserError
from headrace.flow.events import EventLog
from headrace.flow.executors import Request, TaskFailed

# Fixed thresholds make glibc give large blocks back at once instead of learning to keep them, and Arrow's own pools
# keep more still: reading and writing documents peaked 101 MB above the base with them, 49 MB with the system's. Blocks
# below 16 MB are used again, as new pages cost more than what is done with them: with a threshold of 1 MB documents
# took a fifth longer and all steps to the sequences a tenth (200 MB of the corpus), for 14 to 48 MB less a worker.
_ALLOCATOR = {
    "MALLOC_MMAP_THRESHOLD_": "16777216",
    "MALLOC_TRIM_THRESHOLD_": "33554432",
    "MALLOC_ARENA_MAX": "2",
    "ARROW_DEFAULT_MEMORY_POOL": "system",
}
_THREADS = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS", "NUMBA_NUM_THREADS", "RAYON_NUM_THREADS")


@dataclass
class _Worker:
    process: subprocess.Popen[bytes]
    log: Path
    threads: int
    request: Request | None = None
    buffer: bytes = b""

    def ask(self, request: Request, memory: int, careful: bool) -> None:
        self.request = request
        line = {
            "artifact": request.artifact,
            "phase": request.phase,
            "task": request.task,
            "memory": memory,
            "threads": self.threads,
            "careful": careful,
        }
        assert self.process.stdin is not None
        with contextlib.suppress(BrokenPipeError):  # it died before the request came: its other pipe says so
            self.process.stdin.write(orjson.dumps(line, option=orjson.OPT_APPEND_NEWLINE))
            self.process.stdin.flush()


class LocalExecutor:
    """Runs tasks in ``workers`` processes under one memory budget.

    Args:
        run: the run folder.
        graph: ``module:function`` that rebuilds the graph from the run folder.
        workers: how many processes at most.
        memory: bytes for data in all of them together.
    """

    def __init__(self, run: Path, graph: str, workers: int, memory: int) -> None:
        self.run, self.graph, self.workers, self.memory = run, graph, workers, memory
        self._pool: list[_Worker] = []
        self._numbers = 0

    def map(self, requests: list[Request], log: EventLog) -> None:
        """Do all requests.

        Raises:
            UserError: a task met something the user can mend, or killed its worker twice.
            TaskFailed: a task raised something unexpected.
        """
        if not requests:
            return
        exclusive = any(request.exclusive for request in requests)
        least = max(request.least for request in requests)
        parallel = 1 if exclusive else max(1, min(self.workers, len(requests), self.memory // max(least, 1)))
        threads = self.workers if exclusive else 1
        if any(worker.threads != threads for worker in self._pool):
            self.close()
        _Round(self, requests, parallel, threads, log).run()

    def worker(self, threads: int) -> _Worker:
        """Start a worker process."""
        self._numbers += 1
        logs = self.run / "logs"
        logs.mkdir(exist_ok=True)
        path = logs / f"worker-{os.getpid()}-{self._numbers}.log"
        environment = {**os.environ, **_ALLOCATOR, **dict.fromkeys(_THREADS, str(threads))}
        with open(path, "ab") as stderr:
            process = subprocess.Popen(
                [sys.executable, "-m", "headrace.flow.worker", str(self.run), self.graph, str(os.getpid())],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=stderr,
                env=environment,
                process_group=0,  # Ctrl-C goes to the coordinator, which ends the workers in order
            )
        worker = _Worker(process, path, threads)
        self._pool.append(worker)
        return worker

    def idle(self, threads: int, limit: int) -> list[_Worker]:
        """Up to ``limit`` workers that wait for work."""
        while len(self._pool) < limit:
            self.worker(threads)
        return self._pool[:limit]

    def discard(self, worker: _Worker) -> int:
        """Forget a dead worker; its exit code, negative for a signal."""
        self._pool.remove(worker)
        code = worker.process.wait()
        for pipe in (worker.process.stdin, worker.process.stdout):
            if pipe is not None:
                with contextlib.suppress(BrokenPipeError):
                    pipe.close()
        if worker.log.exists() and worker.log.stat().st_size == 0:
            worker.log.unlink()
        return code

    def close(self) -> None:
        """End all workers: they leave at once, and whatever they were doing is done again next time."""
        for worker in list(self._pool):
            worker.process.kill()
            self.discard(worker)


class _Round:
    """One call of ``map``: hands out requests and listens."""

    def __init__(self, pool: LocalExecutor, requests: list[Request], parallel: int, threads: int, log: EventLog):
        self.pool, self.parallel, self.threads, self.log = pool, parallel, threads, log
        self.waiting = deque(requests)
        self.deaths: dict[int, int] = {}
        self.running = 0
        self.error: Exception | None = None
        self.selector = selectors.DefaultSelector()

    def run(self) -> None:
        for worker in self.pool.idle(self.threads, self.parallel):
            self.watch(worker)
        while self.running:
            for key, _ in self.selector.select():
                self.hear(key.data)
        self.selector.close()
        if self.error is not None:
            raise self.error

    def watch(self, worker: _Worker) -> None:
        assert worker.process.stdout is not None
        self.selector.register(worker.process.stdout, selectors.EVENT_READ, worker)
        self.give(worker)

    def give(self, worker: _Worker) -> None:
        worker.request = None
        if self.waiting and self.error is None:
            request = self.waiting.popleft()
            worker.ask(request, self.pool.memory // self.parallel, careful=request.task in self.deaths)
            self.running += 1

    def hear(self, worker: _Worker) -> None:
        assert worker.process.stdout is not None
        data = os.read(worker.process.stdout.fileno(), 1 << 16)
        if not data:
            self.buried(worker)
            return
        *lines, worker.buffer = (worker.buffer + data).split(b"\n")
        for line in lines:
            self.handle(worker, orjson.loads(line))

    def handle(self, worker: _Worker, message: dict[str, Any]) -> None:
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
        self.running -= 1
        if kind == "done":
            self.log.emit("task", **where, task=request.task, **message)
        elif message["user"]:
            self.fail(UserError(message["what"], message["where"], message["mend"]))
        else:
            name = f"{request.artifact}, phase {request.phase}, task {request.task}"
            self.fail(TaskFailed(f"{message['what']} ({name}; the traceback is in {worker.log})"))
        self.give(worker)

    def fail(self, error: Exception) -> None:
        self.error = self.error or error

    def buried(self, worker: _Worker) -> None:
        """A worker's pipe has ended: it is dead, whatever the reason."""
        assert worker.process.stdout is not None
        self.selector.unregister(worker.process.stdout)
        request, at = worker.request, self.last_words(worker)
        code = self.pool.discard(worker)
        if request is None:
            return
        self.running -= 1
        reason = f"signal {-code} ({signal.Signals(-code).name})" if code < 0 else f"exit code {code}"
        where = {"artifact": request.artifact, "phase": request.phase}
        self.log.emit("died", **where, task=request.task, reason=reason, at=at)
        self.deaths[request.task] = self.deaths.get(request.task, 0) + 1
        if self.deaths[request.task] < 2:
            self.waiting.appendleft(request)
            self.watch(self.pool.worker(self.threads))
        else:
            self.fail(
                UserError(
                    f"A task killed its worker twice: {reason}.",
                    f"{request.artifact}, phase {request.phase}, task {request.task}" + (f", at {at}" if at else ""),
                    f"Leave that document out, or use fewer --workers if memory ran out; its log: {worker.log}",
                )
            )

    def last_words(self, worker: _Worker) -> str:
        """Which document the worker was handling."""
        if worker.request is None:
            return ""
        folder = self.pool.run / "artifacts" / f"{worker.request.artifact}.partial" / "at"
        try:
            return (folder / str(worker.process.pid)).read_bytes().decode("utf-8", "replace").rstrip()
        except FileNotFoundError:
            return ""
