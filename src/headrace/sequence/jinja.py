"""Chat templates in Jinja: run as transformers runs them, in a sandbox that also ends.

A template is code that nobody has read. jinja2's sandbox keeps it from everything but its data; here it also has a
budget, counted rather than timed so that every machine refuses the same conversations: steps (turns of loops, calls,
filters) and characters made. Whatever could make a large value out of small ones is asked for its size before it runs.
"""

from __future__ import annotations

import functools
import json
import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any, NamedTuple

from jinja2 import Undefined, nodes, pass_eval_context
from jinja2.exceptions import SecurityError, TemplateError, TemplateRuntimeError, TemplateSyntaxError
from jinja2.ext import Extension, loopcontrols
from jinja2.sandbox import ImmutableSandboxedEnvironment
from jinja2.utils import Namespace
from jinja2.visitor import NodeTransformer

from headrace.errors import UserError

# A published template of 300 lines takes about 30 steps and 3 times the characters of a message.
STEPS, CHARACTERS = 100_000, 16 << 20
PER_CHARACTER = 64  # characters made for each one of the conversation
ENTRY = 128  # characters that are read as fast as an entry of a list is visited
READ_IN_A_STEP = 1024  # characters that a comparison, filter, slice or method looks at; a turn of a loop takes as long
MOST_SOURCE = 1 << 20  # the largest published templates have 30 kB
_MOST_NUMBER = 1_000_000  # as an argument, such as a width
_MOST_BITS = 10_000
# Results of these would differ from run to run, or take time that grows faster than their input.
_LEFT_OUT = ("random", "urlize", "wordwrap", "pprint")
_WIDE = re.compile(r"\d{4}|\*|:[^{}]*\{")


class Refused(Exception):  # noqa: N818 - a verdict on a conversation, not a fault
    """Why a template does not render a conversation."""


class _LimitError(TemplateRuntimeError):
    """The budget is spent, or would be."""


class Rendering(NamedTuple):
    """A rendered conversation.

    Attributes:
        text: the text.
        generated: the ranges of characters inside ``{% generation %}`` blocks, in order.
    """

    text: str
    generated: list[tuple[int, int]]


class Template:
    """A compiled template.

    Args:
        source: the Jinja source.
        where: where it comes from, for messages.
        date: the date that ``strftime_now`` formats, ISO 8601; without one it is undefined.

    Attributes:
        source: the source.
        marked: whether it has ``{% generation %}`` marks.
        literals: the texts it contains.

    Raises:
        UserError: it is too large or not a template.
    """

    def __init__(self, source: str, where: str, date: str | None = None) -> None:
        if len(source) > MOST_SOURCE:
            raise UserError(
                f"The chat template has {len(source):,} characters; the most is {MOST_SOURCE:,}.", where, "Shorten it."
            )
        self.source = source
        self._sandbox = _Sandbox(date)
        self._sandbox.budget = _Budget(STEPS, CHARACTERS)
        try:
            tree = self._sandbox.parse(source)
            self.marked = self._sandbox.marks > 0
            self.literals = [node.data for node in tree.find_all(nodes.TemplateData)]
            self.literals += [str(node.value) for node in tree.find_all(nodes.Const) if isinstance(node.value, str)]
            self._compiled = self._sandbox.from_string(source)
        except TemplateSyntaxError as error:
            raise UserError(f"The chat template is not Jinja: {error.message}.", f"{where}, line {error.lineno}",
                            "Fix the template.") from None  # fmt: skip
        except (TemplateError, RecursionError, ArithmeticError, ValueError, TypeError, SyntaxError) as error:
            raise UserError(f"The chat template cannot be compiled: {error}.", where, "Fix the template.") from None

    def render(self, messages: list[dict[str, Any]], variables: Mapping[str, Any]) -> Rendering:
        """Render a conversation, as ``apply_chat_template`` does.

        Args:
            messages: the messages; plain JSON values.
            variables: what else the template sees, such as ``tools`` and ``bos_token``.

        Raises:
            Refused: the template fails, says that it refuses the conversation, or exceeds its budget.
        """
        size = _size(messages, CHARACTERS * PER_CHARACTER) + _size(dict(variables), CHARACTERS * PER_CHARACTER)
        sandbox = self._sandbox
        sandbox.budget = _Budget(STEPS + size, CHARACTERS + PER_CHARACTER * size)
        sandbox.written, sandbox.generated = 0, []
        blocks = []
        try:
            context = self._compiled.new_context({"messages": messages, **variables})
            for block in self._compiled.root_render_func(context):
                blocks.append(block)
                sandbox.written += len(block)
                sandbox.budget.made(block)
        except _SaidError as error:
            raise Refused(f"the template refuses it: {error}"[:300]) from None
        except RecursionError:
            raise Refused("the template calls itself without end") from None
        except MemoryError:
            raise Refused("the template takes too much memory") from None
        except Exception as error:  # templates are code: anything can go wrong in them
            raise Refused(f"the template fails: {error or type(error).__name__}"[:300]) from None
        return Rendering("".join(blocks), sandbox.generated)


class _SaidError(TemplateError):
    """What a template passes to ``raise_exception``."""


class _Budget:
    def __init__(self, steps: int, characters: int) -> None:
        self.steps, self.characters = steps, characters

    def step(self) -> None:
        self.steps -= 1
        if self.steps < 0:
            raise _LimitError("it takes too many steps")

    def read(self, *values: Any) -> None:
        """Pay for looking at values."""
        for value in values:
            self.steps -= _size(value, self.steps * READ_IN_A_STEP, ENTRY) // READ_IN_A_STEP
        self.step()

    def afford(self, size: int) -> None:
        """Check that something of a size may be made."""
        if size > self.characters:
            raise _LimitError("it makes too much text")

    def made(self, value: Any) -> Any:
        """Pay for a value."""
        size = len(value) if isinstance(value, str) else _size(value, self.characters)
        self.afford(size)
        self.characters -= size
        return value


def _size(value: Any, most: int, each: int = 1) -> int:
    """About the characters of a value as text, and ``each`` for each entry of lists; or more than ``most``."""
    total, waiting = 0, [value]
    while waiting and total <= most:
        held = waiting.pop()
        if isinstance(held, str | bytes):
            total += len(held) + 4
        elif isinstance(held, dict):
            waiting += [*held.keys(), *held.values()]
            total += 4 + each * len(held)
        elif isinstance(held, list | tuple | set | frozenset):
            waiting += held
            total += 4 + each * len(held)
        elif isinstance(held, range):
            total += 8 * len(held)
        elif isinstance(held, int):
            total += 8 + held.bit_length() // 3
        else:
            total += 8
    return total


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


class _Sandbox(ImmutableSandboxedEnvironment):
    """jinja2's sandbox with transformers' globals and a budget.

    Attributes:
        budget: what is left of it.
        written: characters written so far at the top of the template.
        generated: see :class:`Rendering`.
        marks: generation blocks met while parsing.
    """

    intercepted_binops = frozenset({"+", "*", "%", "**"})
    budget: _Budget
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
            raise _LimitError(f"it shows a value of the type {type(value).__name__}")
        self.budget.afford(_size(value, self.budget.characters))

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
            self.budget.afford(max(0, numbers[0]) * _size(lists[0], self.budget.characters))
        elif operator in ("*", "**") and len(numbers) == 2 and _bits(operator, left, right) > _MOST_BITS:
            raise _LimitError("it computes with huge numbers")
        elif operator == "+":
            self.budget.afford(sum(_size(side, self.budget.characters) for side in lists))
        elif operator == "%" and isinstance(left, str):
            self._afford("format", [left, *(right if isinstance(right, tuple) else [right])], {})
        return self.budget.made(super().call_binop(context, operator, left, right))

    def _afford(self, name: str, args: list[Any], kwargs: Mapping[str, Any]) -> None:
        """Check what a filter or a text's method would make."""
        every = [*args, *kwargs.values()]
        # The first argument is the value itself.
        for value in every[1:] if name else every:
            if isinstance(value, int) and abs(value) > _MOST_NUMBER and name not in ("default", "d"):
                raise _LimitError(f"it uses the number {value:.3g}" if abs(value) < 1e300 else "it uses a huge number")
        text = args[0] if args and isinstance(args[0], str) else ""
        if name == "replace" and len(args) > 2:
            old, new = str(args[1]), str(args[2])
            self.budget.afford(len(text) + text.count(old) * len(new))
        elif name == "join" and args:
            joint = len(str(every[1])) if len(every) > 1 and isinstance(every[1], str) else 0
            count = len(args[0]) if hasattr(args[0], "__len__") else 0
            self.budget.afford(_size(args[0], self.budget.characters) + joint * count)
        elif name in ("format", "format_map"):
            if _WIDE.search(text):
                raise _LimitError("it formats to a width")
            size = sum(_size(value, self.budget.characters) for value in every[1:])
            self.budget.afford(len(text) + (text.count("{") + text.count("%")) * size)
        elif name in ("indent", "wordwrap", "expandtabs"):
            width = max([8, *(len(v) if isinstance(v, str) else v for v in every[1:] if isinstance(v, str | int))])
            self.budget.afford(len(text) + width * (1 + len(re.findall(r"\s", text))))
        elif name == "translate" or (name == "sum" and any(isinstance(v, list | tuple | str) for v in every[1:])):
            raise _LimitError(f"it uses {name!r}")
        elif name == "tojson" and any(isinstance(value, int) and value > 16 for value in every[1:]):
            raise _LimitError("it indents too far")
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
    raise _SaidError(str(message)[:200])


def _strftime(date: str, pattern: str) -> str:
    from datetime import datetime

    if len(pattern) > 100:
        raise _LimitError("it formats the date at length")
    return datetime.fromisoformat(date).strftime(pattern)
