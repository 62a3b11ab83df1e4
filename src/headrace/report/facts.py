"""What is known about a run: one plain structure from which both the page and the terminal's summary are made.

Everything here was measured in the run. What does not exist yet is None or empty, never zero.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from typing import Any

from headrace.report.long_facts import LongFacts
from headrace.report.samples import Generated, SampleRow

Pairs = dict[tuple[str, str], int]
"""Documents by two names, such as the sources of a removed document and of the copy that is kept."""


@dataclass(frozen=True)
class SourceFacts:
    """What happened to a source's records.

    Attributes:
        name: the source's name.
        files: files read, None if not recorded.
        documents: records that became documents.
        bytes: UTF-8 bytes of their text.
        characters: code points of their text.
        quarantined: records that could not be read.
        skipped: records without text.
        kept: documents in all splits, None before the verdicts.
        removed: reason -> documents.
        splits: split -> kept documents.
        tokens: tokens in kept documents, each counted once; None before they are tokenized.
        stored_bytes: UTF-8 bytes of those documents' text; None before they are tokenized.
        lost_rows: records that damaged files promised but did not deliver.
        lost_bytes: bytes of damaged files that could not be read, if records are not known.
        removed_bytes: reason -> UTF-8 bytes of the removed documents' text; empty if not computed.
        lengths: documents with texts of 0 bytes, 1, 2 to 3, 4 to 7, ...; None if not computed.
        kept_lengths: the same for kept documents; None before the verdicts.
    """

    name: str
    files: int | None
    documents: int
    bytes: int
    characters: int
    quarantined: int
    skipped: int = 0
    kept: int | None = None
    removed: dict[str, int] = field(default_factory=dict)
    splits: dict[str, int] = field(default_factory=dict)
    tokens: int | None = None
    stored_bytes: int | None = None
    lost_rows: int = 0
    lost_bytes: int = 0
    removed_bytes: dict[str, int] = field(default_factory=dict)
    lengths: list[int] | None = None
    kept_lengths: list[int] | None = None

    @property
    def bytes_a_token(self) -> float | None:
        """Bytes per token in the kept documents' text, None without tokens."""
        return self.stored_bytes / self.tokens if self.stored_bytes and self.tokens else None

    def removed_tokens(self, reason: str | None = None) -> float | None:
        """An estimate of the tokens removed for a reason (or in total): removed documents are not tokenized, so they
        are assumed to have as many bytes per token as the source's kept documents.

        Returns:
            The estimate, None if nothing of the source was tokenized or its lengths were not computed.
        """
        if self.lengths is None:
            return None
        gone = sum(self.removed_bytes.values()) if reason is None else self.removed_bytes.get(reason, 0)
        rate = self.bytes_a_token
        return 0.0 if not gone else None if rate is None else gone / rate

    @property
    def read(self) -> int:
        """Records read: documents, quarantined records and empty ones."""
        return self.documents + self.quarantined + self.skipped


@dataclass(frozen=True)
class FoundCount:
    """A count that the recipe expects of a source, and what was found.

    Attributes:
        source: the source's name.
        key: the count's key below the source's ``expect``.
        what: what is counted, in words.
        unit: ``documents``, ``bytes`` or ``tokens``.
        found: the count in this run.
        expected: the count in the recipe.
        tolerance: the share of the expected count by which the found one may differ.
    """

    source: str
    key: str
    what: str
    unit: str
    found: int
    expected: int
    tolerance: float

    @property
    def deviation(self) -> float | None:
        """By what share of the expected count the found one differs; None if none were expected."""
        return (self.found - self.expected) / self.expected if self.expected else None

    @property
    def departs(self) -> bool:
        """Whether it differs by more than it may."""
        return abs(self.found - self.expected) > self.tolerance * self.expected


def removed_by_reason(sources: list[SourceFacts]) -> dict[str, int]:
    """Reason -> removed documents of all sources, most frequent first."""
    total: dict[str, int] = {}
    for source in sources:
        for reason, n in source.removed.items():
            total[reason] = total.get(reason, 0) + n
    return dict(sorted(total.items(), key=lambda item: (-item[1], item[0])))


@dataclass(frozen=True)
class Place:
    """A document: where it came from, an excerpt of its text, and the spans of the excerpt that are marked."""

    id: str
    source: str
    origin: str
    text: str
    marks: list[tuple[int, int]] = field(default_factory=list)


@dataclass(frozen=True)
class Example:
    """A removed document with the evidence; ``other`` is the document it is a copy of."""

    reason: str
    document: Place
    evidence: dict[str, Any]
    other: Place | None = None


@dataclass(frozen=True)
class Hit:
    """A benchmark item in a document that was removed for it, side by side.

    Attributes:
        item: its name.
        method: ``substring``, ``ngram`` or ``shape``.
        field: the text found whole; None otherwise.
        overlap: the share of the item's n-grams, or of its program's shape.
        start, end: the evidence, in characters of the document.
        row: the document's row.
        document: the document, with what the item has too marked.
        text: the item's text.
        marks: what of it the document has too.
    """

    item: str
    method: str
    field: str | None
    overlap: float
    start: int
    end: int
    row: int
    document: Place
    text: str
    marks: list[tuple[int, int]]

    @property
    def benchmark(self) -> str:
        """The item's benchmark."""
        return self.item.partition(":")[0]


@dataclass(frozen=True)
class Hits:
    """What decontamination found in the documents that it removes.

    Attributes:
        total: benchmark -> how many items were found, counting each document.
        shown: the first of each benchmark.
        folder: the artifact that has them all, below the run.
    """

    total: dict[str, int]
    shown: list[Hit]
    folder: str


@dataclass(frozen=True)
class StageSourceFacts:
    """What a stage took from a source, from its sequence's ledger.

    Attributes:
        name: the source's name.
        documents: distinct documents.
        copies: documents, counting every copy.
        slice: the part of the source it takes, from and to, by keyed hash.
        epochs: passes over the slice.
        tokens: tokens in the rows, counting those shared by two rows once.
        loss_tokens: targets that carry loss.
        fim: share of the source's positions in documents rearranged for infilling.
        fim_psm: copies (or, with FIM on rows, pieces) in prefix-suffix-middle order.
        fim_spm: the same in suffix-prefix-middle order.
        groups: what became of the files of repositories, as the ledger counts them; None if they are not joined.
        by_length: what it took of documents of each length, as the ledger counts it; empty if it took all alike.
    """

    name: str
    documents: int
    copies: int
    slice: tuple[float, float]
    epochs: float
    tokens: int
    loss_tokens: int
    fim: float = 0.0
    fim_psm: int = 0
    fim_spm: int = 0
    groups: dict[str, int] | None = None
    by_length: tuple[dict[str, Any], ...] = ()


@dataclass(frozen=True)
class TrainingFacts:
    """The training of one stage.

    Attributes:
        steps: optimizer steps done.
        tokens: tokens in their rows.
        loss_tokens: targets that carried loss.
        skipped: steps whose gradient was not finite, and which changed nothing.
        seconds: wall-clock time of the steps, None if not recorded.
        parameters: parameters in the model, None if not recorded.
        step: the steps that were logged.
        tokens_at: tokens trained on in this stage, up to and including each of these.
        loss: the mean loss of each, in nats per token; NaN if not measured.
        first: loss of the first logged step.
        last: mean loss of the last tenth of the logged steps (at least one).
        held_out: source -> [(steps done in this stage, loss)], in order.
        samples: texts the model wrote at the end.
        infilling: what was taken out of held-out documents ("line", "span") -> how often the model wrote exactly that,
            and how many there were.
        learning_rate: of each logged step, as are all fields below.
        grad_norm: the gradient's norm before clipping; NaN if it was not finite.
        by_source: source -> loss, NaN where a step had none of it.
        skipped_at: why the step changed no weights; None if it did.
        tokens_per_second: NaN if the log is not of this training any more.
        waited: the share of the step's time spent waiting for its rows; likewise.
    """

    steps: int
    tokens: int
    loss_tokens: int
    skipped: int
    seconds: float | None
    parameters: int | None
    step: list[int]
    tokens_at: list[int]
    loss: list[float]
    first: float | None
    last: float | None
    held_out: dict[str, list[tuple[int, float]]]
    samples: list[Generated]
    infilling: dict[str, tuple[int, int]] = field(default_factory=dict)
    learning_rate: list[float] = field(default_factory=list)
    grad_norm: list[float] = field(default_factory=list)
    by_source: dict[str, list[float]] = field(default_factory=dict)
    skipped_at: list[str | None] = field(default_factory=list)
    tokens_per_second: list[float] = field(default_factory=list)
    waited: list[float] = field(default_factory=list)


@dataclass(frozen=True)
class StageFacts:
    """A stage: its sequence and, if it was trained, its training.

    Attributes:
        name: the stage.
        rows: rows of the sequence.
        sequence_length: targets per row.
        tokens: targets in all rows.
        padding: positions without a document.
        left_over: tokens in no row: after the last whole row, or beyond the stage's total.
        sources: what it took from each source, in recipe order.
        batch: rows per step, from the recipe.
        samples: a few rows.
        training: None if it was not trained.
    """

    name: str
    rows: int
    sequence_length: int
    tokens: int
    padding: int
    left_over: int
    sources: list[StageSourceFacts]
    batch: int | None
    samples: list[SampleRow] = field(default_factory=list)
    training: TrainingFacts | None = None

    @property
    def steps(self) -> int | None:
        """Whole batches in the sequence."""
        return self.rows // self.batch if self.batch else None


@dataclass(frozen=True)
class Work:
    """How an artifact was built.

    Attributes:
        artifact: its folder's name.
        kind: the artifact's kind.
        stage: the artifact's stage.
        seconds: from start to publication, in the run that published it.
        busy: total seconds of all its tasks.
        rows: its rows.
        bytes: its size on disk.
        tasks: the number of tasks.
        peak: the maximum resident memory of any of its workers up to the end of its tasks, in bytes.
        died: tasks that lost their worker and ran again.
    """

    artifact: str
    kind: str
    stage: str | None
    seconds: float | None
    busy: float
    rows: int
    bytes: int
    tasks: int
    peak: int | None
    died: int


@dataclass(frozen=True)
class Environment:
    """What artifacts were built with, as recorded by the run that built them; None means not recorded.

    Attributes:
        runs: the numbers of these runs of the folder, from 1.
        artifacts: how many of the run's artifacts they built.
        workers: worker processes.
        memory: the memory budget in bytes.
        versions: headrace, Python and libraries -> version.
        processor: the CPU model.
        cores: usable cores.
        cores_in_all: cores in the machine.
        machine_memory: usable bytes.
        gpus: the model of each.
    """

    runs: list[int]
    artifacts: int
    workers: int | None = None
    memory: int | None = None
    versions: dict[str, str] = field(default_factory=dict)
    processor: str | None = None
    cores: int | None = None
    cores_in_all: int | None = None
    machine_memory: int | None = None
    gpus: list[str] = field(default_factory=list)


@dataclass(frozen=True)
class LicenceFacts:
    """Kept documents of a source under a license; tokens are counted once.

    Attributes:
        name: an SPDX expression, or the license as it was stated; '' if it was not.
        documents: how many.
        tokens: in them; None before they are tokenized.
        source: the source's name.
        found: how the license was found (:data:`headrace.select.licences.columns.FOUND`), '' if it was not.
    """

    name: str
    documents: int
    tokens: int | None
    source: str = ""
    found: str = ""


@dataclass(frozen=True)
class Tenth:
    """A tenth of the documents by score, from ``low`` to ``high``, with some of them to read."""

    low: float
    high: float
    examples: list[Place]


@dataclass(frozen=True)
class AnnotatorFacts:
    """An annotator and its scores.

    Attributes:
        name: its name.
        kind: the kind of annotator.
        examples: examples of each class that it was trained on or tested with; empty if it was not trained here.
        figures: of held-out examples (:func:`headrace.select.quality.figures.held_out_figures`); None likewise.
        spread: over the corpus (:func:`headrace.select.quality.spread.spread`); None before documents are scored.
        tenths: of the documents by score, from the lowest.
        cuts: what is kept by its scores (``quality`` of the verdicts' manifest); empty if nothing is selected by it.
    """

    name: str
    kind: str
    examples: dict[str, int] = field(default_factory=dict)
    figures: dict[str, Any] | None = None
    spread: dict[str, Any] | None = None
    tenths: list[Tenth] = field(default_factory=list)
    cuts: list[dict[str, Any]] = field(default_factory=list)


@dataclass(frozen=True)
class RunFacts:
    """All facts about a run.

    Attributes:
        run: the run folder.
        name: the recipe's name.
        recipe: the resolved recipe, as YAML.
        sources: in recipe order, which is the order of their colors.
        duplicates: (source of the removed, source of the kept document) -> documents removed; None without
            deduplication.
        holdout: (source of the removed, source of the held-out document it is a copy of) -> documents removed; None
            without that check.
        references: (source of the removed, entry of ``deduplicate.against`` it is a copy of) -> documents removed; None
            without references.
        contamination: (benchmark, source) -> documents removed; None without decontamination.
        hits: the items in contaminated documents; None without decontamination.
        examples: a few removed documents for each reason.
        vocabulary: size of the tokenizer's vocabulary.
        stages: in training order.
        licences: by source, license and how it was found, most documents first; empty before the verdicts.
        work: the artifacts, in the order they were built.
        environments: what they were built with; several if the folder's runs differ.
        base: a worker's resident bytes before its first task.
        seconds: duration of the last run, which may have reused most artifacts; None if it has not finished.
        report: the page's path, once it is written.
        departures: departures from what the recipe expects, in sentences.
        counts: the counts that the recipe expects, beside those found.
        quality: annotators, in recipe order.
        long: what was measured on long texts.
    """

    run: str
    name: str
    recipe: str
    sources: list[SourceFacts]
    duplicates: Pairs | None
    holdout: Pairs | None
    references: Pairs | None
    contamination: Pairs | None
    examples: list[Example]
    vocabulary: int | None
    stages: list[StageFacts]
    licences: list[LicenceFacts]
    work: list[Work]
    environments: list[Environment] = field(default_factory=list)
    base: int | None = None
    seconds: float | None = None
    report: str | None = None
    departures: list[str] = field(default_factory=list)
    hits: Hits | None = None
    counts: list[FoundCount] = field(default_factory=list)
    quality: list[AnnotatorFacts] = field(default_factory=list)
    long: LongFacts = field(default_factory=LongFacts)

    @property
    def names(self) -> list[str]:
        """The sources' names in the order of their colors, then those that only imported sequences have."""
        taken = [source.name for stage in self.stages for source in stage.sources]
        held_out = [name for stage in self.stages if stage.training for name in stage.training.held_out]
        return list(dict.fromkeys([*(source.name for source in self.sources), *taken, *held_out]))

    @property
    def documents(self) -> int:
        """Documents in all sources."""
        return sum(source.documents for source in self.sources)

    @property
    def kept(self) -> int | None:
        """Kept documents in all sources, None before the verdicts."""
        kept = [source.kept for source in self.sources if source.kept is not None]
        return sum(kept) if kept else None

    @property
    def making(self) -> float | None:
        """Total time spent building the artifacts, in whichever runs; None if unknown."""
        seconds = [work.seconds for work in self.work if work.seconds is not None]
        return sum(seconds) if seconds else None

    @property
    def removed(self) -> dict[str, int]:
        """Reason -> removed documents of all sources, most frequent first."""
        return removed_by_reason(self.sources)

    @property
    def by_licence(self) -> list[LicenceFacts]:
        """:attr:`licences` over all sources, however found, most documents first."""
        total: dict[str, tuple[int, int | None]] = {}
        for one in self.licences:
            documents, tokens = total.get(one.name, (0, 0))
            total[one.name] = documents + one.documents, None if one.tokens is None else (tokens or 0) + one.tokens
        facts = [LicenceFacts(name, *counts) for name, counts in total.items()]
        return sorted(facts, key=lambda fact: (-fact.documents, fact.name))

    def to_json(self) -> dict[str, Any]:
        """The same fields as JSON values; pairs of names become lists of ``{..., "documents"}``."""
        value = asdict(self)
        copies = ("removed", "kept")
        told = {
            "duplicates": copies,
            "holdout": copies,
            "references": ("removed", "against"),
            "contamination": ("benchmark", "source"),
        }
        for key, names in told.items():
            pairs = value[key]
            if pairs is not None:
                value[key] = [
                    {names[0]: first, names[1]: second, "documents": n} for (first, second), n in pairs.items()
                ]
        return value
