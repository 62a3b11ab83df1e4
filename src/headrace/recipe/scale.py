"""A recipe at another scale: `scale` multiplies every amount that the recipe states outright."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from pydantic_core import PydanticCustomError

from headrace.recipe.base import parse_count, parse_size, wrong

Change = Callable[[Any], Any]


def scaled(data: dict[str, Any]) -> dict[str, Any]:
    """A recipe's raw data without ``scale``, with the amounts multiplied by it.

    These are the ``limit`` of sources, the ``count`` of synthetic ones, and the ``tokens``, steps and schedules in
    steps of stages. Values that are not amounts are left for validation to report.

    Args:
        data: as given, with defaults merged into the stages.
    """
    data = dict(data)
    factor = _number(data.pop("scale"))
    if isinstance(factor, bool) or not isinstance(factor, int | float) or not 0 < factor < float("inf"):
        raise wrong(f"the scale {factor!r} is not a number above 0", "write a number such as 0.1", "scale")
    if isinstance(sources := data.get("sources"), dict):
        data["sources"] = {name: _put(source, "limit", _times(factor, parse_size)) for name, source in sources.items()}
    if isinstance(synthetic := data.get("synthetic"), dict):
        data["synthetic"] = {name: _put(one, "count", _times(factor, parse_count)) for name, one in synthetic.items()}
    if isinstance(stages := data.get("stages"), list | tuple):
        data["stages"] = [_stage(stage, factor) for stage in stages]
    return data


def _number(value: Any) -> Any:
    """A number written as text, such as 1e-3, which YAML takes for a word."""
    try:
        return float(value) if isinstance(value, str) else value
    except ValueError:
        return value


def _stage(stage: Any, factor: float) -> Any:
    steps, length = _times(factor, parse_count), _times(factor, lambda value: value, least=1)
    stage = _put(stage, "tokens", steps)
    if not isinstance(stage, dict) or not isinstance(stage.get("train"), dict):
        return stage
    train = _put(stage["train"], "steps", steps)
    schedule = train.get("schedule")
    for key in ("warmup", "decay"):
        schedule = _put(schedule, key, lambda value: value if _is_share(value) else length(value))
    if isinstance(schedule, dict) and isinstance(pieces := schedule.get("pieces"), list | tuple):
        schedule = {**schedule, "pieces": [_put(piece, "steps", steps) for piece in pieces]}
    return {**stage, "train": {**train, "schedule": schedule} if "schedule" in train else train}


def _is_share(value: Any) -> bool:
    return isinstance(value, int | float) and value < 1


def _put(section: Any, key: str, change: Change) -> Any:
    """A section with a value changed, if it has one."""
    if not isinstance(section, dict) or section.get(key) is None:
        return section
    return {**section, key: change(section[key])}


def _times(factor: float, parse: Change, least: int = 1) -> Change:
    """Multiply an amount: to a whole number, at least ``least``."""

    def change(value: Any) -> Any:
        try:
            amount = parse(value)
        except PydanticCustomError:
            return value
        if isinstance(amount, bool) or not isinstance(amount, int | float) or not amount:
            return value
        return max(least, round(amount * factor))

    return change
