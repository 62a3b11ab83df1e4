"""A stretch of a row of a sequence: its segments, with the document of each, and its tokens in runs that are alike."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Any

import numpy as np

from headrace.documents.store import fetch
from headrace.flow.artifact import Artifact
from headrace.flow.damage import checking_on_error
from headrace.select.licences.columns import licences_of
from headrace.sequence.provenance import find_rows
from headrace.sequence.reader import ELSEWHERE, SequenceReader, require_known
from headrace.sequence.store import ArrowSequence
from headrace.sequence.windows import KINDS, PADDING
from headrace.tokens.engine import Encoded
from headrace.tokens.table_engine import Decoder
from headrace.view.spelling import hexadecimal, spelled
from headrace.view.target import Target

SENTINELS = {"fim_prefix": "prefix", "fim_suffix": "suffix", "fim_middle": "middle"}
"""The role of a special token -> the part of a document that follows it."""
BOTH = "prefix and middle"
"""What follows the middle's sentinel in SPM order, where nothing marks the border."""
SEARCHED = 1 << 21
"""Rows of a sequence whose segments are searched for the rest of a document: 8 bytes each, 0.1 s."""
_COLUMNS = ("id", "origin_file", "origin_row", "repo", "path", "language")


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
        part: ``prefix``, ``suffix``, ``middle``, :data:`BOTH`, ``sentinel``; ``unmarked`` of a rearranged document
            whose sentinels are too far to look for; None elsewhere.
        loss: whether they carry loss as targets.
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


@dataclass(frozen=True)
class Segment:
    """What a row has of one document.

    Attributes:
        start: its first position in the row.
        length: its tokens in the row.
        kind: as in :class:`headrace.sequence.provenance.ReplayedSegment`.
        runs: of its tokens, those that are shown.
        source, epoch, offset, document, id, origin, license, repo, path, language: as there.
    """

    start: int
    length: int
    kind: str
    source: str | None = None
    epoch: int | None = None
    offset: int | None = None
    document: int | None = None
    id: str | None = None
    origin: str | None = None
    license: str | None = None
    repo: str | None = None
    path: str | None = None
    language: str | None = None
    runs: list[Run] = field(default_factory=list)


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


def read_rows(
    target: Target, name: str, first: int, stop: int, place: int, tokens: int, decoder: Decoder | None, each: bool
) -> list[Row]:
    """Read a stretch of each of some rows.

    Args:
        target: the target.
        name: the sequence's name.
        first: the first row.
        stop: the row after the last.
        place: the first position of each.
        tokens: how many tokens of each.
        decoder: what turns ids into text; None shows ids only.
        each: whether the text of each token is wanted, not only that of runs.

    Raises:
        UserError: the rows cannot be read, or the tokenizer does not know an id.
    """
    sequence = target.sequence(name)
    roles, until = _roles(sequence, decoder), min(place + tokens, sequence.seq_len + 1)
    ids, loss, every = _read(sequence, first, stop, decoder, roles)
    shown = [[one for one in row if one.start < until and one.start + one.length > place] for row in every]
    facts = _facts(target, [one for row in shown for one in row])
    out = []
    for i, (all_segments, some) in enumerate(zip(every, shown, strict=True)):
        drawn = [_with_runs(sequence, one, ids[i], loss[i], place, until, roles, decoder, each, facts) for one in some]
        count = sum(one.kind != "padding" for one in all_segments)
        out.append(Row(first + i, sequence.seq_len + 1, place, until, drawn, count))
    return out


def outlines(
    target: Target, name: str, first: int, stop: int, most: int, tokens: int, decoder: Decoder | None
) -> list[Row]:
    """Rows by the beginnings of their segments: the first ``most`` of each row, and of each the first ``tokens`` tokens
    as text. Otherwise as :func:`read_rows`."""
    sequence = target.sequence(name)
    roles = _roles(sequence, decoder)
    ids, loss, every = _read(sequence, first, stop, decoder, roles)
    shown = [[one for one in row if one.kind != "padding"][:most] for row in every]
    facts = _facts(target, [one for row in shown for one in row])
    out = []
    for i, (all_segments, some) in enumerate(zip(every, shown, strict=True)):
        drawn = [
            _with_runs(sequence, one, ids[i], loss[i], one.start, one.start + tokens, roles, decoder, False, facts)
            for one in some
        ]
        count = sum(one.kind != "padding" for one in all_segments)
        out.append(Row(first + i, sequence.seq_len + 1, 0, sequence.seq_len + 1, drawn, count))
    return out


def _read(
    sequence: SequenceReader, first: int, stop: int, decoder: Decoder | None, roles: Mapping[str, int]
) -> tuple[np.ndarray, np.ndarray, list[list[Segment]]]:
    """The ids, the loss and the segments of rows."""
    ids, loss = sequence.rows(first, stop), sequence.loss(first, stop)
    if decoder is not None:
        require_known(ids, decoder.vocab_size, sequence.path, first)
    return ids, loss, [_segments(sequence, first + i, ids[i], roles) for i in range(stop - first)]


def _roles(sequence: SequenceReader, decoder: Decoder | None) -> Mapping[str, int]:
    """Role -> id of the special tokens, as far as anyone says."""
    told = {role: int(sequence.manifest[role]) for role in ("eod", "pad") if sequence.manifest.get(role) is not None}
    return {**({} if decoder is None else decoder.special), **told}


def _segments(sequence: SequenceReader, row: int, ids: np.ndarray, roles: Mapping[str, int]) -> list[Segment]:
    """The segments of a row; where nobody recorded them, documents as their ends tell."""
    found = sequence.segments(row)
    if found is None:
        return _by_ends(ids, roles.get("eod"))
    known = found.dtype.names or ()
    out = []
    for one in found:
        head: dict[str, Any] = {"start": int(one["start"]), "length": int(one["length"])}
        head["kind"] = KINDS[int(one["kind"])] if "kind" in known else "unknown"
        if "source" in known and int(one["kind"]) != PADDING and sequence.sources:
            head["source"] = sequence.sources[int(one["source"])]
            if one["row"] != ELSEWHERE:
                head |= {"document": int(one["row"]), "offset": int(one["offset"]), "epoch": int(one["epoch"])}
        out.append(Segment(**head))
    return out


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
    named = sorted({one.document for one in segments if one.document is not None})
    if documents is None or not named:
        return {}
    licences: Artifact | None = target.artifact("licences")
    with checking_on_error(lambda: [documents]):
        told = fetch(documents, named, _COLUMNS).to_pylist()
        for fact, license in zip(told, licences_of(documents, np.array(named), licences), strict=True):
            fact["license"] = license
            fact["origin"] = f"{fact.pop('origin_file')}:{fact.pop('origin_row')}"
    return dict(zip(named, told, strict=True))


def _with_runs(
    sequence: SequenceReader,
    one: Segment,
    ids: np.ndarray,
    loss: np.ndarray,
    place: int,
    until: int,
    roles: Mapping[str, int],
    decoder: Decoder | None,
    each: bool,
    facts: dict[int, dict[str, Any]],
) -> Segment:
    """A segment with its document's facts, and with the runs of its tokens from ``place`` to ``until``."""
    begin, end, kind = one.start, one.start + one.length, one.kind
    parts = fim_parts(ids[begin:end], roles, kind, begins=_begins(one))
    if parts[0] == "unmarked":
        parts = [_part_of(sequence, one, roles)] * len(parts)
    first, last = max(place, begin), min(until, end)
    parts, own, carries = parts[first - begin : last - begin], ids[first:last], loss[first:last] & (kind != "padding")
    special = np.zeros(len(own), dtype=bool) if decoder is None else np.isin(own, decoder.special_ids)
    changed = np.array([a != b for a, b in pairwise(parts)], dtype=bool)
    edges = np.flatnonzero((np.diff(special) != 0) | (np.diff(carries) != 0) | changed) + 1
    runs = []
    for a, b in pairwise([0, *edges.tolist(), len(own)]):
        some = own[a:b].astype(np.uint32)
        data = None if decoder is None else decoder.decode_batch(Encoded(some, np.arange(len(some) + 1)))
        text = None if data is None else spelled(data.data.tobytes())
        pieces = [] if data is None or not each else [data.bytes_of(k) for k in range(len(some))]
        about = some.tolist(), text, [spelled(one) for one in pieces], [hexadecimal(one) for one in pieces]
        runs.append(Run(first + a, *about, parts[a], bool(carries[a]), bool(special[a])))
    known = facts.get(one.document, {}) if one.document is not None else {}
    return Segment(**{**vars(one), **known, "runs": runs})


def _begins(one: Segment) -> bool:
    """Whether a segment begins a document, as far as is known."""
    return one.offset == 0 if one.offset is not None else one.start > 0


def _part_of(sequence: SequenceReader, one: Segment, roles: Mapping[str, int]) -> str:
    """The part that a slice of a rearranged document without sentinels lies in: that of the last sentinel before it, in
    whatever row this is."""
    if not isinstance(sequence, ArrowSequence) or one.document is None or len(sequence) > SEARCHED:
        return "unmarked"
    sentinels = {roles[role]: part for role, part in SENTINELS.items() if role in roles}
    slices = [at for at in find_rows(sequence, one.document) if at.epoch == one.epoch and at.offset < (one.offset or 0)]
    for at in sorted(slices, key=lambda at: -at.offset):
        ids = sequence.rows(at.row, at.row + 1)[0, at.start : at.start + at.length]
        found = np.flatnonzero(np.isin(ids, list(sentinels)))
        if len(found):
            part = sentinels[int(ids[found[-1]])]
            return BOTH if part == "middle" and one.kind == "fim-spm" else part
    return "unmarked"


def fim_parts(ids: np.ndarray, roles: Mapping[str, int], kind: str, begins: bool) -> list[str | None]:
    """The part of a rearranged document that each token belongs to, as its sentinels tell.

    What precedes the first sentinel of a document that began in another row is what precedes such a sentinel in the
    arrangement: the prefix before the suffix's, the suffix before the middle's (2207.14255, PSM; SPM is PSM with an
    empty prefix, so that prefix and middle follow the middle's sentinel as one).

    Args:
        ids: of a segment, unsigned[n].
        roles: role -> id of the special tokens.
        kind: the segment's kind; ``unknown`` looks for sentinels too.
        begins: whether the document begins with the segment.
    """
    out: list[str | None] = [None] * len(ids)
    sentinels = {roles[role]: part for role, part in SENTINELS.items() if role in roles}
    if kind not in ("fim-psm", "fim-spm", "unknown") or not len(ids):
        return out
    places = np.flatnonzero(np.isin(ids, list(sentinels))) if sentinels else np.empty(0, np.int64)
    if not len(places):
        return out if kind == "unknown" else ["unmarked"] * len(ids)
    at = places.tolist()
    named = [sentinels[int(ids[k])] for k in at]
    if not begins:
        before = {"suffix": "prefix", "middle": "suffix"}.get(named[0])
        out[: at[0]] = [before] * at[0]
    for k, (place, part) in enumerate(zip(at, named, strict=True)):
        stop = at[k + 1] if k + 1 < len(at) else len(ids)
        follows = k >= 2 and named[k - 2 : k] == ["prefix", "suffix"] and at[k - 1] == at[k - 2] + 1
        spm = kind == "fim-spm" or (kind == "unknown" and follows)
        shown = BOTH if part == "middle" and spm else part
        out[place] = "sentinel"
        out[place + 1 : stop] = [shown] * (stop - place - 1)
    if ids[-1] == roles.get("eod"):
        out[-1] = None
    return out
