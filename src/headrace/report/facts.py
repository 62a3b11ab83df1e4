"""What is known of a run: one plain structure that the page and the terminal's summary are both made from.

Everything here was measured in the run. What a run has not made is None or empty, never zero.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from typing import Any

Pairs = dict[tuple[str, str], int]
"""Documents by two names, such as the source of a removed document and the source of the copy that stays."""


@dataclass(frozen=True)
class SourceFacts:
    """What became of a source.

    Attributes:
        name: the source.
        files: files read, None if not recorded.
        documents: records that became documents.
        bytes: UTF-8 bytes of their text.
        characters: code points of their text.
        quarantined: records that could not be read.
        skipped: records that held no text.
        kept: documents of all splits, None before the verdicts.
        removed: reason -> documents.
        splits: split -> kept documents.
        tokens: tokens of the kept documents, each counted once; None before they are tokenised.
        stored_bytes: UTF-8 bytes of those documents' text; None before they are tokenised.
        lost_rows: records that damaged files promised and did not give.
        lost_bytes: bytes of damaged files that could not be read, where records are not told.
        removed_bytes: reason -> UTF-8 bytes of the removed documents' text; empty where they were not looked at.
        lengths: documents whose text has 0 bytes, 1, 2 to 3, 4 to 7, ...; None where they were not looked at.
        kept_lengths: the kept ones of them; None before the verdicts.
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
        """Bytes of the kept documents' text for each of their tokens, None without a token."""
        return self.stored_bytes / self.tokens if self.stored_bytes and self.tokens else None

    def removed_tokens(self, reason: str | None = None) -> float | None:
        """An estimate of the tokens that were removed for a reason (or for all of them): removed documents are not
        tokenised, so their bytes are taken to give as many tokens as those of the source's kept documents.

        Returns:
            The estimate, None where nothing of the source was tokenised or its lengths were not looked at.
        """
        if self.lengths is None:
            return None
        gone = sum(self.removed_bytes.values()) if reason is None else self.removed_bytes.get(reason, 0)
        rate = self.bytes_a_token
        return 0.0 if not gone else None if rate is None else gone / rate

    @property
    def read(self) -> int:
        """Records that were read: documents, quarantined and empty ones."""
        return self.documents + self.quarantined + self.skipped


def removed_by_reason(sources: list[SourceFacts]) -> dict[str, int]:
    """Reason -> removed documents of all sources, most first."""
    total: dict[str, int] = {}
    for source in sources:
        for reason, n in source.removed.items():
            total[reason] = total.get(reason, 0) + n
    return dict(sorted(total.items(), key=lambda item: (-item[1], item[0])))


@dataclass(frozen=True)
class Place:
    """A document: where it came from, an excerpt of its text, and the stretches of the excerpt that are marked."""

    id: str
    source: str
    origin: str
    text: str
    marks: list[tuple[int, int]] = field(default_factory=list)


@dataclass(frozen=True)
class Example:
    """A removed document with the evidence; ``other`` is the document that it is a copy of."""

    reason: str
    document: Place
    evidence: dict[str, Any]
    other: Place | None = None


@dataclass(frozen=True)
class StageSourceFacts:
    """What a stage took of a source, from the ledger of its sequence.

    Attributes:
        name: the source.
        documents: different documents.
        copies: documents with every copy counted.
        slice: the part of the source that it takes, from and to, by keyed hash.
        epochs: passes over the slice.
        tokens: tokens in the rows, those that two rows share counted once.
        loss_tokens: targets that carry loss.
        fim: share of the source's positions that lie in documents rearranged for infilling.
        fim_psm: copies (or, with FIM of rows, pieces) in prefix-suffix-middle order.
        fim_spm: the same in suffix-prefix-middle order.
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


@dataclass(frozen=True)
class Piece:
    """A segment of a sample row.

    Attributes:
        source: its source; empty for padding.
        kind: plain, fim-psm, fim-spm, chat or padding.
        epoch: number of the copy, from 0.
        id: the document.
        origin: file and row of the document.
        offset: its first token within the (transformed) document.
        runs: the decoded text in stretches of (text, carries loss, is a special token).
    """

    source: str
    kind: str
    epoch: int
    id: str
    origin: str
    offset: int
    runs: list[tuple[str, bool, bool]]


@dataclass(frozen=True)
class SampleRow:
    """A row of a stage's sequence, decoded from the beginning; ``cut`` when only part of it is told."""

    row: int
    segments: int
    pieces: list[Piece]
    cut: bool


@dataclass(frozen=True)
class Generated:
    """A text that the model wrote: after a prompt, or, with a suffix, into a hole.

    ``truth`` is what stands there in the document, of ``source``, that the prompt was taken from, if it was.
    """

    prompt: str
    suffix: str | None
    text: str
    truth: str | None = None
    source: str | None = None


@dataclass(frozen=True)
class TrainingFacts:
    """The training of one stage.

    Attributes:
        steps: optimizer steps done.
        tokens: tokens of their rows.
        loss_tokens: targets that carried loss.
        skipped: steps whose gradient was not finite, and which changed nothing.
        seconds: wall-clock time of the steps, None if not recorded.
        parameters: parameters of the model, None if not recorded.
        step: steps that were logged.
        tokens_at: tokens trained on in this stage up to and with each of them.
        loss: their mean loss, nats a token; NaN where none was measured.
        first: loss of the first logged step.
        last: mean loss of the last tenth of the logged steps (at least one).
        held_out: source -> [(steps done in this stage, loss)], in order.
        samples: what the model wrote at the end.
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


@dataclass(frozen=True)
class StageFacts:
    """A stage: its sequence and, if it was trained, its training.

    Attributes:
        name: the stage.
        rows: rows of the sequence.
        sequence_length: targets of a row.
        tokens: targets of all rows.
        padding: positions that hold no document.
        left_over: tokens that no row holds: after the last whole row, or beyond the stage's total.
        sources: what it took of each source, in the order of the recipe.
        batch: rows of a step, from the recipe.
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
    """The making of an artifact.

    Attributes:
        artifact: its folder's name.
        kind: what sort it is.
        stage: of which stage.
        seconds: from start to publication, in the run that published it.
        busy: seconds of all its tasks, added up.
        rows: its rows.
        bytes: its size on disk.
        tasks: how many.
        peak: the highest resident memory of any of its workers by the time they were done, in bytes.
        died: tasks that lost their worker and were done again.
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
    """What artifacts were made with, as the run that made them recorded it; None is what it did not record.

    Attributes:
        runs: numbers of these runs of the folder, from 1.
        artifacts: how many of the run's artifacts they made.
        workers: worker processes.
        memory: the memory budget in bytes.
        versions: headrace, Python and libraries -> version.
        processor: its model.
        cores: those that could be used.
        cores_in_all: those the machine had.
        machine_memory: bytes that could be used.
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
    """Kept documents under a licence (empty: not stated); tokens are counted once, None before they are tokenised."""

    name: str
    documents: int
    tokens: int | None


@dataclass(frozen=True)
class RunFacts:
    """All of it.

    Attributes:
        run: the run folder.
        name: the recipe's name.
        recipe: the recipe as resolved, YAML.
        sources: in the order of the recipe, which gives each its colour.
        duplicates: (source of the removed, source of the kept) -> documents removed; None without deduplication.
        holdout: (source of the removed, source of the held-out document that it is a copy of) -> documents removed;
            None without that check.
        references: (source of the removed, what of ``deduplicate.against`` it is a copy of) -> documents removed; None
            without that.
        contamination: (benchmark, source) -> documents removed; None without decontamination.
        examples: a few removed documents of each reason.
        vocabulary: tokens that the tokenizer knows.
        stages: in training order.
        licences: most documents first.
        work: the artifacts in the order in which they were made.
        environments: what they were made with; more than one where runs of the folder differ in that.
        base: resident bytes of a worker before it does anything.
        seconds: duration of the last run, which may have found most of it made; None if it has not finished.
        report: the page, once it is written.
        departures: what is not as the recipe expects, in sentences.
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

    @property
    def documents(self) -> int:
        """Documents of all sources."""
        return sum(source.documents for source in self.sources)

    @property
    def kept(self) -> int | None:
        """Kept documents of all sources, None before the verdicts."""
        kept = [source.kept for source in self.sources if source.kept is not None]
        return sum(kept) if kept else None

    @property
    def making(self) -> float | None:
        """Seconds in which the artifacts were made, in whichever runs that was; None if nothing tells."""
        seconds = [work.seconds for work in self.work if work.seconds is not None]
        return sum(seconds) if seconds else None

    @property
    def removed(self) -> dict[str, int]:
        """Reason -> removed documents of all sources, most first."""
        return removed_by_reason(self.sources)

    def to_json(self) -> dict[str, Any]:
        """For programs: the same fields; pairs of names become lists of ``{..., "documents"}``."""
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
