"""How far a run is: its artifacts, and what is underway, sent again whenever it changes."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

import orjson
from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import Response, StreamingResponse

from headrace import run_folder
from headrace.errors import UserError
from headrace.report.markup import Markup, element, join
from headrace.report.numbers import counted, duration, size, whole
from headrace.report.tables import Column, details, table, text
from headrace.train import metrics
from headrace.train.trajectory import latest
from headrace.view.address import address
from headrace.view.target import Missing, Target

EVERY = 1.0  # seconds between two looks at a run underway


@dataclass(frozen=True)
class Progress:
    """The state of a run.

    Attributes:
        running: whether a process works on it.
        artifacts: as ``headrace status --json``, and of a model underway its last ``step`` and ``loss``.
        last: how the run ended, as its log says; None while it runs.
        otherwise: finished artifacts that this version of headrace would make in another way, and so anew.
    """

    running: bool
    artifacts: list[dict[str, Any]]
    last: dict[str, Any] | None
    otherwise: list[str]


def load_progress(target: Target) -> Progress:
    """Read the state of a run. What is finished is looked at once."""
    told = run_folder.status(target.path, target.graph)
    artifacts = [
        one | _trained(target, one["stage"]) if one["kind"] == "model" and one["state"] == "partial" else one
        for one in told["artifacts"]
    ]
    return Progress(told["running"], artifacts, told["last"], _otherwise(target, artifacts))


def _otherwise(target: Target, artifacts: list[dict[str, Any]]) -> list[str]:
    missing = {(one["kind"], one["stage"]) for one in artifacts if one["state"] == "missing"}
    if not missing:
        return []
    versions = {(step.kind, step.stage): step.VERSION for step in target.graph.all()}
    with suppress(UserError):  # a damaged manifest: the artifact's state says so
        made = {key: one for key, one in target.artifacts.items() if key in missing}
        return [one.path.name for key, one in made.items() if one.manifest.version != versions[key]]
    return []


def _trained(target: Target, stage: str) -> dict[str, Any]:
    """The last step of a training that is underway."""
    folder = latest(target.path, stage)
    steps = next((one.train.steps for one in target.recipe.stages if one.name == stage), None)
    last = None if folder is None else metrics.last(folder / metrics.FILE)
    return {} if last is None else {"step": last["step"], "loss": last["loss"], "steps": steps}


def draw_progress(shown: Progress) -> Markup:
    """What is underway, and the artifacts."""
    done = _done(shown)
    said = f"{done} of {counted(len(shown.artifacts), 'artifact')} done"
    underway = [_underway(one) for one in shown.artifacts if one["state"] == "partial"]
    ended = done == len(shown.artifacts) or (shown.otherwise and (shown.last or {}).get("event") == "finished")
    word = "running" if shown.running else "finished" if ended else "stopped"
    head = element("p", element("span", word, class_=f"state {word}"), " ", said, class_="lead")
    failed = shown.last if shown.last is not None and shown.last["event"] in ("failed", "died") else None
    return join(
        [
            head,
            _version_note(shown),
            element("ul", underway, class_="underway") if underway else None,
            element("p", str(failed.get("message", "A worker died.")), class_="error") if failed else None,
            details("Artifacts", _table(shown)),
        ]
    )


def _version_note(shown: Progress) -> Markup | None:
    if not shown.otherwise or shown.running:
        return None
    made = ", ".join(shown.otherwise)
    said = f"Another version of headrace made {made}, in another way than this one would. Pages show what it made; "
    return element("p", f"{said}`headrace run` would make it, and what follows from it, anew.", class_="note")


def _done(shown: Progress) -> int:
    return sum(one["state"] == "done" for one in shown.artifacts)


def _underway(one: dict[str, Any]) -> Markup:
    name = f"{one['kind']} {one['stage'] or ''}".strip()
    if "step" in one:
        of = f" of {whole(one['steps'])}" if one["steps"] else ""
        said = f"step {whole(one['step'])}{of}" + ("" if one["loss"] is None else f", loss {one['loss']:.3f}")
        part, total = one["step"], one["steps"]
    elif one.get("phases"):
        phase = one["phases"][-1]
        part, total = phase["done"], phase["tasks"]
        said = f"{phase['name']}: {whole(part)} of {counted(total, 'task')}"
    else:
        return element("li", name)
    bar = element("progress", value=part, max=total, aria_label=name) if total else None
    return element("li", element("strong", name), " ", said, " ", bar)


def _table(shown: Progress) -> Markup:
    rows = [
        (
            element("a", one["name"], href=address("sequence", stage=one["stage"]))
            if one["kind"] == "sequence" and one["state"] == "done"
            else one["name"],
            one["state"],
            whole(one["rows"]) if "rows" in one else None,
            size(one["bytes"]) if "bytes" in one else None,
            duration(one["seconds"]) if one.get("seconds") is not None else None,
        )
        for one in shown.artifacts
    ]
    return table([text("artifact"), text("state"), *map(Column, ("rows", "disk", "time"))], rows)


async def stream(target: Target, request: Request, body: bytes) -> Response:
    """Server-sent events: the part of the page that shows the progress, whenever it has changed. Ends with the run."""

    if not target.is_run:
        raise Missing("Nothing is made here.", str(target.path), "")
    first = await run_in_threadpool(load_progress, target)  # what is wrong is answered before the stream begins

    async def events() -> AsyncIterator[str]:
        before, shown = "", first
        while not await request.is_disconnected():
            now = draw_progress(shown)
            if now != before:
                before = now
                told = {"html": now, "running": shown.running, "done": _done(shown)}
                yield f"data: {orjson.dumps(told).decode()}\n\n"
            if not shown.running:
                return
            await asyncio.sleep(EVERY)
            try:
                shown = await run_in_threadpool(load_progress, target)
            except (UserError, OSError):  # the run was deleted, say: the browser asks again, and is told
                return

    return StreamingResponse(events(), media_type="text/event-stream")
