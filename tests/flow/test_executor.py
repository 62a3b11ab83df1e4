"""How workers are started, what they are handed together, and what is cleared away beside the work."""

from __future__ import annotations

import os
import signal
import time
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest

from headrace.flow import slices
from headrace.flow.events import EventLog, read_events
from headrace.flow.executors import fork_server
from headrace.flow.executors.inline import InlineExecutor
from headrace.flow.executors.local import LocalExecutor
from headrace.flow.executors.workers import FORKS
from headrace.flow.removal import REMOVING, Removal
from headrace.flow.runner import make
from headrace.flow.step import Phase, Step, topological

HERE = Path(__file__).parent


@pytest.fixture(autouse=True)
def _workers_find_the_steps(monkeypatch):
    monkeypatch.setenv("PYTHONPATH", str(HERE), prepend=os.pathsep)


@dataclass(frozen=True)
class Meeting(Step):
    """One of two steps whose single tasks wait for each other: neither ends if they do not run side by side."""

    kind = "meeting"
    VERSION = 1
    stage: str = "a"

    def params(self):
        return {}

    def inputs(self):
        return {}

    def phases(self):
        return [Phase("meet", lambda ctx: [{}], self.meet, most=lambda spec: 1 << 20)]

    def meet(self, ctx, spec):
        (ctx.run / f"{self.stage} is here").touch()
        while len(list(ctx.run.glob("* is here"))) < 2:
            time.sleep(0.01)
        return {"pid": os.getpid(), "memory": ctx.memory}

    def finish(self, ctx):
        return {"counts": {}, "met": ctx.results("meet")[0]}


@dataclass(frozen=True)
class Holding(Step):
    """Tasks that write down how much memory is handed out while they run; the last ask for most of it."""

    kind = "holding"
    VERSION = 1

    def params(self):
        return {}

    def inputs(self):
        return {"a": Meeting(stage="a"), "b": Meeting(stage="b")}

    def phases(self):
        specs = [{"least": least << 20} for least in (1, 1, 1, 1, 40, 40, 100)]
        return [Phase("hold", lambda ctx: specs, self.hold, memory=lambda spec: spec["least"])]

    def hold(self, ctx, spec):
        mine = ctx.run / f"holding-{ctx.task}"
        mine.write_text(str(ctx.memory))
        time.sleep(0.05)
        held = []
        for path in ctx.run.glob("holding-*"):
            with suppress(FileNotFoundError):  # another has just ended
                held.append(int(path.read_text() or 0))
        mine.unlink()
        loaded = len(slices.copy.signatures)  # type: ignore[attr-defined]
        return {
            "held": sum(held), "mine": ctx.memory, "least": spec["least"], "server": os.getppid(), "loaded": loaded,
        }  # fmt: skip

    def finish(self, ctx):
        return {"counts": {}, "tasks": ctx.results("hold")}


@dataclass(frozen=True)
class Talking(Step):
    """Tasks whose results are longer than what a pipe holds."""

    kind = "talking"
    VERSION = 1

    def params(self):
        return {}

    def inputs(self):
        return {}

    def phases(self):
        sizes = [5 << 20, 0, 1 << 16, (1 << 16) - 1]
        return [Phase("talk", lambda ctx: [{"size": size} for size in sizes], self.talk)]

    def talk(self, ctx, spec):
        ctx.progress(rows=1)
        return {"text": "é" * (spec["size"] // 2)}

    def finish(self, ctx):
        return {"counts": {}, "told": [len(result["text"]) for result in ctx.results("talk")]}


def targets(run: Path) -> list[Step]:
    """What a worker calls to rebuild the graph."""
    return [Talking()] if (run / "talk").exists() else [Holding()]


def done(run: Path, workers: int = 2, memory: int = 64 << 20, listener=None) -> dict[str, dict]:
    """Make everything: artifact -> the rest of its manifest."""
    run.mkdir(exist_ok=True)
    log = EventLog(run, listener)
    executor = LocalExecutor(run, "test_executor:targets", workers, memory, log)
    try:
        made = make(topological(targets(run)), run, executor, log, memory)
        return {artifact.path.name[:-9]: artifact.manifest.extra for artifact in made}
    finally:
        executor.close()
        log.close()


@pytest.mark.timeout(60)
def test_artifacts_that_do_not_need_each_other_are_made_side_by_side(tmp_path):
    made = done(tmp_path / "run")
    assert made["meeting-a"]["met"]["pid"] != made["meeting-b"]["met"]["pid"]


def test_what_is_handed_out_together_stays_within_the_memory(tmp_path):
    tasks = done(tmp_path / "run")["holding"]["tasks"]
    assert all(task["mine"] >= min(task["least"], 64 << 20) for task in tasks)
    assert all(task["held"] <= 64 << 20 for task in tasks)
    assert tasks[0]["mine"] == 32 << 20
    assert tasks[6]["mine"] == 64 << 20


@pytest.mark.skipif(not FORKS, reason="workers are started one by one here")
def test_workers_are_forked_from_one_process_and_a_new_one_if_it_is_killed(tmp_path):
    servers = []

    def shoot(event):
        if event["event"] == "phase" and event["phase"] == "hold":
            log = [e for e in read_events(tmp_path / "run") if e["event"] == "worker"]
            server = int(Path(f"/proc/{log[-1]['pid']}/stat").read_text().rpartition(")")[2].split()[1])
            servers.append(server)
            assert len(os.listdir(f"/proc/{server}/task")) == 1
            os.kill(server, signal.SIGKILL)

    tasks = done(tmp_path / "run", listener=shoot)["holding"]["tasks"]
    assert len(tasks) == 7
    assert servers[0] != os.getpid()
    assert {task["server"] for task in tasks}.isdisjoint(servers)
    assert len({task["server"] for task in tasks}) == 1


def test_many_workers_share_kernels_that_were_loaded_before_the_fork(tmp_path, monkeypatch):
    slices.gather(np.arange(4), np.array([1]), np.array([2]))  # compiled, if it was not before
    few = done(tmp_path / "few")["holding"]["tasks"]
    monkeypatch.setattr(fork_server, "MANY", 2)
    many = done(tmp_path / "many")["holding"]["tasks"]
    assert {task["loaded"] for task in few} == {0}
    assert {task["loaded"] > 0 for task in many} == {True}
    assert not list((tmp_path / "many" / "logs").glob("fork-server-*.log"))


def test_answers_may_be_longer_than_a_pipe_holds(tmp_path):
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "talk").touch()
    assert done(tmp_path / "run")["talking"]["told"] == [5 << 19, 0, 1 << 15, (1 << 15) - 1]


def test_without_workers_tasks_are_done_in_this_process(tmp_path):
    (tmp_path / "someone is here").touch()
    step = Meeting()
    log = EventLog(tmp_path)
    [made] = make([step], tmp_path, InlineExecutor(tmp_path, [step], 1 << 20), log, 1 << 20)
    assert made.manifest.extra["met"]["pid"] == os.getpid()


def test_folders_are_gone_at_once_and_removed_beside_the_work(tmp_path):
    for number in range(3):
        (tmp_path / "scratch" / str(number)).mkdir(parents=True)
        (tmp_path / "scratch" / str(number) / "file").touch()
    left = tmp_path / REMOVING / "from a run that was killed"
    left.mkdir(parents=True)
    with Removal(tmp_path) as removal:
        removal.take(tmp_path / "scratch" / "1")
        removal.take(tmp_path / "scratch" / "none")
        assert not (tmp_path / "scratch" / "1").exists()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["scratch"]
    assert sorted(path.name for path in (tmp_path / "scratch").iterdir()) == ["0", "2"]
