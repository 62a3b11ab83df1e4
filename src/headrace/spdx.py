"""Licenses as SPDX expressions: from what people write to identifiers of the SPDX list, and what an expression permits.

Expressions are read by `license-expression`, names such as "Apache License, Version 2.0" by `licenselynx`, whose lists
come with them: nothing is guessed. What neither knows is no SPDX license, and stays as it is written.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from fnmatch import fnmatchcase
from functools import lru_cache
from importlib.metadata import version
from typing import Any

# The longest expressions in use (Linux distributions) have some hundred characters.
LONGEST = 500
DEEPEST = 20  # parentheses
# What people write where they know of no license: SPDX's own words, and those of GitHub, PyPI and data sets.
UNSTATED = frozenset(
    ["", "-", "n/a", "na", "no license", "no-license", "no_license", "noassertion", "none", "null", "other", "unknown"]
)
_EXPRESSION = re.compile(r"[\w.+() \-]+", re.ASCII)
_PAGE = re.compile(
    r"https?://(?:www\.)?(?:(creativecommons)\.org/licenses/([\w-]+)/(\d\.\d)"
    r"|(?:opensource|spdx)\.org/licenses?/([\w.+-]+?))(?:\.html|\.txt|/\w*)?/?",
    re.IGNORECASE | re.ASCII,
)
# Identifiers of the hub for data sets that SPDX spells with a version.
_HUB = {"odc-by": "ODC-By-1.0", "odbl": "ODbL-1.0", "pddl": "PDDL-1.0"}
_DECORATION = re.compile(r"^the\s+|\s+licen[cs]e$", re.IGNORECASE)
# In the lists of data sets several licenses of one document are separated by commas; in package metadata of the years
# before SPDX expressions, a slash is a choice.
_SEPARATORS = ((re.compile(r"\s*[,;]\s*"), " AND "), (re.compile(r"\s*/\s*"), " OR "))


def detectors() -> dict[str, str]:
    """The versions of the libraries that decide which license it is, for identities."""
    return {name: version(name) for name in ("license-expression", "licenseclassifier", "licenselynx")}


def stated(text: str | None) -> str | None:
    """A license as somebody states it, None if they state that they know of none."""
    text = (text or "").strip()
    return None if text.casefold() in UNSTATED else text


@lru_cache(maxsize=1 << 14)
def normalised(text: str) -> str:
    """The SPDX expression for a license, or the text itself if there is none."""
    return expression(text) or text


@lru_cache(maxsize=1 << 14)
def expression(text: str) -> str | None:
    """The SPDX expression for a license as people write it; None if it is not recognized.

    Several names are joined: with ``AND`` if commas separate them, with ``OR`` if slashes do.
    """
    text = " ".join(text.split())
    if not text or len(text) > LONGEST:
        return None
    found = _one(text)
    for separator, operator in _SEPARATORS:
        if found is None and separator.search(text) and "://" not in text:
            parts = [_one(part) for part in separator.split(text)]
            if all(parts):
                unique = sorted({f"({part})" if " " in str(part) else str(part) for part in parts})
                found = _parsed(operator.join(unique))
    return found


def joined(expressions: Iterable[str]) -> str:
    """What holds if all of some SPDX expressions hold: sorted, without repeats."""
    unique = sorted(set(expressions))
    return unique[0] if len(unique) == 1 else " AND ".join(f"({e})" if " OR " in e else e for e in unique)


def is_known(name: str) -> bool:
    """Whether a license is an SPDX expression of licenses on the list."""
    return expression(name) is not None


@lru_cache(maxsize=1 << 14)
def parts(name: str) -> tuple[str, ...]:
    """The single licenses of an SPDX expression, sorted, exceptions included; () if it is none."""
    tree = _tree(name)
    return () if tree is None else tuple(sorted({str(symbol) for symbol in _leaves(tree)}))


def ids() -> list[str]:
    """The identifiers of all licenses on the list."""
    known = _licensing().known_symbols
    return [key for key, one in known.items() if not key.startswith("LicenseRef-") and not one.is_exception]


@lru_cache(maxsize=1 << 14)
def refused(name: str, allow: Sequence[str], deny: Sequence[str]) -> tuple[str, str | None] | None:
    """Why an SPDX expression is not permitted: ``("deny", the pattern that matches)`` or ``("allow", None)``.

    Of licenses joined by ``OR`` one must be permitted, of those joined by ``AND`` all. A pattern that matches a license
    matches it with any exception.

    Args:
        name: the expression.
        allow: patterns of licenses that are permitted; all are if there are none.
        deny: patterns of licenses that are not.

    Returns:
        None if it is permitted.

    Raises:
        ValueError: it is no SPDX expression.
    """
    tree = _tree(name)
    if tree is None:
        raise ValueError(f"{name!r} is no SPDX expression")
    return _refused(tree, allow, deny)


def _refused(node: Any, allow: Sequence[str], deny: Sequence[str]) -> tuple[str, str | None] | None:
    below = getattr(node, "args", ())
    if below:
        found = [_refused(one, allow, deny) for one in below]
        if node.operator.strip() == "OR":
            return found[0] if all(found) else None
        return next((one for one in found if one), None)
    names = {str(node), str(getattr(node, "license_symbol", node))}
    for pattern in deny:
        if any(matches(pattern, name) for name in names):
            return "deny", pattern
    if allow and not any(matches(pattern, name) for pattern in allow for name in names):
        return "allow", None
    return None


def matches(pattern: str, name: str) -> bool:
    """Whether a pattern such as ``GPL-*`` covers an identifier, whatever its case."""
    return fnmatchcase(name.casefold(), pattern.casefold())


def _leaves(node: Any) -> list[Any]:
    below = getattr(node, "args", ())
    return [leaf for one in below for leaf in _leaves(one)] if below else [node]


def _one(text: str) -> str | None:
    if page := _PAGE.fullmatch(text):
        text = f"CC-{page[2]}-{page[3]}" if page[1] else page[4]
    bare = _DECORATION.sub("", _DECORATION.sub("", text))
    for attempt in dict.fromkeys((_HUB.get(text.casefold(), text), bare, bare.replace(" ", "-"))):
        if found := _parsed(attempt):
            return found
    from licenselynx.licenselynx import LicenseLynx

    named = LicenseLynx.map(text) or LicenseLynx.map(bare)
    return _parsed(named.id) if named is not None and named.src == "spdx" else None


def _parsed(text: str) -> str | None:
    tree = _tree(text)
    return None if tree is None else str(tree.simplify())


@lru_cache(maxsize=1 << 14)
def _tree(text: str) -> Any:
    """The expression as a tree of known licenses, or None."""
    if len(text) > 2 * LONGEST or not _EXPRESSION.fullmatch(text) or text.count("(") > DEEPEST:
        return None
    try:
        tree = _licensing().parse(text, validate=True)
    except Exception:  # besides its own errors, the library has AttributeError and IndexError for what it cannot read
        return None
    if tree is None or any(
        str(one).startswith("LicenseRef-") or getattr(one, "is_exception", False) for one in _leaves(tree)
    ):
        return None
    return tree


@lru_cache(maxsize=1)
def _licensing() -> Any:
    from license_expression import get_spdx_licensing

    return get_spdx_licensing()
