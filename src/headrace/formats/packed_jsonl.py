"""JSON Lines of packed rows: ``token_ids``, ``loss_mask`` and ``label_ids``, each a list of L.

This is what CrystalChat was fine-tuned on in Megatron-LM (LLM360/crystalcoder-train, ``finetune``): labels are the ids
one further on, and the mask is that of the label. Row i is line i; blank lines do not count.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import numpy as np
import orjson

from headrace.errors import UserError
from headrace.flow.task import TaskContext
from headrace.formats.files import Facts, RowFile, put_ids
from headrace.formats.format import Part, ReadableFormat, Shape, blocks, files_below, loss_mask
from headrace.formats.placed import open_for
from headrace.sequence.reader import SequenceReader

IDS, MASK, LABELS = "token_ids", "loss_mask", "label_ids"
CHUNK = 16 << 20  # bytes searched for ends of lines at once
MOST_LINE = 64 << 20  # bytes of a row: a million tokens three times


class PackedJsonLines(ReadableFormat):
    """A file of lines a stage, or several."""

    name = "packed-jsonl"
    about = "JSON Lines of packed rows, as CrystalChat's fine-tuning in Megatron-LM reads them"
    keeps = frozenset(["loss"])
    rows_per_file = 50_000
    suffix = ".jsonl"

    def write(self, ctx: TaskContext, sequence: SequenceReader, part: Part) -> dict[str, Any]:
        """Write lines."""
        with ctx.file(part.file) as out, open(out.path, "wb") as file:
            for start, stop in blocks(sequence, part):
                tokens = sequence.rows(start, stop).astype(np.int64)
                mask = loss_mask(sequence, start, stop, sequence.segments_in(start, stop))[:, 1:].astype(np.int64)
                for row, carried in zip(tokens, mask, strict=True):
                    line = {IDS: row[:-1], MASK: np.ascontiguousarray(carried), LABELS: row[1:]}
                    file.write(orjson.dumps(line, option=orjson.OPT_SERIALIZE_NUMPY | orjson.OPT_APPEND_NEWLINE))
                ctx.progress(rows=stop - start, bytes=tokens.nbytes)
        return {}

    def find(self, path: Path) -> list[Path]:
        """Files named .jsonl."""
        return files_below(path, ".jsonl")

    def shape(self, file: Path, seq_len: int | None) -> Shape:
        """Lines, and L of the first."""
        lines = PackedFile(file, Facts(0, np.dtype(np.uint32)))
        try:
            length = len(lines.row(0)[IDS]) if len(lines) else (seq_len or 1)
            return Shape(len(lines), length, np.dtype(np.uint32))
        finally:
            lines.close()

    def open_file(self, file: Path, facts: Facts) -> RowFile:
        """Open a file."""
        return PackedFile(file, facts)


class PackedFile(RowFile):
    """A file of packed rows.

    Args:
        path: the file.
        facts: of the sequence that it belongs to.
    """

    def __init__(self, path: Path, facts: Facts) -> None:
        self.path, self.facts = path, facts
        self._file = open_for(self, path)
        self._spans = self._lines()
        self._held: tuple[int, dict[str, np.ndarray]] | None = None

    def _lines(self) -> np.ndarray:
        """int64[n, 2]: where each line that is not blank begins and ends."""
        ends, at = [], 0
        while chunk := self._file.read(CHUNK):
            ends.append(np.flatnonzero(np.frombuffer(chunk, dtype=np.uint8) == 10) + at)
            at += len(chunk)
        stops = np.concatenate([*ends, np.array([at], dtype=np.int64)])
        starts = np.concatenate([np.zeros(1, dtype=np.int64), stops[:-1] + 1])
        spans = np.stack([starts, stops], axis=1)
        short = np.flatnonzero(stops - starts < 16)  # shorter than any row
        blank = [i for i in short if not self._bytes(*spans[i]).strip()]
        return np.delete(spans, blank, axis=0)

    def _bytes(self, start: int, stop: int) -> bytes:
        self._file.seek(int(start))
        return self._file.read(int(stop) - int(start))

    def __len__(self) -> int:
        return len(self._spans)

    def row(self, number: int) -> dict[str, np.ndarray]:
        """The lists of a row as int64 arrays of one length.

        Raises:
            UserError: the line is something else.
        """
        if self._held is not None and self._held[0] == number:
            return self._held[1]
        start, stop = self._spans[number]
        if stop - start > MOST_LINE:
            raise self._wrong(number, f"has more than {MOST_LINE >> 20} MB")
        try:
            value = orjson.loads(self._bytes(start, stop))
        except orjson.JSONDecodeError as error:
            raise self._wrong(number, f"is not JSON ({re.sub(r':.*', '', str(error))})") from None
        if not isinstance(value, dict):
            raise self._wrong(number, f"is no object with {IDS}, {MASK} and {LABELS}")
        made = {name: self._list(number, value, name) for name in (IDS, MASK, LABELS)}
        length = self.facts.seq_len or len(made[IDS])
        for name, array in made.items():
            if len(array) != length or not length:
                raise self._wrong(number, f"has {len(array):,} {name}, where {length:,} are expected")
        if (made[MASK] < 0).any() or (made[MASK] > 1).any():
            raise self._wrong(number, f"has a {MASK} of other values than 0 and 1")
        other = (made[LABELS][:-1] != made[IDS][1:]) & (made[MASK][:-1] != 0)
        if other.any():
            at = int(other.argmax())
            raise self._wrong(number, f"has a label at position {at} that is not the token one further on")
        self._held = number, made
        return made

    def _list(self, number: int, value: dict[str, Any], name: str) -> np.ndarray:
        try:
            array = np.asarray(value[name])
        except (KeyError, ValueError):  # absent, or ragged
            array = None
        if array is None or array.ndim != 1 or array.dtype.kind not in "ib":
            raise self._wrong(number, f"has no list of integers {name}")
        return array.astype(np.int64)

    def _wrong(self, number: int, what: str) -> UserError:
        fix = f"Rows are JSON objects with lists {IDS}, {MASK} and {LABELS} of one length."
        return UserError(f"Row {number} {what}.", str(self.path), fix)

    def copy(self, start: int, stop: int, out: np.ndarray) -> None:
        """Copy tokens: the ids and the last label."""
        for number in range(start, stop):
            row, to = self.row(number), out[number - start]
            put_ids(row[IDS][None], to[None, :-1], self.facts.vocab_size, str(self.path), number)
            put_ids(row[LABELS][None, -1:], to[None, -1:], self.facts.vocab_size, str(self.path), number)

    def targets(self, start: int, stop: int) -> np.ndarray:
        """bool[stop - start, L]: whether each target carries loss."""
        masks = [self.row(number)[MASK] != 0 for number in range(start, stop)]
        return np.array(masks, dtype=bool).reshape(stop - start, self.facts.seq_len)

    def close(self) -> None:
        """Let go of the file."""
        self._file.close()
