"""Facts about a stage's training, from its artifacts; only times come from the checkpoints' folder."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

from headrace.flow.artifact import Artifact
from headrace.flow.storage import read_json
from headrace.report.facts import TrainingFacts
from headrace.report.samples import Generated
from headrace.train.metrics import EVALUATIONS, FILE, read
from headrace.train.trajectory import stage_folder


def training_facts(
    model: Artifact, run: Path, evaluation: Artifact | None, before: Artifact | None, samples: Artifact | None
) -> TrainingFacts:
    """What a stage's training logged, measured and generated.

    Args:
        model: the stage's model.
        run: the run folder, which has the log with times.
        evaluation: what was measured of the model.
        before: what was measured of the model that it started from.
        samples: what it wrote.
    """
    extra, counts = model.manifest.extra, model.manifest.counts
    lines = read(model.file_path(FILE))
    measured: dict[str, Any] = {} if evaluation is None else _measured(evaluation)
    start: Any = measured.get("initial")
    if start is None and before is not None:
        start = _measured(before)["held_out"]
    written: Any = [] if samples is None else read_json(samples.file_path("samples.json"))
    losses = [line["loss"] for line in lines if line["loss"] is not None]
    live = _live(stage_folder(run, str(model.manifest.stage)) / extra["trajectory"] / FILE, lines)
    tail = losses[-max(1, len(losses) // 10) :]
    return TrainingFacts(
        steps=counts["steps"],
        tokens=counts["tokens"],
        loss_tokens=counts["loss_tokens"],
        skipped=counts["skipped"],
        seconds=_seconds(live),
        parameters=extra["parameters"],
        step=[line["step"] for line in lines],
        tokens_at=[line["tokens"] for line in lines],
        loss=[math.nan if line["loss"] is None else line["loss"] for line in lines],
        first=losses[0] if losses else None,
        last=sum(tail) / len(tail) if losses else None,
        held_out=_held_out(start, _between(model), measured.get("held_out"), counts["steps"]),
        samples=[Generated(s["prompt"], s["suffix"], s["text"], s.get("truth"), s.get("source")) for s in written],
        infilling={
            kind: (told["exact"], told["holes"])
            for kind, told in (measured.get("held_out", {}).get("infilling") or {}).items()
        },
        learning_rate=[_number(line.get("learning_rate")) for line in lines],
        grad_norm=[_number(line.get("grad_norm")) for line in lines],
        by_source={
            name: [_number(line.get("sources", {}).get(name, {}).get("loss")) for line in lines]
            for name in dict.fromkeys(name for line in lines for name in line.get("sources", ()))
        },
        skipped_at=[line.get("skipped") for line in lines],
        tokens_per_second=[_number(line.get("tokens_per_second")) for line in live],
        waited=[_number(line.get("data_wait")) / max(line.get("seconds", 0.0), 1e-9) for line in live],
    )


def _number(value: float | None) -> float:
    return math.nan if value is None else value


def _between(model: Artifact) -> list[dict[str, Any]]:
    """What was measured while the stage trained."""
    names = [str(entry["name"]) for entry in model.manifest.files]
    return read(model.file_path(EVALUATIONS)) if EVALUATIONS in names else []


def _measured(evaluation: Artifact) -> dict[str, Any]:
    found: Any = read_json(evaluation.file_path("evaluation.json"))
    return dict(found)


def _held_out(
    start: dict[str, Any] | None, between: list[dict[str, Any]], end: dict[str, Any] | None, steps: int
) -> dict[str, list[tuple[int, float]]]:
    points: dict[str, list[tuple[int, float]]] = {}
    for step, at in ((0, start), *((one["step"], one) for one in between if one["step"] < steps), (steps, end)):
        for name, entry in (at or {"sources": {}})["sources"].items():
            points.setdefault(name, []).append((step, entry["loss"]))
    return points


def _live(path: Path, lines: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """The log in the checkpoints' folder, which has times, if it is from this very training; else nothing."""
    live = read(path)
    same = [(line["step"], line["loss"]) for line in live] == [(line["step"], line["loss"]) for line in lines]
    return live if same else []


def _seconds(live: list[dict[str, Any]]) -> float | None:
    """Total seconds of all steps, if each was logged."""
    if not live:
        return None
    if [line["step"] for line in live] != list(range(1, len(live) + 1)) or not all("seconds" in line for line in live):
        return None
    return float(sum(line["seconds"] for line in live))
