"""A list of learning-rate schedulers as the pieces of a recipe's schedule."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import pairwise
from typing import Any

from headrace.cerebras.read import Params

PLACE = "optimizer.learning_rate"
NEEDED = {
    "Constant": ("learning_rate",),
    "Linear": ("initial_learning_rate", "end_learning_rate"),
    "Polynomial": ("initial_learning_rate", "end_learning_rate"),
    "CosineDecay": ("initial_learning_rate", "end_learning_rate"),
    "Exponential": ("initial_learning_rate", "decay_rate"),
    "PiecewiseConstant": ("values", "boundaries"),
}


def pieces(params: Params, last: int) -> list[dict[str, Any]]:
    """The pieces of the schedule.

    The schedulers follow one another as in the Model Zoo's ``SequentialLR``: each but the last for its steps, beginning
    at its own step 0; the last goes on (``common/pytorch/PyTorchBaseModel.py``, ``optim/lr_scheduler.py``).

    Args:
        params: the file.
        last: the number of steps that will be made.

    Raises:
        UserError: a scheduler lacks a key, or its keys contradict each other.
    """
    schedulers = params.section("optimizer").get("learning_rate")
    if not schedulers:
        raise params.wrong("There is no learning rate.", PLACE, "Give a number or a list of schedulers.")
    out: list[dict[str, Any]] = []
    done = 0
    for i, one in enumerate(schedulers):
        final = i == len(schedulers) - 1
        out += _pieces(params, one, f"{PLACE}.{i}", final, max(1, last - done))
        done = sum(piece["steps"] for piece in out)
    return out


def _pieces(params: Params, one: Mapping[str, Any], place: str, final: bool, left: int) -> list[dict[str, Any]]:
    """The pieces of one scheduler; ``left`` is how many steps there are after those before."""
    name = one.get("scheduler")
    if name is None:
        raise params.wrong("A scheduler has no name.", place, f"Add `scheduler:`, one of {', '.join(NEEDED)}.")
    for key in NEEDED[name]:
        if one.get(key) is None:
            raise params.wrong(f"{name} needs {key}.", place, f"Add `{key}:`.")
    length: int | None = one.get("steps")
    if length is None:
        if not final or name not in ("Constant", "PiecewiseConstant"):
            raise params.wrong(f"{name} does not say how many steps it has.", place, "Add `steps:`.")
        length = left
    if name == "PiecewiseConstant":
        return _constants(params, one["values"], one["boundaries"], place, max(length, left) if final else length)
    if name == "Constant":
        return [_piece(one["learning_rate"], one["learning_rate"], length)]
    start = one["initial_learning_rate"]
    if name != "Exponential":
        shape = "cosine" if name == "CosineDecay" else "linear"
        return [_piece(start, one["end_learning_rate"], length, shape)]
    steps = max(left, length) if final else length  # the last one decays on after its steps
    try:
        return [_piece(start, start * one["decay_rate"] ** (steps / length), steps, "exponential")]
    except OverflowError:
        what = f"The rate grows beyond all numbers in {steps:,} steps."
        raise params.wrong(what, f"{place}.decay_rate", "Give a rate below 1.") from None


def _constants(
    params: Params, values: Sequence[float], boundaries: Sequence[float], place: str, length: int
) -> list[dict[str, Any]]:
    cuts = [0, *boundaries]
    if len(values) != len(cuts) or any(a >= b or b != int(b) for a, b in pairwise(cuts)):
        raise params.wrong(
            f"{len(values)} values do not lie between the boundaries {list(boundaries)}.",
            place,
            "Give rising whole numbers, one fewer than values.",
        )
    ends = [*(min(int(cut), length) for cut in cuts[1:]), length]
    return [_piece(v, v, end - int(cut)) for v, cut, end in zip(values, cuts, ends, strict=True) if cut < end]


def _piece(start: float, end: float, steps: int, shape: str = "linear") -> dict[str, Any]:
    return {"start": start, "end": end, "steps": steps, "shape": shape}
