r"""Split patterns as deterministic automata in one table, which match as a backtracking engine would.

A backtracking engine takes the first alternative with which the rest matches, not the longest. So a state is an ordered
list of positions in the pattern, in the order in which the engine would try them; whatever follows a position where the
pattern has matched is dropped (Cox, "Regular Expression Matching in the Wild", 2010; RE2 does the same). A lookahead at
the next character is decided when that character is read, so a step gives both the next state and whether a match ended
*before* its character.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, NamedTuple

import numpy as np

from headrace.tokens.regex import Ahead, Chars, Choice, Node, NotReadError, Repeat, Row
from headrace.tokens.unicode_sets import CODE_POINTS

MOST_INSTRUCTIONS = 1 << 16
MOST_STEPS = 1 << 17
"""Entries in a table, half a megabyte. GPT-4o's pattern has 33 states with 28 classes of characters."""


class Automata(NamedTuple):
    """Patterns, each of which splits what the previous one leaves.

    Attributes:
        classes: uint8[0x110000], the class of each code point: no pattern distinguishes those in the same class.
        steps: uint32[states * width]: for a state and a class (or the end of text, the last column), twice the index of
            the next state's row, 0 if no match is possible any more, plus 1 if a match ends before the step.
        width: the number of classes, plus one for the end.
        starts: int64[patterns]: the index in ``steps`` of the row of each pattern's first state.
    """

    classes: np.ndarray
    steps: np.ndarray
    width: int
    starts: np.ndarray


@dataclass
class _Program:
    """A pattern as instructions (Thompson's construction); numbers are indices into ``code``."""

    sets: list[np.ndarray]
    code: list[tuple[str, int, int]] = field(default_factory=list)

    def put(self, kind: str, one: int, two: int = -1) -> int:
        if len(self.code) >= MOST_INSTRUCTIONS:
            raise NotReadError("too many nested repetitions")
        self.code.append((kind, one, two))
        return len(self.code) - 1

    def set_number(self, chars: np.ndarray) -> int:
        for number, known in enumerate(self.sets):
            if known is chars or (known == chars).all():
                return number
        self.sets.append(chars)
        return len(self.sets) - 1

    def add(self, node: Node, then: int) -> int:
        """Add instructions that match a tree and continue at ``then``; returns where they start."""
        if isinstance(node, Chars):
            return self.put("chars", self.set_number(node.chars), then)
        if isinstance(node, Ahead):
            return self.put("if" if node.wanted else "unless", self.set_number(node.chars), then)
        if isinstance(node, Row):
            for part in reversed(node.parts):
                then = self.add(part, then)
            return then
        if isinstance(node, Choice):
            last = self.add(node.parts[-1], then)
            for part in reversed(node.parts[:-1]):
                last = self.put("either", self.add(part, then), last)
            return last
        return self.repeat(node, then)

    def repeat(self, node: Repeat, then: int) -> int:
        if _may_be_empty(node.part):
            raise NotReadError("a repetition of something that may be empty")
        if node.most is None:
            loop = self.put("either", -1)
            inner = self.add(node.part, loop)
            self.code[loop] = ("either", then, inner) if node.lazy else ("either", inner, then)
            at = loop
        else:
            at = then
            for _ in range(node.most - node.least):
                inner = self.add(node.part, at)
                at = self.put("either", then, inner) if node.lazy else self.put("either", inner, then)
        for _ in range(node.least):
            at = self.add(node.part, at)
        return at


def _may_be_empty(node: Node) -> bool:
    if isinstance(node, Chars):
        return False
    if isinstance(node, Repeat):
        return node.least == 0 or _may_be_empty(node.part)
    if isinstance(node, Choice):
        return any(map(_may_be_empty, node.parts))
    return isinstance(node, Ahead) or all(map(_may_be_empty, node.parts))


def compile_patterns(trees: list[Node]) -> Automata:
    """The automata of patterns.

    Args:
        trees: from :mod:`headrace.tokens.regex`, in the order in which they split text.

    Raises:
        NotReadError: a pattern may match the empty text, may read ahead repeatedly without a match, or needs too many
            states.
    """
    steps, starts, classes = _steps(trees)
    for start in starts:
        if (steps[start] & 1).any():
            raise NotReadError("a match of the empty string")
    _require_linear(steps, starts)
    width = steps.shape[1]
    rows = ((steps >> 1) * width << 1 | (steps & 1)).astype(np.uint32)
    return Automata(classes, rows.reshape(-1), width, np.array(starts, dtype=np.int64) * width)


def matches_all(tree: Node) -> bool:
    """Whether a pattern matches at every character, whatever follows, so that there is nothing between matches."""
    steps, starts, _ = _steps([tree])
    after = set((steps[starts[0], :-1] >> 1).tolist())
    return not after & {0, *_vain(steps.tolist())}


def never_matches(tree: Node) -> bool:
    """Whether a pattern never matches."""
    return not (_steps([tree])[0] & 1).any()


def _steps(trees: list[Node]) -> tuple[np.ndarray, list[int], np.ndarray]:
    """The rows of all states, int64[states, width]; each pattern's first state; the class of each code point."""
    program = _Program([])
    firsts = [program.add(tree, program.put("match", -1)) for tree in trees]
    classes, members = _partition(program.sets)
    table = _Table(program, members)
    starts = [table.number((first,)) for first in firsts]
    table.fill()
    return np.array(table.rows, dtype=np.int64), starts, classes


def _partition(sets: list[np.ndarray]) -> tuple[np.ndarray, np.ndarray]:
    """Group the code points that no set distinguishes: uint8[0x110000] classes, and bool[sets, classes] membership."""
    changes = np.zeros(CODE_POINTS, dtype=bool)
    changes[0] = True
    for chars in sets:
        changes[1:] |= chars[1:] != chars[:-1]
    begins = np.flatnonzero(changes)
    columns, kinds = np.unique(np.array([chars[begins] for chars in sets]), axis=1, return_inverse=True)
    if columns.shape[1] > 255:
        raise NotReadError("more than 255 classes of characters")
    sizes = np.diff(np.append(begins, CODE_POINTS))
    return np.repeat(kinds.reshape(-1).astype(np.uint8), sizes), columns


class _Table:
    """The states reached so far and their rows: twice the next state, plus 1 if a match ends before the step."""

    def __init__(self, program: _Program, members: np.ndarray) -> None:
        self.code = program.code
        # The end of text is in no set.
        self.members = np.concatenate([members, np.zeros((len(members), 1), dtype=bool)], axis=1).tolist()
        self.width = members.shape[1] + 1
        self.numbers: dict[tuple[int, ...], int] = {}
        self.states: list[tuple[int, ...]] = []
        self.rows: list[list[int]] = []
        self.number(())

    def number(self, state: tuple[int, ...]) -> int:
        if state not in self.numbers:
            if (len(self.states) + 1) * self.width > MOST_STEPS:
                raise NotReadError("too many states for this many classes of characters")
            self.numbers[state] = len(self.states)
            self.states.append(state)
        return self.numbers[state]

    def fill(self) -> None:
        """Compute the rows of all states, including those they lead to."""
        for state in self.states:  # grows during the loop
            self.rows.append([self.step(state, kind) for kind in range(self.width)])

    def step(self, state: tuple[int, ...], kind: int) -> int:
        """The state after a character of a class, in the order in which a backtracking engine would try."""
        seen: set[int] = set()
        to: dict[int, None] = {}
        matched = 0
        waiting = list(reversed(state))
        while waiting:
            at = waiting.pop()
            if at in seen:
                continue
            seen.add(at)
            what, one, two = self.code[at]
            if what == "match":
                matched = 1
                break
            if what == "either":
                waiting += [two, one]
            elif what == "chars":
                if self.members[one][kind]:
                    to[two] = None
            elif self.members[one][kind] == (what == "if"):
                waiting.append(two)
        return self.number(tuple(to)) << 1 | matched


def _require_linear(steps: np.ndarray, starts: list[int]) -> None:
    """Raise unless any text is read a bounded number of times.

    The automaton may read on past the end of a match without finding another (as for ``\\s*[\\r\\n]+``, through all
    whitespace after the last line end). That is harmless unless a match that starts in between can do the same, and so
    on.
    """
    rows = steps.tolist()
    vain = _vain(rows)
    silent = {
        state: {kind: step >> 1 for kind, step in enumerate(rows[state]) if step >> 1 in vain and not step & 1}
        for state in vain
    }
    far = _endless({state: set(row.values()) for state, row in silent.items()})
    waiting = [(state, start) for state in far for start in starts]
    both: dict[tuple[int, int], set[tuple[int, int]]] = {}
    while waiting:
        pair = waiting.pop()
        if pair in both:
            continue
        first, second = pair
        alive = [(kind, to) for kind, to in silent[first].items() if to in far]
        quiet = silent.get(second, {})
        both[pair] = {(to, quiet[kind]) for kind, to in alive if kind in quiet}
        waiting += [(to, rows[second][kind] >> 1) for kind, to in alive if rows[second][kind] > 1]
    if _endless(both):
        raise NotReadError("a part that may repeatedly read far ahead")


def _vain(rows: list[list[int]]) -> set[int]:
    """The states from which reading may continue without another match, and end without one."""
    vain = {state for state, row in enumerate(rows) if state and 0 in row}
    while more := {s for s, row in enumerate(rows) if any(step >> 1 in vain and not step & 1 for step in row)} - vain:
        vain |= more
    return vain


def _endless(successors: dict[Any, set[Any]]) -> set[Any]:
    """The states from which this can go on forever: remove those that lead nowhere until none are left to remove."""
    left = set(successors)
    while ends := {one for one in left if not successors[one] & left}:
        left -= ends
    return left
