"""LiveCodeBench's private tests: JSON, pickled as a text, compressed, in base64.

A pickle is a program, and running it could do anything, so it is not unpickled: the few opcodes with which Python
pickles a single text are read here, and any others are refused.
"""

from __future__ import annotations

import base64
import binascii
import zlib
from typing import Any

import orjson

LARGEST = 256 << 20  # bytes of one item's tests; the largest published have less than 100 MB


def private_tests(value: str) -> tuple[Any, str]:
    """The tests of a row.

    Args:
        value: its field ``private_test_cases``, in either of the forms in which it is published.

    Returns:
        The parsed JSON and ''; None and why it was left out.
    """
    if value.lstrip().startswith("["):
        try:
            return orjson.loads(value), ""
        except orjson.JSONDecodeError:
            return None, "they are no JSON"
    try:
        unpack = zlib.decompressobj()
        data = unpack.decompress(base64.b64decode(value, validate=True), LARGEST)
    except (binascii.Error, ValueError, zlib.error):
        return None, "they are neither JSON nor compressed"
    if not unpack.eof:
        return None, f"they are cut off, or larger than {LARGEST >> 20} MB"
    plain = pickled_text(data)
    if plain is None:
        return None, "they are a pickle of more than a text, which could run a program"
    try:
        return orjson.loads(plain), ""
    except orjson.JSONDecodeError:
        return None, "they are no JSON"


def pickled_text(data: bytes) -> bytes | None:
    """The UTF-8 of the text that a pickle consists of; None if it is anything else.

    Protocols 2 to 5 write a text as PROTO, FRAME from 4 on, one of the three opcodes of texts, MEMOIZE or BINPUT, and
    STOP (Python's pickletools).
    """
    at, found = 0, None
    while at < len(data):
        code, at = data[at : at + 1], at + 1
        if code == b"\x80" or code == b"q":  # PROTO, BINPUT: a byte
            at += 1
        elif code == b"\x95":  # FRAME: its length
            at += 8
        elif code == b"r":  # LONG_BINPUT
            at += 4
        elif code == b"\x94":  # MEMOIZE
            pass
        elif code in (b"\x8c", b"X", b"\x8d") and found is None:  # SHORT_BINUNICODE, BINUNICODE, BINUNICODE8
            width = {b"\x8c": 1, b"X": 4, b"\x8d": 8}[code]
            size = int.from_bytes(data[at : at + width], "little")
            found, at = data[at + width : at + width + size], at + width + size
        elif code == b".":  # STOP
            return found if at == len(data) else None
        else:
            return None
    return None
