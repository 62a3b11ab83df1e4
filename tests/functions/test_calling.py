"""Calling functions that do what they should not."""

from __future__ import annotations

import math
import re

import numpy as np
import pyarrow as pa
import pytest

from headrace.documents.store import GIVEN, documents_of
from headrace.errors import UserError
from headrace.functions.calling import Function, results, value_of
from headrace.functions.failures import Failed
from headrace.functions.loading import load_text

BAD = {
    "raises": ("def f(d): return int('x')", "ValueError: invalid literal"),
    "exits": ("import sys\ndef f(d): sys.exit(4)", "SystemExit: 4"),
    "recurs": ("def f(d): return f(d)", "RecursionError"),
    "is_base": ("class B(BaseException): ...\ndef f(d): raise B('b')", "B: b"),
    "message": ("class E(Exception):\n  def __str__(self): raise KeyError\ndef f(d): raise E", "cannot be shown"),
    "address": ("def f(d): raise ValueError(object())", r"<object object at 0x\.\.\.>"),
    "surrogate": ("def f(d): raise ValueError('a\\ud800')", "ValueError: a<U.D800>"),
    "lines": ("def f(d): raise ValueError('a\\nb\\x1b[31m')", "ValueError: a b"),
}


@pytest.mark.parametrize("name", BAD)
def test_whatever_it_raises_is_one_line_with_its_own_place(name: str) -> None:
    text, what = BAD[name]
    function = Function(load_text(text, "f"), "m.py:f", {}, stop=False)
    with pytest.raises(Failed, match=what) as caught:
        function(None)
    told = function.failed(caught.value, "s:f:1")
    assert told.startswith("m.py:f: ")
    assert "\n" not in told
    assert re.search(r"<code of f>, line \d, in (f|__str__)", told)
    stopping = Function(load_text(text, "f"), "m.py:f", {}, stop=True)
    with pytest.raises(UserError) as ended:
        stopping.failed(caught.value, "s:f:1")
    assert ended.value.where == "document s:f:1"


def test_parameters_and_instances() -> None:
    text = "def f(d, level, more=1): return d * level + more\nclass K:\n  def __init__(self, by): self.by = by\n"
    text += "  def __call__(self, d): return d + self.by\nclass N: ...\n"
    assert Function(load_text(text, "f"), "f", {"level": 3}, False)(2) == 7
    assert Function(load_text(text, "K"), "K", {"by": 3}, False)(2) == 5
    for name, parameters in (("f", {}), ("f", {"level": 1, "nope": 2}), ("K", {}), ("N", {})):
        with pytest.raises(UserError, match=r"cannot be called with|is not a function"):
            Function(load_text(text, name), name, parameters, False)


def test_values_of_types() -> None:
    assert [value_of(v, "float") for v in (1, 1.5, np.float32(0.5), pa.scalar(2.0), None)] == [1.0, 1.5, 0.5, 2.0, None]
    assert [value_of(v, "int") for v in (1, np.int64(-3), -(2**63))] == [1, -3, -(2**63)]
    assert [value_of(v, "bool") for v in (True, np.bool_(False))] == [True, False]
    assert value_of("é", "str") == "é"
    for value, kind in (
        (True, "int"),
        (1, "bool"),
        (1.0, "int"),
        ("1", "float"),
        (1, "str"),
        ([], "str"),
        (b"", "str"),
    ):
        with pytest.raises(TypeError, match="where its type is"):
            value_of(value, kind)
    for value, kind in (
        (2**63, "int"),
        (math.nan, "float"),
        (math.inf, "float"),
        ("\ud800", "str"),
        (10**400, "float"),
    ):
        with pytest.raises(ValueError):
            value_of(value, kind)


def rows(*texts: str) -> pa.RecordBatch:
    told = {"id": "0" * 32, "source": "s", "origin_file": "f"}
    given = [{**told, "text": text, "origin_row": row} for row, text in enumerate(texts)]
    return documents_of(pa.RecordBatch.from_pylist(given, schema=GIVEN))


@pytest.mark.parametrize(
    "text",
    [
        "def f(d):\n  if d.text == 'big': raise MemoryError\n  return 1",
        "import headrace\n@headrace.per_batch\ndef f(b):\n"
        "  if 'big' in b.column('text').to_pylist(): raise MemoryError\n  return [1] * b.num_rows",
    ],
)
def test_a_document_for_which_there_is_no_memory_is_named_and_stops_the_run(text: str) -> None:
    function = Function(load_text(text, "f"), "m.py:f", {}, stop=False)
    assert results(function, rows("a", "b"), lambda made: made) == [1, 1]
    with pytest.raises(UserError, match=r"m\.py:f ran out of memory") as told:
        results(function, rows("a", "b", "big", "c"), lambda made: made)
    assert told.value.where == "document s:f:2"


@pytest.mark.parametrize(
    ("made", "told"),
    [
        ("np.array(5)", "0-d array"),
        ("Odd()", "RuntimeError: no"),
        ("{str(i) for i in range(batch.num_rows)}", "gives set"),
        ("batch.column('text').cast('large_binary')", "gives bytes"),
    ],
)
def test_results_of_a_batch_that_are_no_list_of_texts(made: str, told: str) -> None:
    odd = "class Odd:\n  def __len__(self): raise RuntimeError('no')\n  __iter__ = __len__\n"
    code = f"import headrace, numpy as np\n{odd}@headrace.per_batch\ndef f(batch): return {made}"
    (failed,) = results(
        Function(load_text(code, "f"), "f", {}, False), rows("text"), lambda value: value_of(value, "str")
    )
    assert told in str(failed)


def test_a_result_with_methods_of_its_own() -> None:
    code = "class T:\n  def item(self): raise RuntimeError('no scalar')\ndef f(d): return T()"
    (failed,) = results(
        Function(load_text(code, "f"), "f", {}, False), rows("text"), lambda value: value_of(value, "float")
    )
    assert "no scalar" in str(failed)
