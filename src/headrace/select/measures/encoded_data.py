"""How much of a text is encoded data: base64, hexadecimal bytes, Unicode escapes.

StarCoder 2 (Lozhkov et al. 2024, 2402.19173, section 2.4) removes files more than half of which match one of

    base64        ``[a-zA-Z0-9+/\\n=]{64,}``
    hexadecimal   ``(?:\\b(?:0x|\\\\x)?[0-9a-fA-F]{2}(?:,|\\b\\s*)){8,}``
    Unicode       ``(?:\\\\u[0-9a-fA-F]{4}){8,}``

As printed, the second misses ``0x41, 0x42`` (a space after the comma) and the first byte of ``"\\x41\\x42"``. Here a
byte is two hexadecimal digits not followed by a letter, digit or underscore, after an optional ``0x`` or ``\\x``; bytes
are separated by whitespace, by a comma with optional whitespace around it, or just by the ``\\x`` of the next byte.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from headrace.flow.kernels import borrowing

BASE64_LEAST = 64  # characters
HEX_LEAST = 8  # bytes
UNICODE_LEAST = 8  # escapes


def encoded_characters(data: npt.NDArray[np.uint8], offsets: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
    """The number of characters in encoded data, each counted once.

    Args:
        data: uint8[n_bytes], valid UTF-8.
        offsets: int64[n_docs + 1] of bytes into ``data``.

    Returns:
        int64[n_docs]; encoded data is ASCII, so characters are bytes.
    """
    out = np.zeros(len(offsets) - 1, dtype=np.int64)
    marks = np.zeros(_CHUNK, dtype=np.uint8)
    room = np.empty((3, _CHUNK + 3), dtype=np.uint8)
    _encoded(data, offsets, _byte_classes(), room, marks, marks.view(np.uint64), out)
    return out


# Bytes searched at once for possible starts: they and their flags stay in the L1 cache.
_CHUNK = 1 << 12
_BASE64, _HEX, _WORD, _BLANK = 1, 2, 4, 8


def _byte_classes() -> npt.NDArray[np.uint8]:
    """The classes of each byte: uint8[256]."""
    table = np.zeros(256, dtype=np.uint8)
    letters = b"abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789"
    for members, flag in (
        (letters + b"+/\n=", _BASE64),
        (b"0123456789abcdefABCDEF", _HEX),
        (letters + b"_", _WORD),
        (b" \t\n\r\f\v", _BLANK),
    ):
        table[np.frombuffer(members, dtype=np.uint8)] |= flag
    return table


@borrowing
def _encoded(
    data: npt.NDArray[np.uint8],
    offsets: npt.NDArray[np.int64],
    classes: npt.NDArray[np.uint8],
    room: npt.NDArray[np.uint8],
    marks: npt.NDArray[np.uint8],
    u64_at: npt.NDArray[np.uint64],
    out: npt.NDArray[np.int64],
) -> None:
    """Sum the union of each document's matches: they come in order of their starts, so it is a running end."""
    for d in range(len(offsets) - 1):
        start, end = int(offsets[d]), int(offsets[d + 1])
        covered = total = 0
        hex_done = unicode_done = start
        first, last = _next_base64(data, start, end, classes)
        for chunk in range(start, end, _CHUNK):
            size = min(_CHUNK, end - chunk)
            _mark(data, chunk, size, start, end, room, marks)
            for eight in range((size + 7) >> 3):
                if u64_at[eight] == 0:
                    continue
                for k in range(8 * eight, min(8 * eight + 8, size)):
                    if marks[k] == 0:
                        continue
                    i = chunk + k
                    while first < i:  # a base64 run that starts earlier
                        total += max(0, last - max(first, covered))
                        covered = max(covered, last)
                        first, last = _next_base64(data, last, end, classes)
                    if i >= unicode_done and data[i] == 0x5C:  # a backslash
                        stop = _unicode_run(data, i, end, classes)
                        if stop > i:
                            unicode_done = stop
                            total += max(0, stop - max(i, covered))
                            covered = max(covered, stop)
                    if i >= hex_done:
                        stop = _hex_run(data, i, end, classes)
                        if stop > i:
                            hex_done = stop
                            total += max(0, stop - max(i, covered))
                            covered = max(covered, stop)
        while first < end:
            total += max(0, last - max(first, covered))
            covered = max(covered, last)
            first, last = _next_base64(data, last, end, classes)
        out[d] = total


@borrowing
def _next_base64(data: npt.NDArray[np.uint8], i: int, end: int, classes: npt.NDArray[np.uint8]) -> tuple[int, int]:
    """The next run of at least 64 base64 characters not ending before ``i``; or (end, end).

    Only every 64th byte is examined if it is not base64; if it is, so are those before it.
    """
    while i + BASE64_LEAST <= end:
        at = i + BASE64_LEAST - 1
        while at >= i and classes[data[at]] & _BASE64:
            at -= 1
        if at >= i:
            i = at + 1
            continue
        stop = i + BASE64_LEAST
        while stop < end and classes[data[stop]] & _BASE64:
            stop += 1
        return i, stop
    return end, end


@borrowing
def _mark(
    data: npt.NDArray[np.uint8],
    chunk: int,
    size: int,
    start: int,
    end: int,
    room: npt.NDArray[np.uint8],
    marks: npt.NDArray[np.uint8],
) -> None:
    """Mark the bytes where a hexadecimal byte or an escape may start, many at a time: no branches, no table.

    Args:
        data: all documents.
        chunk: the start of the chunk to search.
        size: its bytes.
        start: the document's first byte.
        end: the byte after its last.
        room: uint8[3, _CHUNK + 3]: for the bytes from one before to two after the chunk: whether each is a hexadecimal
            digit, and whether it is part of a word.
        marks: uint8[_CHUNK]: receives 0 or 1 for each byte, 0 after the chunk.
    """
    before = min(1, chunk - start)
    after = min(2, end - chunk - size)
    text, digits, words = room[0, : size + 3], room[1, : size + 3], room[2, : size + 3]
    text[0] = text[size + 1] = text[size + 2] = 0x20
    source, target = data[chunk - before : chunk + size + after], text[1 - before : size + 1 + after]
    for i in range(target.size):
        target[i] = source[i]
    for i in range(text.size):
        byte = text[i]
        lower = np.uint8(byte | np.uint8(0x20))
        decimal = np.uint8(np.uint8(byte - np.uint8(0x30)) < np.uint8(10))
        letter = np.uint8(lower - np.uint8(0x61))
        digits[i] = decimal | np.uint8(letter < np.uint8(6))
        words[i] = decimal | np.uint8(letter < np.uint8(26)) | np.uint8(byte == np.uint8(0x5F))
    here, then = text[1 : size + 1], text[2 : size + 2]
    first, second, left, right = digits[1 : size + 1], digits[2 : size + 2], words[:size], words[3 : size + 3]
    found = marks[:size]
    for i in range(found.size):
        x = np.uint8(np.uint8(then[i] | np.uint8(0x20)) == np.uint8(0x78))
        escape = np.uint8(here[i] == np.uint8(0x5C)) & (x | np.uint8(then[i] == np.uint8(0x75)))
        pair = first[i] & second[i] & (right[i] ^ np.uint8(1))
        prefix = np.uint8(here[i] == np.uint8(0x30)) & x
        found[i] = escape | ((pair | prefix) & (left[i] ^ np.uint8(1)))
    for i in range(size, min(size + 8, marks.size)):
        marks[i] = 0


@borrowing
def _unicode_run(data: npt.NDArray[np.uint8], i: int, end: int, classes: npt.NDArray[np.uint8]) -> int:
    """The end of a run of at least eight escapes ``\\uXXXX`` that starts at ``i``, or ``i``."""
    at, count = i, 0
    while at + 6 <= end and data[at] == 0x5C and data[at + 1] == 0x75:
        for j in range(at + 2, at + 6):
            if not classes[data[j]] & _HEX:
                return at if count >= UNICODE_LEAST else i
        at += 6
        count += 1
    return at if count >= UNICODE_LEAST else i


@borrowing
def _hex_byte(data: npt.NDArray[np.uint8], i: int, end: int, classes: npt.NDArray[np.uint8]) -> int:
    """The end of a hexadecimal byte that starts at ``i``, or ``i``."""
    at = i
    if (
        at + 1 < end
        and data[at + 1] in (0x78, 0x58)
        and (data[at] == 0x30 or (data[at] == 0x5C and data[at + 1] == 0x78))
    ):
        at += 2
    if at + 2 > end or not (classes[data[at]] & _HEX and classes[data[at + 1]] & _HEX):
        return i
    at += 2
    return i if at < end and classes[data[at]] & _WORD else at


@borrowing
def _hex_run(data: npt.NDArray[np.uint8], i: int, end: int, classes: npt.NDArray[np.uint8]) -> int:
    """The end of a run of at least eight separated hexadecimal bytes that starts at ``i``, or ``i``."""
    last, count = i, 0
    at = _hex_byte(data, i, end, classes)
    while at > last:
        last = at
        count += 1
        while at < end and classes[data[at]] & _BLANK:
            at += 1
        if at < end and data[at] == 0x2C:
            at += 1
            while at < end and classes[data[at]] & _BLANK:
                at += 1
        elif at == last and not (at < end and data[at] == 0x5C):
            break
        after = _hex_byte(data, at, end, classes)
        at = after if after > at else last
    return last if count >= HEX_LEAST else i
