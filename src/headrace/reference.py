"""Write ``docs/python.md`` from the docstrings: ``python -m headrace.reference > docs/python.md``."""

from __future__ import annotations

import inspect
import re
from collections.abc import Iterator
from importlib import import_module
from typing import Any

import headrace

_HEAD = """# The Python API

Everything here is imported from `headrace`; a name is loaded when it is first used. Classes under
[What these return](#what-these-return) are not made by hand. This page is generated from the docstrings by
`python -m headrace.reference`. [How to](howto.md) shows them at work; [recipe.md](recipe.md) has the keys of a recipe.
"""

# What the public names return, with what users call on it.
RETURNED = (
    "headrace.opened:OpenedRun",
    "headrace.sequence.reader:SequenceReader",
    "headrace.sequence.batch:Batch",
    "headrace.sequence.torch_dataset:TorchLoader",
    "headrace.sequence.torch_dataset:TorchBatches",
    "headrace.tables:DocumentTable",
)
SECTION = re.compile(r"^(Args|Attributes|Raises|Returns|Yields):$")


def document() -> str:
    """The page as Markdown."""
    parts = [_HEAD]
    for name in sorted(headrace.__all__, key=str.lower):
        parts += _entry(name, getattr(headrace, name))
    parts.append("## What these return\n")
    for place in RETURNED:
        module, _, name = place.partition(":")
        parts += _entry(name, getattr(import_module(module), name), deeper="#")
    return re.sub(r"\n{3,}", "\n\n", "\n".join(parts)).strip() + "\n"


def _entry(name: str, value: Any, deeper: str = "") -> Iterator[str]:
    """A heading, the signature, the docstring, and the public methods of a class."""
    yield f"##{deeper} {name}\n"
    if not deeper and not hasattr(value, "model_fields"):  # a recipe's keys are a page of their own
        yield f"```python\n{_wrapped(name + _signature(value))}\n```\n"
    yield _markdown(inspect.getdoc(value) or "")
    if not inspect.isclass(value):
        return
    for method, found in vars(value).items():
        plain = found.__func__ if isinstance(found, classmethod | staticmethod) else found
        if method.startswith("_") or not plain.__doc__:
            continue
        if isinstance(plain, property):
            yield f"- **`{method}`**: {_line(plain.__doc__)}"
        elif inspect.isfunction(plain):
            yield f"- **`{method}{_signature(plain)}`**: {_line(plain.__doc__)}"
    yield ""


def _signature(value: Any) -> str:
    """Parameters as they are written, without ``self``."""
    signature = inspect.signature(value)
    words, keywords = [], False
    for name, one in signature.parameters.items():
        if name in ("self", "cls"):
            continue
        if one.kind is one.KEYWORD_ONLY and not keywords:
            words.append("*")
            keywords = True
        star = "**" if one.kind is one.VAR_KEYWORD else "*" if one.kind is one.VAR_POSITIONAL else ""
        kind = "" if one.annotation is one.empty else f": {one.annotation}"
        default = "" if one.default is one.empty else f" = {one.default!r}"
        words.append(f"{star}{name}{kind}{default}".replace("<factory>", "..."))
    returns = "" if signature.return_annotation in (signature.empty, "None", None) else signature.return_annotation
    told = f" -> {returns}" if returns else ""
    return f"({', '.join(words)}){told}"


def _wrapped(signature: str) -> str:
    """A long signature, a parameter a line."""
    name, _, rest = signature.partition("(")
    parameters, _, returns = rest.rpartition(")")
    if len(signature) <= 100:
        return signature
    lines = re.split(r", (?=\w+:|\*)", parameters)
    return f"{name}(\n" + "".join(f"    {line},\n" for line in lines) + f"){returns}"


def _line(text: str) -> str:
    """The first paragraph of a docstring on a line."""
    return _inline(" ".join(inspect.cleandoc(text).split("\n\n")[0].split()))


def _inline(text: str) -> str:
    text = re.sub(r":\w+:`~?(?:[\w.]+\.)?(\w+)`", r"`\1`", text)
    return text.replace("``", "`")


def _markdown(text: str) -> str:
    """A docstring of ours: paragraphs, and sections of ``name: meaning`` as lists."""
    out: list[str] = []
    listed = False
    for line in text.splitlines():
        if SECTION.match(line):
            out += ["", f"**{line[:-1]}**", ""]
            listed = True
        elif listed and re.match(r" {4}\S", line):
            name, colon, rest = line.strip().partition(": ")
            out.append(f"- `{name}`: {rest}" if colon and "`" not in name else f"- {line.strip()}")
        elif listed and line.startswith("     "):
            out.append(f"  {line.strip()}")
        else:
            listed = listed and not line
            out.append(line)
    return _inline("\n".join(out)) + "\n"


if __name__ == "__main__":
    print(document(), end="")
