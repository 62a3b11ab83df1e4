"""``headrace status``: what is done, running and missing in a run."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

from headrace.cli.options import Json, RunFolder
from headrace.cli.terminal import say, say_json, screen


def status(run: RunFolder, json: Json = False) -> None:
    """Show what is done, running, missing or failed."""
    from dataclasses import asdict

    from headrace import run_folder
    from headrace.report.departures import departures
    from headrace.report.gather import records
    from headrace.report.summary import corpus_lines, departure_lines

    state, sources = run_folder.status(run), records(run)
    said = departures(run_folder.read_recipe(run), sources)
    if json:
        told = [asdict(source) | {"read": source.read} for source in sources]
        say_json(state | {"sources": told, "departures": said})
    else:
        lines = [*corpus_lines(sources, screen()), *departure_lines(said, screen())] if sources else []
        say(render(state, run, lines))


def render(state: dict[str, Any], run: Path, records: list[str]) -> str:
    """The state of a run as a table, what happened to the records, and a line of summary."""
    from headrace.planning.text import table
    from headrace.report.numbers import duration, size

    rows = []
    for entry in state["artifacts"]:
        told = ["", "", ""]
        if entry["state"] == "done":
            seconds = "" if entry["seconds"] is None else duration(entry["seconds"])
            told = [f"{entry['rows']:,}", size(entry["bytes"]), seconds]
        elif entry.get("phases"):
            phase = entry["phases"][-1]
            trained = _training(run, entry["stage"]) if entry["kind"] == "model" else ""
            told = (
                [trained, "", ""]
                if trained
                else [
                    f"{phase['name']} {phase['done']}/{phase['tasks']}",
                    "",
                    _left(run, entry["name"], phase, state["running"]),
                ]
            )
        name = f"{entry['kind']}-{entry['stage']}" if entry["stage"] else entry["kind"]
        word = "running" if entry["state"] == "partial" and state["running"] else entry["state"]
        rows.append([name, word, *told])
    done = sum(entry["state"] == "done" for entry in state["artifacts"])
    lines = [f"{state['recipe']}: {done} of {len(state['artifacts'])} artifacts done"]
    lines += table(["artifact", "state", "rows", "disk", "time"], rows)
    return "\n".join([*lines, *records, _standing(state, done, run)])


def _training(run: Path, stage: str) -> str:
    """The last step in a stage's metrics."""
    import orjson

    from headrace.train.metrics import FILE
    from headrace.train.trajectory import latest

    folder = latest(run, stage)
    if folder is None:
        return ""
    try:
        last = orjson.loads((folder / FILE).read_bytes().splitlines()[-1])
        return f"step {last['step']:,}" + ("" if last["loss"] is None else f", loss {last['loss']:.2f}")
    except (OSError, IndexError, KeyError, TypeError, orjson.JSONDecodeError):  # none yet, or a truncated line
        return ""


def _left(run: Path, artifact: str, phase: dict[str, Any], running: bool) -> str:
    """Time left in the current phase, from the tasks done since it started; an estimate, so it starts with ``~``."""
    from headrace.flow.events import read_events
    from headrace.report.numbers import duration

    began, before = 0.0, phase["done"]
    for event in read_events(run, "phase"):
        if (event["artifact"], event["phase"]) == (artifact, phase["name"]):
            began, before = event["time"], event["done"]
    done, left = phase["done"] - before, phase["tasks"] - phase["done"]
    if not running or done <= 0 or left <= 0:
        return ""
    return f"~{duration((time.time() - began) / done * left)} left"


def _standing(state: dict[str, Any], done: int, run: Path) -> str:
    """The state of the run in one line."""
    from headrace.flow.mirror import shown
    from headrace.visible import one_line

    last = state["last"]
    if state["running"]:
        owner = state["owner"]
        return "running" if owner is None else f"running: process {owner['process']} on {one_line(owner['host'])}"
    if done == len(state["artifacts"]):
        return "finished"
    again = f"resume with the same `headrace run ... --out {shown(run)}`"
    if last is not None and last["event"] == "failed":
        return f"failed: {last['message']}\n{again}"
    if last is not None and last["event"] == "stopped":
        return f"stopped ({last['reason']}); {again}"
    return f"not finished; {again}"
