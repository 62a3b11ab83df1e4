"""Checking candidates by their true Jaccard similarity, from the texts themselves.

The texts of documents that have duplicates travel to the partition of their component. There the texts of a few
(those kept, or held out) are held, and all others are streamed past them.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from headrace.flow.exchange import gather

if TYPE_CHECKING:
    from headrace.recipe.schema import Near

TEXT = np.dtype([("component", "<u8"), ("row", "<u8"), ("length", "<u4")])
"""A text as it goes to the partition of its component; the payload is the text."""

Texts = Iterable[tuple[npt.NDArray[np.void], npt.NDArray[np.uint8]]]
"""Records of :data:`TEXT` with their payload."""

PairsOf = Callable[[npt.NDArray[np.void], npt.NDArray[np.uint8]], tuple[npt.NDArray[np.int64], npt.NDArray[np.uint64]]]
"""From records and their payload to ``(positions, rows)``: which of them to compare, each with which held row."""


class Held:
    """The texts of some rows of a partition.

    Args:
        texts: all texts of the partition.
        rows: uint64[n] in ascending order: those to hold.
    """

    def __init__(self, texts: Texts, rows: npt.NDArray[np.uint64]) -> None:
        self._rows = rows
        kept_rows, kept_lengths, kept = [], [], [np.empty(0, dtype=np.uint8)]
        for records, payload in texts:
            mine = np.flatnonzero(among(records["row"], rows))
            lengths = records["length"].astype(np.int64)
            starts = np.cumsum(lengths) - lengths
            kept_rows.append(records["row"][mine])
            kept_lengths.append(lengths[mine])
            kept.append(gather(payload, starts[mine], lengths[mine]))
        held_rows = np.concatenate([*kept_rows, np.empty(0, dtype=np.uint64)])
        lengths = np.concatenate([*kept_lengths, np.empty(0, dtype=np.int64)])
        order = np.argsort(held_rows)
        if not np.array_equal(held_rows[order], rows):
            raise ValueError(f"{len(rows)} texts are to be held, {len(held_rows)} have arrived")
        self._data = np.concatenate(kept)
        self._lengths = lengths[order]
        self._starts = (np.cumsum(lengths) - lengths)[order]
        self._last: tuple[int, npt.NDArray[np.uint32]] | None = None

    def texts(self) -> tuple[npt.NDArray[np.uint8], npt.NDArray[np.int64]]:
        """All held texts in ascending order of row: uint8[...] and offsets int64[n + 1]."""
        return gather(self._data, self._starts, self._lengths), offsets_of(self._lengths)

    def points(self, row: int) -> npt.NDArray[np.uint32]:
        """The cleaned code points of a held row; the last one asked for is remembered."""
        if self._last is None or self._last[0] != row:
            at = int(np.searchsorted(self._rows, np.uint64(row)))
            start = self._starts[at]
            self._last = (row, _cleaned(self._data[start : start + self._lengths[at]]))
        return self._last[1]


class Candidates:
    """Which texts share a band with which held ones: members of one component need not be like each other.

    Args:
        near: how candidates are found.
        held: the texts that others are compared with.
        components: uint64[n], the component of each, in ascending order of row.
    """

    def __init__(self, near: Near, held: Held, components: npt.NDArray[np.uint64]) -> None:
        from headrace.select.duplicates.fingerprints import fingerprints

        self._near, self._components = near, components
        which, found = fingerprints(near, *held.texts())
        order = np.argsort(found.ravel(), kind="stable")
        self._fingerprints = found.ravel()[order]
        self._holders = np.repeat(which, found.shape[1])[order]

    def of(
        self, records: npt.NDArray[np.void], payload: npt.NDArray[np.uint8], positions: npt.NDArray[np.int64]
    ) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
        """Candidate pairs: ``(positions, held)``, int64[m] each, without repeats, ascending.

        Args:
            records: records of :data:`TEXT`.
            payload: their texts.
            positions: int64[n], which of them to look at.
        """
        from headrace.select.duplicates.fingerprints import fingerprints

        lengths = records["length"].astype(np.int64)
        starts = np.cumsum(lengths) - lengths
        data = gather(payload, starts[positions], lengths[positions])
        which, found = fingerprints(self._near, data, offsets_of(lengths[positions]))
        low = np.searchsorted(self._fingerprints, found.ravel(), side="left")
        counts = np.searchsorted(self._fingerprints, found.ravel(), side="right") - low
        at = np.repeat(positions[np.repeat(which, found.shape[1])], counts)
        held = self._holders[np.repeat(low - (np.cumsum(counts) - counts), counts) + np.arange(int(counts.sum()))]
        same = records["component"][at] == self._components[held]
        pairs = np.unique(np.stack([at[same], held[same]]), axis=1)
        return pairs[0], pairs[1]


def similarities(
    texts: Texts,
    pairs_of: PairsOf,
    held: Held,
    near: Near,
) -> tuple[npt.NDArray[np.uint64], npt.NDArray[np.uint64], npt.NDArray[np.float64]]:
    """The true Jaccard similarity of streamed texts with held ones.

    Args:
        texts: all texts of the partition.
        pairs_of: which of some texts to compare with which held rows.
        held: the texts to compare with.
        near: what a shingle is.

    Returns:
        ``(rows, with, jaccard)`` of every pair, in ascending order of the two rows: uint64, uint64 and float64[n].
    """
    from headrace.select.duplicates.jaccard import pair_jaccard

    parts = []
    for records, payload in texts:
        ends = np.cumsum(records["length"].astype(np.int64))
        positions, others = pairs_of(records, payload)
        # One held text after the other, so that each is cleaned once a chunk.
        order = np.lexsort([positions, others])
        positions, others = positions[order], others[order]
        jaccard = np.empty(len(order), dtype=np.float64)
        for i, (at, other) in enumerate(zip(positions.tolist(), others.tolist(), strict=True)):
            mine = _cleaned(payload[ends[at] - records["length"][at] : ends[at]])
            jaccard[i] = pair_jaccard(mine, held.points(other), near.ngram, near.unit == "words")
        parts.append((records["row"][positions], others, jaccard))
    if not parts:
        return np.empty(0, dtype=np.uint64), np.empty(0, dtype=np.uint64), np.empty(0, dtype=np.float64)
    rows, others, jaccard = (np.concatenate(column) for column in zip(*parts, strict=True))
    order = np.lexsort([others, rows])
    return rows[order], others[order], jaccard[order]


def among(values: npt.NDArray[np.uint64], ascending: npt.NDArray[np.uint64]) -> npt.NDArray[np.bool_]:
    """Which values occur in an ascending array: bool[len(values)]."""
    if not len(ascending):
        return np.zeros(len(values), dtype=bool)
    at = np.minimum(np.searchsorted(ascending, values), len(ascending) - 1)
    return np.asarray(ascending[at] == values)


def offsets_of(lengths: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
    """Where documents of these lengths begin and end: int64[n + 1]."""
    return np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64)


def _cleaned(text: npt.NDArray[np.uint8]) -> npt.NDArray[np.uint32]:
    from headrace.select.clean import clean

    points, _, lengths = clean(text, np.array([0, len(text)], dtype=np.int64))
    return points[: lengths[0]]
