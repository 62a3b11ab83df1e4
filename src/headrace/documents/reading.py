"""One read task: parts of files of one source into a sink and a quarantine, with every row accounted for."""

from __future__ import annotations

from collections.abc import Iterable
from contextlib import ExitStack
from types import TracebackType
from typing import Any, Self

from headrace.documents.checked_file import confirm
from headrace.documents.inventory import SourceFiles
from headrace.documents.maps import Maps
from headrace.documents.normalise import normaliser
from headrace.documents.readers import reader_of
from headrace.documents.readers.base import Bad, Item, Lost, Part, Skipped, Tally
from headrace.documents.rows import RowMaker
from headrace.documents.sink import Quarantine, Row, Sink
from headrace.documents.sources import InputFile
from headrace.documents.synthetic import made_records
from headrace.errors import MemoryShareError
from headrace.flow.artifact import Artifact
from headrace.flow.task import TaskContext
from headrace.recipe.schema import DocumentsConfig


class Reading:
    """Reads, normalizes, identifies and writes; a context manager whose files are complete on exit.

    Args:
        ctx: the task.
        source: the source the files belong to.
        config: the recipe's ``documents`` section; only its maps for this source are applied.
    """

    def __init__(self, ctx: TaskContext, source: SourceFiles, config: DocumentsConfig) -> None:
        self._ctx, self._source = ctx, source
        self._maker = RowMaker(source.name, source.source, config.normalise, config.max_document)
        self._tally = Tally(config.max_document, ctx.memory, lambda size: ctx.progress(bytes=size))
        functions = [change.load(ctx.run) for change in config.map if change.of(source.name, source.source.is_chat)]
        self._note = ctx.at if ctx.careful else None
        self._maps = (
            Maps(functions, normaliser(config.normalise), self._note, config.max_document) if functions else None
        )
        self._sink = Sink(ctx)
        self._quarantine = Quarantine(ctx, source.name)
        self._stack = ExitStack()
        self._bytes = self._characters = self._skipped = 0

    def part(self, file: InputFile, part: Part) -> None:
        """Read a part of a file.

        Raises:
            UserError: the file is gone, has changed, or lacks the text column.
            MemoryShareError: it contains a document that does not fit in the task's memory.
        """
        try:
            self._read(file, part)
        except MemoryShareError as error:
            raise MemoryShareError(error.what, f"{file.url} {error.where}", error.fix) from None
        confirm(file)

    def _read(self, file: InputFile, part: Part) -> None:
        self._ctx.at(f"{self._source.name}:{file.name}")
        # For a file split into byte ranges, the limit is in the ranges.
        left = file.take if file.take is not None and part.end is None else None
        reading = reader_of(file, self._source.name, self._source.source, self._ctx.run, self._note)
        self._take(file.name, reading.read(file, part, self._source.source, self._tally), left)

    def made(self, artifact: Artifact, shard: int) -> None:
        """Take a shard of a synthetic source."""
        self._take(self._source.name, made_records(artifact, shard, self._tally), None)

    def _take(self, name: str, items: Iterable[Item], left: int | None) -> None:
        """Take the items of a file, as long as their texts have no more bytes than are left."""
        before, consumed = self._tally.read, 0
        for item in items:
            if self._ctx.careful:
                self._ctx.at(f"{self._source.name}:{name}:{item.row}")
            if isinstance(item, Skipped):
                self._skipped += item.rows
                consumed += item.rows
                continue
            made = item if isinstance(item, Bad | Lost) else self._maker.make(name, item)
            if isinstance(made, Bad | Lost):
                self._quarantine.add(name, made)
                consumed += made.rows if isinstance(made, Bad) else 0
                continue
            row, characters = made
            size = len(row[0])
            if left is not None:
                left -= size
                if left < 0:  # the reader counts ahead of what is consumed
                    self._tally.read = before + consumed
                    break
            consumed += 1
            if self._maps is None:
                self._keep(row, characters)
            else:
                self._keep_changed(self._maps.add(row))
        if self._maps is not None:
            self._keep_changed(self._maps.end())

    def _keep(self, row: Row, characters: int) -> None:
        self._bytes += len(row[0])
        self._characters += characters
        self._sink.add(row)

    def _keep_changed(self, changed: Iterable[tuple[Row, int] | tuple[str, Bad]]) -> None:
        for first, second in changed:
            if isinstance(second, Bad):
                self._quarantine.add(str(first), second)
            else:
                self._keep(first, second)  # type: ignore[arg-type]

    def lose(self, file: InputFile, part: Part, why: str) -> None:
        """Count a part of a file as lost, without reading it."""
        size = file.size if part.end is None or file.format != "jsonl" else part.end - part.begin
        self._quarantine.add(file.name, Lost(part.row or 0, why, bytes=max(size, 1)))

    def result(self) -> dict[str, Any]:
        """What the task returns, after the context exits: counts, and the first bad rows and losses."""
        counts = {
            "documents": self._sink.rows,
            "bytes": self._bytes,
            "characters": self._characters,
            "quarantined": self._quarantine.rows,
            "skipped": self._skipped,
            "read": self._tally.read,
            "lost_rows": self._quarantine.lost_rows,
            "lost_bytes": self._quarantine.lost_bytes,
        }
        told: dict[str, Any] = {
            "bad": self._quarantine.first,
            "lost": self._quarantine.losses,
            "seen": self._tally.seen,
        }
        told |= {"named": self._maker.named, "unnamed": self._maker.unnamed}
        return {"source": self._source.name, "counts": counts, **told}

    def __enter__(self) -> Self:
        self._stack.enter_context(self._quarantine)
        self._stack.enter_context(self._sink)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stack.__exit__(kind, error, trace)
