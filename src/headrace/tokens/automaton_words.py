"""Words by automata: pattern after pattern, each within the pieces that the one before it leaves."""

from __future__ import annotations

import numpy as np

from headrace.flow.kernels import borrowing
from headrace.tokens.automaton import Automata
from headrace.tokens.utf8 import code_point


@borrowing
def _kind(data: np.ndarray, at: int, automata: Automata) -> tuple[int, int]:
    """The class of the character at a byte, and how many bytes it has."""
    if data[at] < 0x80:
        return int(np.int64(automata.classes[data[at]])), 1
    point, size = code_point(data, at)
    return int(np.int64(automata.classes[point])), size


@borrowing
def match_end(data: np.ndarray, at: int, end: int, automata: Automata, start: int) -> int:
    """Where the match that begins at a byte ends, or -1 if none does.

    Args:
        data: uint8, valid UTF-8.
        at: where it begins.
        end: where the text ends.
        automata: the patterns.
        start: the row of the pattern's first state.
    """
    steps = automata.steps
    found, row = int(np.int64(-1)), start
    while at < end:
        kind, size = _kind(data, at, automata)
        step = int(np.int64(steps[row + kind]))
        row = step >> 1
        found = at if step & 1 else found
        if row == 0:
            return found
        at += size
    return at if steps[row + automata.width - 1] & 1 else found


@borrowing
def piece_end(data: np.ndarray, at: int, end: int, automata: Automata, start: int) -> int:
    """Where the piece that begins at a byte ends: a match, or what lies before the next one."""
    found = match_end(data, at, end, automata, start)
    if found >= 0:
        return found
    at += _kind(data, at, automata)[1]
    while at < end:
        kind, size = _kind(data, at, automata)
        if automata.steps[start + kind] and match_end(data, at, end, automata, start) >= 0:
            break
        at += size
    return at


@borrowing
def _last_words(
    data: np.ndarray, begin: int, end: int, stop: int, automata: Automata, origin: int, starts: np.ndarray, count: int
) -> tuple[int, int]:  # fmt: skip
    """Find the words of the last pattern that begin in a piece before ``stop``.

    The automaton goes on from one word to the next without a branch, as nearly every word is known to have ended by the
    character after it. Where one is not, or where no match begins, it stops and that word is looked at by itself. What
    takes time is to wait for the next state, so two characters of ASCII are one step.

    Args:
        data: uint8, valid UTF-8.
        begin: where the first word begins.
        end: where the piece ends.
        stop: where no word is to begin any more.
        automata: the patterns.
        origin: what places are counted from.
        starts: gets where words begin, from ``count`` on.
        count: how many words there are already.

    Returns:
        Where the last of them ends, and how many words there are now.
    """
    start, width = int(automata.starts[-1]), automata.width
    classes, onward = automata.classes, automata.onward
    high = min(end, stop)
    while begin < high:
        starts[count] = begin - origin
        count += 1
        first = count
        at, found, row = begin, begin, start * width
        while at < high:
            if at + 1 < high and data[at] | data[at + 1] < 0x80:
                two = int(np.int64(classes[data[at]])) * width + int(np.int64(classes[data[at + 1]]))
                step = int(np.int64(onward[row + two]))
                if step:
                    found = at if step & 2 else found
                    found = at + 1 if step & 8 else found
                    starts[count] = at - origin
                    count += step & 1
                    starts[count] = at + 1 - origin
                    count += (step >> 2) & 1
                    row = step >> 4
                    at += 2
                    continue
            kind, size = _kind(data, at, automata)
            step = int(np.int64(onward[row + (kind + 1) * width - 1]))
            found = at if step & 2 else found
            starts[count] = at - origin
            count += step & 1
            row = step >> 4
            if row == 0:
                break
            at += size
        if count > first:
            begin = origin + int(starts[count - 1])
        if row and at == end and automata.steps[row // width + width - 1] & 1:
            return end, count
        known = found > begin and (row == 0 or at == end)
        begin = found if known else piece_end(data, begin, end, automata, start)
    return begin, count


@borrowing
def automaton_words(
    data: np.ndarray, start: int, size: int, end: int, automata: Automata, limits: np.ndarray, starts: np.ndarray
) -> int:
    """Find the words that begin in a stretch.

    Args:
        data: uint8, valid UTF-8.
        start: where the first of them begins.
        size: bytes of the stretch.
        end: where the text ends.
        automata: the patterns.
        limits: int64[patterns], where the piece of each pattern but the last ends in which the word before ended;
            changes.
        starts: int32[size + 1]: gets where words begin, counted from ``start``, and where the last of them ends.

    Returns:
        How many words.
    """
    at, count = start, 0
    while at < start + size:
        limit = end
        for level in range(automata.starts.size - 1):
            if limits[level] <= at:
                limits[level] = piece_end(data, at, limit, automata, int(automata.starts[level]))
            limit = int(limits[level])
        at, count = _last_words(data, at, limit, start + size, automata, start, starts, count)
    starts[count] = at - start
    return count
