"""Formats whose files are whole: text, docstrings, pydoc's topics, conversations made of functions."""

from __future__ import annotations

import ast
import gzip
import sysconfig
import textwrap
from pathlib import Path

import pytest
from reading_helpers import bads, items, skips, texts, write

from headrace.documents.readers.docstring_chat import REQUEST

MODULE = '''\
"""A module.

  Indented.
"""

if True:
    def guarded():
        """Under a condition."""
        return [1]

class A:
    """A class."""

    @property
    def method(self, x: int = 1) -> int:
        """A method that adds one to its argument.

        More.
        """
        def inner():
            """Not told apart."""
        y = x + 1  # a remark

        return y

    async def short(self): "A docstring on the line of its function."; return 1

def trivial():
    """A docstring which is long enough to count."""
    pass

def bare(): return 1
'''


def test_text(tmp_path):
    assert texts(items(write(tmp_path / "a.txt", "a\r\nb\1\u2028"))) == ["a\r\nb\1\u2028"]
    assert texts(items(write(tmp_path / "b.txt", b"\xef\xbb\xbfa"))) == ["a"]
    assert texts(items(write(tmp_path / "c.py.gz", gzip.compress(b"x = 1")))) == ["x = 1"]
    assert items(tmp_path / "c.py.gz")[0].fields == {"path": "c.py.gz", "language": "python"}
    assert skips(items(write(tmp_path / "d.txt", ""))) == [0]
    assert texts(items(write(tmp_path / "e.txt", b"\1" * 1_000_000))) == ["\1" * 1_000_000]


@pytest.mark.parametrize("data", [b"\0" * 1_000_000, b"a\nb\0c", "no mark".encode("utf-16-le"), b"\x7fELF\2\1\1\0"])
def test_what_holds_a_nul_byte_is_no_text(tmp_path, data):
    path = write(tmp_path / "a.txt", data)
    nul = data.index(b"\0")
    said = f"a NUL byte at byte {nul}: binary data, or text that is not UTF-8"
    assert bads(items(path)) == [(data.count(b"\n", 0, nul), said)]


def test_text_that_is_not_utf8_names_the_line(tmp_path):
    found = items(write(tmp_path / "a.txt", b"one\ntwo\nth\xffree\n"))
    assert bads(found) == [(2, "not UTF-8: byte 0xff at byte 10")]
    assert found[0].excerpt.startswith("th\ufffdree")
    assert "surrogate" in bads(items(write(tmp_path / "b.txt", b"\xed\xb0\x80")))[0][1]
    cut = gzip.compress(b"x" * 1000)[:-9]
    assert "cut short" in bads(items(write(tmp_path / "c.txt.gz", cut)))[0][1]


def test_docstrings_under_qualified_names(tmp_path):
    path = write(tmp_path / "pkg.py", MODULE)
    (text,) = texts(items(path, format="docstrings"))
    assert text == textwrap.dedent("""\
        pkg

        A module.

        Indented.


        pkg.guarded

        Under a condition.


        pkg.A

        A class.


        pkg.A.method

        A method that adds one to its argument.

        More.


        pkg.A.short

        A docstring on the line of its function.


        pkg.trivial

        A docstring which is long enough to count.
        """)


def test_module_names(tmp_path):
    (tmp_path / "json").mkdir()
    write(tmp_path / "json" / "__init__.py", '"""Doc."""')
    from headrace.documents.readers.modules import module_name

    assert module_name("json/__init__.py") == "json"
    assert module_name("json/decoder.py") == "json.decoder"
    assert module_name("__init__.py") == "__init__"


def test_modules_that_do_not_parse(tmp_path):
    found = items(write(tmp_path / "a.py", "x = 1\ndef f(:\n"), format="docstrings")
    ((row, error),) = bads(found)
    assert row == 1
    assert "not Python" in error
    for i, data in enumerate([b"x = '\0'", b"\xff", b"(" * 5000, b"# coding: nonsense\n"]):
        assert len(bads(items(write(tmp_path / f"b{i}.py", data), format="docstrings"))) == 1
        assert len(bads(items(tmp_path / f"b{i}.py", format="docstring_chat"))) == 1
    assert skips(items(write(tmp_path / "c.py", "x = 1"), format="docstrings")) == [0]
    assert texts(items(write(tmp_path / "d.py", b"# coding: latin-1\n'''\xe9'''"), format="docstrings")) == [
        "d\n\n\xe9\n"
    ]


def test_docstring_chat(tmp_path):
    path = write(tmp_path / "pkg.py", MODULE)
    found = items(path, format="docstring_chat")
    lines = MODULE.splitlines()
    records = [item for item in found if hasattr(item, "turns")]
    # The docstring of `guarded` says too little, `short` shares its line, `trivial` does nothing.
    assert [record.fields["function"] for record in records] == ["pkg.A.method"]
    assert len(skips(found)) == 3
    record = records[-1]
    (user, request, *_), (assistant, body, *_) = record.turns
    assert (user, assistant) == ("user", "assistant")
    assert lines[record.row].strip().startswith("def method")
    assert request.startswith(REQUEST + 'def method(self, x: int = 1) -> int:\n    """A method')
    assert body.endswith("    y = x + 1  # a remark\n\n    return y")
    assert "inner" in body


def test_request_and_answer_are_the_function_as_it_was_written():
    """Over real modules: what was taken apart parses again, to the same tree."""
    library = Path(sysconfig.get_path("stdlib"))
    count = 0
    for name in ("textwrap.py", "bisect.py", "json/decoder.py", "asyncio/tasks.py", "argparse.py"):
        for item in items(library / name, format="docstring_chat"):
            if not hasattr(item, "turns"):
                continue
            code = item.turns[0].content.removeprefix(REQUEST) + "\n" + item.turns[1].content
            (function,) = ast.parse(code).body
            assert isinstance(function, ast.FunctionDef | ast.AsyncFunctionDef)
            assert function.name == item.fields["function"].rpartition(".")[2]
            assert len(function.body) > 1
            count += 1
    assert count > 30


def test_pydoc_topics(tmp_path):
    library = Path(sysconfig.get_path("stdlib"))
    found = items(library / "pydoc_data" / "topics.py", format="pydoc_topics")
    assert len(texts(found)) > 50
    assert all(item.fields["topic"] for item in found)
    path = write(tmp_path / "a.py", "topics = {'a': 'x', 'b': 1}\n")
    found = items(path, format="pydoc_topics")
    assert texts(found) == ["x"]
    assert bads(found) == [(1, "the topic 'b' holds a number, not text")]
    for data in ("topics = dict(a=1)", "import os", "def"):
        assert len(bads(items(write(tmp_path / "b.py", data), format="pydoc_topics"))) == 1
