"""Split text into words, one chunk at a time: by a split pattern, or between bytes that no token joins."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from headrace.flow.kernels import borrowing, kernel
from headrace.tokens.automaton import Automata
from headrace.tokens.automaton_words import Room, automaton_words, new_room
from headrace.tokens.boundaries import Windows, no_windows, windows_of


class Scanner(NamedTuple):
    """How to split texts into words.

    Attributes:
        cuts: whether to cut between bytes (SentencePiece) rather than by patterns.
        joined: uint8[65536], 0 or 1: whether bytes ``a << 8 | b`` are adjacent in some token or character.
        automata: the patterns.
        windows: what the characters around a position say about it.
        stretch: bytes processed together.
    """

    cuts: bool
    joined: np.ndarray
    automata: Automata
    windows: Windows
    stretch: int


# Bytes whose words are found together; the data this takes stays in the L1 cache.
_STRETCH = 2048


def pattern_scanner(automata: Automata) -> Scanner:
    """The scanner of split patterns."""
    return Scanner(False, np.zeros(0, dtype=np.uint8), automata, windows_of(automata), _STRETCH)


def cuts_scanner(joined: np.ndarray) -> Scanner:
    """The scanner that cuts between bytes; ``joined`` as in :class:`Scanner`."""
    bytes_, steps = np.zeros(0, dtype=np.uint8), np.zeros(0, dtype=np.uint32)
    automata = Automata(bytes_, steps, 1, np.zeros(0, dtype=np.int64))
    return Scanner(True, joined, automata, no_windows(), _STRETCH)


class Scratch(NamedTuple):
    """Scratch memory for the words of a buffer, one chunk at a time.

    Attributes:
        starts: int32[stretch + 8]: where words start, then where the last one ends.
        room: scratch memory for the patterns.
    """

    starts: np.ndarray
    room: Room


@kernel
def new_scratch(scanner: Scanner) -> Scratch:
    """Scratch memory for a buffer that starts with a text."""
    room = new_room(scanner.automata, scanner.windows, scanner.stretch)
    return Scratch(np.empty(scanner.stretch + 8, np.int32), room)


@borrowing
def next_words(data: np.ndarray, start: int, end: int, scanner: Scanner, scratch: Scratch) -> int:
    """Find the words at the start of the rest of a text.

    Args:
        data: uint8, valid UTF-8.
        start: where a word starts: at the start of the text, or after the last word found.
        end: where the text ends.
        scanner: the rules.
        scratch: receives, in ``starts``, where words start, relative to ``start``, and where the last one ends.

    Returns:
        The number of words, at least one.
    """
    size = min(end - start, scanner.stretch)
    if not scanner.cuts:
        room, starts = scratch.room, scratch.starts
        return automaton_words(data, start, size, end, scanner.automata, scanner.windows, room, starts)
    starts = scratch.starts
    count = _cut_words(data, start, size, scanner.joined, starts)
    if start + size < end:
        count -= 1  # the last one may continue
        if count == 0:
            starts[1] = _cut(data, start, end, scanner.joined) - start
            return 1
    else:
        starts[count] = size
    return count


@borrowing
def _cut_words(data: np.ndarray, start: int, size: int, joined: np.ndarray, starts: np.ndarray) -> int:
    """Where words start, from 0 on, in ``data[start:start + size]``; returns their number."""
    starts[0] = 0
    count = 1
    for i in range(start + 1, start + size):
        starts[count] = i - start
        count += 1 - int(joined[(np.int64(data[i - 1]) << 8) | np.int64(data[i])])
    return count


@borrowing
def _cut(data: np.ndarray, start: int, end: int, joined: np.ndarray) -> int:
    """The end of the word that starts at a byte."""
    start += 1
    while start < end and joined[(np.int64(data[start - 1]) << 8) | np.int64(data[start])]:
        start += 1
    return start
