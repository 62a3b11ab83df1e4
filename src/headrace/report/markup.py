"""Build HTML and SVG from elements, so that every string is escaped unless it was built here.

A page that shows raw corpora shows other people's ``<script>`` tags: nothing is ever pasted into a template.
"""

from __future__ import annotations

import html
from collections.abc import Iterable

from headrace.visible import visible

_VOID = {"br", "col", "hr", "img", "input", "link", "meta", "wbr"}


class Markup(str):
    """Text that is already markup. Only this file and style sheets create it."""

    __slots__ = ()


def escape(text: object) -> Markup:
    """Any value as text for a page, unless it is already markup."""
    return text if isinstance(text, Markup) else Markup(html.escape(visible(str(text)), quote=True))


def join(children: object) -> Markup:
    """Concatenate markup and strings, however nested; None is skipped."""
    if children is None:
        return Markup("")
    if isinstance(children, str) or not isinstance(children, Iterable):
        return escape(children)
    return Markup("".join(join(child) for child in children))


def element(name: str, /, *children: object, **attributes: object) -> Markup:
    """One element.

    Args:
        name: its tag name.
        children: strings (escaped), markup, numbers, None (skipped) or iterables of these.
        attributes: ``class_`` becomes ``class``, other underscores become hyphens; None omits an attribute, True uses
            its name as the value, as XML requires.
    """
    parts = [name]
    for key, value in attributes.items():
        if value is None or value is False:
            continue
        key = key.rstrip("_").replace("_", "-")
        parts.append(f'{key}="{escape(key if value is True else _plain(value))}"')
    head = " ".join(parts)
    inner = join(children)
    if not inner and name in _VOID:
        return Markup(f"<{head}/>")
    return Markup(f"<{head}>{inner}</{name}>")


def _plain(value: object) -> object:
    """Round coordinates to a tenth of a unit: more digits are invisible and only make the page larger."""
    return f"{value:.1f}".removesuffix(".0") if isinstance(value, float) else value
