"""Parse JSON so that numbers are exact and a bad side field never costs a row its text.

``orjson`` parses nearly every row. Integers beyond 64 bits, which it rounds, and objects and lists that it rejects are
parsed again, member by member:

- an integer of up to ``DIGITS`` digits is exact;
- what JSON cannot represent becomes text, as written: NaN, Infinity, numbers beyond double range, longer integers,
  values nested deeper than ``DEPTH``, and anything else that is not JSON;
- bytes that are not UTF-8, and lone surrogates, become U+FFFD.

Text produced this way is ``Mended``: good enough for a side field, but not for a document.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Callable, Collection, Iterator
from itertools import accumulate
from typing import Any

import orjson

from headrace.documents.readers.base import COPIES, Repaired, not_utf8, unicode
from headrace.nesting import DEPTH, deep

DIGITS = 4300  # CPython's limit for parsing integers, beyond which the time becomes quadratic
SPLIT_DEPTH = 16  # how deep members are parsed separately; deeper values are parsed as a whole
# orjson turns integers that fit neither int64 nor uint64 into floats.
_LEAST_ROUNDED = float(1 << 63)
# The largest value written in two bytes, an empty dict, takes 64 bytes, plus 8 in its list (CPython 3.11).
_VALUE = 72
_STRING = re.compile(rb'"(?:[^"\\]++|\\.)*+"', re.DOTALL)
_EXACT = {str, int, bool, type(None)}
_NO_BRACKETS = bytes(set(range(256)) - set(b"[]{}"))


def parse(data: bytes) -> Any:
    """The value of a JSON text.

    Raises:
        orjson.JSONDecodeError: it is neither JSON nor an object or list with only some bad members.
    """
    return _parse(data, SPLIT_DEPTH)


def dump(value: Any, default: Callable[[Any], Any]) -> bytes:
    """JSON for a value from :func:`parse`; ``default`` converts other types."""
    try:
        return orjson.dumps(value, default=default)
    except TypeError:  # integers beyond 64 bits, surrogates, more than 254 levels
        with deep():
            text = json.dumps(value, ensure_ascii=False, separators=(",", ":"), default=default)
        return unicode(text).encode()


def finite(value: Any) -> Any:
    """The value of a user-defined function with NaN and infinities as text, as they are kept from files.

    Raises:
        ValueError: it contains itself, or is nested too deep.
    """
    try:
        with deep():
            return _finite(value)
    except RecursionError:
        raise ValueError("it contains itself, or is nested too deep") from None


def _finite(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _finite(held) for key, held in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(held) for held in value]
    if isinstance(value, float) and not math.isfinite(value):
        return "NaN" if math.isnan(value) else "Infinity" if value > 0 else "-Infinity"
    return value


def weight(data: bytes) -> int:
    """The size of a text that takes as much memory as the values in a JSON text could, where a value may be two
    bytes."""
    bare = _STRING.sub(b"", data)
    return len(data) + (bare.count(b",") + bare.count(b"[") + bare.count(b"{")) * _VALUE // COPIES


def wrong(data: bytes, error: ValueError) -> str:
    """Why a parser rejected a text: it is not UTF-8, or not JSON."""
    try:
        data.decode("utf-8")
    except UnicodeDecodeError as unreadable:
        return not_utf8(unreadable)
    if not isinstance(error, orjson.JSONDecodeError):
        return "not JSON"
    surrogate = " (a lone surrogate)" if "surrogate" in error.msg else ""
    return f"not JSON: {error.msg.partition(': line ')[0]} at character {error.pos}{surrogate}"


def _parse(data: bytes, splits: int) -> Any:
    try:
        value = orjson.loads(data)
    except orjson.JSONDecodeError:
        data = data.strip()
        try:
            if data.startswith(b"{"):
                return dict(_member(piece, splits) for piece in _pieces(data))
            if data.startswith(b"["):
                return [_value(piece, splits) for piece in _pieces(data)]
        except _Broken:
            pass
        raise
    return _exact(data) if _may_be_rounded(value) else value


class _Broken(Exception):  # noqa: N818 - it never leaves this file
    """An object or list is not closed, or a member has no name."""


def _pieces(data: bytes) -> Iterator[bytes]:
    """The members of an object or list, as written."""
    from headrace.documents.readers.json_scan import pieces
    from headrace.documents.readers.streams import Damaged

    closing = b"}" if data[:1] == b"{" else b"]"
    if not data.endswith(closing):
        raise _Broken
    blocks = (data[begin : begin + (1 << 20)] for begin in range(1, len(data), 1 << 20))
    try:
        for piece, _ in pieces(blocks, True, len(data)):
            yield piece
    except Damaged:
        raise _Broken from None


def _member(data: bytes, splits: int) -> tuple[str, Any]:
    """The name and value of a member of an object."""
    data = data.strip()
    name = _STRING.match(data)
    value = data[name.end() :].lstrip() if name else b""
    if name is None or not value.startswith(b":"):
        raise _Broken
    try:
        return unicode(str(_exact(name[0]))), _value(value[1:], splits)
    except ValueError:
        raise _Broken from None


def _value(data: bytes, splits: int) -> Any:
    """The value of a member, whatever it is."""
    data = data.strip()
    if _depth(data) > DEPTH:
        return Repaired.of(data.decode("utf-8", "replace"), "nested too deep")
    try:
        return _parse(data, splits - 1) if splits else _exact(data)
    except ValueError as error:
        told = wrong(data, error)
    try:
        value = _exact(data)
    except ValueError:
        value = data.decode("utf-8", "replace")
    return Repaired.of(value, told) if isinstance(value, str) else value


def _depth(data: bytes) -> int:
    """How deeply brackets are nested outside strings."""
    brackets = _STRING.sub(b"", data).translate(None, _NO_BRACKETS)
    return max(accumulate(1 if bracket in b"[{" else -1 for bracket in brackets), default=0)


def _may_be_rounded(value: Any) -> bool:
    """Whether a value contains a float as large as those that orjson makes from integers."""
    waiting: list[Collection[Any]] = [value.values() if value.__class__ is dict else [value]]
    while waiting:
        values = waiting.pop()
        kinds = set(map(type, values))
        if kinds <= _EXACT:
            continue
        if float in kinds and any(abs(v) >= _LEAST_ROUNDED for v in values if v.__class__ is float):
            return True
        if dict in kinds:
            waiting += [v.values() for v in values if v.__class__ is dict]
        if list in kinds:
            waiting += [v for v in values if v.__class__ is list]
    return False


def _exact(data: bytes) -> Any:
    """The value of a text by Python's parser, which also accepts what is almost JSON."""
    with deep():
        return json.loads(
            data.decode("utf-8", "replace"), parse_int=_integer, parse_float=_float, parse_constant=str, strict=False
        )


def _integer(digits: str) -> int | str:
    return int(digits) if len(digits) <= DIGITS else digits


def _float(digits: str) -> float | str:
    value = float(digits)
    return value if math.isfinite(value) else digits
