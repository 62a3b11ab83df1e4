"""Which targets of one sequence are in another too: compared by document, copy, and position in the document."""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple

import numpy as np

from headrace.documents.store import fetch
from headrace.errors import UserError
from headrace.sequence.batch import read
from headrace.sequence.provenance import beside
from headrace.sequence.reader import ELSEWHERE, SequenceReader
from headrace.sequence.windows import PADDING

BLOCK = 1 << 20  # targets in memory at once


class Stretches(NamedTuple):
    """Stretches of documents whose targets carry loss: arrays of n.

    Attributes:
        source: index into the sequence's sources.
        document: uint64, the document's row.
        epoch: the copy's number.
        first: of its tokens as transformed, the first.
        length: targets, each the next token.
    """

    source: np.ndarray
    document: np.ndarray
    epoch: np.ndarray
    first: np.ndarray
    length: np.ndarray


def stretches(sequence: SequenceReader, ranges: Iterable[tuple[int, int]]) -> Stretches | None:
    """The stretches of some rows; None if the files do not tell of which documents they are."""
    found: list[np.ndarray] = []
    width = sequence.seq_len + 1
    most = max(1, BLOCK // width)
    for first, stop in ranges:
        for row in range(first, stop, most):
            end = min(row + most, stop)
            segments = sequence.segments_in(row, end)
            if segments is None or "row" not in segments.columns:
                return None
            part = slice(int(segments.bounds[0]), int(segments.bounds[-1]))
            column = {name: values[part].astype(np.int64) for name, values in segments.columns.items() if name != "row"}
            document = segments.columns["row"][part]
            if (document[column["kind"] != PADDING] == ELSEWHERE).any():
                return None
            own = np.full((end - row) * width, -1)  # the segment of each position
            begin = np.repeat(np.arange(end - row), np.diff(segments.bounds)) * width + column["start"]
            length = column["length"]
            at = np.repeat(begin - (np.cumsum(length) - length), length) + np.arange(length.sum())
            own[at] = np.repeat(np.arange(len(length)), length)
            loss = np.zeros((end - row, width), dtype=bool)
            loss[:, 1:] = read(sequence, row, end, sequence.dtype, False).loss
            own[~loss.reshape(-1)] = -1
            starts = np.flatnonzero((own >= 0) & (own != np.append(-1, own[:-1])))
            stops = np.flatnonzero((own >= 0) & (own != np.append(own[1:], -1))) + 1
            of = own[starts]
            offset = column["offset"][of] + starts - begin[of]
            rows = document[of].astype(np.int64)
            found.append(np.stack([column["source"][of], rows, column["epoch"][of], offset, stops - starts]))
    joined = np.concatenate([np.zeros((5, 0), dtype=np.int64), *found], axis=1)
    return Stretches(joined[0], joined[1].astype(np.uint64), joined[2], joined[3], joined[4])


def documents(sequences: list[SequenceReader], found: list[Stretches]) -> list[np.ndarray] | None:
    """int64[n] for each sequence: a number for each stretch's document that is the same in all sequences.

    Documents of other runs of the same corpus have other rows; their ids are compared then, those of copies in their
    order. None if the documents or the tokens are not there to compare.
    """
    about = [(one.manifest.get("tokenizer"), _inputs(one).get("documents")) for one in sequences]
    if any(tokenizer != about[0][0] or artifact is None for tokenizer, artifact in about):
        return None
    if len({artifact for _, artifact in about}) == 1:
        return [one.document.astype(np.int64) for one in found]
    names: dict[tuple[str, str, int], int] = {}
    out = []
    for sequence, one in zip(sequences, found, strict=True):
        rows, back = np.unique(one.document.astype(np.int64), return_inverse=True)
        try:
            table = fetch(beside(sequence, "documents"), rows, ["id", "source"])
        except (UserError, FileNotFoundError):
            return None
        copies: dict[tuple[str, str], int] = {}
        numbers = np.empty(len(rows), dtype=np.int64)
        for i, key in enumerate(zip(table["source"].to_pylist(), table["id"].to_pylist(), strict=True)):
            copies[key] = copies.get(key, -1) + 1
            numbers[i] = names.setdefault((*key, copies[key]), len(names))
        out.append(numbers[back])
    return out


def _inputs(sequence: SequenceReader) -> dict[str, str]:
    artifact = getattr(sequence, "artifact", None)
    return {} if artifact is None else artifact.manifest.inputs


def placed(numbers: list[np.ndarray], found: list[Stretches]) -> list[np.ndarray]:
    """int64[n] for each sequence: where its stretches begin on one line, on which each copy of each document has its
    own place."""
    keys = [number << 16 | one.epoch for number, one in zip(numbers, found, strict=True)]
    _, codes = np.unique(np.concatenate(keys), return_inverse=True)
    parts = np.split(codes.astype(np.int64), np.cumsum([len(key) for key in keys])[:-1])
    return [part << 31 | one.first for part, one in zip(parts, found, strict=True)]


def covered(first: np.ndarray, length: np.ndarray, by: np.ndarray, by_length: np.ndarray) -> np.ndarray:
    """int64[n]: how much of each stretch of a line lies in any of some others, which may overlap."""
    if not len(by):
        return np.zeros(len(first), dtype=np.int64)
    order = np.argsort(by, kind="stable")
    starts, ends = by[order], np.maximum.accumulate(by[order] + by_length[order])
    new = np.append(True, starts[1:] > ends[:-1])
    starts, ends = starts[new], ends[np.append(np.flatnonzero(new)[1:] - 1, len(ends) - 1)]
    before = np.append(0, np.cumsum(ends - starts))

    def until(x: np.ndarray) -> np.ndarray:
        at = np.searchsorted(starts, x, side="right") - 1
        inside = np.clip(x - starts[at], 0, (ends - starts)[at])
        return np.where(at < 0, 0, before[at] + inside)

    found: np.ndarray = until(first + length) - until(first)
    return found
