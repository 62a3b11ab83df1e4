"""Facts about a stage's training, from its artifacts; only times come from the checkpoints' folder."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

from headrace.flow.artifact import Artifact
from headrace.flow.storage import read_json
from headrace.report.facts import TrainingFacts
from headrace.report.samples import Generated
from headrace.train.metrics import FILE, read
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
    tail = losses[-max(1, len(losses) // 10) :]
    return TrainingFacts(
        steps=counts["steps"],
        tokens=counts["tokens"],
        loss_tokens=counts["loss_tokens"],
        skipped=counts["skipped"],
        seconds=_seconds(stage_folder(run, str(model.manifest.stage)) / extra["trajectory"] / FILE, lines),
        parameters=extra["parameters"],
        step=[line["step"] for line in lines],
        tokens_at=[line["tokens"] for line in lines],
        loss=[math.nan if line["loss"] is None else line["loss"] for line in lines],
        first=losses[0] if losses else None,
        last=sum(tail) / len(tail) if losses else None,
        held_out=_held_out(start, measured.get("held_out"), counts["steps"]),
        samples=[Generated(s["prompt"], s["suffix"], s["text"], s.get("truth"), s.get("source")) for s in written],
    )


def _measured(evaluation: Artifact) -> dict[str, Any]:
    found: Any = read_json(evaluation.file_path("evaluation.json"))
    return dict(found)


def _held_out(
    start: dict[str, Any] | None, end: dict[str, Any] | None, steps: int
) -> dict[str, list[tuple[int, float]]]:
    points: dict[str, list[tuple[int, float]]] = {}
    for step, at in ((0, start), (steps, end)):
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
