"""The Documents step: raw files become one artifact of normalized, identified, evenly sharded documents.

There are three phases. ``look`` reads the first rows of each source and splits each large file into parts; only workers
look into files, because files can crash the process. ``lines`` counts the lines in each byte range of large plain JSON
Lines files, to know the row number at which each range starts. ``read`` does the rest: a task is a run of small files,
a compressed file, a byte range, a run of row groups, or a shard of a synthetic source.
"""

from __future__ import annotations

import platform
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any, ClassVar

from headrace.documents.boundaries import runs
from headrace.documents.checks import PROBED_FILES, check_source, probe, require_named
from headrace.documents.crashes import crashing_parts
from headrace.documents.inventory import SourceFiles, invalidates_fingerprints
from headrace.documents.normalise import versions
from headrace.documents.readers import READERS, reader
from headrace.documents.readers.base import COPIES, TASK_MEMORY, Part, Tally
from headrace.documents.readers.modules import TREE_COPIES
from headrace.documents.readers.streams import count_lines
from headrace.documents.reading import Reading
from headrace.documents.sources import WHOLE, InputFile
from headrace.documents.store import SCHEMA
from headrace.documents.synthetic import about_made
from headrace.flow.artifact import ConservationError
from headrace.flow.reuse import task_key
from headrace.flow.step import Phase, Step
from headrace.flow.task import TaskContext
from headrace.recipe.schema import DocumentsConfig, Map

# Files larger than this on disk are read in parts if their format allows.
TASK_BYTES = 16 << 20
# Formats whose result depends on the grammar of the running Python.
SYNTAX = frozenset({"docstrings", "docstring_chat", "pydoc_topics"})
COUNTED = ("documents", "bytes", "characters", "quarantined", "skipped", "read", "lost_rows", "lost_bytes")


@dataclass(frozen=True)
class Documents(Step):
    """Raw files to documents.

    Attributes:
        sources: every source with its files and fingerprints, in the recipe's order.
        config: the recipe's ``documents`` section.
        made: the steps that make synthetic sources, by source.
    """

    kind: ClassVar[str] = "documents"
    VERSION: ClassVar[int] = 9

    sources: tuple[SourceFiles, ...]
    config: DocumentsConfig
    made: Mapping[str, Step] = field(default_factory=dict, kw_only=True)

    def params(self) -> dict[str, Any]:
        """Normalization with its tables' versions, and for each source how it is read and what its files contain."""
        return {
            **self._shared(),
            "sources": [
                {**_source_params(source, self.config.map), "files": len(source.files), "digest": source.digest}
                for source in self.sources
            ],
        }

    def _shared(self) -> dict[str, Any]:
        """The parameters common to all sources."""
        normalise = {"method": self.config.normalise, **versions(self.config.normalise)}
        return {"normalise": normalise, "max_document": self.config.max_document}

    def inputs(self) -> dict[str, Step]:
        """What makes synthetic sources; without them documents start the flow."""
        return {f"synthetic-{name}": step for name, step in self.made.items()}

    def phases(self) -> list[Phase]:
        """Look, count lines if needed, then read."""
        return [
            Phase("look", self._plan_look, self._look),
            Phase("lines", self._plan_lines, self._count_lines),
            Phase("read", self._plan_read, self._read, memory=lambda spec: int(spec["memory"])),
        ]

    def _named(self, name: str) -> SourceFiles:
        return next(source for source in self.sources if source.name == name)

    # Phase "look".

    def _plan_look(self, ctx: TaskContext) -> list[dict[str, Any]]:
        specs: list[dict[str, Any]] = []
        for source in self.sources:
            if source.name in self.made:
                continue
            first = [[file.name, file.format, file.digest] for file in source.files[:PROBED_FILES]]
            key = task_key(self, "look", _source_params(source, self.config.map), first)
            specs.append({"source": source.name, "file": None, "key": key})
            for number, file in enumerate(source.files):
                if file.size > TASK_BYTES and file.format in READERS:  # a user-defined reader takes a file as one part
                    about = [file.name, file.format, file.compression, file.size, file.take]
                    key = task_key(self, "look", file.digest, about)
                    specs.append({"source": source.name, "file": number, "key": key})
        return specs

    @invalidates_fingerprints
    def _look(self, ctx: TaskContext, spec: dict[str, Any]) -> dict[str, Any]:
        source = self._named(spec["source"])
        if spec["file"] is None:
            if not ctx.careful:  # a file that crashes a worker is reported by the phase that reads it
                probe(source, ctx)
            return {}
        file = source.files[spec["file"]]
        ctx.at(f"{source.name}:{file.name}")
        whole = ctx.careful and crashing_parts(source.source, [(file, Part())])
        return {"parts": [asdict(part) for part in ([Part()] if whole else reader(file.format).split(file))]}

    def _parts(self, ctx: TaskContext) -> dict[tuple[str, int], list[Part]]:
        """The parts of large files, by source and number; every other file is one part."""
        return {
            (spec["source"], spec["file"]): [Part(**part) for part in result["parts"]]
            for spec, result in zip(ctx.specs("look"), ctx.results("look"), strict=True)
            if spec["file"] is not None
        }

    # Phase "lines".

    def _plan_lines(self, ctx: TaskContext) -> list[dict[str, Any]]:
        specs = []
        for (name, number), parts in self._parts(ctx).items():
            if any(part.row is None for part in parts):  # nothing starts after the last one, so it needs no count
                for part in map(asdict, parts[:-1]):
                    key = task_key(self, "lines", self._named(name).files[number].digest, part)
                    specs.append({"source": name, "file": number, "part": part, "key": key})
        return specs

    @invalidates_fingerprints
    def _count_lines(self, ctx: TaskContext, spec: dict[str, Any]) -> dict[str, Any]:
        file = self._named(spec["source"]).files[spec["file"]]
        ctx.at(f"{spec['source']}:{file.name}")
        tally = Tally(advance=lambda size: ctx.progress(bytes=size))
        return {"lines": count_lines(file, Part(**spec["part"]), tally)}

    # Phase "read".

    def _plan_read(self, ctx: TaskContext) -> list[dict[str, Any]]:
        lines = (result["lines"] for result in ctx.results("lines"))
        parts = self._parts(ctx)
        return [
            spec
            for source in self.sources
            for spec in (self._shards(ctx, source) if source.name in self.made else self._files(source, lines, parts))
        ]

    def _files(
        self, source: SourceFiles, lines: Iterator[int], parts: dict[tuple[str, int], list[Part]]
    ) -> Iterator[dict[str, Any]]:
        for spec in _tasks(source, lines, parts, self.config.max_document):
            yield {**spec, "key": self._read_key(source, spec["parts"])}

    def _shards(self, ctx: TaskContext, source: SourceFiles) -> Iterator[dict[str, Any]]:
        """A task for each shard of a synthetic source."""
        made = ctx.input(f"synthetic-{source.name}")
        for shard, entry in enumerate(made.shards):
            about = [_source_params(source, self.config.map), about_made(made)]
            key = task_key(self, "read", self._shared(), about, "synthetic", entry["digest"])
            yield {"source": source.name, "shard": shard, "memory": TASK_MEMORY, "size": entry["bytes"], "key": key}

    def _read_key(self, source: SourceFiles, parts: list[dict[str, Any]]) -> str:
        """What determines the documents of some parts of files."""
        files = [(source.files[entry["file"]], entry["part"]) for entry in parts]
        read = [[file.name, file.format, file.take, file.digest, part] for file, part in files]
        return task_key(self, "read", self._shared(), _source_params(source, self.config.map), read)

    @invalidates_fingerprints
    def _read(self, ctx: TaskContext, spec: dict[str, Any]) -> dict[str, Any]:
        source = self._named(spec["source"])
        with Reading(ctx, source, self.config) as reading:
            if "shard" in spec:
                reading.made(ctx.input(f"synthetic-{source.name}"), spec["shard"])
            parts = [(source.files[entry["file"]], Part(**entry["part"])) for entry in spec.get("parts", ())]
            avoided = crashing_parts(source.source, parts) if ctx.careful else {}
            for number, (file, part) in enumerate(parts):
                if number in avoided:
                    reading.lose(file, part, avoided[number])
                else:
                    reading.part(file, part)
        return reading.result()

    # Finish.

    def finish(self, ctx: TaskContext) -> dict[str, Any]:
        """Counts per source, checked: rows read = documents + quarantined + skipped.

        Raises:
            UserError: a source yields no documents, too much of it is bad or lost, or no row has a field that is named.
            ConservationError: rows are unaccounted for.
        """
        counts: dict[str, dict[str, int]] = {}
        by_source: dict[str, list[dict[str, Any]]] = {source.name: [] for source in self.sources}
        for marker in ctx.markers("read"):
            by_source[marker["result"]["source"]].append(marker)
        for source in self.sources:
            markers = by_source[source.name]
            results = [marker["result"] for marker in markers]
            files = [entry for marker in markers for entry in marker["files"]]
            count = {key: sum(result["counts"][key] for result in results) for key in COUNTED}
            counts[source.name] = {"files": len(source.files), **count}
            _conserved(source.name, count, sum(entry["rows"] for entry in files if entry["name"].startswith("shards/")))
            check_source(
                source,
                counts[source.name],
                [entry for result in results for entry in result["bad"]],
                [entry for result in results for entry in result["lost"]],
                [str(ctx.folder / entry["name"]) for entry in files if entry["name"].startswith("files/quarantine/")],
                next((result["seen"] for result in results if result["seen"]), []),
                self.config.max_quarantined,
            )
            if count["documents"]:
                named = {name: sum(result["named"][name] for result in results) for name in results[0]["named"]}
                require_named(source, named, next((r["unnamed"] for r in results if r["unnamed"] is not None), None))
        schema = {field.name: str(field.type) for field in SCHEMA}
        return {"counts": counts, "schema": schema, "sources": [source.name for source in self.sources]}


@dataclass(frozen=True)
class ReferenceDocuments(Documents):
    """Documents that the corpus is compared with but that are not part of it.

    Attributes:
        stage: where in ``deduplicate.against`` they are named.
    """

    stage: str = ""

    kind: ClassVar[str] = "reference-documents"


def _conserved(name: str, count: dict[str, int], written: int) -> None:
    """Compare what the files' containers say they hold with what is in the shards' footers and the quarantine."""
    if written != count["documents"] or count["read"] != written + count["quarantined"] + count["skipped"]:
        raise ConservationError(
            f"source {name}: {count['read']} rows read, but {written} documents written, "
            f"{count['quarantined']} rows quarantined and {count['skipped']} skipped"
        )


def _source_params(taken: SourceFiles, maps: Sequence[Map]) -> dict[str, Any]:
    source = taken.source
    params: dict[str, Any] = {
        "name": taken.name,
        "text": source.text,
        "fields": source.fields.model_dump(),
        **{name: getattr(source, name) for name in ("license", "repo", "language")},
    }
    if source.paths != "best":
        params["paths"] = source.paths
    if source.readers:
        params["readers"] = {key: own.identity() for key, own in source.readers.items()}
    if changes := [change.identity() for change in maps if change.of(taken.name, source.is_chat)]:
        params["map"] = changes
    if any(file.format in SYNTAX for file in taken.files):
        params["python"] = ".".join(platform.python_version_tuple()[:2])
    return params


def _tasks(
    source: SourceFiles, lines: Iterator[int], split: dict[tuple[str, int], list[Part]], limit: int
) -> Iterator[dict[str, Any]]:
    """The read tasks of a source: small files together, each part of a large one by itself.

    Args:
        source: the source.
        lines: the results of the phase ``lines``, in its order; this source's are consumed.
        split: the parts of large files, by source and number.
        limit: maximum bytes of a document.
    """
    for run in runs(source.files):
        files = [source.files[number] for number in run]
        memory = TASK_MEMORY + max(_document_memory(file, limit) for file in files)
        entries = [
            {"file": number, "part": asdict(part)}
            for number in run
            for part in _numbered(split.get((source.name, number), [Part()]), lines)
        ]
        # A run of several files has no large ones: its parts are whole files.
        tasks = [entries] if len(files) > 1 else [[entry] for entry in entries]
        for parts in tasks:
            size = sum(file.size for file in files) // len(tasks)
            yield {"source": source.name, "parts": parts, "memory": memory, "size": size}


def _document_memory(file: InputFile, limit: int) -> int:
    """Bytes of a file's single document; 0 for files with rows, whose documents are not known."""
    if file.format not in WHOLE:
        return 0
    return min(file.size, limit) * (TREE_COPIES if file.format in SYNTAX else COPIES)


def _numbered(parts: list[Part], lines: Iterator[int]) -> list[Part]:
    """Number the parts whose first row is unknown, using the counted lines."""
    if all(part.row is not None for part in parts):
        return parts
    row, numbered = 0, []
    for i, part in enumerate(parts):
        numbered.append(Part(part.begin, part.end, row))
        if i + 1 < len(parts):
            row += next(lines)
    return numbered
