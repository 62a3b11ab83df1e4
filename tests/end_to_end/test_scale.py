"""The scale simulation: right against planted truth, within its budget, and taken up again after a kill."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path

import pytest

from headrace.flow.events import read_events

ROOT = Path(__file__).resolve().parents[2]


def command(out: Path, documents: int, memory: str) -> list[str]:
    size = ["--documents", str(documents), "--memory", memory, "--workers", "2"]
    return [sys.executable, "-m", "bench.scale", *size, "--out", str(out)]


def simulate(out: Path, documents: int, memory: str) -> dict:
    done = subprocess.run(command(out, documents, memory), cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def test_small(tmp_path: Path) -> None:
    assert simulate(tmp_path, 30_000, "64MB")["documents"] == 30_000


@pytest.mark.slow
def test_components_on_disk(tmp_path: Path) -> None:
    """8 MB hold no union-find over a million documents."""
    simulate(tmp_path, 1_000_000, "8MB")


@pytest.mark.slow
def test_killed_in_the_middle_it_redoes_nothing_that_was_done(tmp_path: Path) -> None:
    run = tmp_path / "1000000"
    for phase in ("sign", "edges", "deduplicate"):
        process = subprocess.Popen(command(tmp_path, 1_000_000, "2GB"), cwd=ROOT, stdout=subprocess.DEVNULL)
        while not any(event["event"] == "task" and event["phase"] == phase for event in read_events(run)):
            assert process.poll() is None
            time.sleep(0.02)
        process.send_signal(signal.SIGKILL)
        process.wait()
    result = simulate(tmp_path, 1_000_000, "2GB")
    assert result["tasks_done_before"] > 0
    done = Counter(
        (event["artifact"], event["phase"], event["task"]) for event in read_events(run) if event["event"] == "task"
    )
    assert set(done.values()) == {1}
    assert {phase for _, phase, _ in done} >= {
        "sign",
        "partition",
        "edges",
        "exact",
        "components",
        "publish",
        "deduplicate",
    }
