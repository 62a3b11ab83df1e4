"""Values and calls between tests and the program they test, which run in two processes.

A program that shared a process with its tests could make them pass without being right: leave with exit code 0, change
what ``assert`` or ``==`` find, read what is expected from the caller's frame. So the tests run in one process, the
program in another, and this is what passes between: messages of JSON behind their length. Numbers, texts and the
built-in collections of them are sent as values, also those of classes derived from these; an object of any other kind
stays where it is, and the tests hold a :class:`Remote`, whose operations are carried out over there. The program never
sees a test; all it can do is answer, and no question shows it what is expected: an object neither equals nor precedes a
value of the tests, nor can the two be added, without asking it.

Only the standard library is imported, and nothing is unpickled.
"""

from __future__ import annotations

import builtins
import json
import operator
import os
import random
import struct
import sys
from collections import Counter, OrderedDict, defaultdict
from collections.abc import Callable
from importlib import import_module
from types import ModuleType
from typing import Any

# A longer message ends the program: the largest input of HumanEval+ is 5 MB.
LONGEST = 64 << 20
SHOWN = 500  # characters of an error that are kept

_COLLECTIONS: dict[str, Callable[[Any], Any]] = {"list": list, "tuple": tuple, "set": set, "frozenset": frozenset}
_BASES: tuple[Any, ...] = (int, float, str, bytes, tuple, list, dict, set, frozenset)  # of a named tuple, an IntEnum
_TYPES = {name: value for name, value in vars(builtins).items() if isinstance(value, type)}
_BINARY = ("add", "sub", "mul", "truediv", "floordiv", "mod", "pow", "matmul", "and", "or", "xor", "lshift", "rshift")
_COMPARING = ("eq", "ne", "lt", "le", "gt", "ge")
_OTHER = ("getitem", "setitem", "delitem", "neg", "pos", "invert", "index")
_FUNCTIONS = (len, iter, next, bool, str, repr, hash, int, float, complex, abs, round, reversed, dir)


def _reflected(name: str) -> Callable[[Any, Any], Any]:
    function: Callable[[Any, Any], Any] = getattr(operator, f"__{name}__")
    return lambda value, other: function(other, value)


OPERATIONS: dict[str, Callable[..., Any]] = {
    "__call__": lambda function, *args, **named: function(*args, **named),
    "__getattr__": getattr,
    "__setattr__": setattr,
    "__delattr__": delattr,
    "__instancecheck__": lambda cls, value: isinstance(value, cls),
    "__enter__": lambda value: value.__enter__(),
    "__exit__": lambda value, *_: value.__exit__(None, None, None),
    **{f"__{function.__name__}__": function for function in _FUNCTIONS},
    **{f"__{name}__": getattr(operator, f"__{name}__") for name in _BINARY + _COMPARING + _OTHER},
    **{f"__r{name}__": _reflected(name) for name in _BINARY},
}
"""What can be done with an object of the other process, by the method that asks for it."""
# What an object may answer about another of the program, but not about a value of the tests: it could claim to equal
# whatever is expected, or to differ from it by 0.
_PAIRS = frozenset(f"__{name}__" for name in _BINARY + _COMPARING) | {f"__r{name}__" for name in _BINARY}


class Closed(BaseException):  # which no `except Exception` of a test catches
    """The other process has ended, or sent what is no message."""


class Channel:
    """Messages over two file descriptors.

    Args:
        read: to read from.
        write: to write to.
    """

    def __init__(self, read: int, write: int) -> None:
        self._read, self._write = read, write
        self.broken = False

    def send(self, message: Any) -> None:
        """Send a message; raises :class:`Closed` if nobody reads."""
        data = json.dumps(message).encode()
        view = memoryview(struct.pack(">I", len(data)) + data)
        try:
            while view:
                view = view[os.write(self._write, view) :]
        except OSError:
            self.broken = True
            raise Closed from None

    def receive(self) -> Any:
        """The next message; raises :class:`Closed` if there is none."""
        try:
            [size] = struct.unpack(">I", self._exactly(4))
            if size > LONGEST:
                raise ValueError
            return json.loads(self._exactly(size))
        except (ValueError, RecursionError, OSError):
            self.broken = True
            raise Closed from None

    def _exactly(self, size: int) -> bytes:
        parts = []
        while size:
            part = os.read(self._read, min(size, 1 << 20))
            if not part:
                raise OSError
            parts.append(part)
            size -= len(part)
        return b"".join(parts)


def encode(value: Any, other: Callable[[Any], Any]) -> Any:
    """A value as JSON; ``other`` gives the JSON of what is no plain value."""
    kind = type(value)
    if value is None or kind in (bool, str, float):
        return value
    if kind is int:
        return value if -(2**53) < value < 2**53 else ["int", hex(value)]
    if kind in (list, tuple, set, frozenset):
        return [kind.__name__, [encode(one, other) for one in value]]
    if kind in (dict, Counter, OrderedDict, defaultdict):
        return ["dict", [[encode(key, other), encode(one, other)] for key, one in value.items()]]
    if kind in (bytes, bytearray):
        return [kind.__name__, value.hex()]
    if kind is complex:
        return ["complex", [value.real, value.imag]]
    if kind is range:
        return ["range", [value.start, value.stop, value.step]]
    if value is Ellipsis or value is NotImplemented:
        return ["constant", repr(value)]
    if isinstance(value, type) and _TYPES.get(value.__name__) is value:
        return ["type", value.__name__]
    if kind.__module__ == "numpy" and getattr(value, "shape", None) == () and hasattr(value, "item"):
        return encode(value.item(), other)
    if kind.__module__ in ("decimal", "fractions") and kind.__name__ in ("Decimal", "Fraction"):
        return [kind.__name__, str(value)]
    for base in _BASES:
        if isinstance(value, base):
            return encode(str.__str__(value) if base is str else base(value), other)
    return other(value)


def decode(told: Any, other: Callable[[str, Any], Any]) -> Any:
    """The value of some JSON, which may be hostile; ``other`` is asked for what :func:`encode` left to its caller."""
    if not isinstance(told, list):
        return told
    kind, content = told
    if kind in _COLLECTIONS:
        return _COLLECTIONS[kind]([decode(one, other) for one in content])
    if kind == "dict":
        return {decode(key, other): decode(one, other) for key, one in content}
    if kind in ("bytes", "bytearray"):
        return (bytes if kind == "bytes" else bytearray).fromhex(content)
    if kind == "int":
        return int(content, 16)
    if kind in ("complex", "range"):
        return complex(*content) if kind == "complex" else range(*content)
    if kind == "constant":
        return Ellipsis if content == "Ellipsis" else NotImplemented
    if kind in ("Decimal", "Fraction"):
        return getattr(import_module("decimal" if kind == "Decimal" else "fractions"), kind)(content)
    return _TYPES[content] if kind == "type" else other(kind, content)


def _replace(value: Any, new: Any) -> None:
    """Give a list, dict, set or bytearray the contents that the program left in it."""
    if type(new) is not type(value):
        raise TypeError(f"a {type(value).__name__} has become a {type(new).__name__}")
    if isinstance(value, list | bytearray):
        value[:] = new
    else:
        value.clear()
        value.update(new)


class Remote:
    """An object of the program, as its tests hold it. Whatever they do with it is done there."""

    def __init__(self, caller: Caller, number: int) -> None:
        object.__setattr__(self, "_remote", (caller, number))


def _forwarding(name: str) -> Callable[..., Any]:
    def method(self: Any, *args: Any, **named: Any) -> Any:
        if name == "__getattr__" and str(args[0]).startswith("__array"):  # numpy would read memory where they say
            raise AttributeError(args[0])
        if name in _PAIRS and not isinstance(args[0], Remote):
            return NotImplemented
        caller, number = object.__getattribute__(self, "_remote")
        return caller.operate(name, number, args, named)

    method.__name__ = name
    return method


for _name in OPERATIONS:
    setattr(Remote, _name, _forwarding(_name))


class Caller:
    """The side of the tests.

    Args:
        channel: to the program's process.
    """

    def __init__(self, channel: Channel) -> None:
        self.channel = channel
        self._callbacks: list[Callable[..., Any]] = []

    def run(self, program: str) -> None:
        """Execute a program; raises what it raises."""
        self._ask(["run", program])

    def names(self, wanted: list[str]) -> dict[str, Any]:
        """What the program has defined under some names; raises NameError if it lacks one."""
        return {name: self._decode(self._ask(["name", name])) for name in wanted}

    def operate(self, name: str, number: int, args: tuple[Any, ...], named: dict[str, Any]) -> Any:
        """Do something with an object of the program; what that changes in ``args`` is changed here too."""
        given = [encode(one, self._keep) for one in args]
        more = [[key, encode(one, self._keep)] for key, one in named.items()]
        try:
            value, changed = self._ask(["operate", name, number, given, more])
        except StopIteration:
            if name == "__next__":
                raise
            # `all(map(f, inputs))` would take it for the end of the inputs.
            raise RuntimeError("the program raised StopIteration") from None
        for place, new in changed:
            _replace(args[place], self._decode(new))
        return self._decode(value)

    def _ask(self, message: Any) -> Any:
        self.channel.send(message)
        while True:
            kind, *content = self.channel.receive()
            if kind == "value":
                return content[0]
            if kind == "raise":
                raise _exception(*content)
            number, args = content
            try:
                result = self._callbacks[number](*self._decode(args))
                self.channel.send(["value", encode(result, self._keep)])
            except Exception as error:
                self.channel.send(["raise", *_told(error)])

    def _keep(self, value: Any) -> Any:
        if isinstance(value, Remote):
            return ["object", object.__getattribute__(value, "_remote")[1]]
        if callable(value) and not isinstance(value, type):
            self._callbacks.append(value)
            return ["callback", len(self._callbacks) - 1]
        raise TypeError(f"the tests give the program a {type(value).__name__}, which cannot leave their process")

    def _decode(self, told: Any) -> Any:
        def remote(kind: str, content: Any) -> Remote:
            if kind != "object" or type(content) is not int:
                raise TypeError("the program's answer is no value")
            return Remote(self, content)

        return decode(told, remote)


class Program:
    """The side of the program: runs it, then serves its objects until the channel is closed."""

    def __init__(self, channel: Channel) -> None:
        self._channel = channel
        self._objects: list[Any] = []
        # Not "__main__": what a program does as a script is no part of what it defines (as exec does in human-eval).
        self._module = ModuleType("program")
        sys.modules["program"] = self._module
        random.seed(0)

    def serve(self) -> None:
        """Answer until nobody asks."""
        while True:
            try:
                kind, *content = self._channel.receive()
            except Closed:
                return
            self._answer(getattr(self, f"_{kind}"), content)

    def _answer(self, method: Callable[..., Any], content: list[Any]) -> None:
        try:
            self._channel.send(["value", method(*content)])
        except Closed:
            raise
        except BaseException as error:  # SystemExit too
            self._channel.send(["raise", *_told(error)])

    def _run(self, program: str) -> None:
        exec(compile(program, "<program>", "exec"), self._module.__dict__)

    def _name(self, name: str) -> Any:
        if name not in self._module.__dict__:
            raise NameError(f"the program defines no {name}")
        return encode(self._module.__dict__[name], self._keep)

    def _operate(self, name: str, number: int, args: list[Any], named: list[Any]) -> Any:
        values = [self._decode(one) for one in args]
        result = OPERATIONS[name](self._objects[number], *values, **{key: self._decode(one) for key, one in named})
        changed = []
        for place, (before, value) in enumerate(zip(args, values, strict=True)):
            if type(value) in (list, dict, set, bytearray) and (now := encode(value, self._keep)) != before:
                changed.append([place, now])
        return encode(result, self._keep), changed

    def _keep(self, value: Any) -> Any:
        self._objects.append(value)
        return ["object", len(self._objects) - 1]

    def _decode(self, told: Any) -> Any:
        return decode(
            told, lambda kind, content: self._objects[content] if kind == "object" else self._calling(content)
        )

    def _calling(self, number: int) -> Callable[..., Any]:
        def call(*args: Any) -> Any:
            self._channel.send(["callback", number, encode(args, self._keep)])
            kind, *content = self._channel.receive()
            if kind == "raise":
                raise _exception(*content)
            return self._decode(content[0])

        return call


def _told(error: BaseException) -> tuple[str, str]:
    """The nearest built-in class of an exception, and what it says."""
    name = next(cls.__name__ for cls in type(error).__mro__ if _TYPES.get(cls.__name__) is cls)
    try:
        text = str(error)
    except BaseException:
        text = ""
    return name, (text if type(error).__name__ == name else f"{type(error).__name__}: {text}")[:SHOWN]


def _exception(name: Any, text: Any) -> Exception:
    """An exception that the other process told of. One that would end a process becomes a plain one."""
    cls = _TYPES.get(name, Exception)
    if not issubclass(cls, Exception):
        return RuntimeError(f"{name}: {text}")
    try:
        return cls(str(text))
    except TypeError:  # UnicodeDecodeError and others want more
        return ValueError(f"{name}: {text}")
