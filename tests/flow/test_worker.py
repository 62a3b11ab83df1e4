"""When a worker gives freed memory back: its own next task may use it, other processes may not."""

from __future__ import annotations

import queue

import orjson

from headrace.flow import worker


def line(phase: str, task: int, artifact: str = "a") -> bytes:
    return orjson.dumps({"artifact": artifact, "phase": phase, "task": task})


def test_memory_goes_back_before_another_phase_and_when_nothing_follows(monkeypatch):
    lines: queue.SimpleQueue[bytes] = queue.SimpleQueue()
    told: list[str] = []

    def release_memory() -> None:
        if told[-1] == "reduce 3":  # nothing follows
            lines.put(line("reduce", 4, "b"))
        told.append("back")

    monkeypatch.setattr(worker, "release_memory", release_memory)
    for request in (line("map", 0), line("map", 1), line("reduce", 2), line("reduce", 3, "b")):
        lines.put(request)
    for request in worker.requests_of(lines):
        told.append(f"{request['phase']} {request['task']}")
        if request["task"] == 4:
            break
    assert told == ["map 0", "map 1", "back", "reduce 2", "back", "reduce 3", "back", "reduce 4"]
