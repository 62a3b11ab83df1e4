"""Find programs whose names, literals, comments and layout were changed, by the shapes of their tokens.

The shape of a program is the sequence of its tokens as Python has them, in which every name is one token, every number
another and every string a third. Keywords, built-in functions, and names after a dot (methods and functions of
libraries, which a copy cannot rename) stay. Whitespace, comments, docstrings, parentheses, commas and semicolons are
left out, so that another formatter changes nothing. This is what plagiarism detection does: fingerprints of n-grams of
normalized tokens (Schleimer et al. 2003, Winnowing; Prechelt et al. 2002, JPlag).

Short n-grams of shapes are everywhere. A program is found where one stretch of a document, at most :data:`STRETCH`
times as long as the program, holds a large share of its distinct n-grams. Only n-grams with :data:`TELLING` tokens or
more that are no names or literals count, which leaves out prose and tables; and those in more than :data:`COMMON`
programs count for none.

Hashes are believed here, other than those of n-grams and substrings: a wrong one changes a count by one.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from headrace.flow.kernels import borrowing, kernel
from headrace.recipe.cleaning import LEAST_SHAPE
from headrace.select import code_points
from headrace.select.code_points import ALPHABETIC, ALPHANUMERIC, SPACE, decode
from headrace.select.contamination.ngrams import Bytes, Ints, directory_of, mix

Hashes = npt.NDArray[np.uint64]

STRETCH = 2  # a copy with a print or an assertion after every statement
TELLING = 3  # a line of prose or of a table has one or two
COMMON = 64  # of twenty benchmarks seven hold HumanEval's programs; what nine times as many hold is an idiom
_HITS = 4096  # n-grams looked at together

NAME, NUMBER, STRING = np.uint64(0x110001), np.uint64(0x110002), np.uint64(0x110003)  # above all code points
_BASIS, _PRIME = np.uint64(0xCBF29CE484222325), np.uint64(0x100000001B3)  # FNV-1a
_RADIX = np.uint64(0x9E3779B97F4A7C15)
_WORD = np.uint64(1) << np.uint64(63)  # set in the hashes of words, so that none is a code point
_LINE, _QUOTES, _HASH, _QUOTE, _DOT, _COLON, _BACKSLASH, _UNDERSCORE = (np.int64(ord(char)) for char in "\n\"#'.:\\_")
_DROPPED = np.zeros(128, dtype=np.bool_)
_DROPPED[[ord(char) for char in "(),;\\`"]] = True
_PREFIX = np.zeros(128, dtype=np.bool_)
_PREFIX[[ord(char) for char in "rRbBuUfF"]] = True

# Words that stay, of Python 3.12 and of Python 2's built-in functions; a list of our own, so that the running Python's
# version changes nothing.
KEPT = """
    False None True and as assert async await break class continue def del elif else except finally for from
    global if import in is lambda nonlocal not or pass raise return try while with yield match case abs all any
    ascii bin bool breakpoint bytearray bytes callable chr classmethod compile complex delattr dict dir divmod
    enumerate eval exec filter float format frozenset getattr globals hasattr hash help hex id input int
    isinstance issubclass iter len list locals map max memoryview min next object oct open ord pow print
    property range repr reversed round set setattr slice sorted staticmethod str sum super tuple type vars zip
    basestring cmp execfile long raw_input reduce unichr unicode xrange
""".split()  # noqa: SIM905 - a hundred words


class ShapeTable(NamedTuple):
    """The distinct n-grams of programs' shapes, in ascending order of hash.

    Attributes:
        n: tokens in an n-gram.
        hashes: uint64[g], ascending.
        directory: as in the n-gram table.
        shift: as in the n-gram table.
        holders: int64[...]: the shapes that contain each n-gram, delimited by ``holder_offsets`` int64[g + 1].
        holder_offsets: see ``holders``.
        sizes: int64[shapes]: the distinct n-grams of each.
        spans: int64[shapes]: the most tokens of a stretch of a document in which it is looked for.
        owners: int64[...]: the programs of each shape, ascending, delimited by ``owner_offsets`` int64[shapes + 1].
        owner_offsets: see ``owners``.
        kept: uint64[512]: a hash table of the words that stay, 0 where empty.
    """

    n: int
    hashes: Hashes
    directory: Ints
    shift: int
    holders: Ints
    holder_offsets: Ints
    sizes: Ints
    spans: Ints
    owners: Ints
    owner_offsets: Ints
    kept: Hashes


class ShapeHits(NamedTuple):
    """Shapes found in documents, by document and shape; int64[h] each.

    Attributes:
        document: the document's index in the buffer.
        shape: the shape's index in the table.
        matched: how many of its distinct n-grams the stretch has.
        start: the byte in the document where the stretch begins.
        stop: the byte after it.
    """

    document: Ints
    shape: Ints
    matched: Ints
    start: Ints
    stop: Ints


def shape_table(programs: Sequence[str], n: int, least: int) -> ShapeTable:
    """Index programs.

    Args:
        programs: their texts.
        n: tokens in an n-gram.
        least: programs with fewer distinct n-grams are left out, and so are those that are left with fewer when the
            common ones are taken away.
    """
    kept = kept_words()
    parts = [program.encode() for program in programs]
    offsets = np.cumsum([0, *map(len, parts)], dtype=np.int64)
    data = np.frombuffer(b"".join(parts), dtype=np.uint8)
    hashes = np.empty(len(data), dtype=np.uint64)
    edges, tokens = np.zeros(len(parts) + 1, dtype=np.int64), np.zeros(len(parts), dtype=np.int64)
    _every(data, offsets, n, kept, code_points.classes(), hashes, edges, tokens)
    owners: dict[bytes, list[int]] = {}
    spans: dict[bytes, int] = {}
    for p in range(len(parts)):
        shape = np.unique(hashes[edges[p] : edges[p + 1]])
        if len(shape) >= least:
            owners.setdefault(shape.tobytes(), []).append(p)
            spans[shape.tobytes()] = max(spans.get(shape.tobytes(), 0), STRETCH * int(tokens[p]) + n)
    shapes = [np.frombuffer(shape, dtype=np.uint64) for shape in owners]
    every = np.concatenate([np.empty(0, np.uint64), *shapes])
    _, which, counts = np.unique(every, return_inverse=True, return_counts=True)
    rare = np.split(counts[which] <= COMMON, np.cumsum([len(shape) for shape in shapes])[:-1])
    shapes = [shape[kept_ones] for shape, kept_ones in zip(shapes, rare, strict=False)]
    taken = [(shape, key) for shape, key in zip(shapes, owners, strict=True) if len(shape) >= least]
    found = np.concatenate([np.empty(0, np.uint64), *(shape for shape, _ in taken)])
    holder = np.repeat(np.arange(len(taken)), [len(shape) for shape, _ in taken])
    order = np.lexsort((holder, found))
    distinct, counts = np.unique(found, return_counts=True)
    directory, shift = directory_of(distinct)
    return ShapeTable(
        n,
        distinct,
        directory,
        shift,
        holder[order].astype(np.int64),
        np.concatenate([[0], np.cumsum(counts)]).astype(np.int64),
        np.array([len(shape) for shape, _ in taken], dtype=np.int64),
        np.array([spans[key] for _, key in taken], dtype=np.int64),
        np.array([program for _, key in taken for program in owners[key]], dtype=np.int64),
        np.cumsum([0, *(len(owners[key]) for _, key in taken)], dtype=np.int64),
        kept,
    )


def find_shapes(data: Bytes, offsets: Ints, table: ShapeTable) -> ShapeHits:
    """Search documents for the programs of a table; those of which a stretch has less than :data:`LEAST_SHAPE` are
    left out.

    Args:
        data: uint8[n_bytes], valid UTF-8.
        offsets: int64[n_docs + 1] of bytes into ``data``.
        table: what to find.
    """
    room, longest = 256, int(table.spans.max(initial=0))
    least = np.maximum(1, np.ceil(LEAST_SHAPE * table.sizes)).astype(np.int64)
    while True:
        out = np.empty((5, room), dtype=np.int64)
        held = np.empty((4, max(_HITS, 2 * longest)), dtype=np.int64)
        count = _find(data, offsets, *table, code_points.classes(), least, longest, held, out)
        if count <= room:
            return ShapeHits(*out[:, :count])
        room = count


def kept_words() -> Hashes:
    """The hash table of :data:`KEPT`."""
    table = np.zeros(512, dtype=np.uint64)
    for word in KEPT:
        data = np.frombuffer(word.encode(), dtype=np.uint8)
        value, _ = _word(data, 0, len(data), code_points.classes())
        slot = int(value) & 511
        while table[slot]:
            slot = (slot + 1) & 511
        table[slot] = value
    return table


@borrowing
def _word(data: Bytes, i: int, end: int, classes: Bytes) -> tuple[np.uint64, int]:
    """The hash of the letters, digits and underscores from byte ``i`` on, and where they end."""
    value = _BASIS
    while i < end:
        point, after = decode(data, i)
        if not (classes[np.uint64(point)] & ALPHANUMERIC or point == _UNDERSCORE):
            break
        value = (value ^ np.uint64(point)) * _PRIME
        i = after
    return mix(value) | _WORD, i


@borrowing
def _string(data: Bytes, i: int, end: int) -> int:
    """The end of the string that begins with the quote at byte ``i``: after its closing quote, or before the end of
    the line."""
    quote = data[i]
    i += 1
    while i < end and data[i] != quote and data[i] != _LINE:
        i += 2 if data[i] == _BACKSLASH else 1
    return i + 1 if i < end and data[i] == quote else min(i, end)


@borrowing
def _begins_string(data: Bytes, i: int, stop: int) -> bool:
    """Whether the one or two letters from byte ``i`` on belong to a string, such as those of ``rb""``."""
    quoted = data[stop] == _QUOTES or data[stop] == _QUOTE
    first, last = data[i], data[stop - 1]
    return bool(quoted and first < 0x80 and last < 0x80 and _PREFIX[first] and _PREFIX[last])


@borrowing
def _closing(data: Bytes, i: int, end: int, quote: np.uint8) -> int:
    """Where three quotes end a docstring, from byte ``i`` on; -1 if nowhere."""
    while i + 2 < end:
        if data[i] == quote and data[i + 1] == quote and data[i + 2] == quote:
            return i + 3
        i += 2 if data[i] == _BACKSLASH else 1
    return -1


@borrowing
def _number(data: Bytes, i: int, end: int) -> int:
    """The end of the number that begins at byte ``i``: letters, digits, underscores, and a point that no name
    follows."""
    while i < end:
        byte = np.int64(data[i])
        letter = 97 <= (byte | 0x20) <= 122
        digit = 48 <= byte <= 57
        if byte == _DOT:
            follows = np.int64(data[i + 1]) if i + 1 < end else np.int64(0)
            if 97 <= (follows | 0x20) <= 122 or follows in (_UNDERSCORE, _DOT):
                break
        elif not (letter or digit or byte == _UNDERSCORE):
            break
        i += 1
    return i


@borrowing
def _next(
    data: Bytes, i: int, end: int, previous: np.uint64, open_ended: int, kept: Hashes, classes: Bytes
) -> tuple[np.uint64, int, int, int]:
    """The next token of the shape from byte ``i`` on.

    Args:
        previous: the token before it.
        open_ended: 1 if no ``\"\"\"`` ends a docstring any more in the document, 2 for ``'''``, or both.

    Returns:
        (token, start, stop, open_ended); start is -1 if there is none.
    """
    while i < end:
        byte = np.int64(data[i])
        if byte >= 0x80:
            point, after = decode(data, i)
            flags = classes[np.uint64(point)]
            if flags & SPACE:
                i = after
                continue
            if not flags & ALPHANUMERIC:
                return np.uint64(point), i, after, open_ended
        elif classes[byte] & SPACE or _DROPPED[byte]:
            i += 1
            continue
        elif byte == _HASH:
            while i < end and data[i] != _LINE:
                i += 1
            continue
        elif byte in (_QUOTES, _QUOTE):
            if i + 2 < end and data[i + 1] == byte and data[i + 2] == byte:
                kind = 1 if byte == _QUOTES else 2
                stop = -1
                if previous == np.uint64(_COLON) and not open_ended & kind:
                    stop = _closing(data, i + 3, end, data[i])
                    open_ended |= kind if stop < 0 else 0
                # What stands in other texts of several lines may be a program.
                i = stop if stop >= 0 else i + 3
                continue
            stop = _string(data, i, end)
            if previous == np.uint64(_COLON):  # a docstring of one line
                i = stop
                continue
            return STRING, i, stop, open_ended
        elif 48 <= byte <= 57:
            return NUMBER, i, _number(data, i, end), open_ended
        elif not (classes[byte] & ALPHABETIC or byte == _UNDERSCORE):
            return np.uint64(byte), i, i + 1, open_ended
        value, stop = _word(data, i, end, classes)
        if stop - i <= 2 and stop < end and _begins_string(data, i, stop):
            i = stop
            continue
        if previous == np.uint64(_DOT):
            return value, i, stop, open_ended
        slot = value & np.uint64(511)
        while kept[slot] != 0 and kept[slot] != value:
            slot = (slot + np.uint64(1)) & np.uint64(511)
        return (value if kept[slot] == value else NAME), i, stop, open_ended
    return np.uint64(0), -1, -1, open_ended


@borrowing
def _tells(token: np.uint64) -> bool:
    return bool((token < NAME and token != np.uint64(_DOT)) or token >= _WORD)


@borrowing
def _power(exponent: int) -> np.uint64:
    result = np.uint64(1)
    for _ in range(exponent):
        result *= _RADIX
    return result


@kernel
def _every(
    data: Bytes, offsets: Ints, n: int, kept: Hashes, classes: Bytes, hashes: Hashes, edges: Ints, tokens: Ints
) -> None:
    """Hash every telling n-gram; ``edges`` receives where those of each text end, ``tokens`` its number of tokens."""
    ring = np.empty(n, dtype=np.uint64)
    oldest = _power(n)
    count = 0
    for d in range(len(offsets) - 1):
        i, end = offsets[d], offsets[d + 1]
        rolling, seen, telling, previous, open_ended = np.uint64(0), 0, 0, np.uint64(0), 0
        while True:
            token, start, i, open_ended = _next(data, i, end, previous, open_ended, kept, classes)
            if start < 0:
                break
            previous = token
            rolling = rolling * _RADIX + token
            telling += _tells(token)
            if seen >= n:
                rolling -= ring[seen % n] * oldest
                telling -= _tells(ring[seen % n])
            ring[seen % n] = token
            seen += 1
            if seen >= n and telling >= TELLING:
                hashes[count] = mix(rolling)
                count += 1
        edges[d + 1], tokens[d] = count, seen


@kernel
def _find(
    data: Bytes, offsets: Ints, n: int, hashes: Hashes, directory: Ints, shift: int, holders: Ints,
    holder_offsets: Ints, sizes: Ints, spans: Ints, owners: Ints, owner_offsets: Ints, kept: Hashes, classes: Bytes,
    least: Ints, longest: int, held: Ints, out: Ints,
) -> int:  # fmt: skip
    """Fill ``out`` (fields of :class:`ShapeHits` x hits) as far as there is room; returns the number of hits.

    ``held`` has the n-grams found so far: int64[4, room] (the number of their last token, n-gram, start, stop).
    """
    shapes = len(sizes)
    ring, starts = np.empty(n, dtype=np.uint64), np.empty(n, dtype=np.int64)
    # Of each shape the best stretch (n-grams, start, stop), and of which document it is.
    best, of = np.zeros((3, shapes), dtype=np.int64), np.full(shapes, -1, dtype=np.int64)
    work = np.zeros((4, shapes), dtype=np.int64)
    seen_gram, inside = np.full(len(hashes), -1, dtype=np.int64), np.zeros(len(hashes), dtype=np.int64)
    met, touched = np.empty(shapes, dtype=np.int64), np.empty(shapes, dtype=np.int64)
    places = np.empty(held.shape[1] * COMMON if shapes else 0, dtype=np.int64)
    oldest, shift_by = _power(n), np.uint64(shift)
    count, stamp, room = 0, 0, held.shape[1]
    work[0] = -1
    for d in range(len(offsets) - 1):
        if not shapes:
            break
        i, end = offsets[d], offsets[d + 1]
        rolling, seen, telling, previous, open_ended = np.uint64(0), 0, 0, np.uint64(0), 0
        at, found, full = 0, 0, 0
        while True:
            token, start, stop, open_ended = _next(data, i, end, previous, open_ended, kept, classes)
            if start >= 0:
                i = stop
                previous = token
                rolling = rolling * _RADIX + token
                telling += _tells(token)
                if seen >= n:
                    rolling -= ring[at] * oldest
                    telling -= _tells(ring[at])
                ring[at], starts[at] = token, start
                seen += 1
                at = at + 1 if at + 1 < n else 0
                if seen < n or telling < TELLING:
                    continue
                wanted = mix(rolling)
                slot = np.int64(wanted >> shift_by)
                for gram in range(directory[slot], directory[slot + 1]):
                    if hashes[gram] == wanted:
                        held[0, full], held[1, full] = seen, gram
                        held[2, full], held[3, full] = starts[at], stop
                        full += 1
                        break
                if full < room:
                    continue
            found = _look(
                held, full, stamp, n, holders, holder_offsets, spans, least, work, seen_gram, inside, touched, places,
                d, best, of, met, found,
            )  # fmt: skip
            stamp += 1
            if start < 0:
                break
            # What may belong to a stretch that goes on is looked at again.
            first = 0
            while first < full and held[0, first] <= seen - longest:
                first += 1
            for k in range(first, full):
                for row in range(4):
                    held[row, k - first] = held[row, k]
            full -= first
        for k in range(found):
            shape = met[k]
            if count < out.shape[1]:
                out[0, count], out[1, count], out[2, count] = d, shape, best[0, shape]
                out[3, count], out[4, count] = best[1, shape] - offsets[d], best[2, shape] - offsets[d]
            count += 1
    return count


@borrowing
def _look(
    held: Ints, full: int, stamp: int, n: int, holders: Ints, holder_offsets: Ints, spans: Ints, least: Ints,
    work: Ints, seen_gram: Ints, inside: Ints, touched: Ints, places: Ints, d: int, best: Ints, of: Ints, met: Ints,
    found: int,
) -> int:  # fmt: skip
    """Find the shapes of which some n-grams hold enough, and of each the best stretch; returns how many were met in the
    document so far."""
    # work: of each shape the stamp of the last look, its distinct n-grams, its places, and where these begin (or -1).
    count = 0
    for h in range(full):
        gram = held[1, h]
        again = seen_gram[gram] == stamp
        seen_gram[gram] = stamp
        for k in range(holder_offsets[gram], holder_offsets[gram + 1]):
            shape = holders[k]
            if work[0, shape] != stamp:
                work[0, shape], work[1, shape], work[2, shape], work[3, shape] = stamp, 0, 0, -1
                touched[count] = shape
                count += 1
            work[1, shape] += not again
            work[2, shape] += 1
    filled = 0
    for k in range(count):
        shape = touched[k]
        if work[1, shape] >= least[shape]:
            work[3, shape] = filled
            filled += work[2, shape]
            work[2, shape] = 0
    if not filled:
        return found
    for h in range(full):
        gram = held[1, h]
        for k in range(holder_offsets[gram], holder_offsets[gram + 1]):
            shape = holders[k]
            if work[3, shape] >= 0:
                places[work[3, shape] + work[2, shape]] = h
                work[2, shape] += 1
    for k in range(count):
        shape = touched[k]
        first = work[3, shape]
        if first < 0:
            continue
        last = first + work[2, shape]
        matched, begin, stop = _stretch(held, places, first, last, spans[shape] - n, inside)
        if matched < least[shape]:
            continue
        if of[shape] != d:
            of[shape], best[0, shape] = d, 0
            met[found] = shape
            found += 1
        shorter = stop - begin < best[2, shape] - best[1, shape]
        if matched > best[0, shape] or (matched == best[0, shape] and shorter):
            best[0, shape], best[1, shape], best[2, shape] = matched, begin, stop
    return found


@borrowing
def _stretch(
    held: Ints, places: Ints, first: int, last: int, span: int, inside: Ints
) -> tuple[int, np.int64, np.int64]:
    """The stretch of at most ``span`` tokens between its first and last n-gram that has the most distinct ones, and of
    these the shortest, the first: how many, and from which byte to which."""
    matched, distinct, low = 0, 0, first
    begin, stop = np.int64(0), np.int64(0)
    for k in range(first, last):
        h = places[k]
        distinct += inside[held[1, h]] == 0
        inside[held[1, h]] += 1
        while inside[held[1, places[low]]] > 1 or held[0, h] - held[0, places[low]] > span:
            gram = held[1, places[low]]
            inside[gram] -= 1
            distinct -= inside[gram] == 0
            low += 1
        size = held[3, h] - held[2, places[low]]
        if distinct > matched or (distinct == matched and size < stop - begin):
            matched, begin, stop = distinct, held[2, places[low]], held[3, h]
    for k in range(first, last):
        inside[held[1, places[k]]] = 0
    return matched, begin, stop


def shape_of(text: str) -> list[str]:
    """The shape of a text in words, for people: names as ``name``, numbers as ``0``, strings as ``''``."""
    data = np.frombuffer(text.encode(), dtype=np.uint8)
    kept, classes = kept_words(), code_points.classes()
    words = {int(NAME): "name", int(NUMBER): "0", int(STRING): "''"}
    told: list[str] = []
    i, previous, open_ended = 0, np.uint64(0), 0
    while True:
        token, start, i, open_ended = _next(data, i, len(data), previous, open_ended, kept, classes)
        if start < 0:
            return told
        previous = np.uint64(token)  # which comes as an int
        told.append(words.get(int(token)) or bytes(data[start:i]).decode())
