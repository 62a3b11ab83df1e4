r"""Parse split patterns into trees: the subset of Oniguruma's syntax that tokenizers use.

Characters, classes (``[^\s\p{L}]``, nested, intersected), ``\p{...}``, groups, ``(?i:...)`` over ASCII letters,
alternatives, repetition (greedy, lazy, and possessive for single characters), and lookahead at one character
(``(?!\S)``, ``$``). Anything else, such as back references and lookbehind, is rejected by name.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from string import hexdigits

import numpy as np

from headrace.tokens.unicode_sets import CODE_POINTS, property_set, white_space


class NotReadError(Exception):
    """A pattern contains unsupported syntax; the message says what."""


@dataclass(frozen=True, eq=False)
class Chars:
    """One character from a set: bool[0x110000]."""

    chars: np.ndarray


@dataclass(frozen=True, eq=False)
class Ahead:
    """Zero-width: the next character is in a set; or, if ``wanted`` is false, it is not or there is none."""

    chars: np.ndarray
    wanted: bool


@dataclass(frozen=True, eq=False)
class Row:
    """A concatenation."""

    parts: list[Node]


@dataclass(frozen=True, eq=False)
class Choice:
    """An alternation: the first part with which the rest matches."""

    parts: list[Node]


@dataclass(frozen=True, eq=False)
class Repeat:
    """A part ``least`` to ``most`` times (None: any number), as often as possible or, if ``lazy``, as rarely."""

    part: Node
    least: int
    most: int | None
    lazy: bool


Node = Chars | Ahead | Row | Choice | Repeat

_ESCAPES = {"n": "\n", "r": "\r", "t": "\t", "f": "\f", "v": "\v", "a": "\a", "e": "\x1b"}
_MOST = 64  # maximum in ``{n,m}``; each repetition takes states
# Two letters that equal one character if case is ignored: sharp s and the Latin ligatures.
_FOLDED_PAIRS = ("ss", "ff", "fi", "fl", "st")


def literal(text: str) -> Node:
    """The tree of a literal text."""
    return Row([Chars(_one(char)) for char in text])


def parse(pattern: str) -> Node:
    """The tree of a pattern.

    Raises:
        NotReadError: it contains unsupported syntax.
    """
    parser = _Parser(pattern)
    tree = parser.choice(False)
    if parser.at < len(pattern):
        raise NotReadError("a closing bracket without an opening one")
    return tree


def restricted(node: Node, chars: np.ndarray) -> Node:
    """The same tree with its sets restricted to ``chars``: all other characters act like the end of the text."""
    if isinstance(node, Chars):
        return Chars(node.chars & chars)
    if isinstance(node, Ahead):
        return Ahead(node.chars & chars, node.wanted)
    if isinstance(node, Repeat):
        return replace(node, part=restricted(node.part, chars))
    return type(node)([restricted(part, chars) for part in node.parts])


def _one(char: str) -> np.ndarray:
    out = np.zeros(CODE_POINTS, dtype=bool)
    out[ord(char)] = True
    return out


def _folded(chars: np.ndarray) -> np.ndarray:
    """A set with case ignored; only ASCII letters have another case here."""
    if chars[0x80:].any():
        raise NotReadError("non-ASCII characters where case is ignored")
    out = chars.copy()
    out[0x41:0x5B] |= chars[0x61:0x7B]
    out[0x61:0x7B] |= chars[0x41:0x5B]
    out[0x17F] = out[ord("s")]  # long s
    out[0x212A] = out[ord("k")]  # Kelvin sign
    return out


class _Parser:
    def __init__(self, pattern: str) -> None:
        self.pattern, self.at = pattern, 0

    def looking_at(self, text: str) -> bool:
        return self.pattern.startswith(text, self.at)

    def take(self, text: str) -> bool:
        """Consume a text if it comes next."""
        if self.looking_at(text):
            self.at += len(text)
            return True
        return False

    def char(self) -> str:
        if self.at == len(self.pattern):
            raise NotReadError("an unexpected end")
        self.at += 1
        return self.pattern[self.at - 1]

    def choice(self, fold: bool) -> Node:
        parts = [self.row(fold)]
        while self.take("|"):
            parts.append(self.row(fold))
        return parts[0] if len(parts) == 1 else Choice(parts)

    def row(self, fold: bool) -> Node:
        parts: list[Node] = []
        begin = self.at
        while self.at < len(self.pattern) and self.pattern[self.at] not in "|)":
            parts.append(self.repeated(self.atom(fold), fold))
        if fold and any(pair in self.pattern[begin : self.at].lower() for pair in _FOLDED_PAIRS):
            raise NotReadError("letters that have ligatures, where case is ignored")
        return parts[0] if len(parts) == 1 else Row(parts)

    def repeated(self, part: Node, fold: bool) -> Node:
        bounds = self.bounds()
        if bounds is None:
            return part
        least, most, plain = bounds
        if isinstance(part, Ahead) or (fold and most != 1):
            raise NotReadError("a repeated lookahead, or a letter where case is ignored")
        lazy = plain and self.take("?")
        possessive = plain and not lazy and self.take("+")
        if self.at < len(self.pattern) and self.pattern[self.at] in "?*+{":
            raise NotReadError("a repetition of a repetition")
        if not possessive:
            return Repeat(part, least, most, lazy)
        if not isinstance(part, Chars):
            raise NotReadError("a possessive repetition of more than one character")
        stop = Ahead(part.chars, False)  # what is possessive cannot stop earlier
        if most == 1:
            return Choice([part, stop])
        return Row([Repeat(part, least, most, False), stop])

    def bounds(self) -> tuple[int, int | None, bool] | None:
        """How often the preceding part repeats, and whether by a single sign; None if it does not."""
        for sign, least, most in (("?", 0, 1), ("*", 0, None), ("+", 1, None)):
            if self.take(sign):
                return least, most, True
        if not self.looking_at("{"):
            return None
        inside, closed, _ = self.pattern[self.at + 1 :].partition("}")
        low, comma, high = inside.partition(",")
        if not closed or not low.isdecimal() or (comma and high and not high.isdecimal()):
            raise NotReadError("a brace that is not a repetition count")
        self.at += len(inside) + 2
        most = (int(high) if high else None) if comma else int(low)
        if max(int(low), most or 0) > _MOST or (most is not None and most < max(1, int(low))):
            raise NotReadError(f"a repetition of {inside}")
        return int(low), most, False

    def atom(self, fold: bool) -> Node:
        char = self.char()
        if char == "(":
            return self.group(fold)
        if char == "$":  # the end, or before a line feed
            return Ahead(~_one("\n"), False)
        if char in ".^?*+{":
            raise NotReadError(f"{char!r} where a character is expected")
        chars = self.inside() if char == "[" else self.escaped() if char == "\\" else _one(char)
        return Chars(_folded(chars) if fold else chars)

    def group(self, fold: bool) -> Node:
        if fold:
            raise NotReadError("a group where case is ignored")
        if self.looking_at("?=") or self.looking_at("?!"):
            wanted = self.take("?=") or not self.take("?!")
            tree = self.closed(False)
            if not isinstance(tree, Chars):
                raise NotReadError("a lookahead of more than one character")
            return Ahead(tree.chars, wanted)
        if self.take("?i:"):
            return self.closed(True)
        if not self.take("?:") and self.looking_at("?"):
            raise NotReadError(f"a group of the kind {self.pattern[self.at - 1 : self.at + 3]!r}")
        return self.closed(False)

    def closed(self, fold: bool) -> Node:
        """What precedes the closing bracket."""
        tree = self.choice(fold)
        if not self.take(")"):
            raise NotReadError("an unclosed group")
        return tree

    def escaped(self) -> np.ndarray:
        """The set that an escape after a backslash stands for."""
        char = self.char()
        if char in "sS":
            return white_space() if char == "s" else ~white_space()
        if char in "pP":
            name, closed, _ = self.pattern[self.at :].partition("}")
            self.at += len(name) + 1
            chars = property_set(name.removeprefix("{").removeprefix("^"))
            if not closed or name[:1] != "{" or chars is None:
                raise NotReadError(f"the property {name[1:]!r}")
            return ~chars if (char == "P") != name.startswith("{^") else chars
        if char in "xu":
            return _one(self.hexadecimal(char))
        if char in _ESCAPES:
            return _one(_ESCAPES[char])
        if char.isascii() and char.isalnum():
            raise NotReadError(f"'\\{char}'")
        return _one(char)

    def hexadecimal(self, kind: str) -> str:
        r"""The character of ``\x41``, ``\x{41}`` or ``\u0041``, after the ``x`` or ``u``."""
        braced = kind == "x" and self.take("{")
        if braced:
            digits, _, _ = self.pattern[self.at :].partition("}")
            self.at += len(digits) + 1
        else:
            digits = self.pattern[self.at : self.at + (2 if kind == "x" else 4)]
            self.at += len(digits)
        point = int(digits, 16) if digits and set(digits) <= set(hexdigits) else 0x110000
        # A byte beyond ASCII is not a character, nor is half of a surrogate pair.
        if point > 0x10FFFF or 0xD800 <= point < 0xE000 or (kind == "x" and not braced and point > 0x7F):
            raise NotReadError(f"'\\{kind}' without a character")
        return chr(point)

    def inside(self) -> np.ndarray:
        """The set of a class whose opening bracket has been consumed."""
        negated = self.take("^")
        both: np.ndarray | None = None
        chars = np.zeros(CODE_POINTS, dtype=bool)
        if self.looking_at("]"):
            raise NotReadError("a bracket that begins a class")
        while not self.take("]"):
            if self.take("&&"):
                both = chars if both is None else both & chars
                chars = np.zeros(CODE_POINTS, dtype=bool)
            else:
                chars |= self.item()
        if both is not None:
            chars &= both
        return ~chars if negated else chars

    def item(self) -> np.ndarray:
        """A character, range or set within a class."""
        char = self.char()
        if char == "[":
            if self.looking_at(":"):
                raise NotReadError("a POSIX character class")
            return self.inside()
        low = self.escaped() if char == "\\" else _one(char)
        if not self.looking_at("-") or self.pattern[self.at + 1 : self.at + 2] in ("]", ""):
            return low
        self.at += 1
        char = self.char()
        high = self.escaped() if char == "\\" else _one(char)
        if char == "[" or np.count_nonzero(low) != 1 or np.count_nonzero(high) != 1:
            raise NotReadError("a range whose ends are not single characters")
        first, last = int(np.argmax(low)), int(np.argmax(high))
        out = np.zeros(CODE_POINTS, dtype=bool)
        out[first : last + 1] = True
        if last < first:
            raise NotReadError("a range in reverse order")
        return out
