"""What a format of sequences is: files that are written from ranges of rows, and perhaps read again."""

from __future__ import annotations

import os
import re
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path
from typing import Any, ClassVar, Literal, NamedTuple

import numpy as np

from headrace.errors import UserError
from headrace.flow.artifact import Artifact
from headrace.flow.task import TaskContext
from headrace.formats.corpus import opened_artifact
from headrace.formats.documents import DocumentFormat
from headrace.formats.files import Facts, FileSequence, RowFile, digest_files
from headrace.formats.options import Options
from headrace.sequence.reader import Segments, SequenceReader
from headrace.sequence.store import ArrowSequence

Kept = Literal["loss", "segments", "provenance", "text"]
"""What a format may hold besides tokens: the mask of the loss; where documents begin and end; which documents they are;
the rows as text."""

BLOCK_TOKENS = 1 << 20
"""Rows are read and written in blocks of about this many tokens, 4 MB of uint32."""


@dataclass(frozen=True)
class Exported:
    """A sequence that is exported.

    Attributes:
        name: of its stage.
        path: its file or folder; never part of an identity.
        identity: of the artifact, or the digest of its files.
        part: its name there, if there are several.
        seq_len: L, for files that do not tell.
        digests: the name, size and digest of each file, if no manifest there tells them.
        tokenizer: the file and the fingerprint of a tokenizer that spells its ids, if it comes without one.
        license_sidecar: the folder and the identity of the sidecar of licenses, for formats that tell them.
        folders: the folder of each source; empty if its rows lie in one, in their order.
    """

    name: str
    path: str
    identity: str
    part: str | None = None
    seq_len: int | None = None
    digests: tuple[tuple[str, int, str], ...] = ()
    tokenizer: tuple[str, str] | None = None
    license_sidecar: tuple[str, str] | None = None
    folders: tuple[tuple[str, str], ...] = ()

    def __post_init__(self) -> None:
        for name in ("digests", "folders"):
            object.__setattr__(self, name, tuple(map(tuple, getattr(self, name))))  # JSON has lists
        object.__setattr__(self, "tokenizer", self.tokenizer and tuple(self.tokenizer))
        object.__setattr__(self, "license_sidecar", self.license_sidecar and tuple(self.license_sidecar))

    @property
    def folder_names(self) -> list[str]:
        """The folders by number, as in the order of rows."""
        return list(dict.fromkeys(folder for _, folder in self.folders))

    @property
    def order(self) -> str:
        """The file that says whose row comes where."""
        return f"{self.name}.order.u16"

    @staticmethod
    def of(
        path: Path,
        name: str | None = None,
        seq_len: int | None = None,
        digest: Callable[[Sequence[Path]], list[str]] = digest_files,
    ) -> Exported:
        """A sequence in other files than a run's. If no manifest tells their digests, ``digest`` finds them.

        Raises:
            UserError: as :func:`headrace.formats.opening.open_files`.
        """
        from headrace.formats.opening import open_files

        reader = open_files(path, name, seq_len=seq_len)
        digests: tuple[tuple[str, int, str], ...] = ()
        if isinstance(reader, FileSequence) and not reader.facts.entries:
            reader = reader.digested(digest)
            digests = tuple((e["name"], e["bytes"], e["digest"]) for e in reader.facts.entries.values())
        called = name or reader.manifest.get("name") or path.resolve().name.partition(".")[0]
        return Exported(_named(str(called)), str(path.absolute()), _identity(reader), name, seq_len, digests)

    @property
    def told(self) -> list[Any]:
        """What of it is part of an export's identity."""
        beside = [*(self.tokenizer or ())[1:], *(self.license_sidecar or ())[1:]]
        return [self.name, self.identity, *beside, *([self.folders] if self.folders else [])]

    def licenses(self) -> Artifact | None:
        """The sidecar of licenses.

        Raises:
            UserError: it is gone, damaged or another.
        """
        return None if self.license_sidecar is None else opened_artifact(*self.license_sidecar)

    def spelled_by(self, tokenizer: Path) -> Exported:
        """The same, with a tokenizer.

        Raises:
            UserError: the file is no tokenizer that is read.
        """
        from headrace.tokens.load import file_decoder

        return replace(self, tokenizer=(str(tokenizer.absolute()), file_decoder(tokenizer)[1]))

    def open(self) -> SequenceReader:
        """The sequence; each of its files is compared with its digest before it is first read.

        Raises:
            UserError: it is gone, damaged or another.
        """
        sequence = _opened(self)
        if _identity(sequence) != self.identity:
            raise UserError("The sequence has changed since the export began.", self.path, "Run the export again.")
        return sequence


def _named(called: str) -> str:
    """A name that a stage might have (:data:`headrace.recipe.base.Name`): a folder gets it, and README.md tells it."""
    return re.sub(r"[^A-Za-z0-9_-]+", "_", called).strip("_-")[:64] or "sequence"


@lru_cache(maxsize=4)
def _opened(one: Exported) -> SequenceReader:
    from headrace.formats.opening import open_files

    reader = open_files(one.path, one.part, seq_len=one.seq_len)
    if one.digests and isinstance(reader, FileSequence):
        reader = reader.with_digests({name: {"bytes": size, "digest": d} for name, size, d in one.digests})
    return reader.verified()


def _identity(sequence: SequenceReader) -> str:
    """What decides the bytes of an export, of an opened sequence."""
    if isinstance(sequence, ArrowSequence):
        return sequence.artifact.manifest.identity
    assert isinstance(sequence, FileSequence)
    return str(sequence.facts.identity)


@dataclass(frozen=True)
class Part:
    """A stretch of rows that one task writes.

    Attributes:
        file: where it goes, below the folder of the export.
        sequence: which of the sequences.
        start, stop: its rows; of a folder's, those of the folder.
        folder: the number of the folder that it lies in, if the sequence has several.
    """

    file: str
    sequence: int
    start: int
    stop: int
    folder: int | None = None

    @property
    def rows(self) -> int:
        """How many rows it has."""
        return self.stop - self.start


class SequenceFormat(ABC):
    """A format that sequences are written in. To add one, write a file with a subclass and list it in
    :data:`headrace.formats.registry.SEQUENCES`.

    Attributes:
        name: as ``--to`` takes it.
        about: what it is and who reads it, in a line.
        extra: the extra of the package that brings what it needs, if it needs anything.
        VERSION: raised when the bytes change for the same rows and options.
        keeps: what its files hold besides tokens.
        unseen: what of it lies in files of headrace's own, at which the format's own readers do not look.
        rows_per_file: how many rows a file has unless the user says otherwise; None if all are in one.
        suffix: of its files.
        document_format: of documents that may lie beside the sequences, if any may.
        foldered: whether the rows of each source may lie in a folder of their own.
    """

    name: ClassVar[str]
    about: ClassVar[str]
    VERSION: ClassVar[int] = 1
    keeps: ClassVar[frozenset[Kept]]
    unseen: ClassVar[frozenset[Kept]] = frozenset()
    rows_per_file: ClassVar[int | None]
    suffix: ClassVar[str]
    document_format: ClassVar[DocumentFormat | None] = None
    foldered: ClassVar[bool] = False

    def check(self, sequence: SequenceReader) -> None:
        """Refuse, before any work, a sequence that the format cannot hold.

        Raises:
            UserError: it cannot, or a library is missing.
        """

    def parts(self, sequences: Sequence[Exported], options: Options) -> list[Part]:
        """The files, in order. They follow from the rows and the options alone, never from workers or memory."""
        out = []
        for index, one in enumerate(sequences):
            rows = len(one.open())
            size = options.rows_per_file or self.rows_in_file(one.open()) or max(1, rows)
            for number, start in enumerate(range(0, rows, size)):
                name = self.file(one.name, number)
                out.append(Part(name, index, start, min(start + size, rows)))
        return out

    def rows_in_file(self, sequence: SequenceReader) -> int | None:
        """How many rows a file has unless the user says otherwise; None if all are in one."""
        return self.rows_per_file

    def file(self, stage: str, number: int) -> str:
        """The name of a file of a stage."""
        return f"{stage}/data-{number:05d}{self.suffix}"

    def preparation(self, sequences: Sequence[Exported]) -> list[dict[str, Any]]:
        """Tasks that come before all parts, for formats that hold more than the sequences do: JSON for each."""
        return []

    def prepare(self, ctx: TaskContext, sequences: Sequence[Exported], spec: dict[str, Any]) -> dict[str, Any]:
        """Run one of :meth:`preparation`; its intermediate files are found under the phase ``prepare``."""
        raise NotImplementedError

    @abstractmethod
    def write(self, ctx: TaskContext, sequence: SequenceReader, part: Part) -> dict[str, Any]:
        """Write a part with ``ctx.file(part.file)``, holding about a block of rows (:func:`blocks`) in memory.

        Returns:
            JSON that :meth:`close` wants to know.
        """

    def close(
        self, ctx: TaskContext, sequences: Sequence[Exported], parts: Sequence[Part], results: Sequence[dict[str, Any]]
    ) -> None:
        """Write what stands above the parts, such as an index, when all are written."""

    def made_with(self) -> dict[str, str]:
        """The versions of libraries that the bytes depend on, for the manifest."""
        return {}


class Shape(NamedTuple):
    """What a file says of itself: rows, L (0 if it has no rows that tell) and the type of its tokens."""

    rows: int
    seq_len: int
    dtype: np.dtype


class ReadableFormat(SequenceFormat):
    """A format of which sequences are opened too, whoever wrote them."""

    @abstractmethod
    def find(self, path: Path) -> list[Path]:
        """The files of this format at a path, in order: itself, or those below a folder. Looks at names only."""

    def lacking(self, path: Path) -> str | None:
        """In a sentence, which file is missing beside those at a path, which are not read without it; None if none is
        known."""
        return None

    def beside(self, file: Path) -> tuple[Path, ...]:
        """Other files that the rows of a file are read from, if they are there."""
        return ()

    @abstractmethod
    def shape(self, file: Path, seq_len: int | None) -> Shape:
        """Look at a file. Untrusted: every promise it makes is checked before memory is taken for it.

        Args:
            file: one of those found.
            seq_len: L, for files that do not tell.

        Raises:
            UserError: it is damaged, or not of this format after all; names it.
        """

    def shapes(self, files: Sequence[Path], seq_len: int | None) -> list[Shape]:
        """Look at several files."""
        return [self.shape(file, seq_len) for file in files]

    @abstractmethod
    def open_file(self, file: Path, facts: Facts) -> RowFile:
        """Open a file for reading.

        Raises:
            UserError: as :meth:`shape`.
        """


def files_below(path: Path, *suffixes: str) -> list[Path]:
    """A file of one of these suffixes, in small letters or large, or all below a folder, ordered by their parts.

    Folders that are linked belong to those where the links are: CrystalCoder's halves were made so.

    Raises:
        UserError: a folder cannot be read.
    """
    found = _walk(path, ()) if path.is_dir() else [path] if path.is_file() else []
    return sorted(file for file in found if file.name.lower().endswith(suffixes))


def _walk(folder: Path, above: tuple[Path, ...]) -> Iterator[Path]:
    """All files below a folder but hidden ones, which systems, downloads and unfinished copies leave behind."""
    here = folder.resolve()
    if here in above:  # a link back
        return
    try:
        entries = [entry for entry in os.scandir(folder) if entry.name[0] != "."]
    except OSError as error:
        raise UserError(f"This folder cannot be read: {error.strerror}.", str(folder), "Allow it.") from None
    for entry in entries:
        if entry.is_dir():
            yield from _walk(Path(entry.path), (*above, here))
        else:
            yield Path(entry.path)


def blocks(sequence: SequenceReader, part: Part) -> Iterator[tuple[int, int]]:
    """The rows of a part as ranges of about :data:`BLOCK_TOKENS`."""
    size = max(1, BLOCK_TOKENS // (sequence.seq_len + 1))
    for start in range(part.start, part.stop, size):
        yield start, min(start + size, part.stop)


def loss_mask(sequence: SequenceReader, start: int, stop: int, segments: Segments | None) -> np.ndarray:
    """bool[stop - start, L + 1]: which tokens of rows carry loss as targets. A row's first never does, nor padding.

    Args:
        sequence: whose rows.
        start: the first.
        stop: the one after the last.
        segments: of these rows.
    """
    mask = np.zeros((stop - start, sequence.seq_len + 1), dtype=bool)
    mask[:, 1:] = sequence.targets(start, stop)
    if segments is not None:
        mask[:, 1:] &= ~segments.padding(sequence.seq_len)
    return mask
