"""The step that writes sequences in a format: a task a file, and one for what stands above them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np

from headrace.errors import UserError
from headrace.flow.artifact import ConservationError
from headrace.flow.step import Phase, Step
from headrace.flow.task import TaskContext
from headrace.formats.corpus import Corpus
from headrace.formats.documents import documents_written
from headrace.formats.format import Exported, Kept, Options, Part, SequenceFormat, blocks
from headrace.formats.layout import file_in
from headrace.formats.order import Order, SelectedRows, folder_of_rows
from headrace.formats.registry import SEQUENCES

if TYPE_CHECKING:
    from headrace.formats.run_card import RunCard

# What a task holds: a block of rows as tokens, masks and segments, and what the other side's library buffers.
TASK_MEMORY = 64 << 20
# What a manifest tells of a sequence besides its shape, sources and fingerprint.
TOLD = ("eod", "pad", "tokenizer")


@dataclass(frozen=True)
class SequenceExport(Step):
    """Sequences written in a format.

    Attributes:
        format: its name.
        sequences: what is written.
        options: about the files.
        corpus: documents beside them, in a format that holds both.
        card: of the run that they are of, for formats with a README.md.
    """

    kind: ClassVar[str] = "export"
    VERSION: ClassVar[int] = 1
    format: str
    sequences: tuple[Exported, ...]
    options: Options
    corpus: Corpus | None = None
    card: RunCard | None = None

    @property
    def _format(self) -> SequenceFormat:
        return SEQUENCES[self.format]

    def params(self) -> dict[str, Any]:
        """The format, its version, the options, and what the sequences are."""
        documents = self._format.document_format
        return {
            "format": self.format,
            "format_version": [self._format.VERSION, None if documents is None else documents.VERSION],
            "options": asdict(self.options),
            "sequences": [one.told for one in self.sequences],
            "documents": None if self.corpus is None else self.corpus.params(),
            **({} if self.card is None else {"card": self.card.identity}),
        }

    def check(self) -> None:
        """Refuse what the format cannot hold; see :meth:`headrace.formats.format.SequenceFormat.check`."""
        for one in self.sequences:
            self._format.check(one.open())
            if one.folders and not self._format.foldered:
                able = [name for name, format in SEQUENCES.items() if format.foldered]
                raise UserError(
                    f"{self.format} has no folders for sources.", "--layout", f"Export to {_or(able)}, or leave it out."
                )

    def left_behind(self) -> str:
        """What is told to be left behind, in sentences; empty if nothing is."""
        said, left = [], left_behind(self._format, self.sequences)
        if left:
            are = "it is" if len(left) == 1 else "they are"
            said.append(f"{self.format} holds tokens but no {_or(left)}: {are} left behind.")
        if unseen := sorted(self._format.unseen & known(self.sequences)):
            said.append(f"{self.format}'s own readers see no {_or(unseen)}: files of headrace's keep them.")
        return " ".join(said)

    def inputs(self) -> dict[str, Step]:
        """None: the sequences lie in another folder, and are part of the parameters."""
        return {}

    def phases(self) -> list[Phase]:
        """What the files need first, then the files, then what stands above them."""
        return [
            Phase("order", self._foldered, self._order, lambda spec: TASK_MEMORY),
            Phase("prepare", self._preparation, self._prepare, lambda spec: TASK_MEMORY),
            Phase("write", self._plan, self._write, lambda spec: TASK_MEMORY),
            *self._documents(),
            Phase("close", lambda ctx: [{}], self._close, lambda spec: TASK_MEMORY),
        ]

    def _documents(self) -> list[Phase]:
        if self.corpus is None or self._format.document_format is None:
            return []
        return self._format.document_format.phases(self.corpus, self.options)

    def _preparation(self, ctx: TaskContext) -> list[dict[str, Any]]:
        return self._format.preparation(self.sequences)

    def _prepare(self, ctx: TaskContext, spec: dict[str, Any]) -> dict[str, Any]:
        return self._format.prepare(ctx, self.sequences, spec)

    def _foldered(self, ctx: TaskContext) -> list[dict[str, Any]]:
        return [{"sequence": i, "size": len(one.open())} for i, one in enumerate(self.sequences) if one.folders]

    def _order(self, ctx: TaskContext, spec: dict[str, Any]) -> dict[str, Any]:
        """Write in which folder each row lies."""
        one = self.sequences[spec["sequence"]]
        sequence, names, of = one.open(), one.folder_names, dict(one.folders)
        numbers = [names.index(of[source]) if source in of else len(names) for source in sequence.sources]
        counts = np.zeros(len(names), dtype=np.int64)
        with ctx.file(one.order) as out, open(out.path, "wb") as file:
            for start, stop in blocks(sequence, Part("", 0, 0, len(sequence))):
                segments = sequence.segments_in(start, stop)
                if segments is None or "source" not in segments.columns:
                    raise UserError("The files do not tell the source of a row.", one.path, "Leave --layout out.")
                try:
                    whose = folder_of_rows(segments, numbers)
                except ValueError as error:
                    raise UserError(
                        f"Row {start + error.args[0]:,} has text of sources that go to different folders.",
                        f"{one.path}: {one.name}",
                        "Build the stage with `pack: {mix_sources: false}`, or export it without --layout.",
                    ) from None
                if (whose == len(names)).any():
                    row = start + int(np.argmax(whose == len(names)))
                    raise UserError(
                        f"The layout has no folder for a source of row {row:,}.", f"{one.path}: {one.name}", "Add one."
                    )
                counts += np.bincount(whose, minlength=len(names))
                whose.tofile(file)
                ctx.progress(rows=stop - start)
        return {"rows": counts.tolist()}

    def _plan(self, ctx: TaskContext) -> list[dict[str, Any]]:
        counts = {spec["sequence"]: done["rows"] for spec, done in self._ordered(ctx)}
        if not counts:
            parts = self._format.parts(self.sequences, self.options)
        else:
            parts = [part for i, rows in counts.items() for part in self._in_folders(i, rows)]
        return [{**asdict(part), "size": part.rows} for part in parts]

    def _ordered(self, ctx: TaskContext) -> list[tuple[dict[str, Any], dict[str, Any]]]:
        return list(zip(ctx.specs("order"), ctx.results("order"), strict=True))

    def _in_folders(self, index: int, rows: Sequence[int]) -> Iterator[Part]:
        """The files of a sequence whose rows lie in several folders, each of which has so many."""
        one, format = self.sequences[index], self._format
        size = self.options.rows_per_file or format.rows_in_file(one.open()) or max(1, *rows)
        for folder, (name, count) in enumerate(zip(one.folder_names, rows, strict=True)):
            for number, start in enumerate(range(0, count, size)):
                file = file_in(name, number, format.suffix)
                yield Part(file, index, start, min(start + size, count), folder)

    def _write(self, ctx: TaskContext, spec: dict[str, Any]) -> dict[str, Any]:
        part = _part(spec)
        one = self.sequences[part.sequence]
        sequence = one.open()
        if part.folder is not None:
            order = Order(ctx.folder / "files" / one.order, len(one.folder_names))
            sequence = SelectedRows(sequence, order.rows(part.folder, part.start, part.stop))
            part = replace(part, start=0, stop=part.rows)
        return self._format.write(ctx, sequence, part)

    def _close(self, ctx: TaskContext, spec: dict[str, Any]) -> dict[str, Any]:
        self._format.close(ctx, self.sequences, self._parts(ctx), ctx.results("write"))
        return {}

    def _parts(self, ctx: TaskContext) -> list[Part]:
        return [_part(spec) for spec in ctx.specs("write")]

    def finish(self, ctx: TaskContext) -> dict[str, Any]:
        """What the files hold, checked against the sequences."""
        parts = self._parts(ctx)
        told = [_told(one, [part for part in parts if part.sequence == i]) for i, one in enumerate(self.sequences)]
        counts = {one["name"]: {"rows": one["rows"], "tokens": one["rows"] * one["seq_len"]} for one in told}
        return {
            "counts": counts if self.corpus is None else counts | documents_written(ctx),
            "format": self.format,
            "left_behind": left_behind(self._format, self.sequences),
            "made_with": self._format.made_with(),
            "sequences": told,
        }


def _part(spec: dict[str, Any]) -> Part:
    return Part(spec["file"], spec["sequence"], spec["start"], spec["stop"], spec["folder"])


def _told(one: Exported, parts: Sequence[Part]) -> dict[str, Any]:
    """What a manifest says of an exported sequence, so that it can be opened without its run."""
    sequence = one.open()
    if sum(part.rows for part in parts) != len(sequence):
        raise ConservationError(f"{one.name} has {len(sequence)} rows, written are {sum(p.rows for p in parts)}")
    files: dict[str, int] = {}
    for part in parts:
        files[part.file] = files.get(part.file, 0) + part.rows
    return {
        "name": one.name,
        "rows": len(sequence),
        "seq_len": sequence.seq_len,
        "dtype": str(sequence.dtype),
        "vocab_size": sequence.vocab_size,
        **{name: sequence.manifest.get(name) for name in TOLD},
        "sources": sequence.sources,
        "fingerprint": sequence.fingerprint,
        "parts": [{"file": name, "rows": rows} for name, rows in files.items()],
        **({"order": one.order, "folders": one.folder_names} if one.folders else {}),
    }


def _or(names: Sequence[str]) -> str:
    return " or ".join(filter(None, [", ".join(names[:-1]), names[-1]]))


def known(sequences: Sequence[Exported]) -> set[Kept]:
    """What the sequences have besides tokens."""
    has: set[Kept] = {"loss"}
    for one in sequences:
        opened = one.open()
        segments = opened.segments_in(0, min(1, len(opened)))
        if segments is not None:
            has |= {"segments"}
            has |= {"provenance"} if "row" in segments.columns else set()
    return has


def left_behind(format: SequenceFormat, sequences: Sequence[Exported]) -> list[str]:
    """What the sequences have and the format cannot hold."""
    has = known(sequences)
    return [what for what in ("loss", "segments", "provenance") if what in has and what not in format.keeps]
