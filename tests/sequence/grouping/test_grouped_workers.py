"""Groups and sequences of grouped files: the same bytes from one, two and three worker processes."""

from __future__ import annotations

import json
import os
from pathlib import Path

import grouped_build
import pytest
from grouped_build import targets

from headrace.flow.events import EventLog
from headrace.flow.executors.local import LocalExecutor
from headrace.flow.lock import lock
from headrace.flow.runner import make
from headrace.flow.step import topological

MEMORY = 64 << 20
STAGES = [
    {
        "stage": {
            "name": "one",
            "sequence_length": 64,
            "sources": {"a": {"epochs": 1.5, "fim": {"rate": 0.5}}, "b": {}},
        },
        "groups": {"a": {"order": "dependencies", "format": "starcoder2", "metadata": 0.5}, "b": {"by": "folder"}},
    },
    {
        "stage": {
            "name": "two",
            "sequence_length": 64,
            "sources": {
                "a": {"weight": {0: 1, 300: 1}, "fim": {"rate": 0.5}},
                "b": {"weight": 1},
                "chat": {"weight": 1},
            },
            "tokens": 50_000,
            "chat": "chatml",
            "pack": {"method": "best_fit", "prefer": "long"},
        },
        "groups": {"a": {"limit": 400}, "b": {"order": "path", "within": None}},
    },
]


def test_any_number_of_workers_gives_the_same_bytes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    here = Path(grouped_build.__file__).parent
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(here), str(here.parent)]), prepend=os.pathsep)
    contents = []
    for workers in (1, 2, 3):
        run = tmp_path / str(workers)
        run.mkdir()
        (run / "grouped.json").write_text(json.dumps(STAGES))
        with lock(run):
            log = EventLog(run)
            executor = LocalExecutor(run, "grouped_build:targets", workers, MEMORY, log)
            try:
                make(topological(targets(run)), run, executor, log, MEMORY)
            finally:
                executor.close()
                log.close()
        base = run / "artifacts"
        contents.append({str(p.relative_to(base)): p.read_bytes() for p in base.rglob("*") if p.is_file()})
    assert len([name for name in contents[0] if name.startswith(("sequence-", "groups-"))]) > 6
    assert contents[0] == contents[1] == contents[2]
