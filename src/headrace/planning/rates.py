"""Measured rates and sizes: the constants that plans are computed from.

They are in ``rates.yaml`` next to this file, each with the measurement that set it. ``python -m bench.rates`` writes
that file, and the same table in ``docs/planning.md``, from the results of ``bench steps`` and ``bench.scale``.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from pathlib import Path

FILE = Path(__file__).with_name("rates.yaml")


@dataclass(frozen=True)
class Figure:
    """A measured constant.

    Attributes:
        value: in ``unit``.
        unit: ``bytes/s`` (of text), ``tokens/s`` or ``documents/s``, all per core, or bytes of something.
        source: the measurement.
    """

    value: float
    unit: str
    source: str


@cache
def figures() -> dict[str, Figure]:
    """All constants by name."""
    import yaml

    entries = yaml.safe_load(FILE.read_text(encoding="utf-8"))
    return {name: Figure(float(entry["value"]), entry["unit"], entry["source"]) for name, entry in entries.items()}


def value(name: str) -> float:
    """A constant by name."""
    return figures()[name].value
