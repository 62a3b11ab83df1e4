"""A step's batch, its loss and that of its rows, and the log around it."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from typing import Annotated, Any, Literal

import numpy as np
from pydantic import Field

from headrace.sequence.reader import SequenceReader
from headrace.sequence.windows import PADDING
from headrace.train.losses import RowLosses
from headrace.train.outcome import finite
from headrace.train.steps import Fate, Steps
from headrace.view.page import Query
from headrace.view.rows import Row, outlines
from headrace.view.target import Missing, Target

AROUND = 60  # steps on either side of the time line
MOST_AROUND = 300
MOST_ROWS = 32  # of a batch on a page
DOCUMENTS, TOKENS = 4, 40  # of a row, of a document


class StepQuery(Query):
    """Which step, in numbers of the training's log, from 1; and how its batch is shared."""

    stage: str
    step: Annotated[int, Field(ge=1)]
    ranks: Annotated[int, Field(ge=1)] | None = None
    batch: Annotated[int, Field(ge=1)] | None = None
    from_: Annotated[int, Field(ge=0, alias="from")] = 0
    sort: Literal["loss", "row"] = "loss"
    around: Annotated[int, Field(ge=5, le=MOST_AROUND)] = AROUND


@dataclass(frozen=True)
class OfSource:
    """What a source has of a batch.

    Attributes:
        name: the source.
        tokens: its tokens in the rows; None where they are no more.
        loss: mean loss of its targets, in nats; None where it was not recorded, or is not finite.
        targets: how many carried loss; None where it was not recorded.
    """

    name: str
    tokens: int | None
    loss: float | None
    targets: int | None


@dataclass(frozen=True)
class OfRow:
    """What was recorded of a row of a batch.

    Attributes:
        row: its number.
        loss: mean loss of its targets, in nats; None if it is not finite, or there are none.
        targets: how many carried loss.
        tokens: whether the loss of each is recorded too.
    """

    row: int
    loss: float | None
    targets: int
    tokens: bool


@dataclass(frozen=True)
class Shown:
    """What the page shows.

    Attributes:
        stage: the stage's name.
        step: the step.
        first: the first step that is known.
        last: the last step.
        done: the last step done.
        fate: what became of the step.
        trained: whether a training is known.
        stretches: ``{"trajectory", "first", "last", "current"}`` of each trajectory, oldest first.
        rows: the step's rows ``[start, stop)``.
        current: whether they are of the sequence as it is now.
        ranks: among how many ranks the batch is shared.
        recorded: among how many it was, if that is known.
        log: the step's line of the log; None if it was not logged.
        spike: the record of an outlying step.
        sources: what each source has of it.
        names: the names of all sources, in the order of their colors.
        recorded_rows: all rows of the batch with their losses, highest first, what is not finite before them; None
            where they were not recorded.
        batch: rows of the batch, from ``from`` on, in the order of ``sort``; empty where they are no more.
        documents: whether there are pages of documents.
        steps, losses: of the time line.
        outlying: step -> (loss, what became of it) of the spikes there.
    """

    stage: str
    step: int
    first: int
    last: int
    done: int
    fate: Fate
    trained: bool
    stretches: list[dict[str, Any]]
    rows: tuple[int, int]
    current: bool
    ranks: int
    recorded: int | None
    log: dict[str, Any] | None
    spike: dict[str, Any] | None
    sources: list[OfSource]
    names: list[str]
    recorded_rows: list[OfRow] | None
    batch: list[Row]
    documents: bool
    steps: list[int]
    losses: list[float | None]
    outlying: dict[int, tuple[float | None, str]]


def load(target: Target, query: StepQuery) -> Shown:
    """Read the batch and the lines of the log around the step."""
    sequence, steps = target.sequence(query.stage), target.steps(query.stage, query.batch)
    leg = steps.at(query.step)
    if leg is None:
        raise Missing(
            f"There is no step {query.step:,}.", query.stage, f"Its steps are {steps.first:,} to {steps.last:,}."
        )
    first, stop = leg.rows(query.step)
    current = leg.current and stop <= len(sequence)
    losses, with_tokens = leg.row_losses(query.step), leg.with_tokens(query.step)
    rows = None if losses is None else _by_loss(losses, first, with_tokens)
    order = [one.row for one in rows] if rows is not None and query.sort == "loss" else list(range(first, stop))
    batch, some = [], order[query.from_ : query.from_ + MOST_ROWS]
    if current and some:
        each = (leg.token_losses(query.step, [row]) for row in some if row in with_tokens)
        tokens = {row: own for found in each for row, own in found.items()}
        batch = outlines(target, query.stage, some, DOCUMENTS, TOKENS, target.decoder(query.stage), tokens)
    around = steps.log(query.step - query.around, query.step + query.around)
    line = next((one for one in around if one["step"] == query.step), None)
    spike = leg.spikes.get(query.step)
    recorded = leg.ranks(query.step)
    return Shown(
        query.stage,
        query.step,
        steps.first,
        steps.last,
        steps.done,
        steps.fate(query.step),
        leg.trajectory is not None,
        [{"trajectory": s.trajectory, "first": s.first, "last": s.last, "current": s.current} for s in steps.legs],
        (first, stop),
        current,
        query.ranks or recorded or 1,
        recorded,
        line,
        spike,
        _sources(line, spike, _tokens(sequence, first, stop) if current else {}),
        target.sources,
        rows,
        batch,
        target.documents is not None,
        [int(one["step"]) for one in around],
        [one["loss"] for one in around],
        _outlying(steps, query.step - query.around, query.step + query.around),
    )


def _by_loss(losses: RowLosses, first: int, tokens: Collection[int]) -> list[OfRow]:
    told = [finite(loss) for loss in losses.loss.tolist()]
    return [OfRow(first + i, told[i], int(losses.targets[i]), first + i in tokens) for i in losses.order.tolist()]


def _tokens(sequence: SequenceReader, first: int, stop: int) -> dict[str, int]:
    """The tokens of each source in some rows; nothing where the files do not tell."""
    found = sequence.segments_in(first, stop)
    if found is None or "source" not in found.columns or not sequence.sources:
        return {}
    part = slice(int(found.bounds[0]), int(found.bounds[-1]))
    kind, source, length = (found.columns[name][part] for name in ("kind", "source", "length"))
    real = kind != PADDING
    sums = np.bincount(source[real], weights=length[real], minlength=len(sequence.sources))
    return {name: int(n) for name, n in zip(sequence.sources, sums, strict=False) if n}


def _sources(line: dict[str, Any] | None, spike: dict[str, Any] | None, tokens: dict[str, int]) -> list[OfSource]:
    told = {} if line is None else line.get("sources", {})
    losses = {name: one.get("loss") for name, one in told.items()} or ({} if spike is None else spike["sources"])
    names = dict.fromkeys([*tokens, *losses])
    return [
        OfSource(name, tokens.get(name), losses.get(name), told.get(name, {}).get("tokens")) for name in names
    ]  # fmt: skip


def _outlying(steps: Steps, first: int, last: int) -> dict[int, tuple[float | None, str]]:
    return {
        step: (spike["loss"], f"{spike['reason']}, {ACTIONS[spike['action']]}")
        for leg in steps.legs
        for step, spike in leg.spikes.items()
        if first <= step <= last and leg.first <= step <= leg.last
    }


ACTIONS = {"skip": "skipped", "rollback": "rolled back", "stop": "the run stopped"}
"""What was done about an outlying step."""
