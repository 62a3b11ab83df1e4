"""Counts from one pass over a text's bytes: characters, classes of characters, words, lines, cleaned length.

Each count equals a plain Python expression on the decoded text, given in :class:`Statistics`. The kernel looks up each
code point in :mod:`headrace.select.code_points` and keeps only a few counters.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from headrace.flow.kernels import kernel
from headrace.select import code_points
from headrace.select.code_points import decode

HEAD_LINES = 5  # StarCoder 2 looks for marks of generated files in the first five lines (2402.19173, 2.4)

Counts = npt.NDArray[np.int64]


class Statistics(NamedTuple):
    """Counts for each document of a buffer, int64[n] each.

    Attributes:
        characters: ``len(text)``.
        alphanumeric: characters for which ``str.isalnum`` holds.
        alphabetic: characters for which ``str.isalpha`` holds.
        words: ``len(text.split())``.
        lines: ``len(text.splitlines())``.
        line_characters: the sum of ``len(line)`` over the lines.
        max_line: the largest ``len(line)``, 0 without lines.
        clean: the length after lowercasing, removing ASCII punctuation, collapsing whitespace and stripping.
        clean_no_spaces: the same without its spaces.
        head: bytes up to the end of the first five lines.
    """

    characters: Counts
    alphanumeric: Counts
    alphabetic: Counts
    words: Counts
    lines: Counts
    line_characters: Counts
    max_line: Counts
    clean: Counts
    clean_no_spaces: Counts
    head: Counts


def statistics(data: npt.NDArray[np.uint8], offsets: npt.NDArray[np.int64]) -> Statistics:
    """Count every document of a buffer.

    Args:
        data: uint8[n_bytes], valid UTF-8.
        offsets: int64[n_docs + 1] of bytes into ``data``; the first need not be 0.
    """
    out = np.zeros((len(Statistics._fields), len(offsets) - 1), dtype=np.int64)
    _statistics(data, offsets, code_points.classes(), out)
    return Statistics(*out)


@kernel
def _statistics(
    data: npt.NDArray[np.uint8],
    offsets: npt.NDArray[np.int64],
    classes: npt.NDArray[np.uint8],
    out: npt.NDArray[np.int64],
) -> None:
    """Fill ``out`` (fields of :class:`Statistics` x documents)."""
    for d in range(len(offsets) - 1):
        i, end = offsets[d], offsets[d + 1]
        characters = alphanumeric = alphabetic = words = kept = gaps = np.int64(0)
        lines = broken = longest = line_start = np.int64(0)
        head = end - i
        after_space, gap, started, after_return = np.int64(1), np.int64(0), np.int64(0), False
        while i < end:
            point, i = decode(data, i)
            flags = np.int64(classes[np.uint64(point)])
            space = (flags >> 2) & 1
            alphanumeric += flags & 1
            alphabetic += (flags >> 1) & 1
            words += after_space & (space ^ 1)
            after_space = space
            # Punctuation disappears without splitting words; a run of whitespace between kept characters counts once.
            keep = (space | (flags >> 4) & 1) ^ 1
            kept += keep + (flags >> 5)
            gaps += keep & gap & started
            gap = (gap | space) & (keep ^ 1)
            started |= keep
            if flags & 8:
                if not (after_return and point == 10):  # \r\n is one line break
                    lines += 1
                    longest = max(longest, characters - line_start)
                    if lines == HEAD_LINES:
                        head = i - offsets[d]
                broken += 1
                line_start = characters + 1
                after_return = point == 13
            else:
                after_return = False
            characters += 1
        if line_start < characters:
            lines += 1
            longest = max(longest, characters - line_start)
        row = out[:, d]
        row[0], row[1], row[2], row[3] = characters, alphanumeric, alphabetic, words
        row[4], row[5], row[6] = lines, characters - broken, longest
        row[7], row[8], row[9] = kept + gaps, kept, head
