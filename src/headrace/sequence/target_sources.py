"""The source of each target of a sequence's rows."""

from __future__ import annotations

import numpy as np

from headrace.sequence.reader import SequenceReader


def target_sources(sequence: SequenceReader, start: int, stop: int) -> np.ndarray:
    """The source of each target in some rows.

    Args:
        sequence: the opened sequence.
        start: first row.
        stop: the row after the last.

    Returns:
        int32[stop - start, L]: entry i is the source of token i + 1, as an index into ``sequence.sources``; the number
        of sources for positions in no segment.
    """
    width = sequence.seq_len + 1
    out = np.full((stop - start, width), len(sequence.sources), dtype=np.int32)
    segments = sequence.segments_in(start, stop)
    if segments is not None and "source" in segments.columns:
        bounds = segments.bounds.astype(np.int64)
        part = slice(int(bounds[0]), int(bounds[-1]))
        length = segments.columns["length"][part].astype(np.int64)
        row = np.repeat(np.arange(stop - start), np.diff(bounds))
        first = row * width + segments.columns["start"][part]
        shift = np.repeat(first - (np.cumsum(length) - length), length)
        out.reshape(-1)[shift + np.arange(len(shift))] = np.repeat(segments.columns["source"][part], length)
    return out[:, 1:]
