"""The work of a run, step by step: an amount of something, at a measured rate per core."""

from __future__ import annotations

from dataclasses import asdict, dataclass, replace
from typing import Any

from headrace.planning.counts import BYTES_PER_TOKEN, SourceCounts
from headrace.planning.machine import EFFICIENCY
from headrace.planning.rates import figures
from headrace.planning.references import DOCUMENT_BYTES, ReferenceCounts
from headrace.planning.stages import StagePlan
from headrace.planning.synthetic import asked
from headrace.recipe.quality import AnyAnnotator, Encoder, Trained
from headrace.recipe.schema import Group, Recipe, Stage

# Formats whose files are parsed as Python.
PARSED = frozenset({"docstrings", "docstring_chat", "pydoc_topics"})


@dataclass(frozen=True)
class Work:
    """One step of building an artifact.

    Attributes:
        artifact: the graph's node, such as ``duplicates``.
        step: what is done.
        figure: the name of its rate.
        amount: how much there is to do.
        unit: the unit of the amount: ``bytes`` of text, ``documents`` or ``tokens``.
        rate: units per second and core.
        serial: whether it runs on one core, however many there are.
    """

    artifact: str
    step: str
    figure: str
    amount: float
    unit: str
    rate: float
    serial: bool = False

    @property
    def core_seconds(self) -> float:
        """Seconds on one core."""
        return self.amount / self.rate

    def seconds(self, cores: int) -> float:
        """Seconds on a number of cores, each of which counts for :data:`EFFICIENCY` unless there is only one."""
        return self.core_seconds / (1 if self.serial or cores == 1 else cores * EFFICIENCY)

    def to_json(self, cores: int) -> dict[str, Any]:
        """The attributes, and values derived from them."""
        return {**asdict(self), "core_seconds": self.core_seconds, "seconds": self.seconds(cores)}


def work(artifact: str, step: str, figure: str, amount: float, serial: bool = False) -> Work:
    """Work at a measured rate."""
    measured = figures()[figure]
    return Work(artifact, step, figure, amount, measured.unit.removesuffix("/s"), measured.value, serial)


def documents_of(sources: tuple[SourceCounts, ...]) -> int:
    """Documents in all sources, estimated from their text if unknown."""
    return sum(source.documents or round(source.bytes / DOCUMENT_BYTES) for source in sources)


def row_bytes(documents: int) -> int:
    """Bytes of a row number, as in ``components.row_dtype``, whose module would compile kernels."""
    return 4 if documents <= 1 << 32 else 8


_READING = {"documents": "read, write", "documents-ftfy": "read, fix with ftfy, write", "syntax": "parse Python"}


def _read(recipe: Recipe, sources: tuple[SourceCounts, ...]) -> dict[str, int]:
    """Rate name -> bytes of text to read at that rate."""
    plain = "documents-ftfy" if recipe.documents.normalise == "ftfy" else "documents"
    sizes: dict[str, int] = {}
    for source in sources:
        section = recipe.sources[source.name]
        parsed = any(section.format_of(files) in PARSED for files in section.files)
        figure = "syntax" if parsed else plain
        sizes[figure] = sizes.get(figure, 0) + source.bytes
    return sizes


def compared(sources: tuple[SourceCounts, ...], references: tuple[ReferenceCounts, ...]) -> int:
    """Documents that are compared for duplicates."""
    return documents_of(sources) + sum(reference.documents for reference in references)


def selection(
    recipe: Recipe, sources: tuple[SourceCounts, ...], references: tuple[ReferenceCounts, ...] = ()
) -> list[Work]:
    """The work from the sources to the verdicts."""
    text, documents = sum(source.bytes for source in sources), documents_of(sources)
    out = [work("documents", _READING[figure], figure, size) for figure, size in _read(recipe, sources).items()]
    if recipe.uses_measures:
        out.append(work("measures", "measure", "measures", text))
    near = near_of(recipe)
    if near is not None:
        figure = "signatures" if near.signature == "fast" else "signatures-datasketch"
        out.append(work("signatures", f"sign ({near.signature})", figure, text))
    for k, reference in enumerate(references):
        figure = "documents-ftfy" if recipe.documents.normalise == "ftfy" else "documents"
        if not reference.run:
            out.append(work(f"reference-documents-{k}", _READING[figure], figure, reference.bytes))
        if near is not None and reference.signed:
            figure = "signatures" if near.signature == "fast" else "signatures-datasketch"
            out.append(work(f"reference-signatures-{k}", f"sign ({near.signature})", figure, reference.signed))
    if recipe.deduplicate is not None or recipe.split.check is not None:
        looked_at = compared(sources, references)
        out.append(work("duplicates", "candidates", "candidates", looked_at))
        out.append(work("duplicates", "components", "components", looked_at, serial=True))
    out += _decontamination(recipe, text)
    for name, annotator in recipe.quality.annotators.items():
        out += _annotation(name, annotator, documents, text)
    out.append(work("verdicts", "filter", "verdicts", documents))
    if recipe.deduplicate is not None and recipe.deduplicate.near is not None and recipe.deduplicate.near.verify:
        # Upper bound: as if every document had a candidate.
        out.append(work("verdicts", "verify (upper bound)", "verify", text))
    return out


def _decontamination(recipe: Recipe, text: int) -> list[Work]:
    """The work of the search for benchmarks; whole texts are found in one go with n-grams, whatever they are."""
    if recipe.decontaminate is None:
        return []
    out = [work("contamination", "search", "contamination", text)]
    return [*out, work("contamination", "shapes", "contamination-shapes", text)] if recipe.decontaminate.shapes else out


def _annotation(name: str, annotator: AnyAnnotator, documents: int, text: int) -> list[Work]:
    """The work of an annotator: training it, if it is trained here, and scores of all documents."""
    kind, out = annotator.kind, []
    if isinstance(annotator, Trained):
        # As many negatives as positives, each as long as the corpus' documents. What is read once is read again in each
        # pass, and for the learning curve; a frozen encoder keeps what it has read.
        examples = 2 * min(annotator.examples, documents)
        again = 1 + sum(annotator.curve)
        passes = getattr(annotator, "passes", 1) * again
        if isinstance(annotator, Encoder):
            # Forward and backward take three times as long as forward alone.
            passes = 1 + (3 * annotator.fine_tune.passes * again if annotator.fine_tune else 0)
        out.append(_by_kind(f"annotator-{name}", "train", f"annotator-{kind}", examples * passes, documents, text))
    return [*out, _by_kind(f"quality-{name}", "score", f"quality-{kind}", documents, documents, text)]


def _by_kind(artifact: str, step: str, figure: str, amount: float, documents: int, text: int) -> Work:
    """Work on so many documents, counted in documents or in their text, as the rate is."""
    of_text = figures()[figure].unit == "bytes/s"
    return work(artifact, step, figure, amount * text / max(1, documents) if of_text else amount)


def writing(recipe: Recipe) -> list[Work]:
    """The work of the servers that write synthetic sources: as many answers at once as the recipe allows."""
    out = []
    for name, config in recipe.synthetic.items():
        one, server = asked(config), config.server
        if server.url is None:
            continue
        at_once = min(server.concurrency, one.requests)
        made = work(f"synthetic-{name}", f"write ({at_once} at once)", "answers", one.output, serial=True)
        out.append(replace(made, rate=made.rate * at_once))
    return out


def near_of(recipe: Recipe) -> Any:
    """The near-duplicate settings for signatures; None if there are none."""
    from headrace.recipe.schema import Near

    near = recipe.deduplicate.near if recipe.deduplicate is not None else None
    return Near() if near is None and recipe.split.check == "near" else near


def tokenising(recipe: Recipe, sources: tuple[SourceCounts, ...]) -> list[Work]:
    """The work of the tokenizer and the tokens: what is kept, as far as its tokens are known."""
    assert recipe.tokenizer is not None  # the schema requires it if there are stages
    kept = sum(min(source.bytes, source.tokens * BYTES_PER_TOKEN) for source in sources)
    train = recipe.tokenizer.train
    out = [work("tokenizer", "train", "tokenizer", min(kept, train.sample or kept))] if train is not None else []
    return [*out, work("tokens", "encode", "tokens", kept)] if sources else out


def grouping(recipe: Recipe, sources: tuple[SourceCounts, ...]) -> list[Work]:
    """The work of putting the files of groups in order; of what groups alone take, nobody notices anything."""
    out = []
    for stage in recipe.stages:
        ordered = {name for name, group in recipe.groups(stage).items() if group.order == "dependencies"}
        text = sum(source.bytes for source in sources if source.name in ordered)
        if text and recipe.first_grouped(stage) == stage.name:
            out.append(work(f"groups-{stage.name}", "imports and order", "groups", text))
    return out


def sequence(stage: StagePlan, section: Stage, groups: dict[str, Group]) -> list[Work]:
    """The work of a stage's sequence: tokens are moved; what is rearranged, put in a template or given a header is
    encoded again."""
    name = f"sequence-{stage.name}"
    if section.sequence:
        # Upper bound: rows that are there already are only copied.
        return [work(name, "copy (upper bound)", "sequence", stage.tokens)]
    again = 0.0
    for share in stage.sources:
        fim = section.sources[share.source].fim
        headed = share.source in groups and any(groups[share.source].joined[:2])
        again += share.tokens * (1 if section.chat or headed else fim.rate if fim else 0)
    out = [work(name, "sample, pack, shuffle", "sequence", stage.tokens)]
    what = "chat" if section.chat else "headers, FIM" if groups else "FIM"
    return [*out, work(name, what, "rearranged", again)] if again else out
