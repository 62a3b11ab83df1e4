"""A worker process: reads task requests as JSON lines on standard input, runs them, answers on standard output.

It rebuilds the graph from the run folder, so only names and numbers pass between processes. It ends when its standard
input closes, whether the coordinator closed it or was killed. On Linux the kernel also kills it at once with the
coordinator, since the listening thread may be waiting for a compiled kernel while another run starts in the same
folder.
"""

from __future__ import annotations

import ctypes
import gc
import importlib
import os
import queue
import resource
import signal
import sys
import threading
import time
import traceback
from collections.abc import Iterator
from pathlib import Path
from typing import Any, BinaryIO, NoReturn

import orjson

from headrace.errors import MemoryShareError, UserError
from headrace.flow.artifact import DamagedArtifact
from headrace.flow.compiling import CompileWatch
from headrace.flow.notices import notices_to
from headrace.flow.step import Step, execute, topological
from headrace.flow.storage import explain_os_error
from headrace.flow.task import TaskContext
from headrace.visible import json_line, visible

_PR_SET_PDEATHSIG = 1  # linux/prctl.h

REPORT_SECONDS = 0.2  # minimum interval between progress messages
# Objects made between two looks for garbage. With Python's 700 the looks are some 5 % of the processor time of reading
# documents. 50,000 are a little faster still, but cycles that a user's function leaves would pile up.
GARBAGE = 10_000
IDLE_SECONDS = 0.1  # without a request until memory is given back; the next task's comes within milliseconds


def load_graph(graph: str, run: Path) -> dict[str, Step]:
    """The steps of a run by name, from ``module:function``, which takes the run folder and returns the targets."""
    module, _, function = graph.partition(":")
    targets = getattr(importlib.import_module(module), function)(run)
    return {step.name: step for step in topological(targets)}


class _Reporter:
    """Sums progress and sends it at most every ``REPORT_SECONDS``."""

    def __init__(self, out: BinaryIO) -> None:
        self.out, self.rows, self.bytes, self.sent = out, 0, 0, time.monotonic()
        self.total_rows, self.total_bytes = 0, 0
        self.within: dict[str, Any] = {}

    def __call__(self, amount: dict[str, Any]) -> None:
        self.rows += amount.pop("rows")
        self.bytes += amount.pop("bytes")
        self.within = amount
        if time.monotonic() - self.sent > REPORT_SECONDS:
            self.flush()

    def flush(self) -> None:
        if self.rows or self.bytes:
            send(self.out, {"message": "progress", "rows": self.rows, "bytes": self.bytes, **self.within})
        self.total_rows, self.total_bytes = self.total_rows + self.rows, self.total_bytes + self.bytes
        self.rows, self.bytes, self.sent = 0, 0, time.monotonic()


def send(out: BinaryIO, message: dict[str, Any]) -> None:
    """Write one JSON line."""
    out.write(json_line(message))
    out.flush()


def serve(run: Path, steps: dict[str, Step], requests: BinaryIO, out: BinaryIO) -> None:
    """Serve requests until there are no more."""
    send(out, {"message": "ready", "pid": os.getpid(), "base": resident_bytes()})
    lines: queue.SimpleQueue[bytes] = queue.SimpleQueue()

    def listen() -> None:
        for line in requests:
            lines.put(line)
        os._exit(0)  # the coordinator is gone or done with us: whatever is running will be done again elsewhere

    threading.Thread(target=listen, daemon=True).start()
    compiling = CompileWatch(lambda: send(out, {"message": "compiling"}))
    with notices_to(lambda text: send(out, {"message": "notice", "text": text})):
        work(run, steps, lines, out, compiling)


def work(
    run: Path, steps: dict[str, Step], lines: queue.SimpleQueue[bytes], out: BinaryIO, compiling: CompileWatch
) -> None:
    """Serve one request after another; never returns."""
    for request in requests_of(lines):
        reporter = _Reporter(out)
        started = time.monotonic()
        if request["artifact"] not in steps:
            send(out, {"message": "failed", **told(_another_graph(request["artifact"], run))})
            continue
        step = steps[request["artifact"]]
        ctx = TaskContext(
            run,
            step,
            request["phase"],
            request["task"],
            request["memory"],
            request["threads"],
            request["careful"],
            reporter,
        )
        try:
            marker = execute(step, ctx)
        except Exception as error:
            send(out, {"message": "failed", **describe(error, ctx)})
            continue
        reporter.flush()
        send(
            out,
            {
                "message": "done",
                "marker": marker,
                "seconds": round(time.monotonic() - started, 3),
                "rows": reporter.total_rows,
                "bytes": reporter.total_bytes,
                "peak": peak_bytes(),
                "compiled": round(compiling.take(), 3),
            },
        )


def _another_graph(artifact: str, run: Path) -> UserError:
    return UserError(
        f"An input of {artifact} has changed since the run began: a tokenizer, a benchmark or another file named in "
        "the recipe.",
        str(run),
        "Run again: only what depends on it is redone.",
    )


def describe(error: Exception, ctx: TaskContext) -> dict[str, Any]:
    """An exception as a message to the coordinator; a traceback goes to the log if it was unexpected."""
    user = error if isinstance(error, UserError) else explain_os_error(error, ctx.folder)
    if user is None and isinstance(error, MemoryError):
        user = UserError(
            "There was not enough memory.", ctx.step.name, "Use fewer --workers or a machine with more memory."
        )
    if user is not None:
        return told(user)
    print(visible(traceback.format_exc()), file=sys.stderr, flush=True)
    return {"user": False, "what": f"{type(error).__name__}: {error}", "where": "", "fix": "", "damaged": ""}


def told(error: UserError) -> dict[str, Any]:
    """A user-facing error as a message."""
    damaged = error.artifact if isinstance(error, DamagedArtifact) else ""
    more = isinstance(error, MemoryShareError)
    return {
        "user": True, "what": error.what, "where": error.where, "fix": error.fix, "damaged": damaged, "more": more
    }  # fmt: skip


def requests_of(lines: queue.SimpleQueue[bytes]) -> Iterator[dict[str, Any]]:
    """Yield requests as they arrive.

    Memory freed by a task is returned to the system if no other task follows at once, or one of another phase, because
    it would count against what others may use. A task of the same phase reuses it, without a page fault for every 4 kB:
    reading 300 MB of documents now takes 50,000 faults instead of 260,000, and a tenth less CPU time.
    """
    last = None
    while True:
        try:
            line = lines.get(timeout=None if last is None else IDLE_SECONDS)
        except queue.Empty:
            release_memory()
            last = None
            continue
        request = orjson.loads(line)
        kind = request["artifact"], request["phase"]
        if last not in (None, kind):
            release_memory()
        last = kind
        yield request


def release_memory() -> None:
    """Return freed memory to the system."""
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None)  # glibc only
    if trim is not None:
        trim(0)


def resident_bytes() -> int:
    """The current resident set of this process, in bytes."""
    import psutil

    return int(psutil.Process().memory_info().rss)


def peak_bytes() -> int:
    """The largest resident set of this process so far, in bytes.

    Read from the kernel's VmHWM where available: ru_maxrss can include the parent's peak from before exec.
    """
    try:
        status = Path("/proc/self/status").read_text()
        return int(status.split("VmHWM:")[1].split()[0]) * 1024
    except (OSError, IndexError):
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def die_with_parent(parent: int) -> None:
    """Have this process killed when its parent ends, where the system supports that."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
        if os.getppid() != parent:  # it had already ended
            os._exit(0)


def become_worker(
    run: Path, graph: str, parent: int, requests: int, answers: int, log: int, steps: dict[str, Step] | None = None
) -> NoReturn:
    """Turn this process into a worker; never returns.

    Args:
        run: the run folder.
        graph: ``module:function`` that rebuilds the graph.
        parent: the parent process, with which it ends.
        requests: the descriptor of the pipe for requests.
        answers: the descriptor of the pipe for answers.
        log: the descriptor of the file for printed output: what a library prints must not mix with the answers.
        steps: the graph's steps, if already known.
    """
    die_with_parent(parent)
    channel = os.fdopen(os.dup(answers), "wb", buffering=0)
    os.dup2(requests, 0)
    os.dup2(log, 2)
    os.dup2(2, 1)
    for descriptor in {requests, answers, log} - {0, 1, 2}:
        os.close(descriptor)
    gc.set_threshold(GARBAGE)
    import pyarrow as pa

    pa.set_cpu_count(1)  # the cores belong to the workers, and single threads keep memory predictable
    pa.set_io_thread_count(1)
    try:
        steps = load_graph(graph, run) if steps is None else steps
        serve(run, steps, open(0, "rb", buffering=0, closefd=False), channel)  # noqa: SIM115 - as long as the process
    except BrokenPipeError:
        os._exit(0)
    except Exception as error:
        user = error if isinstance(error, UserError) else explain_os_error(error, run)
        if user is not None:
            send(channel, {"message": "failed", **told(user)})
        else:
            traceback.print_exc()
            sys.stderr.flush()
    os._exit(1)


if __name__ == "__main__":  # python -m headrace.flow.worker RUN MODULE:FUNCTION PARENT
    become_worker(Path(sys.argv[1]), sys.argv[2], int(sys.argv[3]), 0, 1, 2)
