"""Apply a published fastText classifier: labels and probabilities equal those of its library, within float32 rounding.

A document is one line: line breaks are spaces, as everyone applies such models to documents, and the line's end counts
as the word ``</s>``. The sums are taken in the library's order (``Dictionary::getLine``, ``Model::predict`` and
``Loss`` of github.com/facebookresearch/fastText).
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import numpy.typing as npt

from headrace.errors import UserError
from headrace.flow.kernels import borrowing, kernel
from headrace.recipe.mistakes import suggest
from headrace.select.quality.fasttext_file import (
    HIERARCHICAL,
    SOFTMAX,
    Bytes,
    FastTextFile,
    Floats,
    Ints,
    Table,
    hash_of,
    read_fasttext,
    slot_of,
)

PREFIX = "__label__"  # of labels in texts; a model's file does not tell its own
_BASIS = np.uint32(2166136261)
_NO_COUNT = 10**15  # in the library, of nodes that are not made yet
# Sigmoids are read from a table of this many steps from -8 to 8, by models trained with ns or one-vs-all.
_STEPS, _MOST = 512, 8
_AT_ONCE = 1 << 20  # numbers of texts that are in memory at a time: 4 MB


class Classifier:
    """A fastText classifier.

    Args:
        path: its file.
        most: bytes that unpacking a quantized model may take.

    Raises:
        UserError: as :func:`headrace.select.quality.fasttext_file.read_fasttext`.
    """

    def __init__(self, path: Path, most: int = 1 << 30) -> None:
        self.path, self.file = path, read_fasttext(path, most)
        self._tree = _tree(self.file, path) if self.file.loss == HIERARCHICAL else None

    @property
    def labels(self) -> list[str]:
        """The labels without ``__label__``."""
        return [label.removeprefix(PREFIX) for label in self.file.labels]

    def find(self, label: str, where: str) -> int:
        """The number of a label, with or without ``__label__``.

        Raises:
            UserError: there is no such label; ``where`` is the recipe's key.
        """
        labels = self.labels
        if (name := label.removeprefix(PREFIX)) not in labels:
            known = ", ".join(labels[:20]) + (f" and {len(labels) - 20} more" if len(labels) > 20 else "")
            raise UserError(
                f"The model has no label {label!r}.", where, suggest(name, labels) or f"Its labels are {known}."
            )
        return labels.index(name)

    def probabilities(self, data: Bytes, offsets: Ints) -> Floats:
        """The probability of each label as the library tells it: it adds 1e-5 to each before it takes logarithms.

        Args:
            data: uint8[bytes], the texts.
            offsets: int64[texts + 1], where each begins and ends.

        Returns:
            float32[texts, labels]; nan for a text of no word that the model knows.

        Raises:
            UserError: values of the model are not finite.
        """
        count, width = len(offsets) - 1, self.file.inputs.shape[1] + len(self.file.labels)
        words = int(np.diff(offsets).max(initial=0)) // 2 + 2
        hashes = np.empty(words if self.file.word_ngrams > 1 else 1, dtype=np.int32)
        out = np.empty((count, len(self.file.labels)), dtype=np.float32)
        step = max(1, _AT_ONCE // width)
        for start in range(0, count, step):
            out[start : start + step] = self._some(data, offsets[start : start + step + 1], hashes)
        return out

    def _some(self, data: Bytes, offsets: Ints, hashes: Table) -> Floats:
        file, count = self.file, len(offsets) - 1
        hidden, rows = np.zeros((count, file.inputs.shape[1]), dtype=np.float32), np.zeros(count, dtype=np.int64)
        _hidden(
            data, offsets, file.slots, file.spelled, file.spans, file.is_label, file.words, file.word_ngrams,
            file.shortest, file.longest, file.bucket, file.ngrams, file.kept, file.inputs, hashes, hidden, rows,
        )  # fmt: skip
        out = np.empty((count, len(file.labels)), dtype=np.float32)
        _products(hidden, file.outputs, out)
        known = rows > 0
        if not np.isfinite(out[known]).all():
            raise UserError("Values of the model are not finite.", str(self.path), "Copy it again, or use another.")
        if file.loss == SOFTMAX:
            found = _logarithms(_softmax(out))
        elif self._tree is not None:
            found = _leaves(out, *self._tree)
        else:
            found = _logarithms(_sigmoid(out))
        found = np.exp(found)
        found[~known] = np.nan
        return found


def best(probabilities: Floats) -> Ints:
    """The most probable label of each text, int64[n], the last of equal ones, as in the library; -1 where there is
    none."""
    last = probabilities.shape[1] - 1
    found = last - np.nan_to_num(probabilities[:, ::-1], nan=-1).argmax(axis=1)
    return np.where(np.isnan(probabilities).any(axis=1), -1, found)


def _softmax(out: Floats) -> Floats:
    out = np.exp(out - out.max(axis=1, keepdims=True))
    found: Floats = out / out.sum(axis=1, keepdims=True)
    return found


def _sigmoid(out: Floats) -> Floats:
    steps = np.arange(_STEPS + 1, dtype=np.float32) * np.float32(2 * _MOST) / np.float32(_STEPS) - np.float32(_MOST)
    table = (1 / (1 + np.exp(-steps.astype(np.float64)))).astype(np.float32)
    at = ((np.clip(out, -_MOST, _MOST) + np.float32(_MOST)) * np.float32(_STEPS) / _MOST / 2).astype(np.int64)
    found: Floats = np.where(out < -_MOST, np.float32(0), np.where(out > _MOST, 1, table[at]))
    return found.astype(np.float32)


def _logarithms(shares: Floats) -> Floats:
    """As the library's ``std_log``: computed in float64."""
    return np.log(shares.astype(np.float64) + 1e-5).astype(np.float32)


def _tree(file: FastTextFile, path: Path) -> tuple[Ints, Ints]:
    """The Huffman tree of hierarchical softmax: the left and right child of each inner node, int64[labels - 1].

    Leaves are numbered as labels; inner node k is ``labels + k``. Counts descend, as fastText sorts labels.

    Raises:
        UserError: the counts are no counts of labels.
    """
    size = len(file.labels)
    counts = [*file.counts.tolist(), *[_NO_COUNT] * (size - 1)]
    children = np.empty((2, size - 1), dtype=np.int64)
    leaf, node = size - 1, size
    for made in range(size, 2 * size - 1):
        for side in range(2):
            if leaf >= 0 and counts[leaf] < counts[node]:
                children[side, made - size], leaf = leaf, leaf - 1
            else:
                children[side, made - size], node = node, node + 1
        left, right = children[:, made - size].tolist()
        if max(left, right) >= made or min(counts[left], counts[right]) < 0:
            raise UserError("The counts of the model's labels are no counts.", str(path), "Copy it again.")
        counts[made] = counts[left] + counts[right]
    return children[0], children[1]


def _leaves(out: Floats, left: Ints, right: Ints) -> Floats:
    """Logarithms of the labels' probabilities from the products of inner nodes (the last column has none)."""
    size = out.shape[1]
    found = np.zeros((len(out), 2 * size - 1), dtype=np.float32)
    for node in range(size - 2, -1, -1):
        share = (1 / (1 + np.exp(-out[:, node]).astype(np.float64))).astype(np.float32)
        above = found[:, size + node]
        found[:, left[node]] = above + _logarithms((1 - share.astype(np.float64)).astype(np.float32))
        found[:, right[node]] = above + _logarithms(share)
    return found[:, :size]


@borrowing
def _space(byte: int) -> bool:
    return byte == 32 or (9 <= byte <= 13) or byte == 0


@borrowing
def _entry(data: Bytes, start: int, end: int, value: np.uint32, slots: Table, spelled: Bytes, spans: Ints) -> np.int64:
    """The entry that a word is, or -1; ``value`` is its hash."""
    mask, size = len(slots) - 1, end - start
    at = np.int64(value) & mask
    while slots[at] >= 0:
        entry = slots[at]
        first = spans[entry, 0]
        if spans[entry, 1] - first == size:
            k = 0
            while k < size and spelled[first + k] == data[start + k]:
                k += 1
            if k == size:
                return np.int64(entry)
        at = (at + 1) & mask
    return np.int64(-1)


@borrowing
def _row(ngram: np.int64, ngrams: bool, kept: Table, words: int) -> np.int64:
    """The row of an n-gram, or -1."""
    if not ngrams or ngram < 0:
        return np.int64(-1)
    if len(kept) == 1:
        return np.int64(words + ngram)
    mask = len(kept) - 1
    at = slot_of(ngram) & mask
    while kept[at, 0] >= 0:
        if kept[at, 0] == ngram:
            return np.int64(words + kept[at, 1])
        at = (at + 1) & mask
    return np.int64(-1)


@borrowing
def _add(inputs: Floats, row: np.int64, hidden: Floats) -> None:
    for k in range(len(hidden)):
        hidden[k] += inputs[row, k]


@borrowing
def _characters(
    data: Bytes,
    start: int,
    end: int,
    shortest: int,
    longest: int,
    bucket: int,
    ngrams: bool,
    kept: Table,
    words: int,
    inputs: Floats,
    hidden: Floats,
) -> int:
    """Add the n-grams of a word's characters, with a ``<`` before it and a ``>`` after. Returns how many."""
    added = 0
    for first in range(start - 1, end + 1):
        if start <= first < end and (data[first] & 0xC0) == 0x80:
            continue
        value, at = _BASIS, first
        for n in range(1, longest + 1):
            if at > end:
                break
            byte = 60 if at < start else (62 if at == end else data[at])
            value = np.uint32(np.uint32(value ^ np.uint32(np.int8(byte))) * np.uint32(16777619))
            at += 1
            while start <= at < end and (data[at] & 0xC0) == 0x80:
                value = np.uint32(np.uint32(value ^ np.uint32(np.int8(data[at]))) * np.uint32(16777619))
                at += 1
            if n >= shortest and not (n == 1 and (first < start or at > end)):
                row = _row(np.int64(np.int32(value % np.uint32(bucket))), ngrams, kept, words)
                if row >= 0:
                    _add(inputs, row, hidden)
                    added += 1
    return added


@kernel
def _hidden(
    data: Bytes,
    offsets: Ints,
    slots: Table,
    spelled: Bytes,
    spans: Ints,
    is_label: npt.NDArray[np.bool_],
    words: int,
    word_ngrams: int,
    shortest: int,
    longest: int,
    bucket: int,
    ngrams: bool,
    kept: Table,
    inputs: Floats,
    hashes: Table,
    hidden: Floats,
    rows: Ints,
) -> None:
    """Average the rows of each text's words and n-grams into ``hidden``; ``rows`` is how many there are."""
    end_of_line = np.array([60, 47, 115, 62], dtype=np.uint8)
    prefix = np.array([95, 95, 108, 97, 98, 101, 108, 95, 95], dtype=np.uint8)
    for text in range(len(offsets) - 1):
        at, stop, mine = offsets[text], offsets[text + 1], hidden[text]
        total, seen, ended = 0, 0, False
        while not ended:
            while at < stop and _space(data[at]):
                at += 1
            start = at
            while at < stop and not _space(data[at]):
                at += 1
            if start == stop:  # the end of the line is a word of its own
                ended = True
                word, first, last = end_of_line, 0, 4
            else:
                word, first, last = data, start, at
            if last - first == 4:
                ended = ended or (word[first] == 60 and word[first + 1] == 47 and word[first + 2] == 115
                                  and word[first + 3] == 62)  # fmt: skip
            value = hash_of(word, first, last, _BASIS)
            entry = _entry(word, first, last, value, slots, spelled, spans)
            if entry >= 0:
                if is_label[entry]:
                    continue
            elif last - first >= len(prefix):
                k = 0
                while k < len(prefix) and word[first + k] == prefix[k]:
                    k += 1
                if k == len(prefix):
                    continue
            if entry >= 0:
                _add(inputs, entry, mine)
                total += 1
            if longest > 0 and not ended:
                total += _characters(word, first, last, shortest, longest, bucket, ngrams, kept, words, inputs, mine)
            if word_ngrams > 1:
                hashes[seen] = np.int32(value)
                seen += 1
        if word_ngrams > 1:
            for first in range(seen):
                chain = np.uint64(np.int64(hashes[first]))
                for last in range(first + 1, min(seen, first + word_ngrams)):
                    chain = chain * np.uint64(116049371) + np.uint64(np.int64(hashes[last]))
                    row = _row(np.int64(np.int32(chain % np.uint64(bucket))), ngrams, kept, words)
                    if row >= 0:
                        _add(inputs, row, mine)
                        total += 1
        rows[text] = total
        if total:
            scale = np.float32(1.0 / total)
            for k in range(len(mine)):
                mine[k] *= scale


@kernel
def _products(hidden: Floats, outputs: Floats, out: Floats) -> None:
    """Every row of ``hidden`` times every row of ``outputs``, summed from the first dimension on."""
    for text in range(len(hidden)):
        for label in range(len(outputs)):
            total = np.float32(0)
            for k in range(hidden.shape[1]):
                total += outputs[label, k] * hidden[text, k]
            out[text, label] = total
