"""Runs share a store: artifacts by identity, tasks by key, whole or not at all, and never what is damaged."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import pytest
import toy_graph
from test_reuse import worked_on
from test_runner import HERE, contents, prepare

from headrace.errors import UserError
from headrace.flow import reuse
from headrace.flow.events import EventLog, read_events
from headrace.flow.executors.local import LocalExecutor
from headrace.flow.lock import lock
from headrace.flow.runner import make
from headrace.flow.step import topological
from headrace.flow.store import Store


@pytest.fixture(autouse=True)
def _workers_find_the_toys(monkeypatch):
    monkeypatch.setenv("PYTHONPATH", str(HERE), prepend=os.pathsep)


def run_with(store: Path, run: Path, *words: str) -> dict[str, bytes]:
    """Make the words with a store; every byte that was published."""
    prepare(run, words=list(words))
    with lock(run):
        log = EventLog(run)
        executor = LocalExecutor(run, "toy_graph:targets", 2, 64 << 20, log)
        try:
            make(topological(toy_graph.targets(run)), run, executor, log, 64 << 20, store=Store(store, run))
        finally:
            executor.close()
            log.close()
    return contents(run)


def states(run: Path) -> list[str]:
    return [event["state"] for event in read_events(run) if event["event"] == "artifact"]


@pytest.mark.parametrize("links", [True, False])
def test_a_second_run_takes_what_the_first_made(tmp_path, monkeypatch, links):
    if not links:  # as where the store is on another file system

        def refuse(*paths):
            raise OSError(18, "Invalid cross-device link")

        monkeypatch.setattr(reuse.os, "link", refuse)
    made = run_with(tmp_path / "store", tmp_path / "a", *"abc")
    assert run_with(tmp_path / "store", tmp_path / "b", *"abc") == made
    assert states(tmp_path / "b") == ["stored"]
    assert worked_on(tmp_path / "b") == 0
    files = [next((tmp_path / name / "artifacts").glob("*/00000.txt")) for name in "ab"]
    assert os.path.samefile(*files) is links
    shutil.rmtree(tmp_path / "a")  # runs do not need each other
    assert contents(tmp_path / "b") == made


def test_another_identity_takes_the_tasks_that_are_the_same(tmp_path):
    run_with(tmp_path / "store", tmp_path / "a", *"abc")
    made = run_with(tmp_path / "store", tmp_path / "b", *"abx")
    assert worked_on(tmp_path / "b") == 1
    assert made == run_with(tmp_path / "other", tmp_path / "c", *"abx")


def test_a_finished_run_is_given_to_a_new_store(tmp_path):
    made = run_with(tmp_path / "store", tmp_path / "a", *"abc")
    run_with(tmp_path / "new", tmp_path / "a", *"abc")
    assert contents(tmp_path / "new") == made


@pytest.mark.parametrize("name", ["00001.txt", "tasks.json", "manifest.json"])
def test_what_is_damaged_in_the_store_is_made_anew(tmp_path, name):
    made = run_with(tmp_path / "store", tmp_path / "a", *"abc")
    [path] = (tmp_path / "store").glob(f"artifacts/*/{name}")
    data = bytearray(path.read_bytes())
    path.unlink()  # the run's own stays as it is
    data[len(data) // 2] ^= 1
    path.write_bytes(data)
    assert run_with(tmp_path / "store", tmp_path / "b", *"abc") == made
    assert "published" in states(tmp_path / "b")
    assert run_with(tmp_path / "store", tmp_path / "c", *"abc") == made  # the store is whole again
    assert states(tmp_path / "c") == ["stored"]


def test_what_a_killed_run_left_in_the_store_is_no_artifact(tmp_path):
    (tmp_path / "store" / "artifacts" / ".words-12345678.1.incoming").mkdir(parents=True)
    made = run_with(tmp_path / "store", tmp_path / "a", *"abc")
    assert run_with(tmp_path / "store", tmp_path / "b", *"abc") == made


@pytest.mark.parametrize(("store", "run"), [("a", "a"), ("a/s", "a"), ("a/artifacts/s", "a"), ("s", "s/artifacts/a")])
def test_a_store_and_a_run_are_not_inside_each_other(tmp_path, store, run):
    (tmp_path / "link").symlink_to(tmp_path)
    with pytest.raises(UserError, match="separate folders"):
        Store(tmp_path / "link" / store, tmp_path / run)
    assert not (tmp_path / store).exists()


def test_runs_may_lie_beside_the_artifacts_of_their_store(tmp_path):
    Store(tmp_path, tmp_path / "run")
