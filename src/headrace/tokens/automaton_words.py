"""Split text into words by patterns, each applied to what the previous one leaves: by windows, otherwise by
automata."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from headrace.flow.kernels import borrowing, kernel
from headrace.tokens.automaton import Automata
from headrace.tokens.boundaries import ALONE, BEFORE, BEGINS, OPEN, Windows
from headrace.tokens.utf8 import code_point

_ZERO, _ONE, _TWO, _THREE, _SEVEN, _EIGHT, _TOP = map(np.uint64, (0, 1, 2, 3, 7, 8, 56))
_BEFORE, _AFTER = np.uint64(BEFORE), np.uint64(BEFORE + 1)
_END, _BEFORE_TEXT = -2, -1
_FIRSTS = np.uint64(0x0101010101010101)
_OPENS = _FIRSTS * np.uint64(OPEN)
_PACK = np.uint64(0x0102040810204080)
"""Multiplying eight bytes of 0 or 1 by this packs them into the highest byte as bits; by ``_FIRSTS``, it sums them."""
_PLACES = np.array(
    [[k for k in range(8) if which >> k & 1] + [0] * (8 - which.bit_count()) for which in range(256)], dtype=np.int32
)
"""int32[256, 8]: the indices of the set bits, lowest first."""


class Room(NamedTuple):
    """Scratch memory for the words of a buffer, one chunk of text at a time.

    Attributes:
        limits: int64[patterns]: the end of the current piece of each pattern but the last, as of the previous word.
        codes: uint32: the code for the start of text, then those of the chunk's characters and of the one after.
        numbers: uint32[stretch]: the index of each character's window.
        flags: uint8[stretch + 8 or more]: the flags of each character's window.
        flags64: uint64: the same memory.
        indices: int32[stretch + 1]: 0, 1, 2, ...
        places: int32[stretch + 1]: where each character starts, relative to the chunk's first byte.
    """

    limits: np.ndarray
    codes: np.ndarray
    numbers: np.ndarray
    flags: np.ndarray
    flags64: np.ndarray
    indices: np.ndarray
    places: np.ndarray


@kernel
def new_room(automata: Automata, windows: Windows, stretch: int) -> Room:
    """Scratch memory for a buffer that starts with a text."""
    flags64 = np.zeros(stretch // 8 + 2, np.uint64)
    room = Room(
        np.zeros(automata.starts.size, np.int64), np.empty(stretch + BEFORE + 1, np.uint32),
        np.empty(stretch, np.uint32), flags64.view(np.uint8), flags64,
        np.arange(stretch + 1).astype(np.int32), np.empty(stretch + 1, np.int32),
    )  # fmt: skip
    if windows.codes.size:
        room.codes[:BEFORE] = windows.codes[_BEFORE_TEXT]
    return room


@borrowing
def _kind(data: np.ndarray, at: int, automata: Automata) -> tuple[int, int]:
    """The class of the character at a byte, and its length in bytes."""
    if data[at] < 0x80:
        return int(np.int64(automata.classes[data[at]])), 1
    point, size = code_point(data, at)
    return int(np.int64(automata.classes[point])), size


@borrowing
def match_end(data: np.ndarray, at: int, end: int, automata: Automata, start: int) -> int:
    """The end of the match that starts at a byte, or -1 if there is none.

    Args:
        data: uint8, valid UTF-8.
        at: where it starts.
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
    """The end of the piece that starts at a byte: a match, or the text before the next match."""
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
def _word_end(data: np.ndarray, at: int, end: int, automata: Automata, limits: np.ndarray) -> int:
    """The end of the word that starts at a byte; pieces of outer patterns that end there or before start over."""
    limit, last = end, automata.starts.size - 1
    for level in range(last):
        if limits[level] <= at:
            limits[level] = piece_end(data, at, limit, automata, int(automata.starts[level]))
        limit = int(limits[level])
    return piece_end(data, at, limit, automata, int(automata.starts[last]))


@borrowing
def _alone(limits: np.ndarray, at: int) -> bool:
    """Whether no piece that started before a byte continues there."""
    alone = True
    for level in range(limits.size):
        alone &= limits[level] <= at
    return alone


@borrowing
def _read_ascii(data: np.ndarray, start: int, size: int, ascii_: np.ndarray, codes: np.ndarray) -> bool:
    """Read characters if all of them are ASCII; returns False otherwise."""
    first, high = np.uint64(start), np.uint8(0)
    for i in range(np.uint64(size)):
        high |= data[first + i]
    if high >= 0x80:
        return False
    for i in range(np.uint64(size)):
        codes[i + _BEFORE] = ascii_[data[first + i]]
    return True


@borrowing
def _read(
    data: np.ndarray, start: int, size: int, end: int, automata: Automata, windows: Windows, room: Room
) -> tuple[int, int, bool]:  # fmt: skip
    """Read the characters that start in a chunk, and look at the one after them.

    Returns:
        Their number, where the next character starts, and whether all are ASCII.
    """
    codes = room.codes
    plain = _read_ascii(data, start, size, windows.ascii, codes)
    if plain:
        count, at = size, start + size
    else:
        at, count = start, 0
        while at < start + size:
            kind, width = _kind(data, at, automata)
            codes[count + BEFORE] = windows.codes[kind]
            room.places[count] = at - start
            at, count = at + width, count + 1
        room.places[count] = at - start
    last = _kind(data, at, automata)[0] if at < end else windows.codes.size + _END
    codes[count + BEFORE] = windows.codes[last]
    return count, at, plain


@borrowing
def _look(count: int, windows: Windows, room: Room) -> None:
    """Look up the windows of the characters."""
    codes, numbers, flags, known = room.codes, room.numbers, room.flags, windows.flags
    a, b, c, d, e = windows.masks[0], windows.masks[1], windows.masks[2], windows.masks[3], windows.masks[4]
    for i in range(np.uint64(count)):
        numbers[i] = (
            (codes[i] & a)
            | (codes[i + _ONE] & b)
            | (codes[i + _TWO] & c)
            | (codes[i + _BEFORE] & d)
            | (codes[i + _AFTER] & e)
        )
    for i in range(np.uint64(count)):
        flags[i] = known[numbers[i]]
    for i in range(count, count + 8):
        flags[i] = 0


@borrowing
def _settle(
    data: np.ndarray, start: int, end: int, count: int, places: np.ndarray, automata: Automata, room: Room
) -> None:  # fmt: skip
    """Let the automata decide what windows leave open."""
    flags, limits, flags64 = room.flags, room.limits, room.flags64
    at, blocks, either = start, (np.uint64(count) + _SEVEN) >> _THREE, _ZERO
    for block in range(blocks):
        either |= flags64[block]
    if either & _OPENS == 0:
        return
    for block in range(blocks):
        if flags64[block] & _OPENS == 0:
            continue
        for i in range(8 * int(np.int64(block)), 8 * int(np.int64(block)) + 8):
            if flags[i] & OPEN == 0:
                continue
            here = start + places[i]
            k = i
            while start + places[k] > at and flags[k] & ALONE == 0:
                k -= 1
            if start + places[k] > at:
                at = start + places[k]
                limits[:] = at
            while at < here:
                at = _word_end(data, at, end, automata, limits)
            flags[i] = 0
            if at == here:
                flags[i] = BEGINS | ALONE if _alone(limits, at) else BEGINS


@borrowing
def _gather(flags64: np.ndarray, count: int, starts: np.ndarray) -> int:
    """The characters that start words, checking eight flags at a time; returns their number."""
    found, first = _ZERO, np.int32(0)
    for block in range((np.uint64(count) + _SEVEN) >> _THREE):
        begins = flags64[block] & _FIRSTS
        which = (begins * _PACK) >> _TOP
        for k in range(_EIGHT):
            starts[found + k] = first + _PLACES[which, k]
        found += (begins * _FIRSTS) >> _TOP
        first += np.int32(8)
    return int(np.int64(found))


@borrowing
def _plain_words(
    data: np.ndarray, start: int, size: int, end: int, automata: Automata, limits: np.ndarray, starts: np.ndarray
) -> int:  # fmt: skip
    """Split one word at a time: at least one, and as long as they are in a piece that started before them."""
    at, count = start, 0
    while count == 0 or (at < start + size and not _alone(limits, at)):
        starts[count] = at - start
        at, count = _word_end(data, at, end, automata, limits), count + 1
    starts[count] = at - start
    return count


@borrowing
def automaton_words(
    data: np.ndarray, start: int, size: int, end: int, automata: Automata, windows: Windows, room: Room,
    starts: np.ndarray,
) -> int:  # fmt: skip
    """Split the start of a chunk into words.

    Args:
        data: uint8, valid UTF-8.
        start: where the first word starts.
        size: bytes in the chunk.
        end: where the text ends.
        automata: the patterns.
        windows: what the characters around a position say.
        room: that of the previous chunk, or new.
        starts: int32[size + 1]: receives where words start, relative to ``start``, and where the last one ends.

    Returns:
        The number of words, at least one.
    """
    if not _alone(room.limits, start):
        return _plain_words(data, start, size, end, automata, room.limits, starts)
    count, after, ascii_ = _read(data, start, size, end, automata, windows, room)
    places = room.indices if ascii_ else room.places
    _look(count, windows, room)
    _settle(data, start, end, count, places, automata, room)
    if after < end:
        count -= 1  # the last word may continue
        while count > 0 and room.flags[count] & ALONE == 0:
            count -= 1
        if count == 0:
            room.limits[:] = start
            return _plain_words(data, start, size, end, automata, room.limits, starts)
    for i in range(count, count + 8):
        room.flags[i] = 0  # no word starts beyond
    found = _gather(room.flags64, count, starts)
    if not ascii_:
        for i in range(found):
            starts[i] = places[starts[i]]
    starts[found] = places[count]
    room.limits[:] = start
    return found
