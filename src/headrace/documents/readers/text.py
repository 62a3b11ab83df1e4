"""Text and code trees: one document per file. Files with a NUL byte are not text, as in grep and git."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from headrace.documents.file_names import LANGUAGES, suffixes
from headrace.documents.readers.base import Bad, Item, Part, Reader, Record, Skipped, Tally, excerpt, not_utf8
from headrace.documents.readers.streams import Damaged, Overlong, whole
from headrace.documents.sources import InputFile
from headrace.recipe.schema import Source


class Text(Reader):
    """The whole file, unchanged, is the document; an empty file is skipped."""

    def read(self, file: InputFile, part: Part, source: Source, tally: Tally) -> Iterator[Item]:
        """One item."""
        tally.read += 1
        try:
            data = whole(file, tally)
        except Damaged as error:
            yield Bad(0, str(error))
            return
        if isinstance(data, Overlong):
            yield tally.too_large(0, data.size, data)
            return
        if not data:
            yield Skipped(0)
            return
        try:
            text = data.decode("utf-8-sig")
        except UnicodeDecodeError as error:
            # The position in the file, so that the line can be named.
            line = data.count(b"\n", 0, error.start)
            begin = data.rfind(b"\n", 0, error.start) + 1
            yield Bad(line, not_utf8(error), excerpt(data[begin : begin + 800]))
            return
        if (nul := data.find(b"\0")) >= 0:
            told = f"a NUL byte at byte {nul}: binary data, or text that is not UTF-8"
            yield Bad(data.count(b"\n", 0, nul), told, excerpt(data[:800]))
            return
        del data  # a large document is in memory often enough already
        yield Record(0, text, named(file), plain=True)


def named(file: InputFile) -> dict[str, Any]:
    """The fields of a document that is a file: its path, and the language its suffix suggests."""
    language = LANGUAGES.get(suffixes(file.name)[0])
    return {"path": file.name, **({"language": language} if language else {})}
