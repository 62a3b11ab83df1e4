"""datatrove's tokenized files, which nanotron trains on.

``data-00000.ds`` holds token ids of two bytes or four, ``.ds.index`` the end of each document in tokens (uint64),
``.ds.loss`` a byte per token, and ``.ds.metadata`` three lines: tokenizer and bytes of an id, tokens, tokens for
people. (datatrove 0.10, ``pipeline/tokens/tokenizer.py``, ``utils/dataset.py``.)
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

from headrace.flow.task import TaskContext
from headrace.formats.flat import Documents, FlatFormat, Points, guess, tokens_in
from headrace.formats.format import BLOCK_TOKENS, Part, files_below
from headrace.formats.placed import size_of, unreadable
from headrace.sequence.reader import SequenceReader

MOST_METADATA = 4096  # bytes; a tokenizer's name and two numbers


class Nanotron(FlatFormat):
    """datatrove's ``.ds`` files."""

    name = "nanotron"
    about = "datatrove's .ds files with .index and .metadata, for nanotron"
    suffix = ".ds"
    unseen = frozenset(["loss", "provenance"])  # datatrove writes a loss, but its reader gives none
    file_tokens = 1 << 27  # 256 MB of uint16: several files, for several workers, from 500 MB on

    def loss_file(self, file: Path) -> Path:
        """As datatrove names it."""
        return _beside(file, "loss")

    def segments_file(self, file: Path) -> Path:
        """headrace's own."""
        return _beside(file, "segments")

    @contextmanager
    def documents(self, ctx: TaskContext, sequence: SequenceReader, part: Part) -> Iterator[Documents]:
        """Write the end of each segment, of padding too: the next row begins anew."""
        with ctx.file(_beside(Path(part.file), "index").as_posix()) as out, open(out.path, "wb") as index:

            def write(segments: Mapping[str, np.ndarray], begins: np.ndarray) -> None:
                index.write((begins + segments["length"]).astype("<u8").tobytes())

            yield write

    def write(self, ctx: TaskContext, sequence: SequenceReader, part: Part) -> dict[str, Any]:
        """Write rows and what belongs to them, and the metadata."""
        written = super().write(ctx, sequence, part)
        tokens = part.rows * (sequence.seq_len + 1)
        tokenizer = f"{sequence.manifest.get('tokenizer') or 'Unknown Tokenizer'}|{sequence.dtype.itemsize}"
        with ctx.file(_beside(Path(part.file), "metadata").as_posix()) as out:
            out.path.write_text("\n".join([tokenizer, str(tokens), for_people(tokens)]))
        return written

    def find(self, path: Path) -> list[Path]:
        """Files named .ds."""
        return files_below(path, ".ds")

    def beside(self, file: Path) -> tuple[Path, ...]:
        """The loss, the segments, the index, the metadata."""
        return *super().beside(file), _beside(file, "index"), _beside(file, "metadata")

    def stored(self, file: Path) -> np.dtype:
        """As the metadata say."""
        metadata = _beside(file, "metadata")
        if not metadata.exists():
            return guess(file)
        if size_of(metadata) > MOST_METADATA:
            raise unreadable(metadata, f"it has more than {MOST_METADATA:,} bytes")
        lines = metadata.read_bytes().decode("utf-8", "replace").split("\n")
        width = lines[0].rpartition("|")[2]
        if width not in ("2", "4"):
            raise unreadable(metadata, f"it says that an id has {width!r} bytes, not 2 or 4")
        stored = np.dtype(np.uint16 if width == "2" else np.uint32)
        if len(lines) > 1 and lines[1] != str(tokens_in(file, stored)):
            raise unreadable(metadata, f"it promises {lines[1]!r} tokens, there are {tokens_in(file, stored):,}")
        return stored

    def points(self, file: Path, tokens: int) -> Points | None:
        """From the index, if there is one."""
        index = _beside(file, "index")
        if not index.exists() or not size_of(index):
            return None
        if size_of(index) % 8:
            raise unreadable(index, "it ends within a number")
        ends = np.memmap(index, dtype="<u8", mode="r")
        last = 0
        for start in range(0, len(ends), BLOCK_TOKENS):
            some = ends[start : start + BLOCK_TOKENS]
            if int(some[0]) < last or (some[1:] < some[:-1]).any():
                raise unreadable(index, "the ends of its documents go back")
            last = int(some[-1])
        if last != tokens:
            raise unreadable(index, f"its last document ends at token {last:,} of {tokens:,}")
        return lambda first, end: np.array(ends[bisect_left(ends, first) : bisect_left(ends, end)], dtype=np.int64)


def _beside(file: Path, kind: str) -> Path:
    return file.with_name(f"{file.name}.{kind}")


def for_people(tokens: int) -> str:
    """A count as datatrove writes it, with humanize's ``metric(tokens, unit="T")``: three digits and a prefix."""
    power = len(str(tokens)) - 1
    if round(tokens / 10 ** (power // 3 * 3), 2 - power % 3) >= 10 ** (power % 3 + 1):  # 9.995 is 10.0
        power += 1
    return f"{tokens / 10 ** (power // 3 * 3):.{2 - power % 3}f} {['', *'kMGTPEZY'][power // 3]}T"
