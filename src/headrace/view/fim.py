"""Which part of a rearranged document each token belongs to: prefix, suffix or middle."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

import numpy as np

from headrace.sequence.reader import SequenceReader
from headrace.sequence.store import ArrowSequence
from headrace.sequence.windows import PADDING

SENTINELS = {"fim_prefix": "prefix", "fim_suffix": "suffix", "fim_middle": "middle"}
"""The role of a special token -> the part of a document that follows it."""
BOTH = "prefix and middle"
"""What follows the middle's sentinel in SPM order, where nothing marks the border."""
UNMARKED = "unmarked"
"""A slice of a rearranged document without a sentinel."""
SEARCHED = 1 << 21
"""Rows of a sequence whose segments are searched for the rest of documents: 8 bytes each, 0.1 s."""
SLICES = 4_000
"""Slices of documents that are searched for sentinels, 50 microseconds each."""


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
    kind = kind.removeprefix("joined-")
    if kind not in ("fim-psm", "fim-spm", "unknown") or not len(ids):
        return out
    places = np.flatnonzero(np.isin(ids, list(sentinels))) if sentinels else np.empty(0, np.int64)
    if not len(places):
        told = [None if kind == "unknown" else UNMARKED] * len(ids)
        return [*told[:-1], None] if ids[-1] == roles.get("eod") else told
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


def sentinels(
    sequence: SequenceReader, copies: Iterable[tuple[int, int]], roles: Mapping[str, int]
) -> dict[tuple[int, int], list[tuple[int, str]]]:
    """Where the sentinels of documents are, in whatever rows.

    Args:
        sequence: the sequence.
        copies: documents, each with the number of its copy.
        roles: role -> id of the special tokens.

    Returns:
        Copy -> the position of each sentinel in the document as arranged, in order, and the part that follows it.
        Nothing for sequences of others and for those of more than :data:`SEARCHED` rows.
    """
    wanted = set(copies)
    if not wanted or not isinstance(sequence, ArrowSequence) or len(sequence) > SEARCHED:
        return {}
    named = {roles[role]: part for role, part in SENTINELS.items() if role in roles}
    documents = np.array(sorted({document for document, _ in wanted}), dtype=np.uint64)
    found: dict[tuple[int, int], dict[int, str]] = {}
    left = SLICES
    for index, shard in enumerate(sequence.all_shards()):
        columns = shard.segments
        mine = np.flatnonzero(np.isin(columns["row"], documents) & (columns["kind"] != PADDING))
        rows = np.searchsorted(shard.bounds, mine, side="right") - 1 + int(sequence.artifact.row_offsets[index])
        slices = [columns[name][mine].tolist() for name in ("row", "epoch", "start", "length", "offset")]
        for row, document, epoch, start, length, offset in zip(rows.tolist(), *slices, strict=True):
            if (document, epoch) not in wanted or not left:
                continue
            left -= 1
            ids = sequence.rows(row, row + 1)[0, start : start + length]
            for at in np.flatnonzero(np.isin(ids, list(named))).tolist():
                found.setdefault((document, epoch), {})[offset + at] = named[int(ids[at])]
    # Without all slices, a sentinel may be missing.
    return {copy: sorted(places.items()) for copy, places in found.items()} if left else {}


def part_at(found: list[tuple[int, str]], offset: int, kind: str) -> str:
    """The part that a slice without sentinels lies in: that of the last one before it.

    Args:
        found: the document's sentinels (:func:`sentinels`).
        offset: the slice's first token in the document as arranged.
        kind: of its segment.
    """
    part = next((part for place, part in reversed(found) if place < offset), UNMARKED)
    return BOTH if part == "middle" and kind.removeprefix("joined-") == "fim-spm" else part
