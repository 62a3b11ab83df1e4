r"""Where words start, read off a few characters: the automata's step-by-step decisions, as a table of windows.

An automaton must know its state before it can continue, so it takes one lookup after another. But whether a word starts
at a character is nearly always clear from the three characters before it, the character itself and the one after it,
and lookups for all positions at once need not wait for each other. The table is derived from the automata, so it is
correct for every pattern; where a window does not decide, as for whether a digit is the third or the sixth in a run, it
says so.

The derivation guesses: at each character a word starts or does not, and a guess that contradicts the automata reaches a
dead end. A *reading* is what must be known to tell: the state of the match of the current word, and the states of
earlier words' matches that might have continued, and must not end again. Every text has exactly one sequence of
readings that reaches its end, which gives the words. A window is decided if all readings that can precede it in some
text, and can continue after it, agree.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np

from headrace.tokens.automaton import Automata

BEFORE = 3
"""Characters in a window before the one in question. With two, 3 to 7 % of words stay undecided, with three 0 to 1.5
%."""
BEGINS, ALONE, OPEN = np.uint8(1), np.uint8(2), np.uint8(4)
"""Flags of a window: a word starts; words from here on do not depend on what came before; undecided."""

_MOST_READINGS = 512  # GPT-4o's pattern has 54
_MOST_BITS = 19  # of a window index: half a megabyte, a few percent of which is used by text
_GAP = -1


class Windows(NamedTuple):
    """Windows of ``BEFORE`` characters, the one in question and the one after it, as indices.

    Attributes:
        ascii: uint32[128]: each ASCII character's bits for all positions of a window.
        codes: uint32[classes + 2]: the same for each class, then for the end of a text and for what precedes its start.
        masks: uint32[BEFORE + 2]: the bits of each position; a window's index is the sum of its characters' bits.
        flags: uint8[windows]: ``BEGINS``, ``ALONE`` and ``OPEN``.
    """

    ascii: np.ndarray
    codes: np.ndarray
    masks: np.ndarray
    flags: np.ndarray


class _Reading(NamedTuple):
    """For one pattern: the state of the match, or ``_GAP`` if there is none, and those of earlier ones."""

    state: int
    ghosts: frozenset[int]


_Readings = tuple[_Reading, ...]


class _Reader:
    """How readings continue, for all patterns together; a word of an outer pattern ends those of the inner ones."""

    def __init__(self, automata: Automata) -> None:
        width = automata.width
        rows = automata.steps.reshape(-1, width).astype(np.int64)
        to, ended = (rows >> 1) // width, rows & 1
        self.steps = list(zip(to.T.tolist(), ended.T.tolist(), strict=True))  # by class
        self.starts = (automata.starts // width).tolist()
        self.width = width

    def start(self, start: int, kind: int) -> Iterator[_Reading]:
        """The readings of a word that starts with a character, or of a gap."""
        to = self.steps[kind][0][start]
        if to:
            yield _Reading(to, frozenset())
        yield _Reading(_GAP, frozenset({to} - {0}))

    def on(self, reading: _Reading, start: int, kind: int) -> Iterator[tuple[bool, _Reading]]:
        """Whether a word starts at the next character, and the reading after it."""
        to, ended = self.steps[kind]
        if any(ended[ghost] for ghost in reading.ghosts):
            return
        ghosts = frozenset(to[ghost] for ghost in reading.ghosts) - {0}
        state = reading.state
        if state == _GAP:
            yield False, _Reading(_GAP, ghosts | {to[start]} - {0})
            if to[start]:
                yield True, _Reading(to[start], ghosts)
            return
        if to[state]:
            yield False, _Reading(to[state], ghosts)
        if ended[state]:
            for new in self.start(start, kind):
                yield True, _Reading(new.state, (ghosts | new.ghosts | {to[state]}) - {0})

    def may_end(self, reading: _Reading) -> bool:
        """Whether the text, or the piece of an outer pattern, may end here."""
        ended = self.steps[self.width - 1][1]
        done = reading.state == _GAP or ended[reading.state]
        return bool(done) and not any(ended[ghost] for ghost in reading.ghosts)

    def first(self, kind: int, level: int = 0) -> Iterator[_Readings]:
        """The readings of the patterns from ``level`` on after a first character."""
        if level == len(self.starts):
            yield ()
            return
        for one in self.start(self.starts[level], kind):
            for inner in self.first(kind, level + 1):
                yield (one, *inner)

    def next(self, readings: _Readings, kind: int, level: int = 0) -> Iterator[tuple[bool, bool, _Readings]]:
        """Whether a word starts at a character, whether it is independent of what came before, and the readings after
        it."""
        if level == len(self.starts):
            yield False, True, ()
            return
        for begins, one in self.on(readings[level], self.starts[level], kind):
            if begins:
                if all(map(self.may_end, readings[level + 1 :])):
                    yield from ((True, True, (one, *inner)) for inner in self.first(kind, level + 1))
            else:
                for inside, alone, inner in self.next(readings, kind, level + 1):
                    yield inside, alone and one.state == _GAP and inside, (one, *inner)


def windows_of(automata: Automata) -> Windows:
    """The windows of patterns; all are undecided if there are too many patterns or they are too complex."""
    classes, inverse = _kinds(automata)
    outcomes = _outcomes(_Reader(automata), classes)
    maps, flags = _table(outcomes) if outcomes is not None else _nothing(len(classes) + 2)
    bits = [(size - 1).bit_length() for size in flags.shape]
    padded = np.full([1 << count for count in bits], OPEN, dtype=np.uint8)
    padded[tuple(map(slice, flags.shape))] = flags
    shifts = np.cumsum([0, *bits[:0:-1]])[::-1]
    codes = np.zeros(len(classes) + 2, dtype=np.uint32)
    for each, shift in zip(maps, shifts, strict=True):
        codes |= each.astype(np.uint32) << np.uint32(shift)
    masks = [((1 << count) - 1) << int(shift) for count, shift in zip(bits, shifts, strict=True)]
    by_class = codes[np.append(inverse, [len(classes), len(classes) + 1])]
    ascii_ = by_class[automata.classes[:0x80]]
    return Windows(ascii_, by_class, np.array(masks, dtype=np.uint32), padded.reshape(-1))


def no_windows() -> Windows:
    """The windows of no patterns."""
    none = np.zeros(0, dtype=np.uint32)
    return Windows(none, none, none, np.zeros(0, dtype=np.uint8))


def _kinds(automata: Automata) -> tuple[np.ndarray, np.ndarray]:
    """A representative class of each kind that the automata treat alike, and the kind of each class."""
    columns = automata.steps.reshape(-1, automata.width)[:, :-1]
    return _alike(columns, 1)


def _alike(array: np.ndarray, axis: int) -> tuple[np.ndarray, np.ndarray]:
    """The first index of each set of equal slices, and the set of each slice."""
    numbers: dict[bytes, int] = {}
    firsts: list[int] = []
    inverse: list[int] = []
    for index, part in enumerate(np.moveaxis(array, axis, 0)):
        number = numbers.setdefault(part.tobytes(), len(numbers))
        if number == len(firsts):
            firsts.append(index)
        inverse.append(number)
    return np.array(firsts), np.array(inverse)


def _outcomes(reader: _Reader, classes: np.ndarray) -> np.ndarray | None:
    """float32[3, kinds + 2, readings, readings], 0 or 1: whether a character leads from one reading to another.

    For no word starting, a word starting, and one starting that is independent of what came before. The last two kinds
    are the end of a text and what precedes its start. None if there are too many readings.
    """
    numbers: dict[_Readings, int] = {(): 0}  # before a text
    waiting: list[_Readings] = [()]
    arcs = []
    for readings in waiting:
        here = numbers[readings]
        for kind, class_ in enumerate(classes.tolist()):
            ways = reader.next(readings, class_) if here else ((True, True, some) for some in reader.first(class_))
            for begins, alone, after in ways:
                if after not in numbers:
                    numbers[after] = len(numbers)
                    waiting.append(after)
                arcs.append((int(begins) + int(begins and alone), kind, here, numbers[after]))
        if len(numbers) > _MOST_READINGS:
            return None
    end = np.array([all(map(reader.may_end, readings)) for readings in waiting])
    out = np.zeros((3, len(classes) + 2, len(numbers), len(numbers)), dtype=np.float32)
    out[tuple(np.array(arcs).T)] = 1
    out[2, -2, end, 0] = 1
    out[2, -1, :, 0] = 1
    alive = end
    transitions = out[:, :-2].max(axis=(0, 1))
    while (more := alive | (transitions @ alive > 0)).sum() > alive.sum():
        alive = more
    return out[:, :, alive][:, :, :, alive]


def _table(outcomes: np.ndarray) -> tuple[list[np.ndarray], np.ndarray]:
    """The flags of windows by groups of equivalent kinds at each position, and the group of each kind there."""
    readings = outcomes.shape[-1]
    transitions = outcomes.max(axis=0)
    maps = []
    before = np.ones(readings, dtype=np.float32)
    for _ in range(BEFORE):
        before = (np.tensordot(before, transitions, axes=([-1], [1])) > 0).astype(np.float32)
        firsts, inverse = _alike(before, -2)
        before = before.take(firsts, axis=-2)
        maps.append(inverse)
    after = transitions.max(axis=2)  # [kinds, readings]
    firsts, inverse = _alike(after, 0)
    maps += [np.arange(len(after)), inverse]
    decided = np.einsum("okab,rb->oakr", outcomes, after[firsts], optimize=True) > 0
    may = np.tensordot(before, decided.astype(np.float32), axes=([-1], [1])) > 0
    may = np.moveaxis(may, BEFORE, 0)  # [outcomes, places...]
    for place in range(BEFORE + 2):
        firsts, inverse = _alike(may, place + 1)
        may, maps[place] = may.take(firsts, axis=place + 1), inverse[maps[place]]
    may, maps[0] = _coarsened(may, maps[0])
    neither, begins = may[0], may[1] | may[2]
    flags = np.where(neither & begins, OPEN, np.where(begins, np.where(may[1], BEGINS, BEGINS | ALONE), 0))
    return maps, flags.astype(np.uint8)


def _coarsened(may: np.ndarray, first: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Merge kinds in the first position to keep the table small, choosing those that leave the fewest windows
    undecided."""
    while may.shape[1] > 1 and sum((size - 1).bit_length() for size in may.shape[1:]) > _MOST_BITS:
        best = (may[0].size, 0, 0)
        for a in range(may.shape[1]):
            both = may | may[:, a : a + 1]
            opened = (both[0] & (both[1] | both[2])).reshape(may.shape[1], -1).sum(axis=1)
            opened[: a + 1] = may[0].size
            b = int(np.argmin(opened))
            best = min(best, (int(opened[b]), a, b))
        _, a, b = best
        may[:, a] |= may[:, b]
        may = np.delete(may, b, axis=1)
        first = np.where(first == b, a, first - (first > b))
    return may, first


def _nothing(kinds: int) -> tuple[list[np.ndarray], np.ndarray]:
    """A single undecided window."""
    return [np.zeros(kinds, dtype=np.int64)] * (BEFORE + 2), np.full([1] * (BEFORE + 2), OPEN, dtype=np.uint8)
