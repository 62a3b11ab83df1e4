"""The most similar of all earlier texts by ROUGE-L, found by an index rather than by comparing with all.

ROUGE-L is the F-measure of the longest common subsequence of words (Lin 2004), ``2 * lcs / (m + n)`` for texts of m and
n words. That is at most what the texts have in common as multisets, so a pair above the limit is found by prefix
filtering (Chaudhuri, Ganti and Kaushik 2006; Bayardo, Ma and Srikant 2007): if words are put in any fixed order, the
first few of both texts share one. Words seen late come first, because they are rare. Only texts found in this way are
compared, with the bit-parallel algorithm of Hyyrö (2004).
"""

from __future__ import annotations

import math
import re
from array import array
from collections import defaultdict
from itertools import islice

_WORD = re.compile(r"[^\W_]+")
# Words that are compared: the memory for a text grows with their square, 32 MB here. Files of code have fewer.
MOST_WORDS = 1 << 14
_EXACT = 1e-9  # more than the rounding of the limits below


def words(text: str) -> list[str]:
    """The words that rouge_score compares: lowercased letters and digits; here of all scripts."""
    return _WORD.findall(text.lower())


def _first(text: str) -> list[str]:
    """The first :data:`MOST_WORDS` words."""
    return [match[0] for match in islice(_WORD.finditer(text.lower()), MOST_WORDS)]


class Similar:
    """The texts so far.

    Args:
        limit: only pairs above this similarity, in (0, 1], are found.
    """

    def __init__(self, limit: float) -> None:
        self._limit = limit
        self._numbers: dict[str, int] = {}  # word -> number, by first appearance
        self._tokens, self._ends = array("L"), array("Q", [0])
        self._index: defaultdict[tuple[int, int], array[int]] = defaultdict(lambda: array("L"))

    def __len__(self) -> int:
        return len(self._ends) - 1

    def nearest(self, text: str) -> tuple[float, int] | None:
        """The similarity and number of the most similar earlier text above the limit, the first of equals."""
        tokens = [self._numbers.get(word, -1) for word in _first(text)]
        length, limit = len(tokens), self._limit
        shortest = math.ceil(length * limit / (2 - limit) - _EXACT)
        longest = math.floor(length * (2 - limit) / limit + _EXACT)
        candidates = {number for element in self._prefix(tokens) for number in self._index.get(element, ())}
        masks: dict[int, int] = {}
        for place, token in enumerate(tokens):
            masks[token] = masks.get(token, 0) | 1 << place
        best: tuple[float, int] | None = None
        for number in sorted(candidates):
            first, end = self._ends[number], self._ends[number + 1]
            if shortest <= end - first <= longest:
                found = rouge(_common(masks, length, self._tokens[first:end]), length, end - first)
                if found > limit and (best is None or found > best[0]):
                    best = found, number
        return best

    def add(self, text: str) -> None:
        """Add a text."""
        tokens = [self._numbers.setdefault(word, len(self._numbers)) for word in _first(text)]
        number = len(self)
        for element in self._prefix(tokens):
            self._index[element].append(number)
        self._tokens.extend(tokens)
        self._ends.append(len(self._tokens))

    def _prefix(self, tokens: list[int]) -> list[tuple[int, int]]:
        """The rarest elements of a text, of which any text above the limit shares one: a word and its occurrence."""
        if not tokens:
            return []
        seen: dict[int, int] = {}
        elements = []
        for token in tokens:
            seen[token] = seen.get(token, 0) + 1
            elements.append((token, seen[token]))
        # Unknown words (-1) are the rarest of all, and in no other text.
        elements.sort(key=lambda element: (element[0] >= 0, -element[0], element[1]))
        shared = math.ceil(len(tokens) * self._limit / (2 - self._limit) - _EXACT)
        return elements[: len(tokens) - max(shared, 1) + 1]


def _common(masks: dict[int, int], length: int, other: array[int]) -> int:
    """The length of the longest common subsequence (Hyyrö 2004), given where each token of the first text stands."""
    every = (1 << length) - 1
    state = every
    for token in other:
        mask = masks.get(token)
        if mask is not None:
            both = state & mask
            state = ((state + both) | (state - both)) & every
    return length - state.bit_count()


def rouge(common: int, length: int, other: int) -> float:
    """ROUGE-L's F-measure, computed as rouge_score does."""
    if not common:
        return 0.0
    precision, recall = common / length, common / other
    return 2 * precision * recall / (precision + recall)
