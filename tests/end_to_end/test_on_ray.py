"""A run on Ray: the same bytes as on one machine. Faults on several nodes are in ``tests/chaos``."""

from __future__ import annotations

import importlib.util
import os
import signal
import sys
from pathlib import Path

import pytest

from headrace import Engine, UserError, load_recipe, run
from headrace.flow.events import read_events
from headrace.run_folder import digest

sys.path.insert(0, str(Path(__file__).parents[1] / "report"))

from small_pipeline import copied

pytestmark = pytest.mark.skipif(importlib.util.find_spec("ray") is None, reason="Ray is not installed: headrace[ray]")
MEMORY = 500_000_000


def test_a_run_begun_here_is_finished_on_ray_though_a_worker_is_killed(once, tmp_path: Path) -> None:
    local = copied(once, tmp_path / "corpus")
    recipe, out, shot = load_recipe(tmp_path / "corpus" / "recipe.yaml"), tmp_path / "run", []
    run(recipe, out, workers=1, memory=MEMORY, until="documents")

    def shoot(event):
        if event["event"] == "worker" and not shot:
            shot.append(event["pid"])
            os.kill(event["pid"], signal.SIGKILL)

    run(recipe, out, workers=2, memory=MEMORY, until="verdicts", listener=shoot, engine=Engine("ray", "local"))
    made, right = digest(out)["artifacts"], digest(local)["artifacts"]
    assert made == {name: right[name] for name in made}
    assert {"documents", "signatures", "duplicates", "verdicts"} <= {name.rpartition("-")[0] for name in made}
    events = list(read_events(out))
    assert len(shot) == len([event for event in events if event["event"] == "died"]) == 1
    [joined] = [event for event in events if event["event"] == "node"]
    assert (joined["state"], joined["workers"], joined["memory"]) == ("joined", 2, MEMORY)
    assert {event.get("node") for event in events if event["event"] == "task"} == {None, joined["node"]}
    left = [path for path in (out / "logs").iterdir() if path.stat().st_size == 0 or path.name.startswith("seen-")]
    assert not left

    # Nothing is left to do, so it needs no cluster.
    run(recipe, out, until="verdicts", engine=Engine("ray", "127.0.0.1:1"))


def test_a_cluster_that_is_not_there_is_told(once, tmp_path: Path) -> None:
    copied(once, tmp_path / "corpus")
    recipe = load_recipe(tmp_path / "corpus" / "recipe.yaml")
    with pytest.raises(UserError, match="no Ray cluster that can be joined"):
        run(recipe, tmp_path / "run", engine=Engine("ray", "127.0.0.1:1"))
    with pytest.raises(UserError, match="Ray Client"):
        run(recipe, tmp_path / "run", engine=Engine("ray", "ray://127.0.0.1:1"))
