"""What a model saw at a step, and where a document went, reading only the sequence and the documents involved."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import asdict, dataclass, field, replace
from typing import Any

import numpy as np

from headrace.documents.store import fetch
from headrace.errors import UserError
from headrace.flow.artifact import Artifact
from headrace.select.licences.columns import licences_of
from headrace.sequence.reader import ELSEWHERE, SequenceReader, require_known
from headrace.sequence.store import ArrowSequence
from headrace.sequence.windows import KINDS, PADDING
from headrace.tokens.table_engine import Decoder

_COLUMNS = ("id", "origin_file", "origin_row", "repo", "path", "language")


@dataclass(frozen=True)
class Segment:
    """A slice of a row from one document.

    Attributes:
        start: first position in the row.
        length: tokens.
        kind: ``plain``, ``fim-psm``, ``fim-spm``, ``chat`` or ``padding``; ``joined`` and ``joined-fim-psm`` or so for
            a file that goes on with the training document before it; ``unknown`` for a row whose documents nobody
            knows.
        source: its name, None for padding and where the files do not tell, as are all fields below.
        epoch: the copy's number, from 0.
        offset: first token within the document as transformed.
        document: global document row.
        id: the document's id.
        origin: ``file:row``, as it was read.
        license: the document's license, if known: found by the run, if it looked, or else as it was stated.
        repo: its repository, if known.
        path: its path there, if known.
        language: its language, if known.
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


@dataclass(frozen=True)
class ReplayedSegment(Segment):
    """A segment with its text.

    Attributes:
        text: the decoded tokens; U+FFFD where a character is cut. Special tokens appear as their spelling.
        loss: ``[first, stop)`` positions in the row of targets that carry loss.
    """

    text: str = ""
    loss: list[tuple[int, int]] = field(default_factory=list)


@dataclass(frozen=True)
class ReplayedRow:
    """A row as the model saw it.

    Attributes:
        row: its number in the sequence.
        tokens: its L + 1 ids.
        segments: its contents, in order.
    """

    row: int
    tokens: list[int]
    segments: list[ReplayedSegment]

    def to_json(self) -> dict[str, Any]:
        """The fields above as JSON values."""
        return asdict(self)


@dataclass(frozen=True)
class Placement:
    """A slice of a document in a sequence: position ``start`` of row ``row`` has token ``offset`` of the document."""

    row: int
    start: int
    length: int
    offset: int
    epoch: int
    kind: str

    def to_json(self) -> dict[str, Any]:
        """The fields above as JSON values."""
        return asdict(self)


def beside(sequence: SequenceReader, role: str) -> Artifact:
    """The artifact that a sequence was built from, in the same run folder, with its files checked against their
    digests.

    Args:
        sequence: the opened sequence.
        role: ``documents``, ``tokens`` or ``tokenizer``.

    Raises:
        UserError: it does not exist, or the sequence lies in other files than headrace's own or was imported from them.
    """
    if not isinstance(sequence, ArrowSequence) or role not in sequence.artifact.manifest.inputs:
        raise UserError(
            f"This sequence comes without its {role}.",
            str(sequence.path),
            "Use the run that the sequence comes from.",
        )
    folder = sequence.artifact.path.parent / f"{role}-{sequence.artifact.manifest.inputs[role][:8]}"
    return Artifact.open(folder, verify=True)


def replay_rows(
    sequence: SequenceReader,
    documents: Artifact | None,
    decoder: Decoder,
    start: int,
    stop: int,
    licences: Artifact | None = None,
) -> list[ReplayedRow]:
    """Rows with their contents.

    Args:
        sequence: the opened sequence.
        documents: the documents it was built from (:func:`beside`); None if they are not there.
        decoder: the decoder of the tokenizer it was built with.
        start: the first row.
        stop: the row after the last.
        licences: the sidecar of licenses, if the run has one.

    Raises:
        UserError: the tokenizer does not know one of the ids.
    """
    tokens, loss = sequence.rows(start, stop), sequence.loss(start, stop)
    require_known(tokens, decoder.vocab_size, sequence.path, start)
    whole = [Segment(0, sequence.seq_len + 1, "unknown")]
    placed = [placed_segments(sequence, row) or whole for row in range(start, stop)]
    facts = facts_of([one for row in placed for one in row], documents, licences)
    out = []
    for i, row in enumerate(placed):
        told = [_replayed(decoder, tokens[i], loss[i], one, facts) for one in row]
        out.append(ReplayedRow(start + i, tokens[i].tolist(), told))
    return out


def placed_segments(sequence: SequenceReader, row: int) -> list[Segment] | None:
    """The segments of a row as far as the sequence itself tells, in the order it has them; None if it does not."""
    found = sequence.segments(row)
    if found is None:
        return None
    known = found.dtype.names or ()
    out = []
    for one in found:
        kind = KINDS[int(one["kind"])] if "kind" in known else "unknown"
        segment = Segment(int(one["start"]), int(one["length"]), kind)
        if kind != "padding" and "source" in known and sequence.sources:
            segment = replace(segment, source=sequence.sources[int(one["source"])])
            if "row" in known and one["row"] != ELSEWHERE:
                epoch, offset = int(one["epoch"]), int(one["offset"])
                segment = replace(segment, document=int(one["row"]), epoch=epoch, offset=offset)
        out.append(segment)
    return out


def facts_of(
    segments: Iterable[Segment], documents: Artifact | None, licences: Artifact | None
) -> dict[int, dict[str, Any]]:
    """What is known of the documents of segments: document row -> the fields of :class:`Segment` from ``id`` on.
    Nothing where the documents are not there."""
    named = sorted({one.document for one in segments if one.document is not None})
    if documents is None or not named:
        return {}
    told = fetch(documents, named, _COLUMNS).to_pylist()
    for fact, license in zip(told, licences_of(documents, np.array(named), licences), strict=True):
        fact["license"] = license
        fact["origin"] = f"{fact.pop('origin_file')}:{fact.pop('origin_row')}"
    return dict(zip(named, told, strict=True))


def _replayed(
    decoder: Decoder, tokens: np.ndarray, loss: np.ndarray, one: Segment, facts: dict[int, dict[str, Any]]
) -> ReplayedSegment:
    part = slice(one.start, one.start + one.length)
    # Without an offset, a segment that begins within the row begins a document.
    first = one.offset == 0 if one.offset is not None else one.start > 0
    data = decoder.decode(tokens[part].astype(np.uint32), first=first)
    # A row's first token is never a target.
    carried = loss[part] & (np.arange(part.start, part.stop) > 0)
    known = {} if one.document is None else facts.get(one.document, {})
    about = {**vars(one), **known, "text": data.decode("utf-8", errors="replace"), "loss": _spans(carried, one.start)}
    return ReplayedSegment(**about)


def _spans(flags: np.ndarray, start: int) -> list[tuple[int, int]]:
    """Runs of True as [first, stop), counted from ``start``."""
    edges = np.flatnonzero(np.diff(np.concatenate([[False], flags, [False]]).astype(np.int8)))
    return [(int(a) + start, int(b) + start) for a, b in edges.reshape(-1, 2)]


def find_rows(sequence: ArrowSequence, document: int) -> list[Placement]:
    """Where a document went, in training order.

    Reads 8 bytes per segment of the sequence, and none of its tokens.

    Args:
        sequence: the opened sequence.
        document: global document row.
    """
    found: list[Placement] = []
    for index, shard in enumerate(sequence.all_shards()):
        base = int(sequence.artifact.row_offsets[index])
        kind, columns = shard.segments["kind"], shard.segments
        mine = np.flatnonzero((columns["row"] == np.uint64(document)) & (kind != PADDING))
        rows = (base + np.searchsorted(shard.bounds, mine, side="right") - 1).tolist()
        numbers = [columns[name][mine].tolist() for name in ("start", "length", "offset", "epoch")]
        found += map(Placement, rows, *numbers, (KINDS[k] for k in kind[mine].tolist()))
    return found


def rows_with(sequence: ArrowSequence, documents: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The rows that contain any of some documents.

    Args:
        sequence: the opened sequence.
        documents: uint64[m], global document rows.

    Returns:
        ``(rows, documents)``: int64[n] each, one pair per slice of these documents, in training order.
    """
    rows, which = [np.empty(0, dtype=np.int64)], [np.empty(0, dtype=np.int64)]
    for index, shard in enumerate(sequence.all_shards()):
        document, kind = shard.segments["row"], shard.segments["kind"]
        found = np.flatnonzero((kind != PADDING) & np.isin(document, documents))
        rows.append(np.searchsorted(shard.bounds, found, side="right") - 1 + int(sequence.artifact.row_offsets[index]))
        which.append(document[found].astype(np.int64))
    return np.concatenate(rows), np.concatenate(which)
