"""The site's map: the address of every page. All links between pages are made here."""

from __future__ import annotations

import re
from urllib.parse import quote, urlencode

SITE = {
    "overview": "/",
    "opened": "/",
    "plan": "/",
    "records": "/records",
    "stages": "/stages",
    "stage": "/stages/{stage}",
    "sequence": "/sequences/{stage}",
    "step": "/stages/{stage}/steps/{step}",
    "documents": "/documents",
    "document": "/documents/{row}",
    "find": "/find",
    "removed": "/removed",
    "threshold": "/removed/limit",
    "copied": "/copied",
    "compare": "/compare",
    "corpus": "/corpus",
    "query": "/corpus/query",
}
"""Page -> its path; ``find`` leads on to one. Free text, such as a reason or a file's name, is never part of a path:
browsers rewrite dots and slashes there."""

_PLACE = re.compile(r"{(\w+)}")


def address(page: str, /, **values: object) -> str:
    """The address of a page.

    Args:
        page: its name in :data:`SITE`.
        values: the fields of its query; those that its path does not name follow a ``?``, None is left out, True is 1,
            and a list repeats its name.
    """
    left = {name: value for name, value in values.items() if value is not None and value is not False}
    path = _PLACE.sub(lambda found: quote(str(left.pop(found[1])), safe=""), SITE[page])
    pairs = [(name, _text(one)) for name, value in left.items() for one in _each(value)]
    return f"{path}?{urlencode(pairs)}" if pairs else path


def _each(value: object) -> list[object]:
    return list(value) if isinstance(value, list | tuple) else [value]


def _text(value: object) -> str:
    return "1" if value is True else str(value)
