"""The same bytes for any number of workers, any budget, and after kills at any point."""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from small_run import killed_at_event, published

from commands import HEADRACE, headrace
from headrace.flow.events import read_events


@pytest.mark.parametrize("options", [("--workers", 1), ("--workers", 3), ("--workers", 2, "--memory", "100MB")])
def test_artifacts_are_the_same_bytes(corpus, finished, tmp_path, options):
    headrace("run", corpus / "recipe.yaml", "--out", tmp_path / "run", *options)
    assert published(tmp_path / "run") == published(finished)


def test_the_corpus_may_stand_elsewhere(corpus, finished, tmp_path):
    import shutil

    shutil.copytree(corpus, tmp_path / "moved")
    headrace("run", tmp_path / "moved" / "recipe.yaml", "--out", tmp_path / "run", "--workers", 0)
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


@pytest.mark.parametrize("times", [1, pytest.param(3, marks=pytest.mark.slow)])
def test_the_run_killed_at_every_artifact_ends_with_the_same_bytes(corpus, finished, tmp_path, times):
    """SIGKILL of the coordinator at some event of each artifact, each time followed by a new run."""
    rng, run = random.Random(0), tmp_path / "run"
    names = [e["artifact"] for e in read_events(finished) if e["event"] == "artifact" and e["state"] == "published"]
    assert len(names) == 13
    for name in names:
        for _ in range(times):
            killed_at_event(corpus / "recipe.yaml", run, name, rng.choice([1, 2, 3, 5, 8]))
    headrace("run", corpus / "recipe.yaml", "--out", run, "--workers", 0)
    assert published(run) == published(finished)
    assert not list((run / "artifacts").glob("*.partial"))


# A run that kills one of its workers at every third event, until eight have died.
MURDER = """
import os, random, signal, sys
from contextlib import suppress
from headrace import pipeline
from pathlib import Path
from headrace.errors import UserError
from headrace.flow.events import read_events
from headrace.recipe.load import load_recipe

recipe, run, seed = sys.argv[1], sys.argv[2], int(sys.argv[3])
rng, workers, seen = random.Random(seed), [], 0
deaths = sum(event["event"] == "died" for event in read_events(Path(run)))

def listen(event):
    global seen, deaths
    seen += 1
    if event["event"] == "worker":
        workers.append(event["pid"])
    elif event["event"] == "died":
        deaths += 1
    if workers and seen % 3 == 0 and deaths < 8:
        with suppress(ProcessLookupError):
            os.kill(workers.pop(rng.randrange(len(workers))), signal.SIGKILL)

try:
    pipeline.run(load_recipe(recipe), run, workers=2, listener=listen)
except UserError as error:
    sys.exit(str(error))
"""


def test_workers_killed_cost_nothing(corpus, finished, tmp_path):
    """SIGKILL of single workers while the run goes on: each death is reported, its task done again.

    When chance hits one task twice, the run stops and says so; the same command then goes on.
    """
    run = tmp_path / "run"
    for seed in range(9):
        command = [sys.executable, "-c", MURDER, corpus / "recipe.yaml", run, str(seed)]
        done = subprocess.run(command, stderr=subprocess.PIPE, text=True)
        if done.returncode == 0:
            break
        assert "killed its worker twice: signal 9" in done.stderr
    assert done.returncode == 0
    # A worker that is killed between two tasks costs nothing and is not reported.
    assert sum(e["event"] == "died" for e in read_events(run)) >= 3
    assert published(run) == published(finished)


def test_ctrl_c_stops_cleanly_and_says_how_to_go_on(corpus, finished, tmp_path):
    run = tmp_path / "run"
    process = start(corpus / "recipe.yaml", run)
    while not any(e["event"] == "task" for e in read_events(run)):
        assert process.poll() is None
        time.sleep(0.005)
    process.send_signal(signal.SIGINT)
    _, said = process.communicate(timeout=60)
    assert process.returncode == 130
    assert b"Traceback" not in said
    assert b"again" in said
    workers = [e["pid"] for e in read_events(run) if e["event"] == "worker"]
    assert not any(Path(f"/proc/{pid}").exists() for pid in workers)
    headrace("run", corpus / "recipe.yaml", "--out", run, "--workers", 0)
    assert published(run) == published(finished)


def test_a_second_run_does_nothing_and_a_threshold_redoes_only_what_depends_on_it(corpus, finished, tmp_path):
    import shutil

    run = tmp_path / "run"
    shutil.copytree(finished, run)
    seen = len(list(read_events(run)))
    headrace("run", corpus / "recipe.yaml", "--out", run, "--workers", 0)
    states = {e["artifact"]: e["state"] for e in events_since(run, seen) if e["event"] == "artifact"}
    assert set(states.values()) == {"present"}
    seen = len(list(read_events(run)))
    more = ("--set", "filters.short.min_characters=250", "--workers", 0)
    headrace("run", corpus / "recipe.yaml", "--out", run, *more)
    states = {e["artifact"].split("-")[0]: e["state"] for e in events_since(run, seen) if e["event"] == "artifact"}
    kept = {kind for kind, state in states.items() if state == "present"}
    assert kept == {"documents", "measures", "signatures", "duplicates", "contamination", "hits"}
    assert states["verdicts"] == "published"


def test_until_stops_at_an_artifact(corpus, tmp_path):
    run = tmp_path / "run"
    headrace("run", corpus / "recipe.yaml", "--out", run, "--until", "Verdicts", "--workers", 0)
    kinds = {p.name.split("-")[0] for p in (run / "artifacts").iterdir()}
    assert kinds == {"documents", "measures", "signatures", "duplicates", "contamination", "verdicts"}
