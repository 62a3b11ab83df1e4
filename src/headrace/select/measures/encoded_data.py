"""How much of a text is encoded data: base64, bytes in hexadecimal, Unicode escapes.

StarCoder 2 (Lozhkov et al. 2024, 2402.19173, section 2.4) removes files of which more than half matches one of

    base64        ``[a-zA-Z0-9+/\\n=]{64,}``
    hexadecimal   ``(?:\\b(?:0x|\\\\x)?[0-9a-fA-F]{2}(?:,|\\b\\s*)){8,}``
    Unicode       ``(?:\\\\u[0-9a-fA-F]{4}){8,}``

The second, as printed, misses ``0x41, 0x42`` (a space after the comma) and the first byte of ``"\\x41\\x42"``. Here a
byte is two hexadecimal digits that no letter, digit or underscore follows, after an optional ``0x`` or ``\\x``; bytes
are parted by white space, by a comma with white space around it, or by the ``\\x`` of the next one alone.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from headrace.flow.kernels import borrowing

BASE64_LEAST = 64  # characters
HEX_LEAST = 8  # bytes
UNICODE_LEAST = 8  # escapes


def encoded_characters(data: npt.NDArray[np.uint8], offsets: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
    """Characters that are part of encoded data, each counted once.

    Args:
        data: uint8[n_bytes], valid UTF-8.
        offsets: int64[n_docs + 1] of bytes into ``data``.

    Returns:
        int64[n_docs]; encoded data are ASCII, so characters are bytes.
    """
    out = np.zeros(len(offsets) - 1, dtype=np.int64)
    _encoded(data, offsets, _byte_classes(), out)
    return out


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
    out: npt.NDArray[np.int64],
) -> None:
    for d in range(len(offsets) - 1):
        start, end = int(offsets[d]), int(offsets[d + 1])
        covered = total = 0
        base64_done = hex_done = unicode_done = start
        for i in range(start, end):
            byte = data[i]
            flags = classes[byte]
            # Matches come in order of their starts, so the union is a running end.
            if flags & _BASE64 and i >= base64_done:
                base64_done = i + 1
                while base64_done < end and classes[data[base64_done]] & _BASE64:
                    base64_done += 1
                if base64_done - i >= BASE64_LEAST:
                    total += max(0, base64_done - max(i, covered))
                    covered = max(covered, base64_done)
            if byte == 0x5C and i >= unicode_done:  # a backslash
                stop = _unicode_run(data, i, end, classes)
                if stop > i:
                    unicode_done = stop
                    total += max(0, stop - max(i, covered))
                    covered = max(covered, stop)
            if (
                i >= hex_done
                and (flags & _HEX or byte == 0x5C)
                and (byte == 0x5C or i == start or not classes[data[i - 1]] & _WORD)
            ):
                stop = _hex_run(data, i, end, classes)
                if stop > i:
                    hex_done = stop
                    total += max(0, stop - max(i, covered))
                    covered = max(covered, stop)
        out[d] = total


@borrowing
def _unicode_run(data: npt.NDArray[np.uint8], i: int, end: int, classes: npt.NDArray[np.uint8]) -> int:
    """The end of at least eight escapes ``\\uXXXX`` that start at ``i``, or ``i``."""
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
    """The end of a byte in hexadecimal that starts at ``i``, or ``i``."""
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
    """The end of at least eight parted bytes in hexadecimal that start at ``i``, or ``i``."""
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
