"""A schedule of faults, from a seed, against runs on a cluster: at events, never at times.

``python tests/chaos/faults.py FOLDER SEED FAULTS [NODES]`` makes the same run again and again, each in a new folder,
with faults until there were so many; it compares all bytes of each run with those of one machine without faults, and
prints what happened.
"""

from __future__ import annotations

import atexit
import json
import os
import random
import select
import shutil
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from ray_nodes import Nodes

HERE = Path(__file__).parent
PROGRAM = HERE / "chaos_graph.py"
FAULTS = ("worker", "worker", "worker", "agent", "node", "coordinator", "join")
MOST_NODES = 4
APART = (2, 12)  # events between faults
HANGS = 240  # seconds without any event


def contents(run: Path) -> dict[str, bytes]:
    """Every byte that was published."""
    base = run / "artifacts"
    return {str(p.relative_to(base)): p.read_bytes() for p in sorted(base.rglob("*")) if p.is_file()}


def started(run: Path | str, *address: str) -> subprocess.Popen[bytes]:
    """A coordinator of a run in a folder or at a URL."""
    return subprocess.Popen([sys.executable, str(PROGRAM), str(run), *address], stdout=subprocess.PIPE)


def events_of(process: subprocess.Popen[bytes]) -> Iterator[dict[str, Any]]:
    """The events of a coordinator until it ends.

    Raises:
        TimeoutError: nothing happens any more.
    """
    assert process.stdout is not None
    buffer = b""
    while True:
        if not select.select([process.stdout], [], [], HANGS)[0]:
            process.kill()
            raise TimeoutError(f"no event for {HANGS} s")
        data = os.read(process.stdout.fileno(), 1 << 16)
        if not data:
            return
        *lines, buffer = (buffer + data).split(b"\n")
        yield from map(json.loads, lines)


class Chaos:
    """Faults against runs.

    Args:
        nodes: the cluster.
        seed: of the schedule.
    """

    def __init__(self, nodes: Nodes, seed: int) -> None:
        self.nodes, self.draw = nodes, random.Random(seed)
        self.done: Counter[str] = Counter()
        self.died: Counter[str] = Counter()

    def run(self, folder: Path, most: int) -> None:
        """Make the run, with at most so many faults, by the same command as often as it takes."""
        left = most
        while True:
            process, workers, joined = started(folder, self.nodes.address), dict[int, str](), list[str]()
            self.process = process
            wait, killed = self.draw.randint(*APART), False
            for event in events_of(process):
                kind = event["event"]
                if kind == "worker":
                    workers[event["pid"]] = event["node"]
                elif kind == "node" and event["state"] == "joined":
                    joined.append(event["node"])
                elif kind == "node":
                    joined.remove(event["node"])
                    self.died["nodes"] += 1
                elif kind == "died":
                    self.died["workers"] += 1
                elif kind == "error":
                    self.died["stops"] += 1
                    print("stopped:", event["what"], flush=True)
                if kind not in ("start", "task", "phase", "artifact") or killed or not left or not joined:
                    continue
                wait -= 1
                if wait > 0:
                    continue
                wait = self.draw.randint(*APART)
                fault = self.draw.choice(FAULTS)
                if self.fault(fault, process, workers, joined):
                    left -= 1
                    self.done[fault] += 1
                    killed = fault == "coordinator"
            code = process.wait()
            if code == 0:
                return
            assert code in (2, -signal.SIGKILL), f"the coordinator ended with {code}"

    def fault(self, fault: str, process: subprocess.Popen[bytes], workers: dict[int, str], joined: list[str]) -> bool:
        """Do harm; whether there was something to harm."""
        if fault == "coordinator":
            process.kill()
        elif fault == "join":
            if len(self.nodes.nodes) >= MOST_NODES:
                return False
            self.nodes.add()
        elif fault == "node":
            if len(joined) < 2:
                return False
            name = self.draw.choice(sorted(joined))
            self.nodes.kill(name)
            self.nodes.add()
        else:
            here = sorted(pid for pid, node in workers.items() if node in joined and _is_worker(pid))
            if not here:
                return False
            victim = self.draw.choice(here)
            if fault == "agent":  # the parent of the process that workers are forked from
                victim = _parent(_parent(victim))
            try:
                os.kill(victim, signal.SIGKILL)
            except ProcessLookupError:
                return False
        return True


def _is_worker(pid: int) -> bool:
    try:
        return b"fork_server" in Path(f"/proc/{pid}/cmdline").read_bytes()
    except (FileNotFoundError, ProcessLookupError):
        return False


def _parent(pid: int) -> int:
    try:
        return int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[1])
    except (FileNotFoundError, ProcessLookupError):
        return 1 << 22  # nobody's


def expected(folder: Path) -> dict[str, bytes]:
    """The bytes of one machine without faults."""
    process = started(folder)
    for _ in events_of(process):
        pass
    assert process.wait() == 0
    return contents(folder)


def main() -> None:
    folder, seed, faults = Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3])
    number = int(sys.argv[4]) if sys.argv[4:] else 2
    right, begun = expected(folder / "local"), time.monotonic()
    with Nodes(number) as nodes:
        chaos, runs = Chaos(nodes, seed), 0
        atexit.register(lambda: chaos.process.kill())
        while sum(chaos.done.values()) < faults:
            run = folder / f"run-{runs}"
            chaos.run(run, min(10, faults - sum(chaos.done.values())))
            found = contents(run)
            different = [name for name in right.keys() | found.keys() if right.get(name) != found.get(name)]
            assert not different, different
            runs += 1
            shutil.rmtree(run)
            print(f"{runs} runs, {sum(chaos.done.values())} faults {dict(chaos.done)}, seen {dict(chaos.died)}, "
                  f"{time.monotonic() - begun:.0f} s, 0 differences", flush=True)  # fmt: skip


if __name__ == "__main__":
    main()
