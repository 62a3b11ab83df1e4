"""Rows of tokens in files of tables, whatever kind of file: groups of rows of which a column is decoded at a time."""

from __future__ import annotations

from abc import abstractmethod
from collections import OrderedDict
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from headrace.errors import UserError
from headrace.formats.files import Facts, RowFile, joined, put_ids
from headrace.sequence.reader import SEGMENT, Segments

# A group is decoded as a whole: 1 GB is 128 times what is written here.
MOST_GROUP = 1 << 30
RECENT = 8  # decoded columns of groups that are kept in a process, 4 MB each where we wrote them


class TableRows(RowFile):
    """A file of rows in groups. The loss is in ``loss_mask``, or in ``labels`` that are -100 where there is none, or
    else everywhere.

    Args:
        path: the file.
        facts: of the sequence that it belongs to.
        names: of the columns.
        counts: rows of each group.

    Attributes:
        ids: the name of the column of tokens.
    """

    ids: str = "input_ids"
    # Rows are read in order, so that a group decoded by any file makes room for the next.
    _recent: ClassVar[OrderedDict[tuple[TableRows, int, str], Any]] = OrderedDict()

    def __init__(self, path: Path, facts: Facts, names: Sequence[str], counts: Sequence[int]) -> None:
        self.path, self.facts, self.names = path, facts, names
        self._starts = np.cumsum([0, *counts], dtype=np.int64)

    @abstractmethod
    def decode(self, group: int, name: str) -> pa.Array:
        """A column of a group, with all offsets checked.

        Raises:
            UserError: it is damaged.
        """

    @abstractmethod
    def segments_of(self, array: pa.Array, group: int) -> Segments | None:
        """Segments from the column ``segments`` of a group; None if it is something else.

        Raises:
            UserError: it is damaged.
        """

    def __len__(self) -> int:
        return int(self._starts[-1])

    def copy(self, start: int, stop: int, out: np.ndarray) -> None:
        """Copy tokens."""
        for group, a, b, part in self._spans(start, stop):
            where = f"{self.path}:{start + part.start}"
            put_ids(self._tokens(group)[a:b], out[part], self.facts.vocab_size, where)

    def targets(self, start: int, stop: int) -> np.ndarray:
        """bool[stop - start, L]: whether each target carries loss."""
        out = np.empty((stop - start, self.facts.seq_len), dtype=bool)
        for group, a, b, part in self._spans(start, stop):
            out[part] = self._kept(group, "loss", self.loss)[a:b, 1:]
        return out

    def segments(self, start: int, stop: int) -> Segments | None:
        """The segments of rows. Which documents they are is told only if a manifest vouches for it."""
        if "segments" not in self.names:
            return None
        known = [name for name in SEGMENT.names or () if self.facts.manifest or name in ("start", "length", "kind")]
        pieces = []
        for group, a, b, _ in self._spans(start, stop):
            found = self._kept(group, "segments", self._segments)
            if found is None:
                return None
            low, high = found.bounds[a], found.bounds[b]
            columns = {n: found.columns[n][low:high] for n in known if n in found.columns}
            pieces.append(Segments(found.bounds[a : b + 1] - low, columns))
        return joined(pieces)

    def close(self) -> None:
        """Let go of what was decoded."""
        for key in [key for key in self._recent if key[0] is self]:
            del self._recent[key]

    def loss(self, group: int) -> np.ndarray:
        """bool[n, L + 1]: whether each token of a group carries loss as a target."""
        if "loss_mask" in self.names:
            return self.matrix(self.whole(group, "loss_mask"), group, "loss_mask") != 0
        tokens = self._tokens(group)
        if "labels" not in self.names:
            return np.ones(tokens.shape, dtype=bool)
        labels = self.matrix(self.whole(group, "labels"), group, "labels")
        wrong = (labels != -100) & (labels != tokens)
        if wrong.any():
            row = int(self._starts[group]) + int(wrong.any(axis=1).argmax())
            raise unreadable(self.path, f"row {row} has labels that are other tokens than its {self.ids}")
        return labels != -100

    def whole(self, group: int, name: str) -> pa.Array:
        """A column of a group without nulls, with as many rows as the group has."""
        array = self.decode(group, name)
        if len(array) != self._starts[group + 1] - self._starts[group] or array.null_count:
            raise unreadable(self.path, f"{self.rows(group)} have {len(array) - array.null_count:,} {name}")
        return array

    def rows(self, group: int) -> str:
        """The rows of a group, for messages."""
        return f"rows {self._starts[group]:,} to {self._starts[group + 1]:,}"

    def matrix(self, array: pa.Array, group: int, name: str) -> np.ndarray:
        """A column of lists of L + 1 integers or booleans as [n, L + 1]."""
        width = self.facts.seq_len + 1
        sizes = pc.list_value_length(array).to_numpy(zero_copy_only=False) if is_list(array.type) else None
        if sizes is None or (sizes != width).any():
            row = int(self._starts[group]) + (0 if sizes is None else int((sizes != width).argmax()))
            raise unreadable(self.path, f"row {row} has no list of {width:,} {name}")
        values = array.flatten()
        if values.null_count or not (pa.types.is_integer(values.type) or pa.types.is_boolean(values.type)):
            raise unreadable(self.path, f"the {name} of {self.rows(group)} are not all integers")
        return values.to_numpy(zero_copy_only=False).reshape(len(array), width)

    def _tokens(self, group: int) -> np.ndarray:
        return self._kept(group, self.ids, lambda g: self.matrix(self.whole(g, self.ids), g, self.ids))

    def _segments(self, group: int) -> Segments | None:
        found = self.segments_of(self.whole(group, "segments"), group)
        if found is not None:
            start, length = (found.columns[name].astype(np.int64) for name in ("start", "length"))
            if ((start < 0) | (length < 0) | (start + length > self.facts.seq_len + 1)).any():
                raise unreadable(self.path, f"the segments of {self.rows(group)} lie outside their rows")
        return found

    def _kept(self, group: int, name: str, make: Callable[[int], Any]) -> Any:
        """What was made of a group, made anew if it is not among the recent ones."""
        key = (self, group, name)
        if key not in self._recent:
            made = make(group)
            while len(self._recent) >= RECENT:
                self._recent.popitem(last=False)
            self._recent[key] = made
        self._recent.move_to_end(key)
        return self._recent[key]

    def _spans(self, start: int, stop: int) -> list[tuple[int, int, int, slice]]:
        """The groups that hold rows: index, first row and last in it, and where they go among those asked for."""
        out, done = [], start
        while done < stop:
            group = int(self._starts.searchsorted(done, side="right")) - 1
            base, end = int(self._starts[group]), min(int(self._starts[group + 1]), stop)
            out.append((group, done - base, end - base, slice(done - start, end - start)))
            done = end
        return out


def is_list(kind: pa.DataType) -> bool:
    """Whether values are lists of any kind."""
    return pa.types.is_list(kind) or pa.types.is_large_list(kind) or pa.types.is_fixed_size_list(kind)


def ids_name(schema: pa.Schema) -> str:
    """The name of the column of tokens."""
    return "tokens" if "tokens" in schema.names and "input_ids" not in schema.names else "input_ids"


def ids_in(schema: pa.Schema, name: str, path: Path) -> pa.DataType:
    """The type of the column of tokens.

    Raises:
        UserError: there is none, or it holds something else.
    """
    if name not in schema.names:
        raise unreadable(path, f"it has no column {name!r}, only {', '.join(map(repr, schema.names[:8]))}")
    kind = schema.field(name).type
    if not (is_list(kind) and pa.types.is_integer(kind.value_type)):
        raise unreadable(path, f"its {name} are {kind}, not lists of integers")
    return kind


def unreadable(path: Path, why: str) -> UserError:
    """The error about a file."""
    return UserError(f"This file is not read: {why}.", str(path), "Export or download it again.")
