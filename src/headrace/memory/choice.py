"""Settings that take less memory and more time: what each would do, and the cheapest that make a training fit."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import product
from typing import Any

from headrace.errors import UserError
from headrace.memory.estimate import estimate
from headrace.memory.fit import fits, longest
from headrace.memory.machines import GIB, Machine
from headrace.memory.settings import Settings
from headrace.memory.shape import Shape
from headrace.memory.stage import settings_of
from headrace.recipe.training import TrainSection


@dataclass(frozen=True)
class Switch:
    """A key of a stage's `train` section with another value.

    Attributes:
        key: dotted.
        value: the value.
        cost: the time that it takes more, as a share of a step's: an argument, not a measurement.
    """

    key: str
    value: Any
    cost: float

    def __str__(self) -> str:
        return f"{self.key}: {str(self.value).lower() if isinstance(self.value, bool) else self.value}"


# One exchange of queries, keys, values and outputs a block, forward and backward, for each doubling.
_EXCHANGE = 0.05

SWITCHES: tuple[tuple[Switch, ...], ...] = (
    # More passes over the same weights; products are of fewer rows.
    (Switch("micro_batch", 1, 0.02),),
    # Weights are gathered twice a step, while products go on.
    (Switch("shard", "full", 0.05),),
    # Of the forward pass all but the products is done again; or all, a third of the operations.
    (Switch("recompute", "selective", 0.08), Switch("recompute", "full", 0.33)),
    # One more forward pass of the feed-forward network, two thirds of a block's products; but see below.
    (Switch("long.tile_mlp", "auto", 0.2),),
    tuple(Switch("long.sequence_parallel", 2**k, k * _EXCHANGE) for k in range(1, 11)),
    # Copies that go on while blocks are computed.
    (Switch("long.offload_checkpoints", True, 0.1),),
    # Weights, gradients and weights again go through the host, once a step, while nothing else is done.
    (Switch("long.offload_optimizer", True, 0.2),),
    # Each block's weights come from the host, and go back as gradients, for every pass.
    (Switch("long.offload_parameters", True, 0.4),),
)
"""By key, from the cheapest on; of each key one value at a time."""

# A block that is computed again stops before its feed-forward network, if that is tiled: it then costs almost nothing.
_TILED_AGAIN = 0.02


@dataclass(frozen=True)
class Advice:
    """What a switch would do.

    Attributes:
        switch: as in a recipe.
        longest: the longest row that would fit.
    """

    switch: str
    longest: int


def advice(train: TrainSection, length: int, shape: Shape, machine: Machine) -> list[Advice]:
    """The switches that would let longer rows fit, the one with the longest first; of each key the best value."""
    now = longest(shape, settings_of(train, length, shape, machine, ""), machine)
    found = []
    for switches in SWITCHES:
        tried = [_alone(train, switch) for switch in switches]
        turned = [(these, _settings(_with(train, these), length, shape, machine)) for these in tried]
        each = [Advice(_listed(these), longest(shape, one, machine)) for these, one in turned if one is not None]
        found += sorted(each, key=lambda one: -one.longest)[:1]
    return sorted((one for one in found if one.longest > now), key=lambda one: -one.longest)


def chosen(train: TrainSection, length: int, shape: Shape, machine: Machine, where: str) -> tuple[TrainSection, str]:
    """The section with the cheapest switches with which a stage fits, and why, in a sentence.

    Keys that the recipe states stay as they are. The same for the same arguments, in every process.

    Args:
        train: a stage's section.
        length: tokens of a row.
        shape: its model.
        machine: on what.
        where: the section's place in the recipe, for errors.

    Raises:
        UserError: nothing fits.
    """
    best: tuple[float, int, tuple[Switch, ...], TrainSection] | None = None
    least: tuple[int, tuple[Switch, ...]] | None = None
    for switches in _combinations(train):
        section = _with(train, switches)
        cost = _cost(section, switches)
        if best is not None and (cost, len(switches)) >= best[:2]:
            continue
        settings = _settings(section, length, shape, machine)
        if settings is None:
            continue
        found = estimate(shape, settings)
        if least is None or found.peak.total < least[0]:
            least = found.peak.total, switches
        if fits(found, machine):
            best = cost, len(switches), switches, section
    if best is None:
        settings_of(train, length, shape, machine, where)  # where no division is possible, this says so
        assert least is not None
        raise UserError(
            f"Rows of {length:,} tokens do not fit: a process would take {_gib(least[0])}, estimated, with "
            f"{_listed(least[1]) or 'nothing changed'}, and {_gib(machine.usable)} of {machine.name} are usable.",
            f"{where}.long",
            "Use more or larger devices, shorter rows, or a smaller model; `headrace memory` shows what takes most.",
        )
    plain = _settings(train, length, shape, machine)
    now = estimate(shape, settings_of(best[3], length, shape, machine, where)).peak.total
    room = f"{_gib(machine.usable)} of {machine.name} are usable"
    if not best[2]:
        return best[3], f"long: auto changes nothing: a process takes {_gib(now)}, estimated, and {room}."
    before = "" if plain is None else f" instead of {_gib(estimate(shape, plain).peak.total)}"
    return best[3], f"long: auto chose {_listed(best[2])}: a process takes {_gib(now)}{before}, estimated, and {room}."


def _alone(train: TrainSection, switch: Switch) -> tuple[Switch, ...]:
    """A switch as one would use it: processes that share rows have more of them, and take them one at a time."""
    one_row = SWITCHES[0][0]
    return (one_row, switch) if switch.key == "long.sequence_parallel" and train.micro_batch != 1 else (switch,)


def _cost(section: TrainSection, switches: tuple[Switch, ...]) -> float:
    again = section.recompute == "full"
    costs = (_TILED_AGAIN if again and one.key == "long.tile_mlp" else one.cost for one in switches)
    return round(sum(costs), 6)


def _combinations(train: TrainSection) -> Iterator[tuple[Switch, ...]]:
    """Switches of keys that the recipe leaves open, at most one of each."""
    stated = set(train.model_fields_set) | {f"long.{key}" for key in train.long.model_fields_set}
    free = [switches for switches in SWITCHES if switches[0].key not in stated]
    for found in product(*((None, *switches) for switches in free)):
        yield tuple(switch for switch in found if switch is not None)


def _with(train: TrainSection, switches: list[Switch] | tuple[Switch, ...]) -> TrainSection:
    own: dict[str, Any] = {}
    inner: dict[str, Any] = {}
    for switch in switches:
        section, _, key = switch.key.rpartition(".")
        (inner if section else own)[key] = switch.value
    return train.model_copy(update={**own, "long": train.long.model_copy(update=inner)})


def _settings(train: TrainSection, length: int, shape: Shape, machine: Machine) -> Settings | None:
    """A section's settings; None if it is not possible."""
    long = train.long
    asked = {"long.tile_mlp": long.tile_mlp is not None, "long.sequence_parallel": long.sequence_parallel > 1}
    if any(asked.get(key) for key in shape.refused):
        return None
    if long.tile_mlp is not None and train.compile and train.recompute == "selective":
        return None
    if long.offload_checkpoints and (train.recompute != "full" or not machine.accelerator):
        return None
    if long.offload_parameters and train.shard == "none":
        return None
    if (long.offload_optimizer or long.offload_parameters) and (
        train.optimizer.kind == "muon" or not machine.accelerator
    ):
        return None
    try:
        return settings_of(train, length, shape, machine, "")
    except UserError:
        return None


def _listed(switches: tuple[Switch, ...]) -> str:
    return ", ".join(map(str, switches))


def _gib(n: int) -> str:
    return f"{n / GIB:,.1f} GiB"
