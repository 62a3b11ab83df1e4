"""Which documents of a component to keep if candidates are verified: the greedy rule.

A component is a transitive closure: its documents need not all be similar. In order of preference (source priority,
length, key, row), a document is removed if and only if an earlier, kept document

    (a) shares a band fingerprint with it, or is an exact copy, and
    (b) has an exact Jaccard similarity with it of at least the threshold.

The evidence names the first such document. Everything else is kept. Reference documents come first and are always kept;
a copy of the same text names that one. So no two kept candidates of the corpus reach the threshold, and no document is
removed below it. This is greedy leader clustering (Hartigan 1975, chapter 3), applied to the candidates of
locality-sensitive hashing.

Memory: a record and bucket numbers for each document of the partition, and the cleaned texts of a *block* of documents.
A block is decided, then later documents of its last component are streamed past those it kept, and the next block is
taken from the undecided ones. A block holds consecutive components, so only a component too large for one block is
streamed more than once. Block boundaries do not matter: before a document is decided, it meets all earlier kept
documents of its component, those of earlier blocks first.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from headrace.flow.kernels import kernel
from headrace.select.duplicates.jaccard_bound import Sketches, jaccard_at_most
from headrace.select.verdicts.representatives import REFERENCE, Chunks, Members, Removed, by_row, free_in_order
from headrace.select.verdicts.verification import Texts, buckets, load, stream

if TYPE_CHECKING:
    from headrace.recipe.schema import Near

# What a block takes per byte of text: four-byte code points, and one to two bytes of bitmap.
HELD_PER_BYTE = 6


@dataclass(frozen=True)
class Decided:
    """The decisions of the greedy rule about a partition.

    Attributes:
        removed: the documents removed.
        kept: the documents that ``removed.representative`` indexes, in ascending order of row.
        jaccard: float64[n], the exact similarity of each removed document to its representative.
    """

    removed: Removed
    kept: Members
    jaccard: npt.NDArray[np.float64]


class Kept:
    """The kept documents of one block, indexed by bucket.

    Args:
        near: the recipe's settings.
        sketches: of the block's documents.
        buckets: int64[n, bands], from :func:`headrace.select.verdicts.verification.buckets`.
        most: the number of buckets.
    """

    def __init__(self, near: Near, sketches: Sketches, buckets: npt.NDArray[np.int64], most: int) -> None:
        self._near, self._sketches, self._buckets = near, sketches, buckets
        self._head = np.full(most, -1, dtype=np.int64)
        self._next = np.empty(buckets.size, dtype=np.int64)
        self._seen = np.full(len(buckets), -1, dtype=np.int64)
        self._turn = 0
        self._found = np.empty(len(buckets), dtype=np.int64)

    def add(self, d: int) -> None:
        """Keep a document of the block."""
        _enter(self._buckets[d], d, self._head, self._next)

    def first_like(self, buckets: npt.NDArray[np.int64], sketches: Sketches, d: int) -> tuple[int, float] | None:
        """The first kept document that another document nearly duplicates, and their similarity.

        Args:
            buckets: int64[bands], of the other document.
            sketches, d: the other document.
        """
        from headrace.select.duplicates.jaccard import pair_jaccard

        s, near = self._sketches, self._near
        self._turn += 1
        mine = (sketches.bits, sketches.bit_starts[d], sketches.bit_words[d], sketches.least[d], sketches.most[d])
        theirs = (s.bits, s.bit_starts, s.bit_words, s.least, s.most)
        count = _possible(
            buckets, mine, theirs, near.threshold, self._head, self._next, self._seen, self._turn, self._found
        )
        for other in np.sort(self._found[:count]).tolist():
            jaccard = pair_jaccard(sketches.cleaned(d), s.cleaned(other), near.ngram, near.unit == "words")
            if jaccard >= near.threshold:
                return other, jaccard
        return None


@kernel
def _enter(
    buckets: npt.NDArray[np.int64], d: int, head: npt.NDArray[np.int64], following: npt.NDArray[np.int64]
) -> None:
    """Put a document at the head of each of its buckets' lists. Entry d * bands + b is document d in band b."""
    for b in range(len(buckets)):
        if buckets[b] >= 0:
            entry = d * len(buckets) + b
            following[entry] = head[buckets[b]]
            head[buckets[b]] = entry


@kernel
def _possible(
    buckets: npt.NDArray[np.int64],
    mine: tuple[npt.NDArray[np.uint64], int, int, int, int],
    theirs: tuple[
        npt.NDArray[np.uint64],
        npt.NDArray[np.int64],
        npt.NDArray[np.int64],
        npt.NDArray[np.int64],
        npt.NDArray[np.int64],
    ],
    threshold: float,
    head: npt.NDArray[np.int64],
    following: npt.NDArray[np.int64],
    seen: npt.NDArray[np.int64],
    turn: int,
    found: npt.NDArray[np.int64],
) -> int:
    """Fill ``found`` with the candidates whose similarity may reach the threshold, each once; returns their number."""
    bits, bit_starts, bit_words, least, most = theirs
    count = 0
    for bucket in buckets:
        entry = head[bucket] if bucket >= 0 else -1
        while entry >= 0:
            d = entry // len(buckets)
            entry = following[entry]
            if seen[d] == turn:
                continue
            seen[d] = turn
            bound = jaccard_at_most(
                mine[0],
                mine[1],
                mine[2],
                mine[3],
                mine[4],
                bits,
                bit_starts[d],
                bit_words[d],
                least[d],
                most[d],
            )
            if bound >= threshold:
                found[count] = d
                count += 1
    return count


def decide_greedily(members: Callable[[], Chunks], texts: Callable[[], Texts], near: Near, block_bytes: int) -> Decided:
    """Apply the greedy rule to the components of a partition.

    Args:
        members: opens the stream of members; may be called again.
        texts: opens the stream of texts of members that no other verdict removes; may be called again.
        near: how candidates are found and verified.
        block_bytes: bytes of text per block; at least one document is held. Does not affect the result.
    """
    documents = free_in_order(members())
    leader = _first_of_content(documents)
    contested = np.flatnonzero(leader == np.arange(len(documents)))
    group = documents["group"][contested]
    alone = np.ones(len(contested), dtype=bool)
    alone[1:] &= group[1:] != group[:-1]
    alone[:-1] &= group[1:] != group[:-1]
    contested = contested[~alone]
    representative, jaccard = np.arange(len(documents)), np.ones(len(documents))
    found, similarity = _decide(documents[contested], texts, near, block_bytes)
    alike = np.flatnonzero(found >= 0)
    representative[contested[alike]], jaccard[contested[alike]] = contested[found[alike]], similarity[alike]
    # An exact copy shares the fate of the first document with its content; if that one is kept, it is the
    # representative.
    copies = np.flatnonzero(leader != np.arange(len(documents)))
    representative[copies], jaccard[copies] = representative[leader[copies]], jaccard[leader[copies]]
    removed = (representative != np.arange(len(documents))) & (documents["split"] != REFERENCE)
    removed = np.flatnonzero(removed)
    removed = removed[np.argsort(documents["row"][removed])]
    rows = np.unique(documents["row"][representative[removed]])
    kept = by_row(members(), rows)
    at = np.searchsorted(rows, documents["row"][representative[removed]])
    exact = representative[removed] == leader[removed]
    return Decided(Removed(documents["row"][removed], documents["source"][removed], at, exact), kept, jaccard[removed])


def _first_of_content(documents: npt.NDArray[np.void]) -> npt.NDArray[np.int64]:
    """For each document, the index of the first one with the same component and content: int64[n]."""
    order = np.lexsort([documents["low"], documents["high"], documents["group"]])
    new = np.ones(len(order), dtype=bool)
    if len(order):
        columns = (documents[name][order] for name in ("low", "high", "group"))
        new[1:] = np.logical_or.reduce([column[1:] != column[:-1] for column in columns])
    first = np.empty(len(order), dtype=np.int64)
    first[order] = order[np.maximum.accumulate(np.where(new, np.arange(len(order)), 0))]
    return first


def _decide(
    documents: npt.NDArray[np.void], texts: Callable[[], Texts], near: Near, block_bytes: int
) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.float64]]:
    """Decide about documents of different content, MEMBER[n] in order of component and preference.

    Returns:
        ``(representative, jaccard)``: int64[n], -1 for kept documents, and float64[n].
    """
    representative, jaccard = np.full(len(documents), -1, dtype=np.int64), np.zeros(len(documents))
    if not len(documents):
        return representative, jaccard
    numbers = buckets(texts(), documents["row"], documents["group"], near)
    most = int(numbers.max()) + 1
    undecided = np.flatnonzero((numbers >= 0).any(axis=1))
    while len(undecided):
        sizes = documents["bytes"][undecided]
        fits = np.searchsorted(np.cumsum(sizes * HELD_PER_BYTE), block_bytes, side="right")
        block, later = np.split(undecided, [max(1, int(fits))])
        held = load(texts(), documents["row"][block], documents["bytes"][block], near)
        kept = Kept(near, held, numbers[block], most)
        for d, document in enumerate(block.tolist()):
            reference = documents["split"][document] == REFERENCE
            like = None if reference else kept.first_like(numbers[document], held, d)
            if like is None:
                kept.add(d)
            else:
                representative[document], jaccard[document] = block[like[0]], like[1]
        same = later[documents["group"][later] == documents["group"][block[-1]]]
        same = same[documents["split"][same] != REFERENCE]
        if len(same):
            _pass(same, documents, texts, near, (kept, block, numbers), representative, jaccard)
        undecided = later[representative[later] < 0]
    return representative, jaccard


def _pass(
    later: npt.NDArray[np.int64],
    documents: npt.NDArray[np.void],
    texts: Callable[[], Texts],
    near: Near,
    past: tuple[Kept, npt.NDArray[np.int64], npt.NDArray[np.int64]],
    representative: npt.NDArray[np.int64],
    jaccard: npt.NDArray[np.float64],
) -> None:
    """Remove the later documents that resemble a kept document of the block."""
    kept, block, numbers = past

    def visit(position: int, sketches: Sketches, d: int) -> None:
        document = later[position]
        like = kept.first_like(numbers[document], sketches, d)
        if like is not None:
            representative[document], jaccard[document] = block[like[0]], like[1]

    stream(texts(), documents["row"][later], near, visit)
