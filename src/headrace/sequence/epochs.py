"""How much of each source a stage takes: slices, epochs and weights resolved against token counts.

A slice is an interval of the unit line on which a keyed hash lays the documents, so ``[0, 0.5)`` and ``[0.5, 1)``
share no document and miss none. An epoch is a copy of the slice; the fraction of the last one is a keyed slice too.
A weight is a share of the stage's token total, and resolves to epochs.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from headrace.errors import UserError
from headrace.recipe.stages import Stage

MOST_EPOCHS = 65_535  # segments store the epoch as uint16


@dataclass(frozen=True)
class SourceCount:
    """What there is of a source.

    Attributes:
        tokens: tokens without the ends of documents.
        documents: documents; each adds one end-of-document token. Zero where only a token total is known, which then
            counts the ends already.
    """

    tokens: int
    documents: int = 0

    @property
    def stream(self) -> int:
        """Tokens of one pass, ends of documents included."""
        return self.tokens + self.documents


@dataclass(frozen=True)
class ResolvedSource:
    """What a stage takes of a source.

    Attributes:
        name: the source.
        slice: the interval of the unit line, half open.
        epochs: passes over the slice.
        documents: documents expected, copies counted.
        tokens: tokens expected, copies and ends of documents counted.
    """

    name: str
    slice: tuple[float, float]
    epochs: float
    documents: int
    tokens: int

    @property
    def copies(self) -> int:
        """Passes begun: the last may be a fraction."""
        return math.ceil(self.epochs)

    def share(self, copy: int) -> float:
        """The share of the slice that copy number ``copy`` takes: 1 for whole copies."""
        return min(1.0, max(0.0, self.epochs - copy))


@dataclass(frozen=True)
class ResolvedStage:
    """What a stage takes of all its sources, in the order of the recipe."""

    name: str
    sequence_length: int
    sources: tuple[ResolvedSource, ...]

    @property
    def tokens(self) -> int:
        """Tokens expected."""
        return sum(source.tokens for source in self.sources)

    @property
    def rows(self) -> int:
        """Rows expected of concatenated documents: one for every ``sequence_length`` tokens."""
        return self.tokens // self.sequence_length

    def steps(self, batch: int) -> int:
        """Whole batches of ``batch`` rows expected."""
        return self.rows // batch

    def to_json(self) -> dict[str, Any]:
        """The shares of tokens and all the above, for people and programs to read."""
        total = max(1, self.tokens)
        sources = {
            s.name: {
                "slice": list(s.slice),
                "epochs": s.epochs,
                "documents": s.documents,
                "tokens": s.tokens,
                "share": s.tokens / total,
            }
            for s in self.sources
        }
        return {"stage": self.name, "tokens": self.tokens, "rows": self.rows, "sources": sources}


def resolve(stage: Stage, counts: Mapping[str, SourceCount]) -> ResolvedStage:
    """Work out what a stage takes of each source.

    A slice's tokens are taken to be its share of the source's tokens, so a weighted stage meets its total as nearly
    as the keyed slices do (within about one part in the square root of the number of documents).

    Args:
        stage: the stage of the recipe.
        counts: what there is of each source, measured or expected.

    Returns:
        The resolved stage. The same stage and counts always give the same result.

    Raises:
        UserError: a slice goes beyond 0 and 1, epochs are not above 0, or a source has no tokens.
    """
    weights = {name: take.weight for name, take in stage.sources.items() if take.weight is not None}
    whole = math.fsum(weights.values())
    resolved = []
    for name, take in stage.sources.items():
        where = f"stages.{stage.name}.sources.{name}"
        low, high = take.slice
        if not 0 <= low < high <= 1:
            raise UserError(
                f"The slice [{low:g}, {high:g}] is not an interval between 0 and 1.",
                f"{where}.slice",
                "Write [from, to] with 0 <= from < to <= 1.",
            )
        count = counts.get(name, SourceCount(0))
        if count.tokens <= 0:
            raise UserError(
                f"Source {name!r} has no tokens for stage {stage.name!r}.",
                where,
                "See `headrace status` for what was read and removed; leave the source out of the stage, or mend it.",
            )
        if name in weights and stage.tokens is not None:
            epochs = stage.tokens * weights[name] / whole / (count.stream * (high - low))
        else:
            epochs = 1.0 if take.epochs is None else take.epochs
        if not 0 < epochs <= MOST_EPOCHS:
            raise UserError(
                f"{epochs:g} epochs of source {name!r} cannot be taken.",
                where,
                f"Epochs lie above 0 and not above {MOST_EPOCHS}: change `epochs`, or `weight` and `tokens`.",
            )
        times = (high - low) * epochs
        resolved.append(
            ResolvedSource(name, (low, high), epochs, round(count.documents * times), round(count.stream * times))
        )
    return ResolvedStage(stage.name, stage.sequence_length, tuple(resolved))
