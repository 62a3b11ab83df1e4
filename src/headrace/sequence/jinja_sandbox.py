"""jinja2's sandbox as transformers sets it up, with a budget: whatever could make a large value out of small ones is
asked for its size before it runs.
"""

from __future__ import annotations

import functools
import json
import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any

from jinja2 import Undefined, nodes, pass_eval_context
from jinja2.exceptions import SecurityError, TemplateError
from jinja2.ext import Extension, loopcontrols
from jinja2.sandbox import ImmutableSandboxedEnvironment
from jinja2.utils import Namespace
from jinja2.visitor import NodeTransformer

from headrace.sequence.jinja_budget import Budget, LimitError, size_of

_MOST_NUMBER = 1_000_000  # as an argument, such as a width
_MOST_BITS = 10_000
# Results of these would differ from run to run, or take time that grows faster than their input.
_LEFT_OUT = ("random", "urlize", "wordwrap", "pprint")
_WIDE = re.compile(r"\d{4}|\*|:[^{}]*\{")


class SaidError(TemplateError):
    """What a template passes to ``raise_exception``."""


class _Counted(NodeTransformer):
    """Makes loops count their turns, what builds values pay for them, and what compares or cuts them for reading."""

    def visit_Compare(self, node: nodes.Compare) -> nodes.Compare:  # noqa: N802 - jinja2's interface
        self.generic_visit(node)
        node.expr = _filtered(node.expr, "read")
        for operand in node.ops:
            operand.expr = _filtered(operand.expr, "read")
        return node

    def visit_Getitem(self, node: nodes.Getitem) -> nodes.Node:  # noqa: N802 - jinja2's interface
        self.generic_visit(node)
        return _filtered(node, "read") if isinstance(node.arg, nodes.Slice) else node

    def visit_For(self, node: nodes.For) -> nodes.For:  # noqa: N802 - jinja2's interface
        self.generic_visit(node)
        node.iter = _filtered(node.iter, "counted")
        return node

    def visit_Concat(self, node: nodes.Concat) -> nodes.Node:  # noqa: N802 - jinja2's interface
        self.generic_visit(node)
        return _filtered(nodes.List(node.nodes, lineno=node.lineno), "concatenated")

    def visit_List(self, node: nodes.List) -> nodes.Node:  # noqa: N802 - jinja2's interface
        self.generic_visit(node)
        return _filtered(node, "built") if node.items else node

    def visit_Dict(self, node: nodes.Dict) -> nodes.Node:  # noqa: N802 - jinja2's interface
        self.generic_visit(node)
        return _filtered(node, "built") if node.items else node

    def visit_Tuple(self, node: nodes.Tuple) -> nodes.Node:  # noqa: N802 - jinja2's interface
        self.generic_visit(node)
        return _filtered(node, "built") if node.items and node.ctx == "load" else node


def _filtered(node: nodes.Node, name: str) -> Any:
    return nodes.Filter(node, f"_{name}", [], [], None, None, lineno=node.lineno)


class _Generation(Extension):
    """``{% generation %}``: what the assistant says, as in transformers."""

    tags = {"generation"}  # noqa: RUF012 - jinja2's interface

    def parse(self, parser: Any) -> nodes.Node:
        line = next(parser.stream).lineno
        self.environment.marks += 1  # type: ignore[attr-defined]
        body = parser.parse_statements(("name:endgeneration",), drop_needle=True)
        return nodes.CallBlock(self.call_method("_say"), [], [], body).set_lineno(line)

    @pass_eval_context
    def _say(self, context: Any, caller: Callable[[], str]) -> str:
        said = caller()
        sandbox: Any = self.environment
        # As in transformers, positions count what the template has written before.
        sandbox.generated.append((sandbox.written, sandbox.written + len(said)))
        return said


class _Names(Namespace):
    """``namespace`` without underscored names."""

    def __init__(*args: Any, **kwargs: Any) -> None:
        self, given = args[0], dict(*args[1:], **kwargs)
        for name in given:
            _Names._check(name)
        Namespace.__init__(self, given)

    def __setitem__(self, name: str, value: Any) -> None:
        _Names._check(name)
        Namespace.__setitem__(self, name, value)

    @staticmethod
    def _check(name: Any) -> None:
        if isinstance(name, str) and name.startswith("_"):
            raise SecurityError(f"the name {name!r} begins with an underscore")


class _Dict:
    """``dict`` as a function, with nothing else of the class in reach."""

    def __call__(self, *args: Any, **kwargs: Any) -> dict[Any, Any]:
        return dict(*args, **kwargs)


class Sandbox(ImmutableSandboxedEnvironment):
    """jinja2's sandbox with transformers' globals and a budget.

    Attributes:
        budget: what is left of it.
        written: characters written so far at the top of the template.
        generated: see :class:`Rendering`.
        marks: generation blocks met while parsing.
    """

    intercepted_binops = frozenset({"+", "*", "%", "**"})
    budget: Budget
    marks = 0

    def __init__(self, date: str | None) -> None:
        super().__init__(trim_blocks=True, lstrip_blocks=True, extensions=[_Generation, loopcontrols],
                         finalize=self._shown)  # fmt: skip
        self.written, self.generated = 0, list[tuple[int, int]]()
        self.filters["tojson"] = _tojson
        for name in _LEFT_OUT:
            self.filters.pop(name)
        self.filters = {name: self._guarded(name, function) for name, function in self.filters.items()}
        self.filters |= {"_counted": self._turns, "_concatenated": self._concatenated, "_built": self._built}
        self.filters["_read"] = self._read
        tests: dict[str, Any] = self.tests
        self.tests = {name: self._reading(function) for name, function in tests.items()}
        self.globals.pop("lipsum")
        self.globals |= {"raise_exception": _raise, "dict": _Dict(), "namespace": _Names}
        if date is not None:
            self.globals["strftime_now"] = functools.partial(_strftime, date)

    def concat(self, texts: Iterable[str]) -> str:
        """Join what a macro or block wrote."""
        texts = list(texts)
        self.budget.afford(sum(map(len, texts)))
        return str(self.budget.made("".join(texts)))

    def _parse(self, source: str, name: str | None, filename: str | None) -> nodes.Template:
        return _Counted().visit(super()._parse(source, name, filename))

    def _shown(self, value: Any) -> Any:
        """What an expression's value looks like, if it is a plain one."""
        if not isinstance(value, str):
            self._plain(value)
        return value

    def _plain(self, value: Any) -> None:
        if not isinstance(value, str | int | float | list | tuple | dict | Undefined | None):
            raise LimitError(f"it shows a value of the type {type(value).__name__}")
        self.budget.afford(size_of(value, self.budget.characters))

    def _turns(self, values: Any) -> Iterator[Any]:
        for value in values:
            self.budget.step()
            yield value

    def _read(self, value: Any) -> Any:
        self.budget.read(value)
        return self._turns(value) if isinstance(value, Iterator) else value

    def _reading(self, function: Callable[..., Any]) -> Callable[..., Any]:
        """A test that pays for what it looks at."""

        @functools.wraps(function)
        def reading(*args: Any) -> Any:
            return function(*map(self._read, args))

        return reading

    def _built(self, value: Any) -> Any:
        self.budget.step()
        return self.budget.made(value)

    def _concatenated(self, values: list[Any]) -> str:
        for value in values:
            self._shown(value)
        return self.concat(map(str, values))

    def _guarded(self, name: str, function: Callable[..., Any]) -> Callable[..., Any]:
        """A filter that pays for what it makes."""
        passed = 1 if getattr(function, "jinja_pass_arg", None) is not None else 0

        @functools.wraps(function)
        def guarded(*args: Any, **kwargs: Any) -> Any:
            given = [*args[:passed], *map(self._read, args[passed:])]
            if name == "join":
                given = [list(arg) if isinstance(arg, Iterator) else arg for arg in given]
            self._afford(name, given[passed:], kwargs)
            return self._paid(function(*given, **kwargs))

        return guarded

    def call(__self, __context: Any, __obj: Any, *args: Any, **kwargs: Any) -> Any:  # noqa: N805 - as jinja2's
        """Call what a template calls."""
        owner = getattr(__obj, "__self__", None)
        given = list(map(__self._read, args))
        __self.budget.read(owner if isinstance(owner, str | list | tuple | dict) else None, *kwargs.values())
        if isinstance(owner, str):
            name = getattr(__obj, "__name__", "")
            if name == "join":
                given = [list(given[0]), *given[1:]] if given else given
                __self._afford(name, [given[0] if given else [], owner], kwargs)
            else:
                __self._afford(name, [owner, *given], kwargs)
        else:
            __self._afford("", given, kwargs)
        return __self._paid(super().call(__context, __obj, *given, **kwargs))

    def wrap_str_format(self, value: Any) -> Any:
        """``format`` and ``format_map`` of a text, with widths written out and small."""
        wrapped = super().wrap_str_format(value)
        if wrapped is None:
            return None
        pattern = value.__self__

        @functools.wraps(wrapped)
        def formatted(*args: Any, **kwargs: Any) -> Any:
            self._afford("format", [pattern, *args, *kwargs.values()], {})
            return wrapped(*args, **kwargs)

        return formatted

    def _paid(self, value: Any) -> Any:
        return value if isinstance(value, Iterator | _Names) else self.budget.made(value)

    def call_binop(self, context: Any, operator: str, left: Any, right: Any) -> Any:
        """Compute what could grow."""
        self.budget.step()
        numbers = [side for side in (left, right) if isinstance(side, int)]
        lists = [side for side in (left, right) if isinstance(side, str | list | tuple)]
        if operator == "*" and lists and numbers:
            self.budget.afford(max(0, numbers[0]) * size_of(lists[0], self.budget.characters))
        elif operator in ("*", "**") and len(numbers) == 2 and _bits(operator, left, right) > _MOST_BITS:
            raise LimitError("it computes with huge numbers")
        elif operator == "+":
            self.budget.afford(sum(size_of(side, self.budget.characters) for side in lists))
        elif operator == "%" and isinstance(left, str):
            self._afford("format", [left, *(right if isinstance(right, tuple) else [right])], {})
        return self.budget.made(super().call_binop(context, operator, left, right))

    def _afford(self, name: str, args: list[Any], kwargs: Mapping[str, Any]) -> None:
        """Check what a filter or a text's method would make."""
        every = [*args, *kwargs.values()]
        # The first argument is the value itself.
        for value in every[1:] if name else every:
            if isinstance(value, int) and abs(value) > _MOST_NUMBER and name not in ("default", "d"):
                raise LimitError(f"it uses the number {value:.3g}" if abs(value) < 1e300 else "it uses a huge number")
        text = args[0] if args and isinstance(args[0], str) else ""
        if name == "replace" and len(args) > 2:
            old, new = str(args[1]), str(args[2])
            self.budget.afford(len(text) + text.count(old) * len(new))
        elif name == "join" and args:
            joint = len(str(every[1])) if len(every) > 1 and isinstance(every[1], str) else 0
            count = len(args[0]) if hasattr(args[0], "__len__") else 0
            self.budget.afford(size_of(args[0], self.budget.characters) + joint * count)
        elif name in ("format", "format_map"):
            if _WIDE.search(text):
                raise LimitError("it formats to a width")
            size = sum(size_of(value, self.budget.characters) for value in every[1:])
            self.budget.afford(len(text) + (text.count("{") + text.count("%")) * size)
        elif name in ("indent", "wordwrap", "expandtabs"):
            width = max([8, *(len(v) if isinstance(v, str) else v for v in every[1:] if isinstance(v, str | int))])
            self.budget.afford(len(text) + width * (1 + len(re.findall(r"\s", text))))
        elif name == "translate" or (name == "sum" and any(isinstance(v, list | tuple | str) for v in every[1:])):
            raise LimitError(f"it uses {name!r}")
        elif name == "tojson" and any(isinstance(value, int) and value > 16 for value in every[1:]):
            raise LimitError("it indents too far")
        elif name in ("string", "tojson", "pprint", "escape", "e", "forceescape", "xmlattr"):
            self._plain(args[0] if args else "")


def _bits(operator: str, left: int, right: int) -> int:
    """At least the size of a product or power in bits."""
    return left.bit_length() * abs(right) if operator == "**" else left.bit_length() + right.bit_length()


def _tojson(
    value: Any, ensure_ascii: bool = False, indent: Any = None, separators: Any = None, sort_keys: bool = False
) -> str:
    """JSON as transformers writes it: jinja2's own escapes HTML."""
    return json.dumps(value, ensure_ascii=ensure_ascii, indent=indent, separators=separators, sort_keys=sort_keys)


def _raise(message: Any) -> None:
    raise SaidError(str(message)[:200])


def _strftime(date: str, pattern: str) -> str:
    from datetime import datetime

    if len(pattern) > 100:
        raise LimitError("it formats the date at length")
    return datetime.fromisoformat(date).strftime(pattern)
