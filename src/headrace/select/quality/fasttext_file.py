"""Read a published fastText model, ``.bin`` or quantized ``.ftz``, from the bytes of its file.

The format is that of fastText 0.9 (github.com/facebookresearch/fastText: ``args.cc``, ``dictionary.cc``,
``densematrix.cc``, ``quantmatrix.cc``, ``productquantizer.cc``), little-endian and without alignment: arguments, the
words and labels, the rows of n-grams that were kept, then a matrix of inputs and one of outputs. The file is hostile:
every size is compared with the bytes that are there before memory is taken for it.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from headrace.errors import MemoryShareError, UserError
from headrace.flow.kernels import borrowing, kernel

MAGIC, VERSIONS = 793712314, (11, 12)
SUPERVISED = 3
HIERARCHICAL, NEGATIVE, SOFTMAX, ONE_VERSUS_ALL = 1, 2, 3, 4
_ARGUMENTS = struct.Struct("<12id")
_DICTIONARY = struct.Struct("<3i2q")
_ENTRY = 10  # bytes of the shortest: an end of text, a count of 8 bytes and a type
_CENTROIDS = 256
_LONGEST = 64  # n-grams; those of published models have at most 6 characters and 5 words
_WIDEST = 1 << 16  # numbers in a vector; those of published models have at most 300
_MOST_LABELS = 1 << 20  # published models have up to 300 thousand

Bytes = npt.NDArray[np.uint8]
Ints = npt.NDArray[np.int64]
Floats = npt.NDArray[np.float32]
Table = npt.NDArray[np.int32]


@dataclass(frozen=True, eq=False)
class FastTextFile:
    """A supervised model.

    Attributes:
        labels: the labels as they are in the file, such as ``__label__en``.
        counts: int64[labels]: how often each was seen in training.
        loss: :data:`HIERARCHICAL`, :data:`NEGATIVE`, :data:`SOFTMAX` or :data:`ONE_VERSUS_ALL`.
        word_ngrams: words in the longest n-gram of words.
        shortest, longest: characters in n-grams of characters; none are used if ``longest`` is 0.
        bucket: values that n-grams are hashed to.
        words: how many entries are words; their rows come first.
        slots: int32[2^k], for each entry's hash its number, or -1; collisions go to the next slot.
        spelled: uint8[...], the bytes that entries are spelled with.
        spans: int64[entries, 2], where in them each begins and ends.
        is_label: bool[entries].
        kept: int32[2^k, 2], the row of each hash of n-grams after the words', at the hash's slot, (-1, -1) where there
            is none; empty if none were removed.
        ngrams: whether n-grams have rows at all.
        inputs: float32[rows, dim].
        outputs: float32[labels, dim].
    """

    labels: list[str]
    counts: Ints
    loss: int
    word_ngrams: int
    shortest: int
    longest: int
    bucket: int
    words: int
    slots: Table
    spelled: Bytes
    spans: Ints
    is_label: npt.NDArray[np.bool_]
    kept: Table
    ngrams: bool
    inputs: Floats
    outputs: Floats


class _Damaged(Exception):  # noqa: N818 - of the file
    """What is wrong with the file."""


def read_fasttext(path: Path, most: int) -> FastTextFile:
    """Read a supervised model.

    A dense matrix is mapped from the file, so that all processes share it; a quantized one is unpacked.

    Args:
        path: the file.
        most: bytes that unpacking may take.

    Raises:
        UserError: the file is missing, damaged, or no supervised fastText model.
        MemoryShareError: it takes more memory.
    """
    try:
        data = np.memmap(path, np.uint8, "r")
    except (OSError, ValueError) as error:  # an empty file cannot be mapped
        raise UserError(f"The fastText model cannot be read: {error}", str(path), "Name its file.") from None
    try:
        return _read(data, most, str(path))
    except _Damaged as error:
        raise UserError(
            f"This is no fastText model that can be applied: {error}.",
            str(path),
            "Name a supervised model (.bin or .ftz) of fastText 0.1 or later, or copy it again.",
        ) from None


class _Cursor:
    """A place in the file that moves on."""

    def __init__(self, data: Bytes) -> None:
        self.data, self.at = data, 0

    def take(self, size: int, what: str) -> Bytes:
        if size < 0 or size > len(self.data) - self.at:
            raise _Damaged(f"the file ends within {what}")
        self.at += size
        return self.data[self.at - size : self.at]

    def unpack(self, form: struct.Struct, what: str) -> tuple[Any, ...]:
        return form.unpack(self.take(form.size, what).tobytes())

    def flag(self, what: str) -> bool:
        (value,) = self.take(1, what)
        if value > 1:
            raise _Damaged(f"{what} is {value}")
        return bool(value)


def _read(data: Bytes, most: int, where: str) -> FastTextFile:
    cursor = _Cursor(data)
    magic, version = cursor.unpack(struct.Struct("<2i"), "its first bytes")
    if magic != MAGIC:
        raise _Damaged("it does not begin as one")
    if version not in VERSIONS:
        raise _Damaged(f"it has version {version}")
    arguments = cursor.unpack(_ARGUMENTS, "the arguments")
    dim, word_ngrams, loss, model, bucket, shortest, longest = (arguments[k] for k in (0, 5, 6, 7, 8, 9, 10))
    if model != SUPERVISED:
        raise _Damaged("it has vectors of words and no classifier")
    if version == VERSIONS[0]:  # as the library reads them: old classifiers used no n-grams of characters
        longest = 0
    if not 0 < dim <= _WIDEST or loss not in (HIERARCHICAL, NEGATIVE, SOFTMAX, ONE_VERSUS_ALL):
        raise _Damaged(f"it says {dim} dimensions and loss {loss}")
    if max(word_ngrams, longest) > _LONGEST or bucket < 0 or (bucket == 0 and (longest > 0 or word_ngrams > 1)):
        raise _Damaged(f"it says n-grams of {word_ngrams} words and {longest} characters in {bucket} buckets")
    entries = _entries(cursor, most, where)
    words, pruned = entries.words, entries.pruned
    pairs = cursor.take(8 * max(pruned, 0), "the n-grams that were kept").view("<i4").reshape(-1, 2)
    if pruned > 0 and (pairs.min() < 0 or int(pairs[:, 0].max()) >= max(bucket, 1)):
        raise _Damaged("it names n-grams that cannot be")
    quantized = cursor.flag("whether the inputs are quantized")
    inputs = _matrix(cursor, quantized, dim, most, where)
    if pruned >= 0 and not quantized:
        raise _Damaged("n-grams were removed from a model that is not quantized")
    if pruned >= 0:
        needed = words + (int(pairs[:, 1].max()) + 1 if pruned else 0)
    else:
        needed = words + bucket * (longest > 0 or word_ngrams > 1)
    if len(inputs) < needed:
        raise _Damaged(f"it has {len(inputs):,} rows where {needed:,} are used")
    outputs = _matrix(cursor, cursor.flag("whether the outputs are quantized") and quantized, dim, most, where)
    if len(outputs) != len(entries.labels):
        raise _Damaged(f"it has {len(outputs):,} rows of outputs for {len(entries.labels):,} labels")
    if not np.isfinite(outputs).all():
        raise _Damaged("values of its outputs are not finite")
    kept = np.full((1, 2), -1, dtype=np.int32)
    if pruned > 0:
        kept = np.full((_slots(pruned), 2), -1, dtype=np.int32)
        _place(np.ascontiguousarray(pairs), kept)
    spelled = data[entries.start : entries.end]
    slots = np.full(_slots(len(entries.spans)), -1, dtype=np.int32)
    _index(np.ascontiguousarray(spelled), entries.spans, slots)
    return FastTextFile(
        entries.labels, entries.counts, loss, word_ngrams, shortest, longest, bucket, words, slots,
        np.ascontiguousarray(spelled), entries.spans, entries.is_label, kept, pruned != 0, inputs, outputs,
    )  # fmt: skip


@dataclass(frozen=True, eq=False)
class _Entries:
    words: int
    pruned: int
    labels: list[str]
    counts: Ints
    spans: Ints
    is_label: npt.NDArray[np.bool_]
    start: int
    end: int


def _entries(cursor: _Cursor, most: int, where: str) -> _Entries:
    """The words and labels; their spans are from ``start`` on.

    Raises:
        MemoryShareError: they take more than ``most`` bytes.
    """
    size, words, labels, _, pruned = cursor.unpack(_DICTIONARY, "the dictionary")
    left = len(cursor.data) - cursor.at
    if not (words >= 0 and labels > 0 and size == words + labels and size <= left // _ENTRY and pruned <= left // 8):
        raise _Damaged(f"it says {words:,} words and {labels:,} labels")
    if labels > _MOST_LABELS:
        raise _Damaged(f"it has {labels:,} labels, more than {_MOST_LABELS:,}")
    _room(25 * size + 4 * _slots(size) + 8 * _slots(max(pruned, 0)), most, where)
    spans = np.empty((size, 2), dtype=np.int64)
    counts, kinds = np.empty(size, dtype=np.int64), np.empty(size, dtype=np.int8)
    start = cursor.at
    end = _scan(cursor.data, start, spans, counts, kinds)
    if end < 0:
        raise _Damaged("the file ends within its words")
    cursor.at = end
    is_label = kinds == 1
    if is_label[:words].any() or not is_label[words:].all():
        raise _Damaged("its labels do not follow its words")
    names = [bytes(cursor.data[a:b]).decode("utf-8", "replace") for a, b in spans[words:].tolist()]
    if len(set(names)) < len(names):
        raise _Damaged("two of its labels are the same")
    return _Entries(words, pruned, names, counts[words:], spans - start, is_label, start, end)


def _matrix(cursor: _Cursor, quantized: bool, dim: int, most: int, where: str) -> Floats:
    """A matrix, float32[rows, dim].

    Raises:
        MemoryShareError: unpacked, it takes more than ``most`` bytes.
    """
    if not quantized:
        rows, columns = cursor.unpack(struct.Struct("<2q"), "a matrix")
        if rows < 0 or columns != dim:
            raise _Damaged(f"a matrix of {rows:,} rows has {columns:,} columns where there are {dim:,} dimensions")
        return cursor.take(4 * rows * dim, "a matrix").view("<f4").reshape(rows, dim)
    norms = cursor.flag("whether norms are quantized")
    rows, columns, coded = cursor.unpack(struct.Struct("<2qi"), "a quantized matrix")
    codes = cursor.take(coded, "a quantized matrix")
    centroids, width = _quantizer(cursor)
    parts = -(-dim // width)
    if columns != dim or centroids.size != dim * _CENTROIDS or rows < 0 or coded != rows * parts:
        raise _Damaged(f"a quantized matrix of {rows:,} rows and {columns:,} columns has {coded:,} bytes of codes")
    scale = None
    if norms:
        lengths = cursor.take(rows, "the norms of a quantized matrix")
        values, _ = _quantizer(cursor)
        if values.size != _CENTROIDS:
            raise _Damaged("its norms have more than one dimension")
        scale = values[lengths]
    _room(4 * rows * dim, most, where)
    codes = codes.reshape(rows, parts)
    out = np.empty((rows, dim), dtype=np.float32)
    for part in range(parts):
        first, last = part * width, min((part + 1) * width, dim)
        table = centroids[first * _CENTROIDS : last * _CENTROIDS].reshape(_CENTROIDS, last - first)
        out[:, first:last] = table[codes[:, part]]
    if scale is not None:
        out *= scale[:, None]
    return out


def _quantizer(cursor: _Cursor) -> tuple[Floats, int]:
    """The centroids of a product quantizer, float32[dim * 256], and the dimensions of a part but for the last."""
    dim, parts, width, last = cursor.unpack(struct.Struct("<4i"), "a quantizer")
    if not (0 < width <= dim <= _WIDEST and parts == -(-dim // width) and last == dim - (parts - 1) * width):
        raise _Damaged(f"a quantizer says {dim} dimensions in {parts} parts of {width}")
    return cursor.take(4 * dim * _CENTROIDS, "a quantizer").view("<f4").copy(), width


def _room(needed: int, most: int, where: str) -> None:
    if needed > most:
        raise MemoryShareError(
            f"The fastText model unpacks to {needed / 1e6:,.0f} MB; the task has {most / 1e6:,.0f} MB.",
            where,
            "Give more memory: --memory 8GB.",
        )


def _slots(count: int) -> int:
    """Slots of a table that is at most half full."""
    return 1 << max(1, (2 * count - 1).bit_length())


@kernel
def _scan(data: Bytes, at: int, spans: Ints, counts: Ints, kinds: npt.NDArray[np.int8]) -> int:
    """Find entries: uint8[bytes] from ``at`` on. Returns where they end, or -1 if the file ends before."""
    size = len(data)
    for k in range(len(counts)):
        first = at
        while at < size and data[at] != 0:
            at += 1
        if size - at < 10:
            return -1
        spans[k, 0], spans[k, 1] = first, at
        count = np.uint64(0)
        for byte in range(8):
            count |= np.uint64(data[at + 1 + byte]) << np.uint64(8 * byte)
        counts[k] = np.int64(count)
        kinds[k] = np.int8(data[at + 9])
        at += 10
    return at


@borrowing
def hash_of(data: Bytes, start: int, end: int, value: np.uint32) -> np.uint32:
    """FNV-1a of bytes as fastText computes it, with bytes from 128 on as negative numbers; goes on from ``value``."""
    for k in range(start, end):
        value = np.uint32(np.uint32(value ^ np.uint32(np.int8(data[k]))) * np.uint32(16777619))
    return value


@kernel
def _index(spelled: Bytes, spans: Ints, slots: Table) -> None:
    """Put each entry in the slot of its hash; of equal ones the last, as in the library."""
    mask = len(slots) - 1
    for entry in range(len(spans)):
        first, last = spans[entry, 0], spans[entry, 1]
        at = np.int64(hash_of(spelled, first, last, np.uint32(2166136261))) & mask
        while slots[at] >= 0:
            other = slots[at]
            size = last - first
            same = spans[other, 1] - spans[other, 0] == size
            k = 0
            while same and k < size:
                same = spelled[spans[other, 0] + k] == spelled[first + k]
                k += 1
            if same:
                break
            at = (at + 1) & mask
        slots[at] = entry


@kernel
def _place(pairs: Table, kept: Table) -> None:
    """Put each pair in the slot of its first number; of equal ones the last."""
    mask = len(kept) - 1
    for k in range(len(pairs)):
        at = slot_of(pairs[k, 0]) & mask
        while kept[at, 0] >= 0 and kept[at, 0] != pairs[k, 0]:
            at = (at + 1) & mask
        kept[at, 0], kept[at, 1] = pairs[k, 0], pairs[k, 1]


@borrowing
def slot_of(ngram: np.int64) -> np.int64:
    """Fibonacci hashing of the number of an n-gram (Knuth, The Art of Computer Programming 3, 6.4)."""
    return np.int64((np.uint64(ngram) * np.uint64(0x9E3779B97F4A7C15)) >> np.uint64(32))
