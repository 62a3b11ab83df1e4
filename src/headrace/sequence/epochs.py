"""How much of each source a stage takes: resolve slices, epochs and weights against token counts.

A slice is an interval of the unit line, on which a keyed hash places the documents, so ``[0, 0.5)`` and ``[0.5, 1)``
have no document in common and miss none. An epoch is a copy of the slice; the fraction of the last one is a keyed slice
too. A weight is a share of the stage's tokens, met to within a document (:mod:`headrace.sequence.weigh`); the epochs it
amounts to are estimated here as accurately as the slice's tokens are known.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from headrace.errors import UserError
from headrace.flow.artifact import Artifact
from headrace.recipe.lengths import Lengths, bucket_name, lengths_text
from headrace.recipe.stages import Stage

MOST_EPOCHS = 65_535  # segments store the epoch as uint16
# Muennighoff et al. 2023 (2305.16264): with up to 4 epochs the loss hardly differs from that of new text; the value of
# a repetition decays exponentially, to 1/e at 15 of them.
MANY_EPOCHS, SPENT_EPOCHS = 4, 16


@dataclass(frozen=True)
class SourceCount:
    """The size of a source.

    Attributes:
        tokens: tokens, excluding the ends of documents.
        documents: documents; each adds one end-of-document token. Zero if only a token total is known, which then
            already includes the ends.
    """

    tokens: int
    documents: int = 0

    @property
    def stream(self) -> int:
        """Tokens in one pass, including the ends of documents."""
        return self.tokens + self.documents


@dataclass(frozen=True)
class ResolvedSource:
    """What a stage takes from a source.

    Attributes:
        name: the source.
        slice: the half-open interval of the unit line.
        epochs: passes over the slice.
        documents: expected documents, counting copies.
        tokens: expected tokens, counting copies and ends of documents.
        wanted: the weight's share of the stage's tokens; None for sources with epochs.
        lengths: the tokens of its documents, if a stage takes those of some lengths more than others.
    """

    name: str
    slice: tuple[float, float]
    epochs: float
    documents: int
    tokens: int
    wanted: int | None = None
    lengths: Lengths | None = None

    @property
    def key(self) -> str:
        """What tells it from everything else that the stage takes: the source, with the least length if it has one."""
        return bucket_name(self.name, self.lengths)

    @property
    def copies(self) -> int:
        """Passes started: the last may be a fraction."""
        return math.ceil(self.epochs)

    def share(self, copy: int) -> float:
        """The share of the slice that copy number ``copy`` takes: 1 for a whole copy."""
        return min(1.0, max(0.0, self.epochs - copy))


@dataclass(frozen=True)
class ResolvedStage:
    """What a stage takes from all its sources, in recipe order, and from each by length."""

    name: str
    sequence_length: int
    sources: tuple[ResolvedSource, ...]

    @property
    def tokens(self) -> int:
        """Expected tokens."""
        return sum(source.tokens for source in self.sources)

    @property
    def rows(self) -> int:
        """Expected rows of concatenated documents: one per ``sequence_length`` tokens."""
        return self.tokens // self.sequence_length

    def steps(self, batch: int) -> int:
        """Expected whole batches of ``batch`` rows."""
        return self.rows // batch

    def to_json(self) -> dict[str, Any]:
        """All of the above and the shares of tokens, for people and programs to read."""
        total = max(1, self.tokens)
        sources = {
            s.key: {
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
    """Compute what a stage takes from each source.

    A slice is assumed to have its share of the source's tokens, which holds to about one part in the square root of the
    number of documents.

    Args:
        stage: the recipe's stage.
        counts: the size of each source, measured or expected; by :func:`~headrace.recipe.lengths.bucket_name` where
            documents are taken by length.

    Returns:
        The resolved stage. The same stage and counts always give the same result.

    Raises:
        UserError: a slice is not within 0 and 1, epochs are not positive, or a source has no tokens.
    """
    parts = [(name, take, bucket) for name, take in stage.sources.items() for bucket in take.buckets]
    whole = math.fsum(bucket.weight for _, _, bucket in parts if bucket.weight is not None)
    resolved = []
    for name, take, bucket in parts:
        where = f"stages.{stage.name}.sources.{name}"
        low, high = take.slice
        if not 0 <= low < high <= 1:
            raise UserError(
                f"The slice [{low:g}, {high:g}] is not an interval between 0 and 1.",
                f"{where}.slice",
                "Write [from, to] with 0 <= from < to <= 1.",
            )
        count, wanted = counts.get(bucket_name(name, bucket.lengths), SourceCount(0)), None
        what = repr(name) if bucket.lengths is None else f"{name!r}, documents {lengths_text(bucket.lengths)},"
        if count.tokens <= 0:
            raise UserError(
                f"Source {what} has no tokens for stage {stage.name!r}.",
                where,
                "Check `headrace status` for what was read and removed; fix the source, or remove it from the stage.",
            )
        if bucket.weight is not None and stage.tokens is not None:
            share = stage.tokens * bucket.weight / whole
            epochs = share / (count.stream * (high - low))
            wanted = max(1, math.ceil(round(share, 3)))
        else:
            epochs = 1.0 if bucket.epochs is None else bucket.epochs
        if not 0 < epochs <= MOST_EPOCHS:
            raise UserError(
                f"Source {what} cannot have {epochs:g} epochs.",
                where,
                f"Epochs must be above 0 and at most {MOST_EPOCHS}: change `epochs`, or `weight` and `tokens`.",
            )
        times = (high - low) * epochs
        expected = round(count.documents * times), round(count.stream * times)
        resolved.append(ResolvedSource(name, (low, high), epochs, *expected, wanted, bucket.lengths))
    return ResolvedStage(stage.name, stage.sequence_length, tuple(resolved))


def repeated(stage: Stage, epochs: Iterable[tuple[str, Lengths | None, float]]) -> Iterator[str]:
    """Warnings about sources of which a stage takes many epochs.

    Args:
        stage: the recipe's stage.
        epochs: source, lengths of documents if they are taken by length, and epochs.
    """
    for name, lengths, passes in epochs:
        if passes > MANY_EPOCHS:
            times = f"{passes:.3g}" if passes < 100 else f"{passes:,.0f}"
            by = " by its weight" if stage.sources[name].weight is not None else ""
            of = "" if lengths is None else f", documents {lengths_text(lengths)},"
            yield (
                f"Stage {stage.name!r} reads source {name!r}{of} {times} times{by}. Up to {MANY_EPOCHS} passes are "
                f"nearly as good as new text; the value of more decays, to a third by about the {SPENT_EPOCHS}th "
                "(Muennighoff et al. 2023, 2305.16264)."
            )


def counts_of(tokens: Artifact, split: str) -> dict[str, SourceCount]:
    """The size of each source in the token store, for one split."""
    counts = {}
    for source, splits in tokens.manifest.counts.items():
        held = splits.get(split, {})
        counts[source] = SourceCount(held.get("tokens", 0), held.get("documents", 0))
    return counts
