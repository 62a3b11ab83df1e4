"""The real coordinator (runner, pool, journals) and a simulated cluster: makespan against the ideal, and its own load.

    python -m bench.cluster --tokens 1.21e12 --nodes 1000 --cores 10
    python -m bench.cluster --tasks 100000

Workers are simulated in virtual time: a task takes its share of the phase's core-seconds at the rates of `headrace
plan`, times a spread; nodes differ, fail and come back. The coordinator is not: the processor time that it takes for
each message passes in virtual time too, while messages and idle cores wait for it. Every figure printed is simulated
but for the coordinator's processor time, memory and open files.
"""

from __future__ import annotations

import argparse
import heapq
import json
import math
import random
import resource
import tempfile
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any

import psutil

from headrace.flow.events import EventLog
from headrace.flow.executors.pool import Node, Pool
from headrace.flow.runner import make
from headrace.flow.step import Phase, Step, topological
from headrace.planning.cluster import Round, Storage, rounds_of
from headrace.planning.rates import work

# Assumed, not measured. Of the time of a task over the mean of its phase: the standard deviation of its logarithm.
SPREAD = 0.25
# Assumed too: nodes differ by so much, and one in a hundred is three times slower.
NODE_SPREAD, SLOW, SLOWER = 0.05, 0.01, 3.0


@dataclass(frozen=True)
class Simulated(Step):
    """An artifact whose tasks do nothing but take time."""

    kind = "simulated"
    VERSION = 1
    stage: str = ""
    rounds: tuple[Round, ...] = ()
    needs: tuple[Simulated, ...] = ()

    def params(self) -> dict[str, Any]:
        return {"name": self.stage, "rounds": [asdict(one) for one in self.rounds]}

    def inputs(self) -> dict[str, Step]:
        return {need.stage: need for need in self.needs}

    def phases(self) -> list[Phase]:
        return [Phase(one.name, partial(_plan, one.tasks), _none) for one in self.rounds]

    def finish(self, ctx: Any) -> dict[str, Any]:
        return {"counts": {one.name: sum(result["rows"] for result in ctx.results(one.name)) for one in self.rounds}}


def _plan(tasks: int, ctx: Any) -> list[dict[str, Any]]:
    return [{"size": 1}] * tasks


def _none(ctx: Any, spec: dict[str, Any]) -> dict[str, Any]:
    raise AssertionError("tasks are simulated")


@dataclass(frozen=True)
class Cluster:
    """What is simulated.

    Attributes:
        nodes: machines.
        cores: of each.
        hours: between two losses of a node; a new one comes after ``absent`` seconds.
        absent: seconds.
        storage: where the run folder lies; an object store makes tasks wait for each request.
        requests: that the storage answers a second, all together; tasks wait for the others' too. S3 answers 5,500 a
            second and prefix, and splits prefixes as they get busy.
        seed: of durations and losses.
    """

    nodes: int
    cores: int
    hours: float = 500.0
    absent: float = 300.0
    storage: Storage = "shared"
    requests: float = math.inf
    seed: int = 0


class SimulatedExecutor(Pool):
    """The pool of every executor, on workers that exist in virtual time only.

    Args:
        cluster: what is simulated.
        steps: the steps by name.
        log: receives all events.

    Attributes:
        now: virtual seconds.
        used: processor seconds of the coordinator.
        handled: messages of finished tasks.
    """

    def __init__(self, cluster: Cluster, steps: dict[str, Simulated], log: EventLog) -> None:
        super().__init__(log)
        self._cluster, self._random = cluster, random.Random(cluster.seed)
        self._rounds = {(name, one.name): one for name, step in steps.items() for one in step.rounds}
        self._answered = 0.0  # when the storage will have answered all requests so far
        self._happening: list[tuple[float, int, Callable[[], None]]] = []
        self._numbers = 0
        self._speed: dict[str, float] = {}
        self.now, self.used, self.handled, self.lost_nodes = 0.0, 0.0, 0, 0
        self.busy = 0.0
        self._since = time.process_time()
        for number in range(cluster.nodes):
            self._join(number)

    def _at(self, when: float, what: Callable[[], None]) -> None:
        self._numbers += 1
        heapq.heappush(self._happening, (when, self._numbers, what))

    def _join(self, number: int) -> None:
        node = Node(f"node-{number}", self._cluster.cores, self._cluster.cores << 30)
        slow = SLOWER if self._random.random() < SLOW else 1.0
        self._speed[node.name] = slow * self._random.lognormvariate(0, NODE_SPREAD)
        self._at(
            self.now + self._random.expovariate(1 / (3600 * self._cluster.hours)), lambda: self._lose(number, node)
        )
        self.joined(node)

    def _lose(self, number: int, node: Node) -> None:
        self.lost_nodes += 1
        self.lost(node, "simulated")
        self._at(self.now + self._cluster.absent, lambda: self._join(number))

    def ask(self, node: Node, request: dict[str, Any]) -> None:
        """A task begins."""
        one, cluster = self._rounds[request["artifact"], request["phase"]], self._cluster
        seconds = one.core_seconds / one.tasks * self._speed[node.name]
        seconds *= self._random.lognormvariate(-(SPREAD**2) / 2, SPREAD)
        seconds += one.waiting(cluster.storage) / one.tasks
        now = self._clock()
        self._answered = max(self._answered, now) + one.requests / one.tasks / cluster.requests
        seconds = max(seconds, self._answered - now)
        marker = {"result": {"rows": 1}, "files": [_FILE]}
        where = {name: request[name] for name in ("artifact", "phase", "task")}
        told = {"seconds": round(seconds, 3), "rows": 1, "bytes": 1 << 25, "peak": 1 << 28, "compiled": 0.0}
        self._at(now + seconds, lambda: self._finish(node, seconds, {**where, **told, "marker": marker}))

    def _finish(self, node: Node, seconds: float, message: dict[str, Any]) -> None:
        if node in self.nodes:
            self.handled += 1
            self.busy += seconds
            self.heard(node, {"message": "done", **message})

    def _clock(self) -> float:
        """Virtual time, in which what the coordinator has used since its last look has passed."""
        spent = time.process_time() - self._since
        self._since += spent
        self.used += spent
        self.now += spent
        return self.now

    def listen(self) -> None:
        """The next thing happens; if the coordinator was busy with others until now, it happens late."""
        self._clock()
        when, _, what = heapq.heappop(self._happening)
        self.now = max(self.now, when)
        what()

    def close(self) -> None:
        """Nothing to release."""


_FILE = {"name": "scratch/phase/name-00000.spill", "rows": 0, "bytes": 1 << 25, "digest": "0" * 32}


# The bytes of a token, and the share of tokens that remain: SlimPajama's 5,152 GB and 1,210 to 690 B tokens.
TOKEN_BYTES, KEPT, DOCUMENT_BYTES = 4.26, 0.57, 5532


NEEDS = {
    "measures": ("documents",),
    "signatures": ("documents",),
    "duplicates": ("signatures",),
    "verdicts": ("measures", "duplicates"),
    "tokens": ("verdicts",),
    "sequence": ("tokens",),
}


def corpus_rounds(tokens: float, published: bool) -> list[Round]:
    """The rounds of cleaning a corpus as SlimPajama was, of its tokens and one shuffled pass; as published with ftfy
    and datasketch's signatures, otherwise NFC and `signature: fast`."""
    read, sign = ("documents-ftfy", "signatures-datasketch") if published else ("documents", "signatures")
    text, documents = tokens * TOKEN_BYTES, tokens * TOKEN_BYTES / DOCUMENT_BYTES
    return list(
        rounds_of(
            [
                work("documents", "read", read, text),
                work("measures", "measure", "measures", text),
                work("signatures", "sign", sign, text),
                work("duplicates", "candidates", "candidates", documents),
                work("duplicates", "components", "components", documents, serial=True),
                work("verdicts", "filter", "verdicts", documents),
                work("tokens", "encode", "tokens", KEPT * tokens * 3.72),
                work("sequence", "rows", "sequence", KEPT * tokens),
            ]
        )
    )


def steps_of(all_rounds: list[Round]) -> list[Simulated]:
    """A chain of artifacts with their rounds."""
    steps: list[Simulated] = []
    for artifact in dict.fromkeys(one.artifact for one in all_rounds):
        own = tuple(one for one in all_rounds if one.artifact == artifact)
        steps.append(Simulated(artifact, own, tuple(step for step in steps if step.stage in NEEDS.get(artifact, ()))))
    return steps


def simulate(all_rounds: list[Round], cluster: Cluster, run: Path) -> dict[str, Any]:
    """Make everything on a simulated cluster; the figures."""
    steps = steps_of(all_rounds)
    run.mkdir(parents=True, exist_ok=True)
    log = EventLog(run)
    executor = SimulatedExecutor(cluster, {step.name: step for step in steps}, log)
    make(topological(list(steps)), run, executor, log, 1 << 30)
    log.close()
    tasks = sum(one.tasks for one in all_rounds)
    cores = cluster.nodes * cluster.cores
    serial = sum(one.core_seconds for one in all_rounds if one.tasks == 1)
    spent = sum(one.core_seconds for one in all_rounds)
    ideal = (spent - serial) / cores + serial
    return {
        "nodes": cluster.nodes,
        "cores": cores,
        "tasks": tasks,
        "core_hours": round(spent / 3600, 1),
        "ideal_s": round(ideal, 1),
        "serial_s": round(serial, 1),
        "makespan_s": round(executor.now, 1),
        "over_ideal": round(executor.now / ideal, 3),
        "nodes_lost": executor.lost_nodes,
        "coordinator_ms_a_task": round(1e3 * executor.used / tasks, 3),
        "coordinator_busy": round(executor.used / executor.now, 3),
        "coordinator_peak_mb": round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e3),
        "open_files": psutil.Process().num_fds(),
        "requests": sum(one.requests for one in all_rounds),
    }


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(prog="python -m bench.cluster", description=__doc__)
    parser.add_argument("--tokens", type=float, default=1.21e12, help="tokens of the corpus before cleaning")
    parser.add_argument("--tasks", type=int, help="instead: one phase of so many tasks")
    parser.add_argument("--published", action="store_true", help="with ftfy and datasketch's signatures")
    parser.add_argument("--seconds", type=float, default=1.0, help="of each of --tasks")
    parser.add_argument("--storage", choices=["shared", "s3"], default="shared")
    parser.add_argument("--requests", type=float, default=math.inf, help="that the storage answers a second")
    parser.add_argument("--nodes", type=int, default=1000)
    parser.add_argument("--cores", type=int, default=10, help="of a node")
    parser.add_argument("--hours", type=float, default=500.0, help="between two losses of a node")
    asked = parser.parse_args()
    found = (
        [Round("many", "do", asked.tasks, asked.seconds * asked.tasks)]
        if asked.tasks
        else corpus_rounds(asked.tokens, asked.published)
    )
    with tempfile.TemporaryDirectory() as folder:
        cluster = Cluster(asked.nodes, asked.cores, asked.hours, storage=asked.storage, requests=asked.requests)
        told = simulate(found, cluster, Path(folder) / "run")
    print(json.dumps(told))


if __name__ == "__main__":
    main()
