"""Whether a training fits a machine, and the longest row that does."""

from __future__ import annotations

from dataclasses import replace

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
