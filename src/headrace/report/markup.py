"""HTML and SVG built from elements, so that every string is escaped unless it was built here.

A page that shows raw corpora shows other people's ``<script>``: nothing is ever pasted into a template.
"""

from __future__ import annotations

import html
from collections.abc import Iterable

from headrace.visible import visible

_VOID = {"br", "col", "hr", "img", "input", "link", "meta", "wbr"}


class Markup(str):
    """Text that is markup already. Only this file and style sheets make it."""

    __slots__ = ()


def escape(text: object) -> Markup:
    """Any value as text of a page, unless it is markup already."""
    return text if isinstance(text, Markup) else Markup(html.escape(visible(str(text)), quote=True))


def join(children: object) -> Markup:
    """Markup and strings, nested as they come, one after the other; None is left out."""
    if children is None:
        return Markup("")
    if isinstance(children, str) or not isinstance(children, Iterable):
        return escape(children)
    return Markup("".join(join(child) for child in children))


def element(name: str, /, *children: object, **attributes: object) -> Markup:
    """One element.

    Args:
        name: its tag name.
        children: strings (escaped), markup, numbers, None (left out) or iterables of these.
        attributes: ``class_`` gives ``class``, other underscores become hyphens; None leaves one out, True gives its
            own name as the value, as XML wants it.
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
    """Coordinates to a tenth of a unit: finer is invisible and only makes the page larger."""
    return f"{value:.1f}".removesuffix(".0") if isinstance(value, float) else value
