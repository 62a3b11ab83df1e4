"""Text that somebody typed never becomes a control token, however a template joins it.

A template is rendered a second time with stand-ins (private code points) for the characters that somebody typed. A
control token is one only where all of its characters are the template's own. First every character that occurs in any
control token has a stand-in; a template that looks into texts (for ``</think>``, say) then renders something else, and
only those characters get one that spell a control token, or could be the end of one that is put together.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from itertools import chain
from typing import Any, NamedTuple

from headrace.sequence.jinja import Refused, Rendering, Template
from headrace.tokens.control import ControlTokens, Found

# Values of these keys are names out of a list, which templates compare and write into control tokens.
_NAMES = frozenset({"role", "type"})
_PLANE = range(0xF0000, 0xFFFFE)  # private use


class Typed(NamedTuple):
    """A rendered conversation, and the control tokens that the template wrote into it."""

    rendering: Rendering
    control: list[Found]


def render(
    template: Template,
    messages: list[dict[str, Any]],
    data: Mapping[str, Any],
    variables: Mapping[str, Any],
    control: ControlTokens,
) -> Typed:
    """Render a conversation and find its control tokens.

    Args:
        template: the template.
        messages: the messages.
        data: other values that come from the conversation (``tools``).
        variables: values that come from the recipe or the template's files.
        control: the tokenizer's control tokens.

    Raises:
        Refused: the template does not render it, or tells a stand-in for the spelling of a control token from it.
    """
    plain = template.render(messages, {**variables, **data})
    if not control.find(plain.text):
        return Typed(plain, [])
    stand_ins = _stand_ins(control, chain(_texts([messages, data, variables]), [template.source]))
    back = {ord(stand_in): character for character, stand_in in stand_ins.items()}
    table = str.maketrans(stand_ins)

    def everything(text: str) -> str:
        return text.translate(table)

    def spelled(text: str) -> str:
        out = list(text)
        for start, end in control.spelled(text):
            out[start:end] = text[start:end].translate(table)
        return "".join(out)

    for change in (everything, spelled):
        names = _NAMES if change is everything else frozenset[str]()
        hidden, given = _changed([messages, dict(data)], change, template.source, names)
        try:
            rendered = template.render(hidden, {**variables, **given})
        except Refused:
            continue
        if rendered.text.translate(back) == plain.text and rendered.generated == plain.generated:
            return Typed(plain, control.find(rendered.text))
    raise Refused("it spells a control token where the template looks for one")


def _stand_ins(control: ControlTokens, texts: Iterable[str]) -> dict[str, str]:
    """A private code point, which no text contains, for each character of a control token that is not whitespace."""
    characters = sorted({c for text in control.ids for c in text if not c.isspace()})
    taken = {c for text in texts if not text.isascii() for c in text if ord(c) >= _PLANE.start}
    free = (chr(code) for code in _PLANE if chr(code) not in taken)
    return dict(zip(characters, free, strict=False))


def _texts(value: Any) -> Iterator[str]:
    if isinstance(value, str):
        yield value
    elif isinstance(value, Mapping):
        for key, held in value.items():
            yield str(key)
            yield from _texts(held)
    elif isinstance(value, list | tuple):
        for held in value:
            yield from _texts(held)


def _changed(value: Any, change: Callable[[str], str], source: str, names: frozenset[str]) -> Any:
    """A copy with all texts changed, also keys that the template does not name."""
    if isinstance(value, str):
        return change(value)
    if isinstance(value, dict):
        return {
            key if key in source else change(key): held
            if key in names or key == "role"
            else _changed(held, change, source, names)
            for key, held in value.items()
        }
    if isinstance(value, list):
        return [_changed(held, change, source, names) for held in value]
    return value
