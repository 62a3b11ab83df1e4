"""Arrow values as JSON: the rule by examples, and over generated types."""

from __future__ import annotations

import datetime
import json
import os
import struct
import subprocess
import sys
from decimal import Decimal
from itertools import pairwise

import orjson
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st
from reading_helpers import items, texts

from headrace.documents.readers.side_fields import distinct, json_values
from headrace.documents.readers.tables import validate

MOST, LEAST = (1 << 63) - 1, -(1 << 63)


def stored(values: list[int | None], kind: pa.DataType) -> pa.Array:
    return pa.array(values, pa.int32() if kind.bit_width == 32 else pa.int64()).view(kind)


@pytest.mark.parametrize(
    ("array", "expected"),
    [
        (pa.array([1 << 63, None], pa.uint64()), [1 << 63, None]),
        (pa.array([1.5, float("nan"), float("inf"), float("-inf")]), [1.5, "NaN", "Infinity", "-Infinity"]),
        (pa.array([Decimal("1.50"), None], pa.decimal128(5, 2)), ["1.50", None]),
        (pa.array([Decimal("1E+3")], pa.decimal256(76, 0)), ["1000"]),
        (pa.array([b"text", b"\xff", None]), ["text", b"\xff", None]),
        (stored([0, -1, (1 << 31) - 1, None], pa.date32()), ["1970-01-01", "1969-12-31", "+5881580-07-11", None]),
        (stored([-719_529, -719_528], pa.date32()), ["-0001-12-31", "0000-01-01"]),
        (stored([86_400_000, MOST], pa.date64()), ["1970-01-02", "+292278994-08-17"]),
        (stored([0, 1, MOST], pa.timestamp("s"))[:2], ["1970-01-01T00:00:00", "1970-01-01T00:00:01"]),
        (stored([MOST, LEAST], pa.timestamp("ns")), ["2262-04-11T23:47:16.854775807", "1677-09-21T00:12:43.145224192"]),
        (stored([1], pa.timestamp("us", "Nowhere/Atall")), ["1970-01-01T00:00:00.000001Z"]),
        (stored([3_723_004], pa.time32("ms")), ["01:02:03.004"]),
        (stored([-1, 93_784_500_000_000], pa.duration("ns")), ["PT-0.000000001S", "PT93784.500000000S"]),
        (pa.array([(1, 2, 3), (0, 0, 0)], pa.month_day_nano_interval()), ["P1M2DT0.000000003S", "PT0S"]),
        (pa.array([[("k", 1)], None], pa.map_(pa.string(), pa.int8())), [[["k", 1]], None]),
        (pa.array([b"\xff" * 16], pa.uuid()), [b"\xff" * 16]),
        (pa.array(["a", None, "a"]).dictionary_encode(), ["a", None, "a"]),
    ],
)
def test_the_rule(array, expected):
    assert json_values(array) == expected


def test_python_agrees_where_it_can():
    moments = [datetime.datetime(1, 1, 1), datetime.datetime(1999, 12, 31, 23, 59, 59), datetime.datetime(9999, 12, 31)]
    assert json_values(pa.array(moments)) == [moment.isoformat() for moment in moments]
    days = [datetime.date(1, 1, 1) + datetime.timedelta(days=i * 997) for i in range(3600)]
    assert json_values(pa.array(days)) == [day.isoformat() for day in days]


def test_names():
    assert distinct(["a", "b", "a", "a_2", "a"]) == ["a", "b", "a_2", "a_2_2", "a_3"]


INTEGERS = st.integers(LEAST, MOST)
LEAVES = st.one_of(
    st.sampled_from([pa.null(), pa.bool_(), pa.int8(), pa.uint64(), pa.float16(), pa.float32(), pa.float64()]),
    st.sampled_from([pa.string(), pa.large_string(), pa.string_view(), pa.binary(), pa.binary(3), pa.binary_view()]),
    st.sampled_from([pa.decimal32(9, 2), pa.decimal64(9, -3), pa.decimal128(30, 7), pa.decimal256(70, 0)]),
    st.sampled_from([pa.date32(), pa.date64(), pa.time32("s"), pa.time32("ms"), pa.time64("us"), pa.time64("ns")]),
    st.builds(pa.timestamp, st.sampled_from(["s", "ms", "us", "ns"]), st.sampled_from([None, "UTC", "+01:30", "?"])),
    st.builds(pa.duration, st.sampled_from(["s", "ms", "us", "ns"])),
    st.just(pa.month_day_nano_interval()),
)


def leaf(draw: st.DrawFn, kind: pa.DataType, rows: int) -> pa.Array:
    """An array of any values that the type can store, those that Python's types lack among them."""
    small = INTEGERS.map(lambda n: n % (1 << 7))
    if pa.types.is_temporal(kind) and not pa.types.is_interval(kind):
        # Below unions and runs Arrow allows what the type allows only: whole days, and times within one.
        limit = 86_400 if pa.types.is_time(kind) else 1 << (kind.bit_width - 1)
        least, step = (0, 1) if pa.types.is_time(kind) else (-limit, 86_400_000 if kind == pa.date64() else 1)
        ticks = st.integers(-(-least // step), (limit - 1) // step).map(lambda n: n * step)
        return stored(draw(st.lists(st.none() | ticks, min_size=rows, max_size=rows)), kind)
    values: st.SearchStrategy = st.none()
    if pa.types.is_boolean(kind):
        values = st.booleans()
    elif pa.types.is_integer(kind):
        values = small
    elif pa.types.is_floating(kind):
        values = st.floats(width=kind.bit_width)
    elif pa.types.is_decimal(kind):
        values = st.sampled_from([Decimal(0), Decimal(1000), Decimal(-9000)])
    elif pa.types.is_interval(kind):
        values = st.tuples(st.integers(-9, 9), st.integers(-9, 9), INTEGERS)
    elif kind == pa.binary(3):
        values = st.binary(min_size=3, max_size=3)
    elif kind in (pa.string(), pa.large_string(), pa.string_view()):
        values = st.text(max_size=20)
    elif kind != pa.null():
        values = st.binary(max_size=20)
    return pa.array(draw(st.lists(st.none() | values, min_size=rows, max_size=rows)), kind)


@st.composite
def arrays(draw: st.DrawFn, rows: int, depth: int = 2) -> pa.Array:
    nested = ["list", "view", "fixed", "struct", "map", "dictionary", "runs", "sparse", "dense"] if depth else []
    shape = draw(st.sampled_from(["leaf", *nested]))
    if shape == "leaf":
        return leaf(draw, draw(LEAVES), rows)
    ends = [0, *sorted(draw(st.lists(st.integers(0, 6), min_size=rows, max_size=rows)))]
    mask = pa.array(draw(st.lists(st.booleans(), min_size=rows, max_size=rows)), pa.bool_())
    if shape == "list":
        made = pa.LargeListArray.from_arrays(ends, draw(arrays(6, depth - 1)))
    elif shape == "view":
        sizes = [b - a for a, b in pairwise(ends)]
        made = pa.ListViewArray.from_arrays(
            pa.array(ends[:-1], pa.int32()), pa.array(sizes, pa.int32()), draw(arrays(6, depth - 1))
        )
    elif shape == "fixed":
        made = pa.FixedSizeListArray.from_arrays(draw(arrays(2 * rows, depth - 1)), 2)
    elif shape == "struct":
        children = [draw(arrays(rows, depth - 1)) for _ in range(draw(st.integers(1, 3)))]
        made = pa.StructArray.from_arrays(children, names=["same"] * len(children), mask=mask)
    elif shape == "map":
        keys = pa.array([f"k{i}" for i in range(6)])
        made = pa.MapArray.from_arrays(pa.array(ends, pa.int32()), keys, draw(arrays(6, depth - 1)))
    elif shape == "dictionary":
        indices = pa.array(draw(st.lists(st.none() | st.integers(0, 5), min_size=rows, max_size=rows)), pa.int8())
        made = pa.DictionaryArray.from_arrays(indices, draw(arrays(6, depth - 1)))
    elif shape == "runs":
        if rows == 0:
            return pa.nulls(0)
        made = pa.RunEndEncodedArray.from_arrays(
            pa.array([(rows + 1) // 2, rows + 1], pa.int32()), draw(arrays(2, depth - 1))
        )
        made = made.slice(0, rows)
    else:
        codes = draw(st.lists(st.integers(0, 1), min_size=rows, max_size=rows))
        children = [draw(arrays(max(rows, 1), depth - 1)) for _ in range(2)]
        if shape == "sparse":
            made = pa.UnionArray.from_sparse(pa.array(codes, pa.int8()), [child.slice(0, rows) for child in children])
        else:
            places = [0] * rows
            made = pa.UnionArray.from_dense(pa.array(codes, pa.int8()), pa.array(places, pa.int32()), children)
    return made


@given(st.data(), st.integers(0, 6))
def test_every_type_becomes_json(data, rows):
    array = data.draw(arrays(rows))
    validate(pa.record_batch([array], names=["a"]))
    values = json_values(array)
    assert len(values) == rows
    written = orjson.dumps(values, default=bytes.hex)
    assert b"_ARROW_" not in written
    assert f"({array.type}".encode() not in written, "no value is a word about a failure"
    begin = data.draw(st.integers(0, rows))
    end = data.draw(st.integers(begin, rows))
    assert json_values(array.slice(begin, end - begin)) == values[begin:end], "the same in slices"


PANDAS = """
__version__ = "2.3.3"

def used(*args, **keywords):
    raise ValueError("pandas was used")

def __getattr__(name):
    return type(name, (), {"__new__": used})
"""
SCRIPT = """
import json, pyarrow as pa, struct, sys
from headrace.documents.readers.side_fields import json_values
if sys.argv[1:]:
    import pandas
ticks = pa.Array.from_buffers(pa.int64(), 2, [None, pa.py_buffer(struct.pack("qq", 1, 10**18 + 1))])
kinds = [f(unit) for f in (pa.timestamp, pa.duration) for unit in ("s", "ms", "us", "ns")]
kinds += [pa.timestamp("ns", "Europe/Berlin"), pa.time64("ns")]
print(json.dumps([json_values(ticks.view(kind)) for kind in kinds]))
"""


def test_the_same_with_pandas_installed(tmp_path):
    (tmp_path / "pandas").mkdir()
    (tmp_path / "pandas" / "__init__.py").write_text(PANDAS)
    found = []
    for arguments, path in ([[], ""], [["pandas"], f"{tmp_path}"]):
        environment = os.environ | {"PYTHONPATH": os.pathsep.join([*filter(None, [path]), *filter(None, sys.path)])}
        done = subprocess.run(
            [sys.executable, "-c", SCRIPT, *arguments], env=environment, capture_output=True, text=True, check=True
        )
        found.append(json.loads(done.stdout))
    assert found[0] == found[1]
    assert found[0][3] == ["1970-01-01T00:00:00.000000001", "2001-09-09T01:46:40.000000001"]


def interval_file(path, unit: int, nested: bool) -> None:
    """An Arrow file with a column of intervals of a unit that pyarrow cannot write: one that it can, with another unit
    in its schema (Schema.fbs: table Interval { unit: IntervalUnit }, 2 being months, days and nanoseconds)."""
    column = pa.array([(1, 2, 3), None], pa.month_day_nano_interval())
    column = pa.StructArray.from_arrays([column], ["inner"]) if nested else column
    table = pa.table({"text": ["a", "b"], "side": column, "n": [1, 2]})
    with pa.OSFile(str(path), "wb") as sink, pa.ipc.new_file(sink, table.schema) as writer:
        writer.write_table(table)
    data = bytearray(path.read_bytes())
    changed = 0
    for vtable in range(0, len(data) - 72, 2):
        size, room, field = struct.unpack_from("<HHH", data, vtable)
        for at in range(vtable + 4, vtable + 64) if size == 6 and room in (6, 8) and field in (4, 6) else ():
            if struct.unpack_from("<i", data, at)[0] == at - vtable and data[at + field : at + field + 2] == b"\2\0":
                data[at + field] = unit
                changed += 1
    assert changed == 2, "the schema stands in the file twice"
    path.write_bytes(data)


@pytest.mark.parametrize("nested", [False, True])
@pytest.mark.parametrize("unit", [0, 1])
def test_a_type_that_pyarrow_cannot_convert_costs_no_document(tmp_path, unit, nested):
    interval_file(tmp_path / "a.arrow", unit, nested)
    found = items(tmp_path / "a.arrow")
    assert texts(found) == ["a", "b"]
    assert [item.fields["n"] for item in found] == [1, 2]
    kind = ("month_interval", "day_time_interval")[unit]
    assert all(kind in str(item.fields["side"]) for item in found[: 1 if nested else 2])
    orjson.dumps([item.fields for item in found])
    # As the text itself it is none.
    assert not texts(items(tmp_path / "a.arrow", text="side.inner" if nested else "side"))
