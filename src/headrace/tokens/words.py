"""The words of a text, a stretch of it at a time: by a split pattern, or between bytes that no token joins."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from headrace.flow.kernels import borrowing, kernel
from headrace.tokens.automaton import Automata
from headrace.tokens.automaton_words import Room, automaton_words, new_room
from headrace.tokens.boundaries import Windows, no_windows, windows_of


class Scanner(NamedTuple):
    """How texts are cut into words.

    Attributes:
        cuts: whether they are cut between bytes (SentencePiece), and not by patterns.
        joined: uint8[65536], 0 or 1: whether bytes ``a << 8 | b`` stand side by side in some token or character.
        automata: the patterns.
        windows: what they say of places by the characters around them.
        stretch: bytes that are looked at together.
    """

    cuts: bool
    joined: np.ndarray
    automata: Automata
    windows: Windows
    stretch: int


# Bytes whose words are found together; what that takes stays in the first-level cache.
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
    """Room for the words of one buffer's stretches.

    Attributes:
        starts: int32[stretch + 8]: where words begin and, after them, where the last one ends.
        room: for the patterns.
    """

    starts: np.ndarray
    room: Room


@kernel
def new_scratch(scanner: Scanner) -> Scratch:
    """Room for a buffer that begins with a text."""
    room = new_room(scanner.automata, scanner.windows, scanner.stretch)
    return Scratch(np.empty(scanner.stretch + 8, np.int32), room)


@borrowing
def next_words(data: np.ndarray, start: int, end: int, scanner: Scanner, scratch: Scratch) -> int:
    """Find the words at the beginning of what is left of a text.

    Args:
        data: uint8, valid UTF-8.
        start: where a word begins: the text, or after the last word that was found in it.
        end: where the text ends.
        scanner: the rules.
        scratch: gets, in ``starts``, where words begin, counted from ``start``, and where the last of them ends.

    Returns:
        How many words, at least one.
    """
    size = min(end - start, scanner.stretch)
    if not scanner.cuts:
        room, starts = scratch.room, scratch.starts
        return automaton_words(data, start, size, end, scanner.automata, scanner.windows, room, starts)
    starts = scratch.starts
    count = _cut_words(data, start, size, scanner.joined, starts)
    if start + size < end:
        count -= 1  # the last may go on
        if count == 0:
            starts[1] = _cut(data, start, end, scanner.joined) - start
            return 1
    else:
        starts[count] = size
    return count


@borrowing
def _cut_words(data: np.ndarray, start: int, size: int, joined: np.ndarray, starts: np.ndarray) -> int:
    """Where words begin, from 0 on, in ``data[start:start + size]``; returns how many."""
    starts[0] = 0
    count = 1
    for i in range(start + 1, start + size):
        starts[count] = i - start
        count += 1 - int(joined[(np.int64(data[i - 1]) << 8) | np.int64(data[i])])
    return count


@borrowing
def _cut(data: np.ndarray, start: int, end: int, joined: np.ndarray) -> int:
    """Where the word that begins at a byte ends."""
    start += 1
    while start < end and joined[(np.int64(data[start - 1]) << 8) | np.int64(data[start])]:
        start += 1
    return start
