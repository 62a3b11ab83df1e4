"""A stretch of a row of a sequence: its segments, with the document of each, and its tokens in runs that are alike."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import pairwise
from typing import Any

import numpy as np

from headrace.flow.damage import checking_on_error
from headrace.sequence import provenance
from headrace.sequence.reader import SequenceReader, require_known
from headrace.tokens.engine import Encoded
from headrace.tokens.table_engine import Decoder
from headrace.train.losses import NO_TARGET, mean_of
from headrace.train.outcome import finite
from headrace.view.fim import UNMARKED, fim_parts, part_at, sentinels
from headrace.view.spelling import hexadecimal, spelled
from headrace.view.target import Target

MOST_SEGMENTS, LEAST_SEGMENTS = 300, 8  # of all rows on a page, of each row: each is about 500 bytes of HTML


@dataclass(frozen=True)
class Run:
    """Tokens that follow one another and are alike.

    Attributes:
        start: position of the first in the row.
        ids: their ids.
        text: the text of all (:func:`headrace.view.spelling.spelled`), in which a character of several tokens is whole;
            None without a tokenizer.
        texts: the text of each, if asked for.
        bytes: the bytes of each in hexadecimal digits, if asked for.
        part: as :func:`headrace.view.fim.fim_parts`: ``prefix``, ``suffix``, ``middle``, prefix and middle as one,
            ``sentinel``; ``unmarked`` of a rearranged document whose sentinels are too far to look for; or None.
        loss: whether they carry loss as targets.
        losses: the loss of each in nats as it was recorded: NaN where it carries none, infinite where it was not
            finite; empty where it was not recorded.
        special: whether they are special tokens.
    """

    start: int
    ids: list[int]
    text: str | None
    texts: list[str]
    bytes: list[str]
    part: str | None
    loss: bool
    special: bool
    losses: list[float] = field(default_factory=list)


@dataclass(frozen=True)
class Segment(provenance.Segment):
    """What a row has of one document.

    Attributes:
        runs: of its tokens, those that are shown.
        loss: mean loss of its tokens, in nats; None where it was not recorded, is not finite, or none carries loss.
    """

    runs: list[Run] = field(default_factory=list)
    loss: float | None = None


@dataclass(frozen=True)
class Row:
    """A row, or a stretch of it.

    Attributes:
        row: its number.
        length: its tokens.
        start: position of the first that is shown.
        stop: position after the last that is shown.
        segments: those of which something is shown.
        documents: how many segments all of the row has, without padding.
    """

    row: int
    length: int
    start: int
    stop: int
    segments: list[Segment]
    documents: int


Losses = Mapping[int, np.ndarray]
"""Row -> float16[L], as :func:`headrace.train.losses.tokens_of` has them."""


def read_rows(
    target: Target,
    name: str,
    rows: Sequence[int],
    place: int,
    tokens: int,
    decoder: Decoder | None,
    each: bool,
    losses: Losses,
) -> list[Row]:
    """Read a stretch of each of some rows.

    Args:
        target: the target.
        name: the sequence's name.
        rows: their numbers.
        place: the first position of each.
        tokens: how many tokens of each.
        decoder: what turns ids into text; None shows ids only.
        each: whether the text of each token is wanted, not only that of runs.
        losses: of those rows whose tokens' losses were recorded.

    Raises:
        UserError: the rows cannot be read, or the tokenizer does not know an id.
    """
    sequence = target.sequence(name)
    reading = _Reading(target, sequence, rows, decoder, each, losses)
    until = min(place + tokens, sequence.seq_len + 1)
    most = max(LEAST_SEGMENTS, MOST_SEGMENTS // len(rows))
    shown, stops = [], []
    for row in reading.segments:
        some = [one for one in row if one.start < until and one.start + one.length > place]
        shown.append([(one, place, until) for one in some[:most]])
        stops.append(until if len(some) <= most else some[most].start)
    drawn = reading.drawn(shown)
    return [reading.row(i, place, stops[i], drawn[i]) for i in range(len(rows))]


def outlines(
    target: Target, name: str, rows: Sequence[int], most: int, tokens: int, decoder: Decoder | None, losses: Losses
) -> list[Row]:
    """Rows by the beginnings of their segments: of each row the first ``most``, or those with the highest loss where it
    was recorded, and of each the first ``tokens`` tokens as text. Otherwise as :func:`read_rows`."""
    sequence = target.sequence(name)
    reading = _Reading(target, sequence, rows, decoder, False, losses)
    real = [[one for one in row if one.kind != "padding"] for row in reading.segments]
    for row, number in zip(real, rows, strict=True):
        if number in losses:
            row.sort(key=lambda one: math.inf if one.loss is None else -one.loss)
    real = [row[:most] for row in real]
    drawn = reading.drawn([[(one, one.start, one.start + tokens) for one in row] for row in real])
    return [reading.row(i, 0, sequence.seq_len + 1, drawn[i]) for i in range(len(rows))]


Window = tuple[Segment, int, int]
"""A segment, and the positions ``[place, until)`` of the row that are shown of it."""


class _Reading:
    """Some rows, and what is needed to tell about them; arguments as for :func:`read_rows`."""

    def __init__(
        self,
        target: Target,
        sequence: SequenceReader,
        rows: Sequence[int],
        decoder: Decoder | None,
        each: bool,
        losses: Losses,
    ) -> None:
        self._target, self._sequence, self._rows, self._decoder, self._each = target, sequence, rows, decoder, each
        parts = list(_stretches(rows))
        self._ids = np.concatenate([sequence.rows(first, stop) for first, stop in parts])
        self._loss = np.concatenate([sequence.loss(first, stop) for first, stop in parts])
        if decoder is not None:
            for ids, row in zip(self._ids, rows, strict=True):
                require_known(ids[None], decoder.vocab_size, sequence.path, row)
        self._roles, self._losses = _roles(sequence, decoder), losses
        self.segments = [
            [self._with_loss(row, one) for one in _segments(sequence, row, ids, self._roles)]
            for row, ids in zip(rows, self._ids, strict=True)
        ]

    def _with_loss(self, row: int, one: Segment) -> Segment:
        if row not in self._losses:
            return one
        return replace(one, loss=finite(mean_of(self._losses[row], one.start, one.length)[0]))

    def _recorded(self, i: int, first: int, last: int) -> list[float]:
        """The losses of the tokens at positions ``first`` to ``last`` of the ``i``-th row, as :class:`Run` has them."""
        told = self._losses.get(self._rows[i])
        if told is None:
            return []
        some = np.concatenate([[NO_TARGET], told])[first:last]
        shown = np.where(np.isfinite(some), np.round(some, 4), np.inf)
        return [float(one) for one in np.where(some == NO_TARGET, np.nan, shown)]

    def row(self, i: int, place: int, until: int, drawn: list[Segment]) -> Row:
        """The ``i``-th row with what is shown of it."""
        count = sum(one.kind != "padding" for one in self.segments[i])
        return Row(self._rows[i], self._sequence.seq_len + 1, place, until, drawn, count)

    def drawn(self, windows: list[list[Window]]) -> list[list[Segment]]:
        """Segments of each row with their documents' facts, and with the runs of their tokens."""
        every = [one for row in windows for one, _, _ in row]
        facts = _facts(self._target, every)
        parts = [[self._parts(i, one) for one, _, _ in row] for i, row in enumerate(windows)]
        unmarked = [
            (one.document, one.epoch or 0)
            for row, told in zip(windows, parts, strict=True)
            for (one, _, _), own in zip(row, told, strict=True)
            if own[0] == UNMARKED and one.document is not None
        ]
        elsewhere = sentinels(self._sequence, unmarked, self._roles)
        out: list[list[Segment]] = []
        for i, (row, told) in enumerate(zip(windows, parts, strict=True)):
            out.append([])
            for (one, place, until), own in zip(row, told, strict=True):
                if own[0] == UNMARKED and one.document is not None:
                    part = part_at(elsewhere.get((one.document, one.epoch or 0), []), one.offset or 0, one.kind)
                    own = [part if one_part == UNMARKED else None for one_part in own]
                known = facts.get(one.document, {}) if one.document is not None else {}
                runs = self._runs(i, one, place, until, own)
                out[-1].append(Segment(**{**vars(one), **known, "runs": runs}))
        return out

    def _parts(self, i: int, one: Segment) -> list[str | None]:
        begins = one.offset == 0 if one.offset is not None else one.start > 0
        return fim_parts(self._ids[i, one.start : one.start + one.length], self._roles, one.kind, begins)

    def _runs(self, i: int, one: Segment, place: int, until: int, parts: list[str | None]) -> list[Run]:
        """The runs of a segment's tokens from ``place`` to ``until``."""
        first, last, decoder = max(place, one.start), min(until, one.start + one.length), self._decoder
        parts = parts[first - one.start : last - one.start]
        ids, loss = self._ids[i, first:last], self._loss[i, first:last] & (one.kind != "padding")
        special = np.zeros(len(ids), dtype=bool) if decoder is None else np.isin(ids, decoder.special_ids)
        changed = np.array([a != b for a, b in pairwise(parts)], dtype=bool)
        edges = np.flatnonzero((np.diff(special) != 0) | (np.diff(loss) != 0) | changed) + 1
        runs = []
        for a, b in pairwise([0, *edges.tolist(), len(ids)]):
            some = ids[a:b].astype(np.uint32)
            data = None if decoder is None else decoder.decode_batch(Encoded(some, np.arange(len(some) + 1)))
            text = None if data is None else spelled(data.data.tobytes())
            pieces = [] if data is None or not self._each else [data.bytes_of(k) for k in range(len(some))]
            about = some.tolist(), text, [spelled(piece) for piece in pieces], [hexadecimal(piece) for piece in pieces]
            recorded = self._recorded(i, first + a, first + b)
            runs.append(Run(first + a, *about, parts[a], bool(loss[a]), bool(special[a]), recorded))
        return runs


def _stretches(rows: Sequence[int]) -> Iterator[tuple[int, int]]:
    """Rows in their order as ranges ``[first, stop)``."""
    edges = [0, *(i for i in range(1, len(rows)) if rows[i] != rows[i - 1] + 1), len(rows)]
    return ((rows[a], rows[b - 1] + 1) for a, b in pairwise(edges))


def _roles(sequence: SequenceReader, decoder: Decoder | None) -> Mapping[str, int]:
    """Role -> id of the special tokens, as far as anyone says."""
    told = {role: int(sequence.manifest[role]) for role in ("eod", "pad") if sequence.manifest.get(role) is not None}
    return {**({} if decoder is None else decoder.special), **told}


def _segments(sequence: SequenceReader, row: int, ids: np.ndarray, roles: Mapping[str, int]) -> list[Segment]:
    """The segments of a row; where nobody recorded them, documents as their ends tell."""
    found = provenance.placed_segments(sequence, row)
    if found is None:
        return _by_ends(ids, roles.get("eod"))
    return _tiled([Segment(**vars(one)) for one in found], sequence.seq_len + 1)


def _tiled(segments: list[Segment], length: int) -> list[Segment]:
    """The segments of a row in order, without empty ones, and with what lies in none of them, so that no token is
    missing whatever somebody recorded."""
    out, done = [], 0
    for one in sorted(segments, key=lambda one: one.start):
        if one.start > done:
            out.append(Segment(done, one.start - done, "unknown"))
        if one.length:
            out.append(one)
        done = max(done, one.start + one.length)
    return [*out, Segment(done, length - done, "unknown")] if done < length else out


def _by_ends(ids: np.ndarray, eod: int | None) -> list[Segment]:
    """Segments that end with each end-of-document token; several of these in a row are one, as padding is."""
    ends = np.empty(0, np.int64) if eod is None else np.flatnonzero(ids == eod) + 1
    if len(ends):
        ends = ends[np.append(ids[ends[:-1]] != eod, True)]
    edges = [0, *(end for end in ends.tolist() if end < len(ids)), len(ids)]
    return [Segment(a, b - a, "unknown") for a, b in pairwise(edges)]


def _facts(target: Target, segments: list[Segment]) -> dict[int, dict[str, Any]]:
    """What is known of the documents of segments; nothing where their run is not at hand."""
    documents = target.documents
    if documents is None:
        return {}
    with checking_on_error(lambda: [documents]):
        return provenance.facts_of(segments, documents, target.artifact("licences"))
