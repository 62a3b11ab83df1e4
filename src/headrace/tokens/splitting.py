"""Build one scanner from the rules by which a byte-level tokenizer splits text."""

from __future__ import annotations

from typing import Any

import numpy as np

from headrace.tokens.automaton import compile_patterns, matches_all, never_matches
from headrace.tokens.regex import Chars, Choice, Node, NotReadError, Repeat, literal, parse, restricted
from headrace.tokens.split_patterns import GPT2_PATTERN
from headrace.tokens.unicode_sets import numeric
from headrace.tokens.words import Scanner, pattern_scanner


def split_scanner(splits: list[dict[str, Any]]) -> Scanner:
    """The scanner of pre-tokenizers.

    Args:
        splits: the parts of a tokenizers JSON's ``pre_tokenizer``, ending with a ``ByteLevel``.

    Raises:
        NotReadError: one of them is not supported; the message says why.
    """
    trees = [_tree(split) for split in splits[:-1]]
    if splits[-1].get("use_regex", True):
        trees.append(parse(GPT2_PATTERN))
    if not trees:
        raise NotReadError("no pattern")
    return pattern_scanner(compile_patterns(joined(trees)))


def _how(split: dict[str, Any]) -> tuple[str, bool]:
    return split["behavior"], bool(split.get("invert"))


def _tree(split: dict[str, Any]) -> Node:
    """A pre-tokenizer as a pattern whose matches, and the text between them, are its pieces."""
    if split["type"] == "Digits":
        number = Chars(numeric())
        return number if split.get("individual_digits") else Repeat(number, 1, None, lazy=False)
    if split["type"] != "Split":
        raise NotReadError(f"the pre-tokenizer {split['type']}")
    pattern = split["pattern"]
    tree = parse(pattern["Regex"]) if "Regex" in pattern else literal(pattern["String"])
    how = _how(split)
    if how != ("Isolated", False) and not (how == ("Removed", True) and matches_all(tree)):
        raise NotReadError(f"the split behavior {how[0]}" + (", inverted" if how[1] else ""))
    return tree


def joined(trees: list[Node]) -> list[Node]:
    r"""Combine patterns into fewer that split text in the same way.

    A pattern that matches any run of one set of characters (``\\p{N}{1,3}``) takes all of them, so to the next pattern
    their positions look like ends of text. The next pattern can become another alternative after the first, if it uses
    none of these characters and splits none of its pieces.
    """
    out = trees[-1:]
    for outer in reversed(trees[:-1]):
        chars = _run_of(outer)
        if chars is not None and (isinstance(outer, Chars) or never_matches(restricted(out[0], chars))):
            out[0] = Choice([outer, restricted(out[0], ~chars)])
        else:
            out.insert(0, outer)
    return out


def _run_of(node: Node) -> np.ndarray | None:
    """The set of characters whose runs a pattern takes apart, and nothing else; None if it is not such a pattern."""
    if isinstance(node, Chars):
        return node.chars
    if isinstance(node, Repeat) and isinstance(node.part, Chars) and node.least == 1 and not node.lazy:
        return node.part.chars
    return None
