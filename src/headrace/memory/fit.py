"""Whether a training fits a machine, the longest row that does, and what would make longer ones fit."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

from headrace.memory.estimate import Estimate, estimate
from headrace.memory.machines import Machine
from headrace.memory.settings import Settings
from headrace.memory.shape import Shape

# Rows are told in such steps; lengths beyond are not asked for.
STEP, MOST = 256, 1 << 31


def fits(found: Estimate, machine: Machine) -> bool:
    """Whether each process's peak fits its device, and all of a node its host's memory, as far as that is known."""
    on_device = found.peak.total <= machine.usable
    host = machine.host if machine.accelerator else None
    return on_device and (host is None or machine.devices * found.host_total <= host)


def longest(shape: Shape, settings: Settings, machine: Machine) -> int:
    """The most tokens of a row that fit, a multiple of 256 for each process that shares it; 0 if none do."""
    step = STEP * settings.sequence

    def enough(count: int) -> bool:
        return fits(estimate(shape, replace(settings, length=count * step)), machine)

    low, high = 0, 1
    while high * step < MOST and enough(high):
        low, high = high, 2 * high
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (middle, high) if enough(middle) else (low, middle)
    return low * step


@dataclass(frozen=True)
class Switch:
    """A setting that takes less memory and more time.

    Attributes:
        name: as in a stage's `train` section.
        cost: the time that it takes more, as a share of a step's; an argument, not a measurement.
        turned: settings with it; None where it is there already, or makes no difference.
    """

    name: str
    cost: float
    turned: Callable[[Shape, Settings], Settings | None]


def _one_row(shape: Shape, settings: Settings) -> Settings | None:
    return replace(settings, rows=1, passes=settings.passes * settings.rows) if settings.rows > 1 else None


def _sharded(shape: Shape, settings: Settings) -> Settings | None:
    return replace(settings, sharded=True) if settings.data * settings.sequence > 1 and not settings.sharded else None


def _selective(shape: Shape, settings: Settings) -> Settings | None:
    return replace(settings, recompute="selective") if settings.recompute == "none" else None


def _full(shape: Shape, settings: Settings) -> Settings | None:
    return replace(settings, recompute="full") if settings.recompute != "full" else None


def _tiled(shape: Shape, settings: Settings) -> Settings | None:
    own = not shape.foreign and settings.tile_mlp is None and shape.width < settings.stretch
    return replace(settings, tile_mlp=shape.width) if own else None


SWITCHES = (
    # More passes over the same weights; the products are as large, of one row.
    Switch("micro_batch: 1", 0.02, _one_row),
    # Weights are gathered twice a step, while products go on.
    Switch("shard: full", 0.05, _sharded),
    # Of the forward pass all but the products is done again.
    Switch("recompute: selective", 0.08, _selective),
    # Without recomputation one more forward pass of the feed-forward network, about two thirds of a block.
    Switch("long.tile_mlp: auto", 0.2, _tiled),
    # A second forward pass: a third of the operations.
    Switch("recompute: full", 0.33, _full),
)
"""From the cheapest on."""


@dataclass(frozen=True)
class Advice:
    """What a switch would do.

    Attributes:
        switch: its name.
        longest: the longest row that would fit.
    """

    switch: str
    longest: int


def advice(shape: Shape, settings: Settings, machine: Machine) -> list[Advice]:
    """The switches that would let longer rows fit, the one with the longest first."""
    now = longest(shape, settings, machine)
    turned = ((switch, switch.turned(shape, settings)) for switch in SWITCHES)
    found = [Advice(switch.name, longest(shape, after, machine)) for switch, after in turned if after is not None]
    return sorted((one for one in found if one.longest > now), key=lambda one: -one.longest)
