"""What a format of documents is: files that are written from groups of documents."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Literal

import pyarrow as pa

from headrace.flow.artifact import ConservationError
from headrace.flow.step import Phase
from headrace.flow.task import TaskContext
from headrace.formats.card import Configs, body, front, readme
from headrace.formats.corpus import GROUPS, Corpus, Group
from headrace.formats.options import Options

if TYPE_CHECKING:
    from headrace.formats.run_card import RunCard

DocumentFacts = Literal["ids", "provenance", "licenses", "side fields", "turns"]
"""What a format may hold of a document besides its text: content id; source, file and row; license, repository, path
and language; the other fields of its record; the turns of a conversation."""

# What a task holds besides several forms of a row group: libraries' buffers, a compressor's window.
TASK_MEMORY = 64 << 20
FORMS = 8  # a row group as it was read, its chosen rows, the batch, Python objects, lines

Sizes = dict[Group, tuple[int, int]]
"""Documents and bytes of text by group."""


class DocumentFormat(ABC):
    """A format that documents are written in. To add one, write a file with a subclass and list it in
    :data:`headrace.formats.registry.DOCUMENTS`.

    Attributes:
        name: as ``--to`` takes it.
        about: what it is and who reads it, in a line.
        VERSION: raised when the bytes change for the same documents and options.
        keeps: what its files hold besides texts.
        bytes_per_file: bytes of text in a file unless the user says otherwise.
    """

    name: ClassVar[str]
    about: ClassVar[str]
    VERSION: ClassVar[int] = 2
    keeps: ClassVar[frozenset[DocumentFacts]]
    bytes_per_file: ClassVar[int]

    def check(self, corpus: Corpus) -> None:
        """Refuse, before any work, what the format cannot hold.

        Raises:
            UserError: it cannot, or a library is missing.
        """

    def phases(self, corpus: Corpus, options: Options) -> list[Phase]:
        """Count the documents, then write them. Tasks of the last phase, ``documents``, return what they have written:
        ``{"written": [[group, documents], ...]}``."""
        return [
            Phase(
                "count",
                lambda ctx: [{"shard": k, "size": s["rows"]} for k, s in enumerate(corpus.open()[0].shards)],
                lambda ctx, spec: _count(corpus, spec["shard"]),
                lambda spec: TASK_MEMORY,
            ),
            *self.writing(corpus, options.bytes_per_file or self.bytes_per_file),
        ]

    @abstractmethod
    def writing(self, corpus: Corpus, bytes_per_file: int) -> list[Phase]:
        """The phases after ``count``."""

    def card(self) -> bool:
        """Whether a README.md tells ``datasets`` where the files are."""
        return True

    def features(self, folder: str) -> pa.Schema | None:
        """The columns of a folder's files, where these do not tell."""
        return None

    def made_with(self) -> dict[str, str]:
        """The versions of libraries that the bytes depend on, for the manifest."""
        return {}


def _count(corpus: Corpus, shard: int) -> dict[str, Any]:
    sizes = corpus.sizes(shard)
    return {
        "groups": [[[group, *size] for group, size in sorted(one.items())] for _, one in sizes],
        "bytes": [read for read, _ in sizes],
    }


def sizes_in(ctx: TaskContext) -> Sizes:
    """What the documents of an export are, when they are counted; nothing if it has none."""
    total: Sizes = {}
    if ctx.plan("count").exists():
        for result in ctx.results("count"):
            for row_group in result["groups"]:
                for code, documents, size in row_group:
                    before = total.get(GROUPS[code], (0, 0))
                    total[GROUPS[code]] = (before[0] + documents, before[1] + size)
    return {group: total[group] for group in GROUPS if group in total}


def memory_for(largest: int) -> int:
    """What a task needs for row groups of up to so many bytes."""
    return TASK_MEMORY + FORMS * largest


class OrderedFormat(DocumentFormat):
    """A format that keeps documents in the order of the corpus, a group after the other.

    Attributes:
        suffix: of its files.
    """

    suffix: ClassVar[str]
    keeps = frozenset(["ids", "provenance", "licenses", "side fields", "turns"])
    # Less than 500 MB compressed, which hubs advise, and enough for readers not to notice that there are several.
    bytes_per_file = 1 << 30

    @abstractmethod
    def write(self, path: Path, folder: str, tables: Iterator[pa.Table]) -> None:
        """Write a file.

        Args:
            path: the file.
            folder: of its documents' group.
            tables: rows of the documents artifact, with ``reason`` and ``evidence``, about 8 MB each.
        """

    def writing(self, corpus: Corpus, bytes_per_file: int) -> list[Phase]:
        """A task a file."""

        def work(ctx: TaskContext, spec: dict[str, Any]) -> dict[str, Any]:
            group, written = GROUPS[spec["group"]], 0

            def tables() -> Iterator[pa.Table]:
                nonlocal written
                for table in corpus.of(group, spec["places"]):
                    yield table
                    written += len(table)
                    ctx.progress(rows=len(table), bytes=table.nbytes)

            with ctx.file(spec["file"]) as out:
                self.write(out.path, group.folder, tables())
            return {"written": [[spec["group"], written]]}

        return [
            Phase(
                "documents",
                lambda ctx: _files(ctx, bytes_per_file, self.suffix),
                work,
                lambda spec: memory_for(spec["largest"]),
            )
        ]


def _files(ctx: TaskContext, bytes_per_file: int, suffix: str) -> list[dict[str, Any]]:
    """The files of each group: consecutive row groups, as many as fit."""
    specs: list[dict[str, Any]] = []
    last: dict[int, dict[str, Any]] = {}
    number: dict[int, int] = {}
    for shard, result in enumerate(ctx.results("count")):
        for index, row_group in enumerate(result["groups"]):
            for code, _, size in row_group:
                spec = last.get(code)
                if spec is None or spec["size"] + size > bytes_per_file:
                    group, n = GROUPS[code], number.get(code, 0)
                    name = f"{group.folder}/{group.split}-{n:05d}{suffix}"
                    spec = {"file": name, "group": code, "places": [], "size": 0, "largest": 0}
                    last[code], number[code] = spec, n + 1
                    specs.append(spec)
                if not spec["places"] or spec["places"][-1][0] != shard:
                    spec["places"].append([shard, []])
                spec["places"][-1][1].append(index)
                spec["size"] += size
                spec["largest"] = max(spec["largest"], result["bytes"][index])
    return specs


def documents_left(format: DocumentFormat) -> list[str]:
    """What documents have and the format cannot hold."""
    facts: tuple[DocumentFacts, ...] = ("ids", "provenance", "licenses", "side fields", "turns")
    return [what for what in facts if what not in format.keeps]


def documents_written(ctx: TaskContext) -> dict[str, dict[str, int]]:
    """Documents and bytes of text by group, checked.

    Raises:
        ConservationError: more or fewer were written than were counted.
    """
    sizes = sizes_in(ctx)
    written: dict[Group, int] = {}
    for result in ctx.results("documents"):
        for code, documents in result["written"]:
            written[GROUPS[code]] = written.get(GROUPS[code], 0) + documents
    if written != {group: documents for group, (documents, _) in sizes.items()}:
        raise ConservationError(f"documents to export: {sizes}; written are {written}")
    return {f"{g.folder}/{g.split}": {"documents": n, "bytes": size} for g, (n, size) in sizes.items()}


def document_configs(ctx: TaskContext) -> dict[str, dict[str, str]]:
    """Where the documents of each group are, for a README.md."""
    configs: dict[str, dict[str, str]] = {}
    for group in sizes_in(ctx):
        configs.setdefault(group.folder, {})[group.split] = f"{group.folder}/{group.split}-*"
    return configs


def document_rows(ctx: TaskContext) -> dict[str, dict[str, int]]:
    """How many there are in each."""
    rows: dict[str, dict[str, int]] = {}
    for group, (documents, _) in sizes_in(ctx).items():
        rows.setdefault(group.folder, {})[group.split] = documents
    return rows


def write_readme(
    ctx: TaskContext,
    configs: Configs,
    rows: Mapping[str, Mapping[str, int]],
    sequences: list[dict[str, Any]],
    features: Mapping[str, pa.Schema | None],
) -> None:
    """Write README.md, if there is anything to find: the data card if the export is of a run."""
    if not configs:
        return
    head, told = front(configs, features), body(configs, rows, sequences)
    card: RunCard | None = getattr(ctx.step, "card", None)
    if card is not None:
        card.write(ctx, f"## Files\n\n{told}", head)
        return
    with ctx.file("README.md") as out:
        out.path.write_text(readme(head, told), encoding="utf-8")
