"""A process that has imported everything and built the graph, from which workers are forked: they share its memory and
start at once.

Libraries and our modules take about 160 MB and most of a second in every process that imports them itself. A forked
worker shares those pages until it writes to them. The server is a single thread that does nothing but fork and wait, so
no lock can be held when it forks. It runs on Linux only: on macOS the system's libraries do not survive a fork.

For each request the coordinator sends one packet of JSON and gets one in return: ``{"start": environment}``, with the
descriptors of the worker's requests, answers and log, returns ``{"pid": ...}``; ``{"wait": pid}`` returns ``{"code":
...}``.
"""

from __future__ import annotations

import gc
import importlib
import os
import signal
import socket
import subprocess
import sys
from contextlib import suppress
from pathlib import Path
from typing import Any, BinaryIO

import orjson

from headrace.flow import worker
from headrace.flow.step import Step

PACKET = 1 << 16  # the names in a worker's environment are far smaller
# From this many workers on, kernels are loaded once, before forking, rather than by each worker as needed: all of them
# take 2 s and 120 MB (the 219 compiled versions that the steps use).
MANY = 8


class Forked:
    """A forked worker, with the part of :class:`subprocess.Popen`'s interface that the executor uses.

    Attributes:
        pid: its process id.
        stdin: the pipe of its requests.
        stdout: the pipe of its answers.
    """

    def __init__(self, server: ForkServer, pid: int, stdin: BinaryIO, stdout: BinaryIO) -> None:
        self._server, self.pid, self.stdin, self.stdout = server, pid, stdin, stdout

    def kill(self) -> None:
        """Kill it."""
        with suppress(ProcessLookupError):
            os.kill(self.pid, signal.SIGKILL)

    def wait(self) -> int:
        """Wait until it ends; its exit code, negative for a signal."""
        return self._server.wait(self.pid)


class ForkServer:
    """The coordinator's side of one server.

    Args:
        run: the run folder.
        graph: ``module:function`` that rebuilds the graph from the run folder.
        environment: the environment of the server, and so of every worker.
        log: the file for the server's own output.
        workers: how many workers will be started.

    Attributes:
        gone: the server has died or was closed, and all of its workers with it.
    """

    def __init__(self, run: Path, graph: str, environment: dict[str, str], log: Path, workers: int) -> None:
        self.log, self.gone = log, False
        self._socket, other = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        command = [sys.executable, "-m", __name__, str(run), graph, str(os.getpid()), str(other.fileno())]
        with other, open(log, "ab") as out:
            self._process = subprocess.Popen(
                [*command, "kernels"] if workers >= MANY else command,
                stdin=subprocess.DEVNULL,
                stdout=out,
                stderr=out,
                env=environment,
                pass_fds=[other.fileno()],
                process_group=0,
            )

    def start(self, environment: dict[str, str], log: int) -> Forked | None:
        """Fork a worker.

        Args:
            environment: variables to set in addition to the server's.
            log: the descriptor of the file for its output.

        Returns:
            The worker, or None if the server is gone.
        """
        requests, stdin = os.pipe()
        stdout, answers = os.pipe()
        reply = self._ask({"start": environment}, [requests, answers, log])
        os.close(requests)
        os.close(answers)
        if reply is None:
            os.close(stdin)
            os.close(stdout)
            return None
        return Forked(self, reply["pid"], os.fdopen(stdin, "wb", 0), os.fdopen(stdout, "rb", 0))

    def wait(self, pid: int) -> int:
        """The exit code of a worker that has ended or is ending; the server's own if the server is gone too."""
        reply = self._ask({"wait": pid}, [])
        return -signal.SIGKILL if reply is None else int(reply["code"])

    def close(self) -> None:
        """Stop the server and all remaining workers."""
        if self.gone:
            return
        self.gone = True
        self._socket.close()
        self._process.kill()
        self._process.wait()
        if self.log.exists() and self.log.stat().st_size == 0:
            self.log.unlink()

    def _ask(self, wish: dict[str, Any], descriptors: list[int]) -> dict[str, Any] | None:
        """The server's reply, or None if it is gone."""
        if self.gone:
            return None
        try:
            socket.send_fds(self._socket, [orjson.dumps(wish)], descriptors)
            reply = self._socket.recv(PACKET)
        except OSError:
            reply = b""
        if reply:
            return dict(orjson.loads(reply))
        self.close()
        return None


def serve(run: Path, graph: str, steps: dict[str, Step] | None, wishes: socket.socket) -> None:
    """Fork and wait until the coordinator is gone."""
    while True:
        packet, descriptors, _, _ = socket.recv_fds(wishes, PACKET, 3)
        if not packet:
            return
        wish = orjson.loads(packet)
        if "wait" in wish:
            _, status = os.waitpid(wish["wait"], 0)
            wishes.send(orjson.dumps({"code": os.waitstatus_to_exitcode(status)}))
            continue
        server = os.getpid()
        pid = os.fork()
        if pid == 0:
            os.setpgid(0, 0)
            wishes.close()
            os.environ.update(wish["start"])
            requests, answers, log = descriptors
            worker.become_worker(run, graph, server, requests, answers, log, steps)
        for descriptor in descriptors:
            os.close(descriptor)
        wishes.send(orjson.dumps({"pid": pid}))


def main() -> None:
    """``python -m headrace.flow.executors.fork_server RUN MODULE:FUNCTION COORDINATOR SOCKET [kernels]``."""
    run, graph, coordinator, descriptor, *kernels = sys.argv[1:]
    worker.die_with_parent(int(coordinator))
    gc.disable()  # imports create no garbage, and looking for it takes a sixth of their time
    module = importlib.import_module(graph.partition(":")[0])
    if preload := getattr(module, "preload", None):
        preload(Path(run))
    steps = None
    with suppress(Exception):  # a worker tries again, and reports what is wrong
        steps = worker.load_graph(graph, Path(run))
    worker.resident_bytes()  # this imports what it needs
    if kernels:
        from headrace.flow.kernels import load_compiled

        load_compiled()
    gc.collect()
    gc.freeze()  # no later collection writes to the pages that workers share
    gc.enable()
    serve(Path(run), graph, steps, socket.socket(fileno=int(descriptor)))


if __name__ == "__main__":
    main()
