"""The language of rules: expressions in Python syntax over measures and columns, parsed and typed, never evaluated.

An expression becomes a tree of :class:`Column`, :class:`Literal` and :class:`Call` with a fixed list of operations,
computed with Arrow by :mod:`headrace.select.verdicts.rules`. Nothing in it can loop, and regular expressions are RE2's,
which take linear time.
"""

from __future__ import annotations

import ast
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from headrace.recipe.base import suggest

MOST_CHARACTERS = 4000  # length of an expression: what a person would still read
MOST_DEPTH = 100

SYNTAX = (
    "comparisons, and, or, not, in, is None, + - * /, len(x), abs(x), matches(x, 'regex'), "
    "x.lower(), x.startswith('a'), x.endswith('a')"
)


class Mistake(Exception):  # noqa: N818 - the user's, in an expression
    """An expression is not valid: what is wrong, and what to write."""

    def __init__(self, what: str, fix: str = "") -> None:
        super().__init__(what)
        self.what, self.fix = what, fix


@dataclass(frozen=True)
class Column:
    """The value of a measure or column."""

    name: str
    type: str


@dataclass(frozen=True)
class Literal:
    """A plain value, or a tuple of them."""

    value: Any
    type: str


@dataclass(frozen=True)
class Call:
    """An operation on expressions."""

    operation: str
    arguments: tuple[Node, ...]
    type: str


Node = Column | Literal | Call

_ORDER = {ast.Lt: "less", ast.LtE: "less_equal", ast.Gt: "greater", ast.GtE: "greater_equal"}
_EQUAL = {ast.Eq: "equal", ast.NotEq: "not_equal"}
_ARITHMETIC = {ast.Add: "add", ast.Sub: "subtract", ast.Mult: "multiply", ast.Div: "divide"}
_METHODS = {"lower": 0, "startswith": 1, "endswith": 1}
_KINDS = {"bool": "true or false", "int": "a number", "float": "a number", "str": "text", "null": "None"}


def parse(text: str, types: Mapping[str, str]) -> Node:
    """Parse an expression that is true or false.

    Args:
        text: the expression.
        types: the type of each name: ``bool``, ``int``, ``float`` or ``str``.

    Raises:
        Mistake: it is not a valid expression, uses an unknown name, or mixes types.
    """
    if len(text) > MOST_CHARACTERS:
        raise Mistake(f"the expression is longer than {MOST_CHARACTERS} characters", "split it into several rules")
    try:
        tree = ast.parse(text.strip(), mode="eval").body
    except SyntaxError as error:
        raise Mistake(f"{text!r} is not an expression: {error.msg}", f"use {SYNTAX}") from None
    except (ValueError, RecursionError, MemoryError):
        raise Mistake("the expression cannot be parsed", f"use {SYNTAX}") from None
    node = _Parser(types).parse(tree)
    if node.type != "bool":
        raise Mistake(f"{text!r} is {_KINDS[node.type]}, not true or false", "compare it, as in `words > 100`")
    return node


def columns(node: Node) -> list[str]:
    """The names that an expression uses, in order of appearance."""
    if isinstance(node, Column):
        return [node.name]
    arguments = node.arguments if isinstance(node, Call) else ()
    return list(dict.fromkeys(name for argument in arguments for name in columns(argument)))


class _Parser:
    def __init__(self, types: Mapping[str, str]) -> None:
        self._types, self._depth = types, 0

    def parse(self, node: ast.expr) -> Node:
        self._depth += 1
        if self._depth > MOST_DEPTH:
            raise Mistake("the expression is nested too deeply", "split it into several rules")
        made = self._parse(node)
        self._depth -= 1
        return made

    def _parse(self, node: ast.expr) -> Node:
        match node:
            case ast.Name():
                return self._column(node.id)
            case ast.Constant():
                return _literal(node.value)
            case ast.List() | ast.Tuple() | ast.Set():
                return self._several(node.elts)
            case ast.BoolOp():
                operation = "and" if isinstance(node.op, ast.And) else "or"
                values = [self._typed(value, "bool", operation) for value in node.values]
                return _joined(operation, values)
            case ast.UnaryOp(op=ast.Not()):
                return Call("not", (self._typed(node.operand, "bool", "not"),), "bool")
            case ast.UnaryOp(op=ast.USub()):
                value = self._typed(node.operand, "number", "-")
                if isinstance(value, Literal):
                    return Literal(-value.value, value.type)
                return Call("negate", (value,), "float")
            case ast.BinOp() if type(node.op) in _ARITHMETIC:
                numbers = tuple(self._typed(side, "number", "arithmetic") for side in (node.left, node.right))
                return Call(_ARITHMETIC[type(node.op)], numbers, "float")
            case ast.Compare():
                sides = [node.left, *node.comparators]
                return _joined("and", [self._compared(*part) for part in zip(sides, node.ops, sides[1:], strict=False)])
            case ast.Call():
                return self._call(node)
            case _:
                raise Mistake(f"{ast.unparse(node)!r} is not supported in rules", f"use {SYNTAX}")

    def _column(self, name: str) -> Column:
        if name not in self._types:
            if name == "text":
                raise Mistake("rules cannot read texts", "write a measure that does, and use its value")
            known = ", ".join(self._types)
            raise Mistake(
                f"there is no measure or column {name!r}", suggest(name, self._types) or f"known names: {known}"
            )
        return Column(name, self._types[name])

    def _several(self, items: list[ast.expr]) -> Literal:
        values = [self.parse(item) for item in items]
        kinds = {_family(value.type) for value in values}
        if not values or not all(isinstance(value, Literal) for value in values) or len(kinds) > 1 or "null" in kinds:
            raise Mistake("a list must contain plain values of one type", "write a list such as `['python', 'c']`")
        kind = "float" if any(value.type == "float" for value in values) else values[0].type
        return Literal(tuple(value.value for value in values if isinstance(value, Literal)), f"list of {kind}")

    def _typed(self, node: ast.expr, wanted: str, what: str) -> Node:
        made = self.parse(node)
        if _family(made.type) != wanted:
            needs = {"bool": "true or false", "number": "numbers", "text": "text"}[wanted]
            raise Mistake(f"`{what}` needs {needs}, but {ast.unparse(node)!r} is {_kind(made.type)}")
        return made

    def _compared(self, left: ast.expr, operator: ast.cmpop, right: ast.expr) -> Node:
        if isinstance(operator, ast.Is | ast.IsNot):
            value, none = self.parse(left), self.parse(right)
            if none.type != "null" or not isinstance(value, Column | Call):
                raise Mistake("`is` only compares a measure or column with None", "write `==`, or `x is None`")
            missing = Call("is_null", (value,), "bool")
            return missing if isinstance(operator, ast.Is) else Call("not", (missing,), "bool")
        if isinstance(operator, ast.In | ast.NotIn):
            found = self._within(left, right)
            return found if isinstance(operator, ast.In) else Call("not", (found,), "bool")
        a, b = self.parse(left), self.parse(right)
        if "null" in (a.type, b.type):
            raise Mistake("nothing is equal to None", f"write `{ast.unparse(left)} is None`")
        if _family(a.type) != _family(b.type):
            raise Mistake(
                f"{ast.unparse(left)!r} is {_kind(a.type)}, but {ast.unparse(right)!r} is {_kind(b.type)}",
                "compare values of the same type",
            )
        if type(operator) in _ORDER and _family(a.type) not in ("number", "text"):
            raise Mistake(f"{_kind(a.type)} has no order", "write `==` or `!=`")
        return Call({**_ORDER, **_EQUAL}[type(operator)], (a, b), "bool")

    def _within(self, left: ast.expr, right: ast.expr) -> Node:
        item, whole = self.parse(left), self.parse(right)
        if whole.type.startswith("list of "):
            if _family(whole.type.removeprefix("list of ")) != _family(item.type):
                raise Mistake(f"{ast.unparse(left)!r} is {_kind(item.type)}, but the items of the list are not")
            return Call("is_in", (item, whole), "bool")
        if whole.type == "str" and item.type == "str" and isinstance(item, Literal):
            return Call("contains", (whole, item), "bool")
        raise Mistake(
            "`in` needs a list, or plain text on the left and text on the right",
            "write `language in ['c', 'c++']` or `'a' in path`",
        )

    def _call(self, node: ast.Call) -> Node:
        spelt = ast.unparse(node)
        if node.keywords or any(isinstance(argument, ast.Starred) for argument in node.args):
            raise Mistake(f"{spelt!r} has keyword arguments", f"use {SYNTAX}")
        if isinstance(node.func, ast.Attribute) and node.func.attr in _METHODS:
            name, arguments = node.func.attr, [node.func.value, *node.args]
            if len(node.args) != _METHODS[name]:
                raise Mistake(f"{spelt!r} has the wrong number of arguments", f"use {SYNTAX}")
            subject = self._typed(arguments[0], "text", name)
            if not node.args:
                return Call(name, (subject,), "str")
            return Call(name, (subject, self._plain_text(node.args[0], name)), "bool")
        if isinstance(node.func, ast.Name) and node.func.id in ("len", "abs", "matches"):
            name = node.func.id
            if len(node.args) != (2 if name == "matches" else 1):
                raise Mistake(f"{spelt!r} has the wrong number of arguments", f"use {SYNTAX}")
            if name == "abs":
                return Call("abs", (self._typed(node.args[0], "number", name),), "float")
            subject = self._typed(node.args[0], "text", name)
            if name == "len":
                return Call("len", (subject,), "int")
            pattern = self._plain_text(node.args[1], name)
            _check_regex(str(pattern.value))
            return Call("matches", (subject, pattern), "bool")
        raise Mistake(f"{ast.unparse(node.func)!r} is not a function that rules support", f"use {SYNTAX}")

    def _plain_text(self, node: ast.expr, what: str) -> Literal:
        made = self._typed(node, "text", what)
        if not isinstance(made, Literal):
            raise Mistake(f"`{what}` takes plain text in quotes, not {ast.unparse(node)!r}")
        return made


def _literal(value: Any) -> Literal:
    if value is None:
        return Literal(None, "null")
    if isinstance(value, bool | float | str):
        return Literal(value, type(value).__name__)
    if isinstance(value, int) and -(2**63) < value < 2**63:
        return Literal(value, "int")
    raise Mistake(f"{str(value)[:40]} is not a number, text, True, False or None that a column can hold")


def _joined(operation: str, values: list[Node]) -> Node:
    """Combine as a balanced tree, so that a long chain does not nest deeply."""
    if len(values) == 1:
        return values[0]
    half = len(values) // 2
    return Call(operation, (_joined(operation, values[:half]), _joined(operation, values[half:])), "bool")


def _family(kind: str) -> str:
    return {"int": "number", "float": "number", "str": "text"}.get(kind, kind)


def _kind(kind: str) -> str:
    return _KINDS.get(kind, f"a {kind}")


def _check_regex(pattern: str) -> None:
    import pyarrow as pa
    import pyarrow.compute as pc

    try:
        pc.match_substring_regex(pa.array([""]), pattern)
    except pa.ArrowInvalid as error:
        reason = str(error).partition(": ")[2] or str(error)
        raise Mistake(f"{pattern!r} is not a regular expression: {reason}", "use RE2 syntax") from None
