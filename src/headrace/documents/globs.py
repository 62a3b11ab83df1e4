"""Globs in a recipe: variables, the fixed part before the first wildcard, and a matcher independent of file systems.

``*`` and ``?`` stay within a folder, ``**`` crosses folders, ``[abc]`` and ``{html,css}`` give alternatives.
One matcher serves local disks and every fsspec file system, so that a source means the same wherever it is.
"""

from __future__ import annotations

import os
import re
import sysconfig
from collections.abc import Callable
from pathlib import Path

from headrace.errors import UserError
from headrace.recipe.paths import literal

_VARIABLE = re.compile(r"\$\{(\w+)\}")
_MAGIC = re.compile(r"[*?\[{]")
_SET = re.compile(r"\[([!^]?[^/][^/\]]*)\]")
_ESCAPED = re.compile(r"\[([*?\[{])\]")


def expand(pattern: str, base: Path, where: str, within: bool = False) -> str:
    """Replace ``${stdlib}``, ``${site}``, ``${recipe}`` and, for other names, environment variables.

    Args:
        pattern: a glob, path or URL.
        base: the recipe's folder.
        where: the recipe key, for errors.
        within: the result is a pattern, in which the variables' values match literally.

    Raises:
        UserError: a variable is unknown.
    """
    known = {
        "stdlib": lambda: sysconfig.get_path("stdlib"),
        "site": lambda: sysconfig.get_path("purelib"),
        "recipe": lambda: str(base.absolute()),
    }

    def value(match: re.Match[str]) -> str:
        name = match[1]
        if name in known:
            return known[name]()
        if name in os.environ:
            return os.environ[name]
        raise UserError(
            f"The variable ${{{name}}} is not defined.",
            f"{where}: {pattern}",
            "Use ${stdlib}, ${site} or ${recipe}, or set it in the environment.",
        )

    return _VARIABLE.sub((lambda match: literal(value(match))) if within else value, pattern)


def is_remote(pattern: str) -> bool:
    """Whether a path is an fsspec URL such as ``s3://bucket/key`` rather than a local path."""
    return "://" in pattern and not pattern.startswith("file://")


def split(pattern: str) -> tuple[str, str]:
    """Split a glob at its first wildcard: (fixed folder, pattern below it). Variables count as fixed.

    Without a wildcard, the pattern is the last component, so that names are relative to the file's folder.
    """
    parts = pattern.split("/")
    magic = next((i for i, part in enumerate(parts) if has_magic(part)), len(parts) - 1)
    prefix = "/".join(_ESCAPED.sub(r"\1", part) for part in parts[:magic])
    return prefix or ("/" if pattern.startswith("/") else "."), "/".join(parts[magic:])


def has_magic(pattern: str) -> bool:
    """Whether the pattern contains a wildcard, variables aside."""
    return _MAGIC.search(_ESCAPED.sub("", _VARIABLE.sub("", pattern))) is not None


def plain(pattern: str) -> str:
    """The path that a pattern without wildcards stands for."""
    return _ESCAPED.sub(r"\1", pattern)


def translate(pattern: str) -> str:
    """The regular expression for a glob over ``/``-separated relative names, without anchors.

    Braces may hold slashes and other braces; one without its partner, and ``[`` without ``]``, match themselves.
    """
    braces, out, i, depth = _braces(pattern), [], 0, 0
    while i < len(pattern):
        char = pattern[i]
        begins = i == 0 or pattern[i - 1] == "/" or (depth > 0 and pattern[i - 1] in "{,")
        after = pattern[i + 2 : i + 3]
        if begins and pattern.startswith("**", i) and (after in ("", "/") or (depth > 0 and after in ",}")):
            out.append("(?:[^/]+/)*" if after == "/" else ".+")
            i += 2 if after == "/" else 1
        elif char == "*":
            out.append("[^/]*")
        elif char == "?":
            out.append("[^/]")
        elif char == "[" and (found := _SET.match(pattern, i)):
            out.append(_set(found[1]))
            i = found.end() - 1
        elif i in braces:
            out.append("(?:" if char == "{" else ")")
            depth += 1 if char == "{" else -1
        elif char == "," and depth:
            out.append("|")
        else:
            out.append(re.escape(char))
        i += 1
    return "".join(out)


def _braces(pattern: str) -> set[int]:
    """Where braces stand that have a partner."""
    opened, found, i = [], set[int](), 0
    while i < len(pattern):
        if inside := _SET.match(pattern, i):
            i = inside.end() - 1
        elif pattern[i] == "{":
            opened.append(i)
        elif pattern[i] == "}" and opened:
            found |= {opened.pop(), i}
        i += 1
    return found


def _set(inside: str) -> str:
    """The regular expression of one character out of ``[...]``, none of which is a slash."""
    negated = len(inside) > 1 and inside[0] in "!^"
    escaped = re.sub(r"([\\\[\]&|~^])", r"\\\1", inside[1:] if negated else inside)  # special in sets of re
    chosen = f"(?!/)[{'^' if negated else ''}{escaped}]"
    try:
        re.compile(chosen)
    except re.error:  # a range that ends before it begins, which holds nothing
        return "[^/]" if negated else "(?!)"
    return chosen


def matcher(pattern: str) -> Callable[[str], bool]:
    """A function that tells whether a relative name matches a glob. Hidden files match only patterns with a hidden
    component."""
    matches = re.compile(translate(pattern), re.DOTALL).fullmatch
    if any(part.startswith(".") for part in pattern.split("/")):
        return lambda name: matches(name) is not None
    return lambda name: matches(name) is not None and not name.startswith(".") and "/." not in name


def excluder(patterns: tuple[str, ...]) -> Callable[[str, str], bool]:
    """A function that tells whether (relative name, full path) is excluded, as in ``.gitignore``.

    A pattern without a slash matches any single component; one with a slash matches the name, the full path, or a
    folder above it.
    """
    single = [translate(p.rstrip("/")) for p in patterns if "/" not in p.rstrip("/")]
    whole = [translate(p.rstrip("/")) for p in patterns if "/" in p.rstrip("/")]
    components = re.compile(rf"(?:.*/)?(?:{'|'.join(single)})(?:/.*)?", re.DOTALL) if single else None
    paths = re.compile(rf"(?:{'|'.join(whole)})(?:/.*)?", re.DOTALL) if whole else None

    def excluded(name: str, path: str) -> bool:
        if components is not None and components.fullmatch(name):
            return True
        return paths is not None and bool(paths.fullmatch(name) or paths.fullmatch(path))

    return excluded
