"""Tests and program in two processes behave as in one."""

from __future__ import annotations

import json
import os
import threading
from contextlib import suppress

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from headrace.evaluate.remote import Caller, Channel, Closed, Program, decode, encode
from quick import examples

PROGRAM = """
import collections, decimal, enum, fractions, itertools
class Node:
    kind = "node"
    def __init__(self, value, next=None): self.value, self.next = value, next
    def __len__(self): return 1 + (len(self.next) if self.next else 0)
    def __getitem__(self, i): return self.value if i == 0 else self.next[i - 1]
    def __add__(self, other): return Node(self.value + other.value)
    def __lt__(self, other): return self.value < other.value
    def __repr__(self): return f"Node({self.value})"
Pair = collections.namedtuple("Pair", "a b")
def echo(x, **named): return (x, named) if named else x
def sort(l): l.sort()
def fill(d, s): d["new"] = 1; s.add(9)
def apply(g, x): return [g(y) for y in x]
def count(): yield from range(3)
def wrong(kind): raise kind("told")
class Own(LookupError): pass
def own(): raise Own("mine")
def counted(): return collections.Counter("hello")
def pair(): return Pair(1, [2])
def money(): return decimal.Decimal("1.5")
def third(): return fractions.Fraction(1, 3)
class Color(str, enum.Enum): RED = "red"
class Level(enum.IntEnum): HIGH = 3
class Row(list): pass
class Table(dict): pass
def derived(): return [Color.RED, Level.HIGH, Row([1]), Table(a=Row())]
class Any:
    def __eq__(self, other): return True
    __lt__ = __le__ = __gt__ = __ge__ = __contains__ = __eq__
    def __ne__(self, other): return False
    def __sub__(self, other): return 0.0
    __add__ = __rsub__ = __radd__ = __mul__ = __rmul__ = __sub__
    def __hash__(self): return hash(5)
    def __iter__(self): return iter([self])
"""


@pytest.fixture
def tests():
    to_program, to_tests = os.pipe(), os.pipe()
    program = threading.Thread(target=Program(Channel(to_program[0], to_tests[1])).serve)
    program.start()
    made = Caller(Channel(to_tests[0], to_program[1]))
    made.run(PROGRAM)
    yield made
    os.close(to_program[1])
    program.join()
    for descriptor in (to_program[0], *to_tests):
        os.close(descriptor)


def check(tests, text, *names):
    exec(text, {**tests.names(list(names))})


def test_objects_stay_and_are_worked_on_from_afar(tests):
    check(
        tests,
        """
root = Node(1, Node(2)); root.next.next = Node(5)
assert len(root) == 3 and list(root[i] for i in range(3)) == [1, 2, 5]
assert root.next.value == 2 and root.kind == Node.kind == "node"
assert (root + root).value == 2 and repr(root) == "Node(1)" and root < root.next
assert isinstance(root, Node) and not isinstance(3, Node) and bool(root)
assert hasattr(root, "value") and not hasattr(root, "absent")
assert echo(root) == root and echo([root])[0].value == 1
assert pair() == (1, [2]) and money() * 2 == 3 and third() * 3 == 1
assert derived() == ["red", 3, [1], {"a": []}]
""",
        "Node",
        "echo",
        "pair",
        "money",
        "third",
        "derived",
    )


@pytest.mark.parametrize(
    "claim",
    ["x == 5", "5 == x", "not x != 5", "x in [5]", "[x] == [5]", "5 in x", "{x} == {5}", "{x: 1} == {5: 1}", "x <= 5",
     "abs(x - 5) < 1e-6", "abs(5 - x) < 1e-6", "sum([x, 5]) == 0", "x * 5 == 0", "list(x) == [5]", "(x, 1) < (5, 0)"],
)  # fmt: skip
def test_no_object_answers_what_it_is_compared_with(tests, claim):
    names = tests.names(["Any"])
    names["x"] = names["Any"]()
    with suppress(TypeError):
        assert not eval(claim, names)
    assert eval("x == x and x < x", names)  # among themselves they may


def test_arguments_are_changed_where_the_program_changes_them(tests):
    check(
        tests,
        "l, d, s = [3, 1, 2], {}, {1}\nsort(l); fill(d, s)\nassert (l, d, s) == ([1, 2, 3], {'new': 1}, {1, 9})",
        "sort",
        "fill",
    )


def test_functions_of_the_tests_can_be_called(tests):
    check(tests, "assert apply(lambda x: x + 1, [1, 2]) == [2, 3]\nassert apply(str, [1]) == ['1']", "apply")
    with pytest.raises(ZeroDivisionError):
        check(tests, "apply(lambda x: x / 0, [1])", "apply")


def test_iterators_and_exceptions_pass(tests):
    check(
        tests,
        "assert list(count()) == [0, 1, 2] and counted()['l'] == 2 and echo(1, a=2) == (1, {'a': 2})",
        "count",
        "counted",
        "echo",
    )
    for kind in ("ValueError", "StopIteration", "AssertionError", "UnicodeDecodeError"):
        with pytest.raises((ValueError, RuntimeError, AssertionError, TypeError)):
            check(tests, f"wrong({kind})", "wrong")
    with pytest.raises(LookupError, match="Own: mine"):
        check(tests, "own()", "own")
    with pytest.raises(RuntimeError, match="SystemExit"):
        check(tests, "wrong(SystemExit)", "wrong")
    with pytest.raises(NameError, match="absent"):
        tests.names(["absent"])


def test_no_exception_handler_of_a_test_hides_that_the_program_has_ended():
    read, write = os.pipe()
    os.close(write)
    channel = Channel(read, read)
    with pytest.raises(Closed), suppress(Exception):
        channel.receive()
    assert channel.broken
    os.close(read)


PLAIN = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text() | st.binary()
    | st.complex_numbers(allow_nan=False),
    lambda inner: st.lists(inner) | st.tuples(inner, inner) | st.dictionaries(st.text() | st.integers(), inner),
    max_leaves=10,
)  # fmt: skip


def never(*_):
    raise AssertionError


@settings(max_examples=examples(60))
@given(PLAIN)
def test_values_arrive_as_they_left(value):
    there = decode(json.loads(json.dumps(encode(value, never))), never)
    assert there == value
    assert repr(there) == repr(value)


@settings(max_examples=examples(100))
@given(
    st.recursive(st.none() | st.booleans() | st.integers() | st.text(), lambda x: st.lists(x, max_size=3), max_leaves=8)
)
def test_no_json_does_more_than_become_a_value_or_an_error(told):
    with suppress(TypeError, ValueError, KeyError):
        decode(told, lambda kind, content: None)
