"""Measured rates and sizes, the constants that plans are computed from; and work, an amount at such a rate.

They are in ``rates.yaml`` next to this file, each with the measurement that set it. ``python -m bench.rates`` writes
that file, and the same table in ``docs/planning.md``, from the results of ``bench steps`` and ``bench.scale``.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from functools import cache
from pathlib import Path
from typing import Any

from headrace.planning.machine import EFFICIENCY

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


@dataclass(frozen=True)
class Work:
    """One step of building an artifact.

    Attributes:
        artifact: the graph's node, such as ``duplicates``.
        step: what is done.
        figure: the name of its rate.
        amount: how much there is to do.
        unit: the unit of the amount: ``bytes`` of text, ``documents`` or ``tokens``.
        rate: units per second and core.
        serial: whether it runs on one core, however many there are.
    """

    artifact: str
    step: str
    figure: str
    amount: float
    unit: str
    rate: float
    serial: bool = False

    @property
    def core_seconds(self) -> float:
        """Seconds on one core."""
        return self.amount / self.rate

    def seconds(self, cores: int) -> float:
        """Seconds on a number of cores, each of which counts for :data:`EFFICIENCY` unless there is only one."""
        return self.core_seconds / (1 if self.serial or cores == 1 else cores * EFFICIENCY)

    def to_json(self, cores: int) -> dict[str, Any]:
        """The attributes, and values derived from them."""
        return {**asdict(self), "core_seconds": self.core_seconds, "seconds": self.seconds(cores)}


def work(artifact: str, step: str, figure: str, amount: float, serial: bool = False) -> Work:
    """Work at a measured rate."""
    measured = figures()[figure]
    return Work(artifact, step, figure, amount, measured.unit.removesuffix("/s"), measured.value, serial)
