"""The evidence for a document removed in favor of another: JSON, written for a whole shard by one kernel.

    {"kept_id": 32 hex digits, "kept_row": global row number, "kept_source", "kept_file", "kept_origin_row",
     "method": "exact" or "minhash", "jaccard" (of verified candidates), "component_size",
     "kept_split" (if the other document is held out),
     "against" (for a reference document: the number of its set, from 0; row, source and file are those in the set)}

Decisions travel as records, a third of the evidence's size; the text is written on publication.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
import orjson
import pyarrow as pa

from headrace.flow.artifact import ConservationError
from headrace.flow.kernels import kernel
from headrace.select.verdicts.splits import SPLITS

DECISION = np.dtype(
    [
        ("row", "<u8"),  # of the removed document
        ("high", "<u8"),  # the content id of the kept one
        ("low", "<u8"),
        ("kept_row", "<u8"),
        ("kept_origin_row", "<i8"),
        ("size", "<u8"),  # documents in the component
        ("jaccard", "<f8"),  # NaN if it was not computed
        ("length", "<u4"),  # of the payload: the file name of the kept document
        ("kept_source", "<u2"),
        ("reason", "u1"),  # index into REASONS
        ("how", "u1"),  # 1 if the content is equal, plus twice the split of the kept document
    ]
)
"""One document removed by deduplication."""

REASONS = ("duplicate", "holdout", "reference")
DUPLICATE, HOLDOUT, COPY_OF_REFERENCE = 0, 1, 2

_OPEN, _ROW, _SOURCE, _FILE, _ORIGIN, _EXACT, _MINHASH, _JACCARD, _SIZE, _SPLIT, _AGAINST, _CLOSE = (
    np.frombuffer(piece, dtype=np.uint8)
    for piece in (
        b'{"kept_id":"',
        b'","kept_row":',
        b',"kept_source":',
        b',"kept_file":"',
        b'","kept_origin_row":',
        b',"method":"exact"',
        b',"method":"minhash"',
        b',"jaccard":',
        b',"component_size":',
        b',"kept_split":',
        b',"against":',
        b"}",
    )
)
_HEX = np.frombuffer(b"0123456789abcdef", dtype=np.uint8)
_TENS = np.array([10**n for n in range(20)], dtype=np.uint64)
# What JSON writes after a backslash for bytes below 32 that have a short escape.
_SHORT = np.zeros(32, dtype=np.uint8)
_SHORT[[8, 9, 10, 12, 13]] = np.frombuffer(b"btnfr", dtype=np.uint8)

# Everything but names and similarities: the fixed parts, 32 digits of an id, four numbers of up to 20.
_FIXED = 256
_ESCAPED = 6  # maximum bytes for one byte of a name


def place(records: npt.NDArray[np.void], start: int, rows: int) -> npt.NDArray[np.int32]:
    """The index of the decision about each row: int32[rows], -1 if there is none.

    Args:
        records: DECISION[n] about rows [start, start + rows).
        start: global row number of the first.

    Raises:
        ConservationError: there are two decisions about one row.
    """
    at = np.full(rows, -1, dtype=np.int32)
    at[records["row"].astype(np.int64) - start] = np.arange(len(records), dtype=np.int32)
    if np.count_nonzero(at >= 0) != len(records):
        raise ConservationError(f"rows {start} to {start + rows - 1}: a document was removed twice")
    return at


def write_evidence(
    records: npt.NDArray[np.void],
    names: npt.NDArray[np.uint8],
    at: npt.NDArray[np.int32],
    sources: Sequence[str],
    against: Sequence[int] = (),
) -> pa.Array:
    """The evidence of each row, null if there is no decision.

    Args:
        records: DECISION[n].
        names: the records' payload.
        at: from :func:`place`.
        sources: source names, those of reference documents last.
        against: for each of the latter, the number of its set of references.

    Returns:
        pa.string() [len(at)].
    """
    lengths = records["length"].astype(np.int64)
    starts = np.cumsum(lengths) - lengths
    similar, similar_ends = np.empty(0, dtype=np.uint8), np.zeros(len(records) + 1, dtype=np.int64)
    if not np.isnan(records["jaccard"]).all():
        # As orjson writes them: the shortest digits that round-trip.
        similar = np.frombuffer(orjson.dumps(records["jaccard"].tolist()), dtype=np.uint8)[1:]
        similar_ends[1:] = np.flatnonzero((similar == ord(",")) | (similar == ord("]"))) + 1
    room = _FIXED + max((_ESCAPED * len(name.encode()) for name in sources), default=0)
    room = len(records) * room + _ESCAPED * len(names) + len(similar)
    data = np.empty(room, dtype=np.uint8)  # pages that are never written take no memory
    offsets = np.zeros(len(at) + 1, dtype=np.int64)
    source_names, source_ends = _joined([orjson.dumps(name) for name in sources])
    sets = np.array([0] * (len(sources) - len(against)) + list(against), dtype=np.uint64)
    split_names, split_ends = _joined([orjson.dumps(split) for split in SPLITS])
    _write(
        at,
        records["high"],
        records["low"],
        records["kept_row"],
        records["kept_origin_row"],
        records["size"],
        records["reason"],
        records["how"],
        records["kept_source"],
        names,
        starts,
        lengths,
        source_names,
        source_ends,
        sets,
        split_names,
        split_ends,
        similar,
        similar_ends,
        data,
        offsets,
    )
    validity = np.packbits(at >= 0, bitorder="little")
    buffers = [pa.py_buffer(validity), pa.py_buffer(offsets), pa.py_buffer(data[: offsets[-1]])]
    text = pa.Array.from_buffers(pa.large_string(), len(at), buffers)
    return text.cast(pa.string())


def _joined(pieces: list[bytes]) -> tuple[npt.NDArray[np.uint8], npt.NDArray[np.int64]]:
    """Concatenated strings, with their starts and ends."""
    ends = np.cumsum([0, *map(len, pieces)], dtype=np.int64)
    return np.frombuffer(b"".join(pieces), dtype=np.uint8), ends


@kernel
def _write(
    at: npt.NDArray[np.int32],
    high: npt.NDArray[np.uint64],
    low: npt.NDArray[np.uint64],
    kept_row: npt.NDArray[np.uint64],
    kept_origin_row: npt.NDArray[np.int64],
    size: npt.NDArray[np.uint64],
    reason: npt.NDArray[np.uint8],
    how: npt.NDArray[np.uint8],
    kept_source: npt.NDArray[np.uint16],
    names: npt.NDArray[np.uint8],
    starts: npt.NDArray[np.int64],
    lengths: npt.NDArray[np.int64],
    sources: npt.NDArray[np.uint8],
    source_ends: npt.NDArray[np.int64],
    sets: npt.NDArray[np.uint64],
    splits: npt.NDArray[np.uint8],
    split_ends: npt.NDArray[np.int64],
    similar: npt.NDArray[np.uint8],
    similar_ends: npt.NDArray[np.int64],
    out: npt.NDArray[np.uint8],
    offsets: npt.NDArray[np.int64],
) -> None:
    """Write each row's evidence into ``out``, and where it ends into ``offsets``."""
    to = 0
    for row in range(len(at)):
        i = at[row]
        if i >= 0:
            to = _put(out, to, _OPEN, 0, len(_OPEN))
            to = _hexadecimal(out, _hexadecimal(out, to, high[i]), low[i])
            to = _put(out, to, _ROW, 0, len(_ROW))
            to = _decimal(out, to, kept_row[i])
            to = _put(out, to, _SOURCE, 0, len(_SOURCE))
            to = _put(out, to, sources, source_ends[kept_source[i]], source_ends[kept_source[i] + 1])
            to = _put(out, to, _FILE, 0, len(_FILE))
            to = _escaped(out, to, names, starts[i], starts[i] + lengths[i])
            to = _put(out, to, _ORIGIN, 0, len(_ORIGIN))
            if kept_origin_row[i] < 0:
                out[to] = 45
                to += 1
            to = _decimal(out, to, np.uint64(abs(kept_origin_row[i])))
            method = _EXACT if how[i] & 1 else _MINHASH
            to = _put(out, to, method, 0, len(method))
            if similar_ends[i + 1] > similar_ends[i] and similar[similar_ends[i]] != 110:  # not "null"
                to = _put(out, to, _JACCARD, 0, len(_JACCARD))
                to = _put(out, to, similar, similar_ends[i], similar_ends[i + 1] - 1)
            to = _put(out, to, _SIZE, 0, len(_SIZE))
            to = _decimal(out, to, size[i])
            if reason[i] == HOLDOUT:
                to = _put(out, to, _SPLIT, 0, len(_SPLIT))
                to = _put(out, to, splits, split_ends[how[i] >> 1], split_ends[(how[i] >> 1) + 1])
            if reason[i] == COPY_OF_REFERENCE:
                to = _put(out, to, _AGAINST, 0, len(_AGAINST))
                to = _decimal(out, to, sets[kept_source[i]])
            to = _put(out, to, _CLOSE, 0, len(_CLOSE))
        offsets[row + 1] = to


@kernel
def _put(out: npt.NDArray[np.uint8], to: int, piece: npt.NDArray[np.uint8], start: int, stop: int) -> int:
    for k in range(start, stop):
        out[to + k - start] = piece[k]
    return to + stop - start


@kernel
def _hexadecimal(out: npt.NDArray[np.uint8], to: int, value: np.uint64) -> int:
    for k in range(16):
        out[to + k] = _HEX[(value >> np.uint64(60 - 4 * k)) & np.uint64(15)]
    return to + 16


@kernel
def _decimal(out: npt.NDArray[np.uint8], to: int, value: np.uint64) -> int:
    digits = 1
    while digits < len(_TENS) and value >= _TENS[digits]:
        digits += 1
    for k in range(digits):
        rest = value // np.uint64(10)
        out[to + digits - 1 - k] = np.uint8(48 + value - rest * np.uint64(10))
        value = rest
    return to + digits


@kernel
def _escaped(out: npt.NDArray[np.uint8], to: int, text: npt.NDArray[np.uint8], start: int, stop: int) -> int:
    """Copy UTF-8 as the inside of a JSON string, escaped like orjson."""
    for k in range(start, stop):
        c = text[k]
        if c >= 32 and c != 34 and c != 92:
            out[to] = c
            to += 1
            continue
        out[to] = 92
        if c >= 32:
            out[to + 1] = c
            to += 2
        elif _SHORT[c]:
            out[to + 1] = _SHORT[c]
            to += 2
        else:
            out[to + 1], out[to + 2], out[to + 3] = 117, 48, 48
            out[to + 4], out[to + 5] = _HEX[c >> 4], _HEX[c & 15]
            to += 6
    return to
