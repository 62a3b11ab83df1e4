"""What a stage takes from each source, and how long it trains, before it is built."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from headrace.planning.counts import Basis, SourceCounts
from headrace.recipe.lengths import Lengths, bucket_name, lengths_text
from headrace.recipe.quality import Best
from headrace.recipe.schema import Recipe, Stage
from headrace.recipe.stages import StageSource
from headrace.report.numbers import percent
from headrace.sequence.epochs import SourceCount, repeated, resolve

# Rows from this length on are for long contexts. With so many documents in a row, no token sees farther than the models
# that long-context training starts from: 4k of 32k, 16k of 128k.
LONG_ROWS, MANY_IN_A_ROW = 16_384, 8


@dataclass(frozen=True)
class Share:
    """What a stage takes from a source.

    Attributes:
        source: the source's name.
        slice: the part of the source, between 0 and 1.
        epochs: passes over the slice.
        documents: documents, counting copies; None if unknown.
        tokens: tokens, counting copies.
        lengths: the tokens of its documents, where those of some lengths are taken more than others.
    """

    source: str
    slice: tuple[float, float]
    epochs: float
    documents: int | None
    tokens: int
    lengths: Lengths | None = None


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
        shares = tuple(share for name, s in ledger["sources"].items() for share in _taken(name, s))
        tokens = sum(s["tokens_in"] + s["added"] + s["ends"] for s in ledger["sources"].values())
        rows = int(ledger["rows"])
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


def _taken(name: str, entry: dict[str, Any]) -> Iterator[Share]:
    """What a finished sequence took of a source, by its ledger."""
    low, high = entry["slice"]
    if "by_length" not in entry:
        tokens = entry["tokens_in"] + entry["added"] + entry["ends"]
        yield Share(name, (low, high), entry["epochs"], entry["copies"], tokens)
    for part in entry.get("by_length", ()):
        lengths = part["lengths"][0], part["lengths"][1]
        yield Share(name, (low, high), part["epochs"], part["copies"], part["reached"], lengths)


def doubts(plan: StagePlan, stage: Stage, sources: Sequence[SourceCounts] = ()) -> list[str]:
    """What is likely to go wrong with a stage, in sentences.

    Args:
        plan: the stage's plan.
        stage: its section of the recipe.
        sources: the size of each source; of those whose files are grouped, without lengths.
    """
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
    known = {source.name: source for source in sources}
    for name, take in stage.sources.items():
        if take.by_length and plan.basis != "measured" and name in known:
            said += _unknown(plan.name, name, take, known[name])
    if plan.rows and not stage.train.attention.documents:
        said += _short(plan, known)
    return [*said, *repeated(stage, ((share.source, share.lengths, share.epochs) for share in plan.sources))]


def _short(plan: StagePlan, sources: Mapping[str, SourceCounts]) -> Iterator[str]:
    """That long rows are mostly made of short documents, as far as lengths are known."""
    least = plan.sequence_length // MANY_IN_A_ROW
    long, tokens = 0.0, 0
    for share in plan.sources:
        of = sources[share.source].lengths if share.source in sources else None
        if of is None or not any(of.tokens):
            return
        low, high = share.lengths or (0, None)
        whole = of.within((low, high))[1]
        if whole > 0 and (high is None or high > least):
            long += share.tokens * of.within((max(low, least), high))[1] / whole
        tokens += share.tokens
    if plan.sequence_length >= LONG_ROWS and tokens and long < tokens / 2:
        yield (
            f"Stage {plan.name!r} has rows of {plan.sequence_length:,} tokens, but only {percent(long, tokens)} of its "
            f"tokens are in documents of {least:,} or more: most rows are many short documents, from which a model "
            "learns nothing about long contexts. Take long documents more often (`epochs` or `weight` by length), join "
            "files (`group`), or keep attention within documents (`train.attention: {documents: true}`)."
        )


def _unknown(stage: str, name: str, take: StageSource, source: SourceCounts) -> Iterator[str]:
    """Of which lengths nobody knows how many documents a source has."""
    lacking = [lengths_text(lengths) for lengths in lacking_lengths(take, source)]
    if source.lengths is None or not any(source.lengths.tokens):
        yield f"How long the documents of source {name!r} are is not known, so what stage {stage!r} takes is a guess."
    elif lacking:
        yield (
            f"The sample of source {name!r} has no documents {' nor '.join(lacking)}, so what stage {stage!r} takes "
            "is a guess; it cannot be built if there are none."
        )


def ungrouped(recipe: Recipe, stage: Stage, sources: Sequence[SourceCounts]) -> tuple[SourceCounts, ...]:
    """The sources of a stage; without lengths where it joins files, since nobody knows how long groups are."""
    groups = recipe.groups(stage) if stage.sources else {}
    return tuple(replace(source, lengths=None) if source.name in groups else source for source in sources)


def lacking_lengths(take: StageSource, source: SourceCounts) -> list[Lengths]:
    """The lengths that a stage takes and that no document of a source has, as far as is known."""
    wanted = [bucket.lengths for bucket in take.buckets if bucket.lengths is not None]
    return [one for one in wanted if source.lengths is None or source.lengths.within(one)[1] <= 0]


def _resolved(stage: Stage, sources: tuple[SourceCounts, ...]) -> tuple[tuple[Share, ...], int]:
    """What a stage takes from each source, and its total tokens."""
    documents = {source.name: source.documents for source in sources}
    # `SourceCount.tokens` excludes the ends of documents, which the counts of a plan include.
    counts = {s.name: SourceCount(max(0, s.tokens - (s.documents or 0)), s.documents or 0) for s in sources}
    best = {name: take.quality for name, take in stage.sources.items() if take.quality is not None}
    counts |= {name: _best(counts[name], one) for name, one in best.items() if name in counts}
    for source in sources:
        if source.name in stage.sources and stage.sources[source.name].by_length:
            counts |= _by_length(stage.sources[source.name], source, counts[source.name])
    resolved = resolve(stage, counts)
    shares = tuple(
        Share(s.name, s.slice, s.epochs, None if documents[s.name] is None else s.documents, s.tokens, s.lengths)
        for s in resolved.sources
    )
    return shares, resolved.tokens


def _by_length(take: StageSource, source: SourceCounts, count: SourceCount) -> dict[str, SourceCount]:
    """The size of each bucket; where the lengths are not known, each gets the same."""
    counts, guessed = {}, bool(lacking_lengths(take, source))
    for bucket in take.buckets:
        assert bucket.lengths is not None
        documents = tokens = 1 / len(take.buckets)
        if source.lengths is not None and not guessed:
            documents, tokens = source.lengths.within(bucket.lengths)
        sizes = max(1, round(count.tokens * tokens)), round(count.documents * documents)
        counts[bucket_name(source.name, bucket.lengths)] = SourceCount(*sizes)
    return counts


def _best(count: SourceCount, best: Best) -> SourceCount:
    """What is left of a source's documents, as long as the others; all of them where only a score is asked for."""
    wanted = best.tokens if best.tokens is not None else count.stream * (1 if best.top is None else best.top)
    share = min(1.0, wanted / max(1, count.stream))
    return SourceCount(round(count.tokens * share), round(count.documents * share))


def _start(recipe: Recipe, index: int) -> str:
    """The stage whose last checkpoint a stage starts from, or ``scratch``."""
    return recipe.stages[index].start or (recipe.stages[index - 1].name if index else "scratch")
