"""What `headrace eval` measured of a run's models on long texts."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import orjson

from headrace.errors import UserError
from headrace.flow.storage import read_json


@dataclass(frozen=True)
class Bin:
    """Positions ``first`` to ``last`` of long documents: the mean loss in nats per token, and its standard error."""

    first: int
    last: int
    loss: float
    error: float | None


@dataclass(frozen=True)
class Curve:
    """Loss by position after a stage.

    Attributes:
        row: tokens of a row in the stage's training.
        documents: how many documents the losses are means of.
        bins: in ascending order of positions.
    """

    row: int
    documents: int
    bins: list[Bin]


@dataclass(frozen=True)
class Cell:
    """Needles at a length and a depth: see :func:`headrace.evaluate.needle.evaluate`."""

    length: int
    depth: float
    exact: float
    first: float | None
    loss: float
    without: float


@dataclass(frozen=True)
class LongFacts:
    """Evaluations on long texts, by stage in training order; only those on the same texts, so that stages compare.

    Attributes:
        curves: loss by position.
        needles: pass keys found.
        trials: needles of each cell.
    """

    curves: dict[str, Curve] = field(default_factory=dict)
    needles: dict[str, list[Cell]] = field(default_factory=dict)
    trials: int = 0


def long_facts(run: Path, rows: Mapping[str, int]) -> LongFacts:
    """Read the results in the run's folder ``evaluations``.

    Of several settings, those that most stages were evaluated with, and of these the longest texts.

    Args:
        run: the run folder.
        rows: tokens of a row by stage, in training order.

    Raises:
        UserError: results are damaged.
    """
    curves, needles, trials = {}, {}, 0
    try:
        for stage, told in _comparable(run, rows, "loss-by-position").items():
            bins = [Bin(one["first"], one["last"], one["loss"], one["error"]) for one in told["positions"]]
            curves[stage] = Curve(rows[stage], told["documents"], bins)
        for stage, told in _comparable(run, rows, "needle").items():
            needles[stage], trials = [Cell(**cell) for cell in told["cells"]], told["trials"]
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise UserError(
            f"Results of `headrace eval` are damaged: {error!r}.",
            str(run / "evaluations"),
            "Delete the folder of needle or loss-by-position, and evaluate again.",
        ) from None
    return LongFacts(curves, needles, trials)


def _comparable(run: Path, rows: Mapping[str, int], task: str) -> dict[str, Any]:
    found: defaultdict[bytes, dict[str, Any]] = defaultdict(dict)
    longest: dict[bytes, int] = {}
    for stage in rows:
        summaries = (run / "evaluations" / stage).glob(f"{task}-*/summary.json")
        for path in sorted(summaries, key=lambda path: (path.stat().st_mtime_ns, path.name)):  # the newest stays
            settings: Any = read_json(path.with_name("settings.json"))
            told: Any = read_json(path)
            alike = orjson.dumps({**settings, "model": None}, option=orjson.OPT_SORT_KEYS)
            found[alike][stage] = told
            longest[alike] = max(settings.get("lengths") or [settings["length"]])
    if not found:
        return {}
    return found[max(found, key=lambda alike: (len(found[alike]), longest[alike], alike))]
