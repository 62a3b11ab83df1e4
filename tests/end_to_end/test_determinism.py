"""The same bytes for any number of workers, any budget, and after kills at any point."""

from __future__ import annotations

import contextlib
import json
import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Iterable
from pathlib import Path

import pytest
from small_run import HEADRACE, headrace, published

from headrace.flow.events import read_events


@pytest.mark.parametrize("options", [("--workers", 1), ("--workers", 3), ("--workers", 2, "--memory", "100MB")])
def test_artifacts_are_the_same_bytes(corpus, finished, tmp_path, options):
    headrace("run", corpus / "recipe.yaml", "--out", tmp_path / "run", *options)
    assert published(tmp_path / "run") == published(finished)


def test_the_corpus_may_stand_elsewhere(corpus, finished, tmp_path):
    import shutil

    shutil.copytree(corpus, tmp_path / "moved")
    headrace("run", tmp_path / "moved" / "recipe.yaml", "--out", tmp_path / "run", "--workers", 2)
    assert published(tmp_path / "run") == published(finished)


def test_digest_tells_whether_two_runs_are_the_same(finished):
    told = json.loads(headrace("digest", finished, "--json").stdout)
    assert json.loads(headrace("digest", finished, "--json").stdout) == told


def start(recipe: Path, run: Path) -> subprocess.Popen:
    """A run in the background, to be killed."""
    command = [HEADRACE, "run", str(recipe), "--out", str(run), "--workers", "2"]
    return subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, env={**os.environ})


def events_since(run: Path, seen: int) -> list[dict]:
    return list(read_events(run))[seen:]


# A run that kills itself: a moment after some events of an artifact, or as soon as that is published.
SUICIDE = """
import os, signal, sys, threading
from headrace import pipeline
from headrace.recipe.load import load_recipe

recipe, run, name, left, moment = sys.argv[1], sys.argv[2], sys.argv[3], int(sys.argv[4]), float(sys.argv[5])

def kill():
    os.kill(os.getpid(), signal.SIGKILL)

def listen(event):
    global left
    if event.get("artifact") == name:
        left -= 1
        if event.get("state") in ("published", "present"):
            kill()
        elif left == 0:
            threading.Timer(moment, kill).start()

pipeline.run(load_recipe(recipe), run, workers=2, listener=listen)
"""


@pytest.mark.parametrize("times", [1, pytest.param(3, marks=pytest.mark.slow)])
def test_the_run_killed_at_every_artifact_ends_with_the_same_bytes(corpus, finished, tmp_path, times):
    """SIGKILL of the coordinator at a random moment of each artifact, each time followed by a new run."""
    rng, run = random.Random(0), tmp_path / "run"
    names = [e["artifact"] for e in read_events(finished) if e["event"] == "artifact" and e["state"] == "published"]
    assert len(names) == 12
    for name in names:
        for _ in range(times):
            after, moment = rng.choice([1, 1, 2, 3, 5, 8]), rng.uniform(0.0, 0.15)
            command = [sys.executable, "-c", SUICIDE, corpus / "recipe.yaml", run, name, str(after), str(moment)]
            assert subprocess.run(command, stderr=subprocess.DEVNULL).returncode == -signal.SIGKILL, name
    headrace("run", corpus / "recipe.yaml", "--out", run, "--workers", 2)
    assert published(run) == published(finished)
    assert not list((run / "artifacts").glob("*.partial"))


def works_for(coordinator: int, pid: int) -> bool:
    """Whether the process lives and was forked by a server that this coordinator started."""
    try:
        state, parent = Path(f"/proc/{pid}/stat").read_text().rpartition(") ")[2].split()[:2]
        parents_parent = Path(f"/proc/{parent}/stat").read_text().rpartition(") ")[2].split()[1]
    except (FileNotFoundError, ProcessLookupError):
        return False
    return state != "Z" and coordinator in (int(parent), int(parents_parent))


def deaths(events: Iterable[dict]) -> int:
    """How many workers are reported to have died at a task."""
    return sum(e["event"] == "died" for e in events)


def test_workers_killed_at_random_cost_nothing(corpus, finished, tmp_path):
    """SIGKILL of single workers while the run goes on: each death is reported, its task done again.

    When chance hits one task twice, the run stops and says so; the same command then goes on.
    """
    rng, run = random.Random(3), tmp_path / "run"
    while True:
        process = start(corpus / "recipe.yaml", run)
        while process.poll() is None:
            time.sleep(rng.uniform(0.05, 0.4))
            events = list(read_events(run))
            workers = [e["pid"] for e in events if e["event"] == "worker" and works_for(process.pid, e["pid"])]
            # Shots at a worker between two tasks cost nothing and are not reported: deaths are counted, not shots.
            if workers and deaths(events) < 8:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(rng.choice(workers), signal.SIGKILL)
        said = process.stderr.read().decode()
        if process.returncode == 0:
            break
        assert process.returncode == 2
        assert "killed its worker twice: signal 9" in said
    assert deaths(read_events(run)) >= 3
    assert published(run) == published(finished)


def test_ctrl_c_stops_cleanly_and_says_how_to_go_on(corpus, finished, tmp_path):
    run = tmp_path / "run"
    process = start(corpus / "recipe.yaml", run)
    while not any(e["event"] == "artifact" for e in read_events(run)):
        assert process.poll() is None
        time.sleep(0.005)
    time.sleep(0.3)
    process.send_signal(signal.SIGINT)
    _, said = process.communicate(timeout=60)
    assert process.returncode == 130
    assert b"Traceback" not in said
    assert b"again" in said
    workers = [e["pid"] for e in read_events(run) if e["event"] == "worker"]
    assert not any(Path(f"/proc/{pid}").exists() for pid in workers)
    headrace("run", corpus / "recipe.yaml", "--out", run, "--workers", 2)
    assert published(run) == published(finished)


def test_a_second_run_does_nothing_and_a_threshold_redoes_only_what_depends_on_it(corpus, finished, tmp_path):
    import shutil

    run = tmp_path / "run"
    shutil.copytree(finished, run)
    seen = len(list(read_events(run)))
    headrace("run", corpus / "recipe.yaml", "--out", run)
    states = {e["artifact"]: e["state"] for e in events_since(run, seen) if e["event"] == "artifact"}
    assert set(states.values()) == {"present"}
    seen = len(list(read_events(run)))
    headrace("run", corpus / "recipe.yaml", "--out", run, "--set", "filters.short.min_characters=250")
    states = {e["artifact"].split("-")[0]: e["state"] for e in events_since(run, seen) if e["event"] == "artifact"}
    kept = {kind for kind, state in states.items() if state == "present"}
    assert kept == {"documents", "measures", "signatures", "duplicates", "contamination"}
    assert states["verdicts"] == "published"


def test_until_stops_at_an_artifact(corpus, tmp_path):
    run = tmp_path / "run"
    headrace("run", corpus / "recipe.yaml", "--out", run, "--until", "Verdicts")
    kinds = {p.name.split("-")[0] for p in (run / "artifacts").iterdir()}
    assert kinds == {"documents", "measures", "signatures", "duplicates", "contamination", "verdicts"}
