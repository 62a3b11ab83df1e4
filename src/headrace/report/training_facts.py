"""Facts about a stage's training, from the model's artifact; only times come from the checkpoints' folder."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

from headrace.flow.artifact import Artifact
from headrace.flow.storage import read_json
from headrace.report.facts import TrainingFacts
from headrace.report.samples import Generated
from headrace.train.metrics import read


def training_facts(model: Artifact, run: Path) -> TrainingFacts:
    """What a stage's training logged, measured and generated.

    Args:
        model: the stage's model.
        run: the run folder, which has the log with times.
    """
    extra, counts = model.manifest.extra, model.manifest.counts
    lines = read(model.file_path("metrics.jsonl"))
    evaluation: Any = read_json(model.file_path("evaluation.json"))
    samples: Any = read_json(model.file_path("samples.json"))
    return TrainingFacts(
        steps=counts["steps"],
        tokens=counts["tokens"],
        loss_tokens=counts["loss_tokens"],
        skipped=counts["skipped"],
        seconds=_seconds(run / "checkpoints" / str(model.manifest.stage) / "metrics.jsonl", lines),
        parameters=extra["parameters"],
        step=[line["step"] for line in lines],
        tokens_at=[line["tokens"] for line in lines],
        loss=[math.nan if line["loss"] is None else line["loss"] for line in lines],
        first=evaluation["train"]["first"],
        last=evaluation["train"]["last"],
        held_out=_held_out(evaluation["held_out"], counts["steps"]),
        samples=[Generated(s["prompt"], s["suffix"], s["text"], s.get("truth"), s.get("source")) for s in samples],
    )


def _held_out(measured: dict[str, Any], steps: int) -> dict[str, list[tuple[int, float]]]:
    points: dict[str, list[tuple[int, float]]] = {}
    for step, at in ((0, measured["start"]), (steps, measured["end"])):
        for name, entry in (at or {"sources": {}})["sources"].items():
            points.setdefault(name, []).append((step, entry["loss"]))
    return points


def _seconds(path: Path, lines: list[dict[str, Any]]) -> float | None:
    """Total seconds of all steps, if the log in the checkpoints' folder is complete and from this very training."""
    live = read(path)
    if not live or [(line["step"], line["loss"]) for line in live] != [(line["step"], line["loss"]) for line in lines]:
        return None
    if [line["step"] for line in live] != list(range(1, len(live) + 1)) or not all("seconds" in line for line in live):
        return None
    return float(sum(line["seconds"] for line in live))
