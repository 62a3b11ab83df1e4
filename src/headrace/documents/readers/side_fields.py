"""Convert Arrow columns to JSON values, by one rule per type, whatever packages are installed.

=====================================  =================================================================================
Arrow                                  JSON
=====================================  =================================================================================
null, bool, (u)int8 to (u)int64        unchanged
float16, float32, float64              a number; ``"NaN"``, ``"Infinity"``, ``"-Infinity"``
decimal                                its digits as text
string, binary                         text if it is UTF-8, else hexadecimal digits
date                                   ``"2024-01-02"``; years outside 0000 to 9999 have a sign: ``"+12024-01-02"``
time                                   ``"03:04:05.000006"``
timestamp                              ``"2024-01-02T03:04:05.000006"``; with a time zone, in UTC with ``Z``
duration                               ``"PT93784.5S"`` (ISO 8601)
interval                               ``"P1M2DT3S"`` (ISO 8601)
list, list view, fixed-size list       an array
struct                                 an object; the second of two equal names becomes ``name_2``
map                                    an array of ``[key, value]``
union, dictionary, run-end encoded     the value
extension                              its storage value
=====================================  =================================================================================

Seconds have 3, 6 or 9 decimals depending on the unit, and none if they are whole. Dates follow the proleptic Gregorian
calendar (ISO 8601). A value that cannot be converted becomes text that says so, as do values of types that pyarrow has
no class for (:func:`headrace.documents.readers.tables.columns_of`).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.types as is_

_DIGITS = {"s": 0, "ms": 3, "us": 6, "ns": 9}
_DAY = 86_400
# What a conversion may raise; batches are fully validated before, so these are Arrow's limits rather than damage.
_FAILURES = (pa.ArrowException, ValueError, TypeError, KeyError, OverflowError, NotImplementedError, AttributeError)


def json_values(array: pa.Array) -> list[Any]:
    """The values of a column as Python objects that JSON can represent.

    Args:
        array: a valid array of any type, possibly a slice.

    Returns:
        One value per slot. Values of dictionaries and runs are shared, so they take no memory of their own.
    """
    try:
        return _converter(array.type)(array)
    except _FAILURES as error:
        if len(array) == 1:
            return [f"({array.type}: {error})"]
        return [value for i in range(len(array)) for value in json_values(array.slice(i, 1))]


def distinct(names: Iterable[str]) -> list[str]:
    """Make field names unique: the second of two equal names becomes ``name_2``."""
    taken: dict[str, None] = {}
    for name in names:
        number, free = 1, name
        while free in taken:
            number += 1
            free = f"{name}_{number}"
        taken[free] = None
    return list(taken)


def _converter(kind: pa.DataType) -> Callable[[pa.Array], list[Any]]:
    return next((convert for test, convert in _RULES if test(kind)), _printed)


def _plain(array: pa.Array) -> list[Any]:
    return array.to_pylist()


def _each(convert: Callable[[Any], Any]) -> Callable[[pa.Array], list[Any]]:
    return lambda array: [None if value is None else convert(value) for value in array.to_pylist()]


def _float(value: float) -> float | str:
    if math.isfinite(value):
        return value
    return "NaN" if math.isnan(value) else "Infinity" if value > 0 else "-Infinity"


def _text(array: pa.Array) -> list[Any]:
    """Text, or bytes where it is not UTF-8."""
    try:
        return array.cast(pa.large_string()).to_pylist()
    except ValueError:
        return [_decoded(value) for value in array.cast(pa.large_binary()).to_pylist()]


def _decoded(value: bytes | None) -> str | bytes | None:
    try:
        return None if value is None else value.decode("utf-8")
    except UnicodeDecodeError:
        return value


# Time. Values are taken as the stored integers: Python's own types end at the year 9999, and what pyarrow does with
# nanoseconds depends on whether pandas is installed.


def _integers(array: pa.Array) -> list[int | None]:
    return array.view(pa.int32() if array.type.bit_width == 32 else pa.int64()).to_pylist()


def _unit(kind: pa.DataType) -> str:
    return str(kind.unit)


def _date(days: int) -> str:
    """An ISO 8601 date, by `civil_from_days` from Howard Hinnant's "chrono-Compatible Low-Level Date Algorithms"."""
    era, day_of_era = divmod(days + 719_468, 146_097)
    year_of_era = (day_of_era - day_of_era // 1460 + day_of_era // 36_524 - day_of_era // 146_096) // 365
    day_of_year = day_of_era - (365 * year_of_era + year_of_era // 4 - year_of_era // 100)
    shifted = (5 * day_of_year + 2) // 153  # months since March
    day, month = day_of_year - (153 * shifted + 2) // 5 + 1, shifted + 3 if shifted < 10 else shifted - 9
    year = year_of_era + 400 * era + (month <= 2)
    written = f"{year:04d}" if 0 <= year <= 9999 else f"{year:+05d}"
    return f"{written}-{month:02d}-{day:02d}"


def _clock(value: int, digits: int) -> str:
    """A time of day from ticks of 10^-digits seconds."""
    sign, value = ("-", -value) if value < 0 else ("", value)
    seconds, ticks = divmod(value, 10**digits)
    fraction = f".{ticks:0{digits}d}" if ticks else ""
    return f"{sign}{seconds // 3600:02d}:{seconds // 60 % 60:02d}:{seconds % 60:02d}{fraction}"


def _seconds(value: int, digits: int) -> str:
    """Signed seconds from ticks of 10^-digits seconds."""
    seconds, ticks = divmod(abs(value), 10**digits)
    return f"{'-' if value < 0 else ''}{seconds}" + (f".{ticks:0{digits}d}" if ticks else "")


def _dates(array: pa.Array) -> list[Any]:
    ticks = 1 if is_.is_date32(array.type) else _DAY * 1000
    return [None if value is None else _date(value // ticks) for value in _integers(array)]


def _times(array: pa.Array) -> list[Any]:
    digits = _DIGITS[_unit(array.type)]
    return [None if value is None else _clock(value, digits) for value in _integers(array)]


def _timestamps(array: pa.Array) -> list[Any]:
    digits, zone = _DIGITS[_unit(array.type)], "" if array.type.tz is None else "Z"
    day = _DAY * 10**digits
    return [
        None if value is None else f"{_date(value // day)}T{_clock(value % day, digits)}{zone}"
        for value in _integers(array)
    ]


def _durations(array: pa.Array) -> list[Any]:
    digits = _DIGITS[_unit(array.type)]
    return [None if value is None else f"PT{_seconds(value, digits)}S" for value in _integers(array)]


def _interval(value: Any) -> str:
    months, days, nanoseconds = value
    date = (f"{months}M" if months else "") + (f"{days}D" if days else "")
    time = f"T{_seconds(nanoseconds, 9)}S" if nanoseconds or not date else ""
    return f"P{date}{time}"


# Nested types.


def _cut(values: Iterable[Any], lengths: list[int | None]) -> list[Any]:
    it = iter(values)
    return [None if length is None else [next(it) for _ in range(length)] for length in lengths]


def _list(array: pa.Array) -> list[Any]:
    return _cut(json_values(array.flatten()), pc.list_value_length(array).to_pylist())


def _map(array: pa.Array) -> list[Any]:
    offsets = array.offsets
    begin, end = (offsets[0].as_py(), offsets[len(array)].as_py()) if len(array) else (0, 0)
    keys, items = (json_values(child.slice(begin, end - begin)) for child in (array.keys, array.items))
    pairs = [list(pair) for pair in zip(keys, items, strict=True)]
    bounds = [offset - begin for offset in offsets.to_pylist()]
    valid = array.is_valid().to_pylist()
    return [pairs[bounds[i] : bounds[i + 1]] if valid[i] else None for i in range(len(array))]


def _struct(array: pa.Array) -> list[Any]:
    names = distinct(field.name for field in array.type)
    valid = array.is_valid().to_pylist()
    if not names:
        return [{} if there else None for there in valid]
    # Not `flatten`, which kills the process on a union below a struct with nulls (pyarrow 26).
    columns = [json_values(array.field(i)) for i in range(len(names))]
    return [
        dict(zip(names, row, strict=True)) if there else None
        for row, there in zip(zip(*columns, strict=True), valid, strict=True)
    ]


def _dictionary(array: pa.Array) -> list[Any]:
    used = array.indices.drop_null().unique().to_pylist()
    # By slices rather than `take`, which does not support views, unions and runs (pyarrow 26).
    values = {index: json_values(array.dictionary.slice(index, 1))[0] for index in used}
    return [None if index is None else values[index] for index in array.indices.to_pylist()]


def _runs(array: pa.Array) -> list[Any]:
    first, count = array.find_physical_offset(), array.find_physical_length()
    ends = array.run_ends.slice(first, count).cast(pa.int64()).to_numpy() - array.offset
    lengths = np.diff(np.minimum(ends, len(array)), prepend=0).tolist()
    values = json_values(array.values.slice(first, count))
    return [value for value, length in zip(values, lengths, strict=True) for _ in range(length)]


def _union(array: pa.Array) -> list[Any]:
    # From the buffers, since a slice's `type_codes` and `offsets` are those of the whole array.
    stretch = slice(array.offset, array.offset + len(array))
    _, codes, *offsets = array.buffers()[: 3 if array.type.mode == "dense" else 2]
    places = np.frombuffer(offsets[0], np.int32)[stretch].tolist() if offsets else range(len(array))
    children = [json_values(array.field(i)) for i in range(array.type.num_fields)]
    child = dict(zip(array.type.type_codes, children, strict=True))
    return [child[code][at] for code, at in zip(np.frombuffer(codes, np.int8)[stretch].tolist(), places, strict=True)]


def _extension(array: pa.Array) -> list[Any]:
    return json_values(array.storage)


def _printed(array: pa.Array) -> list[Any]:
    """A type that pyarrow knows but cannot convert, as Arrow prints it."""
    return [str(value) if value.is_valid else None for value in array]


_TEXTS = (
    is_.is_string,
    is_.is_large_string,
    is_.is_string_view,
    is_.is_binary,
    is_.is_large_binary,
    is_.is_binary_view,
    is_.is_fixed_size_binary,
)
_LISTS = (is_.is_list, is_.is_large_list, is_.is_fixed_size_list, is_.is_list_view, is_.is_large_list_view)
_RULES: tuple[tuple[Callable[[pa.DataType], bool], Callable[[pa.Array], list[Any]]], ...] = (
    (lambda kind: isinstance(kind, pa.BaseExtensionType), _extension),
    (lambda kind: is_.is_null(kind) or is_.is_boolean(kind) or is_.is_integer(kind), _plain),
    (is_.is_floating, _each(_float)),
    (is_.is_decimal, _each(lambda value: f"{value:f}")),
    (lambda kind: any(test(kind) for test in _TEXTS), _text),
    (is_.is_date, _dates),
    (is_.is_time, _times),
    (is_.is_timestamp, _timestamps),
    (is_.is_duration, _durations),
    (lambda kind: is_.is_interval(kind) and kind == pa.month_day_nano_interval(), _each(_interval)),
    (is_.is_map, _map),
    (lambda kind: any(test(kind) for test in _LISTS), _list),
    (is_.is_struct, _struct),
    (is_.is_dictionary, _dictionary),
    (is_.is_run_end_encoded, _runs),
    (is_.is_union, _union),
)
