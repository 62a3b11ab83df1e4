"""What is kept of a target: made once, again when it has changed, and without holding up anything else."""

from __future__ import annotations

import shutil
import threading

import pytest

from headrace.view.target import Target


@pytest.fixture
def copy(viewed, tmp_path) -> Target:
    """A run of its own."""
    shutil.copytree(viewed, tmp_path / "run")
    return Target(tmp_path / "run")


def test_a_run_that_goes_on_keeps_what_is_finished(copy):
    """Its log grows and it begins further artifacts; one that it publishes changes what there is."""
    made = []
    copy.patience = None
    for look in (copy.kept, copy.later):
        look("figure", lambda: made.append(1))
    assert len(made) == 2
    with open(copy.path / "events.jsonl", "ab") as log:
        log.write(b"{}\n")
    (copy.path / "artifacts" / "more-12345678.partial").mkdir()
    for look in (copy.kept, copy.later):
        look("figure", lambda: made.append(1))
    assert len(made) == 2
    (copy.path / "artifacts" / "more-12345678.partial").rename(copy.path / "artifacts" / "more-12345678")
    for look in (copy.kept, copy.later):
        look("figure", lambda: made.append(1))
    assert len(made) == 4


def test_what_takes_long_holds_up_nobody_else(copy):
    begun, go = threading.Event(), threading.Event()

    def slow():
        begun.set()
        go.wait(60)
        return "slow"

    told = []
    threads = [threading.Thread(target=lambda: told.append(copy.kept("slow", slow))) for _ in range(3)]
    for one in threads:
        one.start()
    begun.wait(60)
    assert copy.kept("quick", lambda: "quick") == "quick"
    assert copy.recipe.name
    go.set()
    for one in threads:
        one.join()
    assert told == ["slow"] * 3


def test_what_fails_is_made_again(copy):
    def fails():
        raise ValueError

    with pytest.raises(ValueError):
        copy.kept("figure", fails)
    assert copy.kept("figure", lambda: "made") == "made"


def test_figures_that_nobody_waits_for_are_not_begun(copy, monkeypatch):
    """Those of a run that has changed since, and the oldest of too many."""
    monkeypatch.setattr("headrace.view.target.MOST_KEPT", 2)
    go, made = threading.Event(), []
    copy.patience = 0.01
    assert copy.later("first", lambda: go.wait(60)) is None
    for number in range(6):
        assert copy.later(number, lambda number=number: made.append(number)) is None
    go.set()
    copy.patience = None
    copy.later("last", lambda: made.append("last"))
    assert made[-1] == "last"
    assert len(made) <= 3
