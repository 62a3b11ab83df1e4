"""What a stage takes from each source, and how long it trains, before it is built."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from headrace.planning.counts import Basis, SourceCounts
from headrace.recipe.quality import Best
from headrace.recipe.schema import Recipe, Stage
from headrace.sequence.epochs import SourceCount, repeated, resolve


@dataclass(frozen=True)
class Share:
    """What a stage takes from a source.

    Attributes:
        source: the source's name.
        slice: the part of the source, between 0 and 1.
        epochs: passes over the slice.
        documents: documents, counting copies; None if unknown.
        tokens: tokens, counting copies.
    """

    source: str
    slice: tuple[float, float]
    epochs: float
    documents: int | None
    tokens: int


@dataclass(frozen=True)
class StagePlan:
    """A stage before it is built.

    Attributes:
        name: the stage.
        basis: ``measured`` if its sequence exists or its rows lie in files, otherwise ``estimated``, or ``expected``
            from stated counts.
        start: the stage it starts from, or ``scratch``; None without a model.
        sequence_length: tokens that each row trains on.
        batch: rows per step.
        tokens: tokens in its sequence.
        rows: rows in its sequence.
        steps: steps to train.
        sources: what it takes from each source.
        flops: floating-point operations of its training; None without a model.
        stored: whether it trains on rows in other files, so that ``sources`` are sequences.
    """

    name: str
    basis: Basis
    start: str | None
    sequence_length: int
    batch: int
    tokens: int
    rows: int
    steps: int
    sources: tuple[Share, ...]
    flops: float | None
    stored: bool = False

    @property
    def trained(self) -> int:
        """Tokens trained on, in whole batches."""
        return self.steps * self.batch * self.sequence_length


def resolve_stage(
    recipe: Recipe,
    index: int,
    sources: tuple[SourceCounts, ...],
    config: Any,
    ledger: dict[str, Any] | None,
    stored: tuple[Share, ...] | None = None,
) -> StagePlan:
    """Resolve a stage against the counts, against the ledger of its finished sequence, or against rows in files.

    Args:
        recipe: the recipe.
        index: the stage's index.
        sources: the size of each source.
        config: the model's shape; None without a model.
        ledger: the ledger of the stage's sequence; None before it is built.
        stored: what it takes from other files, if it trains on a sequence that is there already.
    """
    stage = recipe.stages[index]
    basis: Basis
    if stored is not None:
        shares, basis = stored, "measured"
        tokens = sum(share.tokens for share in shares)
        rows = tokens // stage.sequence_length
    elif ledger is not None:
        basis = "measured"
        shares = tuple(
            Share(name, tuple(s["slice"]), s["epochs"], s["copies"], s["tokens_in"] + s["added"] + s["ends"])
            for name, s in ledger["sources"].items()
        )
        tokens, rows = sum(share.tokens for share in shares), int(ledger["rows"])
    else:
        bases = {source.basis for source in sources if source.name in stage.sources}
        basis = "expected" if bases == {"expected"} else "estimated"
        shares, total = _resolved(stage, sources)
        # Shares of a stated total are rounded separately; the total itself is exact.
        tokens = total if stage.tokens is None else stage.tokens
        rows = tokens // stage.sequence_length
    batch, length = stage.train.batch, stage.sequence_length
    steps = rows // batch if stage.train.steps is None else min(rows // batch, stage.train.steps)
    flops = None
    if config is not None:
        from headrace.model.config import flops_per_token

        flops = float(flops_per_token(config, length)) * steps * batch * length
    start = _start(recipe, index) if recipe.model is not None else None
    return StagePlan(stage.name, basis, start, length, batch, tokens, rows, steps, shares, flops, stored is not None)


def doubts(plan: StagePlan, stage: Stage) -> list[str]:
    """What is likely to go wrong with a stage, in sentences."""
    about = "" if plan.basis == "measured" else "about "
    batches, name = plan.rows // plan.batch, f"Stage {stage.name!r}"
    said = []
    if plan.rows == 0:
        said.append(f"{name} has {about}{plan.tokens:,} tokens, too few for one row of {plan.sequence_length:,}.")
    elif batches == 0 and plan.flops is not None:
        said.append(f"{name} has {about}{plan.rows:,} rows, too few for one batch of {plan.batch:,}.")
    elif stage.train.steps is not None and stage.train.steps > batches and plan.flops is not None:
        said.append(
            f"{name} asks for {stage.train.steps:,} steps, but its sequence has only {about}{batches:,} batches."
        )
    if plan.stored:
        return said
    return [*said, *repeated(stage, {share.source: share.epochs for share in plan.sources})]


def _resolved(stage: Stage, sources: tuple[SourceCounts, ...]) -> tuple[tuple[Share, ...], int]:
    """What a stage takes from each source, and its total tokens."""
    documents = {source.name: source.documents for source in sources}
    # `SourceCount.tokens` excludes the ends of documents, which the counts of a plan include.
    counts = {s.name: SourceCount(max(0, s.tokens - (s.documents or 0)), s.documents or 0) for s in sources}
    best = {name: take.quality for name, take in stage.sources.items() if take.quality is not None}
    counts |= {name: _best(counts[name], one) for name, one in best.items() if name in counts}
    resolved = resolve(stage, counts)
    shares = tuple(
        Share(s.name, s.slice, s.epochs, None if documents[s.name] is None else s.documents, s.tokens)
        for s in resolved.sources
    )
    return shares, resolved.tokens


def _best(count: SourceCount, best: Best) -> SourceCount:
    """What is left of a source's documents, as long as the others; all of them where only a score is asked for."""
    wanted = best.tokens if best.tokens is not None else count.stream * (1 if best.top is None else best.top)
    share = min(1.0, wanted / max(1, count.stream))
    return SourceCount(round(count.tokens * share), round(count.documents * share))


def _start(recipe: Recipe, index: int) -> str:
    """The stage whose last checkpoint a stage starts from, or ``scratch``."""
    return recipe.stages[index].start or (recipe.stages[index - 1].name if index else "scratch")
