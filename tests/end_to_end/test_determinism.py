"""The same bytes for any number of workers, any budget, and after kills at any point."""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import time
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


def wait_for_next_artifact(process: subprocess.Popen, run: Path, seen: int) -> bool:
    """Until an artifact is begun (True) or the run ends (False)."""
    while process.poll() is None:
        if any(e["event"] == "artifact" and e["state"] == "started" for e in events_since(run, seen)):
            return True
        time.sleep(0.01)
    return False


def test_the_run_killed_at_every_artifact_ends_with_the_same_bytes(corpus, finished, tmp_path):
    """SIGKILL of the coordinator, once at a random moment of each artifact, each time followed by a new run."""
    rng, run, kills = random.Random(0), tmp_path / "run", 0
    while True:
        seen = len(list(read_events(run)))
        process = start(corpus / "recipe.yaml", run)
        if wait_for_next_artifact(process, run, seen):
            # Every second time the artifact is allowed to finish, so the run moves on.
            deadline = time.monotonic() + rng.uniform(0.0, 0.7)
            while time.monotonic() < deadline and process.poll() is None:
                time.sleep(0.005)
        if process.poll() is not None:
            assert process.returncode == 0, process.stderr.read().decode()
            break
        process.send_signal(signal.SIGKILL)
        process.communicate()
        kills += 1
        assert kills < 80
    assert kills >= 5
    assert published(run) == published(finished)
    assert not list((run / "artifacts").glob("*.partial"))


def test_workers_killed_at_random_cost_nothing(corpus, finished, tmp_path):
    """SIGKILL of single workers while the run goes on: each death is reported, its task done again."""
    rng, run, kills = random.Random(3), tmp_path / "run", 0
    process = start(corpus / "recipe.yaml", run)
    shot: set[int] = set()
    while process.poll() is None:
        time.sleep(rng.uniform(0.3, 1.2))
        workers = [e["pid"] for e in read_events(run) if e["event"] == "worker" and e["pid"] not in shot]
        if workers and kills < 6:
            pid = rng.choice(workers)
            shot.add(pid)
            try:
                os.kill(pid, signal.SIGKILL)
                kills += 1
            except ProcessLookupError:
                pass
    assert process.returncode == 0, process.stderr.read().decode()
    assert kills >= 3
    assert published(run) == published(finished)


def test_ctrl_c_stops_cleanly_and_says_how_to_go_on(corpus, finished, tmp_path):
    run = tmp_path / "run"
    process = start(corpus / "recipe.yaml", run)
    wait_for_next_artifact(process, run, 0)
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
    assert kept == {"documents", "measures", "duplicates", "contamination"}
    assert states["verdicts"] == "published"


def test_until_stops_at_an_artifact(corpus, tmp_path):
    run = tmp_path / "run"
    headrace("run", corpus / "recipe.yaml", "--out", run, "--until", "Verdicts")
    kinds = {p.name.split("-")[0] for p in (run / "artifacts").iterdir()}
    assert kinds == {"documents", "measures", "duplicates", "contamination", "verdicts"}
