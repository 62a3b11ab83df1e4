"""The same bytes from one, two and three worker processes, by the real executor."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest
import small_build
from small_build import CHANGED, targets

from headrace.flow.events import EventLog
from headrace.flow.executors.local import LocalExecutor
from headrace.flow.lock import lock
from headrace.flow.runner import make
from headrace.flow.step import topological

MEMORY = 64 << 20


def test_any_number_of_workers_gives_the_same_bytes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PYTHONPATH", str(Path(small_build.__file__).parent), prepend=os.pathsep)
    contents = []
    for workers in (1, 2, 3):
        run = tmp_path / str(workers)
        run.mkdir()
        (run / "small.json").write_text(json.dumps(CHANGED))
        with lock(run):
            log = EventLog(run)
            executor = LocalExecutor(run, "small_build:targets", workers, MEMORY, log)
            try:
                make(topological(targets(run)), run, executor, log, MEMORY)
            finally:
                executor.close()
                log.close()
        base = run / "artifacts"
        contents.append({str(p.relative_to(base)): p.read_bytes() for p in base.rglob("*") if p.is_file()})
    assert len([name for name in contents[0] if name.startswith("sequence-")]) > 3
    assert contents[0] == contents[1] == contents[2]
