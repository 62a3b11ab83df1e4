"""The rows of each stage's sequence that hold a document."""

from __future__ import annotations

from contextlib import suppress
from dataclasses import dataclass

from headrace.errors import UserError
from headrace.sequence.provenance import Placement, find_rows
from headrace.sequence.store import ArrowSequence
from headrace.train.losses import mean_of
from headrace.train.outcome import finite
from headrace.train.steps import Fate, Steps, Taken
from headrace.view.target import Target

PAGE = 50  # places on one page


@dataclass(frozen=True)
class Place:
    """A slice of a document in a row, and the step that took or will take the row; None where nobody trains.

    Attributes:
        placement: the slice.
        step: the step's number.
        fate: what became of the row (:data:`headrace.train.steps.Fate`).
        loss: the mean loss of the slice in nats, where its tokens' losses were recorded; None where they were not.
        row_loss: that of the row, likewise.
    """

    placement: Placement
    step: int | None
    fate: Fate | None
    loss: float | None = None
    row_loss: float | None = None


@dataclass(frozen=True)
class Trained:
    """Where a document is in a stage's sequence.

    Attributes:
        places: how many slices of it there are.
        tokens: in all of them.
        epochs: copies of it.
        first: the first slice shown.
        shown: some slices, in training order.
    """

    places: int
    tokens: int
    epochs: int
    first: int
    shown: list[Place]


def training_of(target: Target, row: int, first: int) -> dict[str, Trained] | None:
    """Where a document is in each finished sequence; None while it is looked for.

    Args:
        target: the run.
        row: the document's row.
        first: the first slice of each to tell about.
    """
    found = target.later(("placements", row), lambda: _places(target, row))
    if found is None:
        return None
    return {name: _trained(target, name, places, first) for name, places in found.items()}


def _trained(target: Target, name: str, places: list[Placement], first: int) -> Trained:
    first = min(first, max(0, len(places) - 1) // PAGE * PAGE)
    tokens, epochs = sum(one.length for one in places), len({one.epoch for one in places})
    shown = places[first : first + PAGE]
    if target.batch(name) is None:
        return Trained(len(places), tokens, epochs, first, [Place(one, None, None) for one in shown])
    steps = target.steps(name)
    taken = steps.of_rows(one.row for one in shown)
    drawn = [Place(one, row.step, row.fate, *_losses(steps, row, one)) for one, row in zip(shown, taken, strict=True)]
    return Trained(len(places), tokens, epochs, first, drawn)


def _losses(steps: Steps, taken: Taken, one: Placement) -> tuple[float | None, float | None]:
    """The recorded losses of a slice and of its row."""
    tokens = steps.token_losses(taken).get(taken.row)
    loss = None if tokens is None else finite(mean_of(tokens, one.start, one.length)[0])
    return loss, steps.row_loss(taken)


def _places(target: Target, row: int) -> dict[str, list[Placement]]:
    found = {}
    for name in target.sequences:
        with suppress(UserError):  # not finished, or damaged: the page of the sequence says so
            sequence = target.sequence(name)
            if isinstance(sequence, ArrowSequence):
                found[name] = find_rows(sequence, row)
    return found
