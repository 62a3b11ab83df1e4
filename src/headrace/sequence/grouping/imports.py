"""What a file imports, by looking at its text: nothing is parsed, nothing runs.

Patterns match line by line and never look back, so time grows with the text alone. What they miss costs order, not
data.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator

from headrace.documents.file_names import LANGUAGES, suffixes

# Imports stand at the top. Of a larger file, or one with more imports or longer names than people write, the rest is
# not looked at.
HEAD, MOST, LONGEST = 1 << 18, 256, 200

_SUFFIXES = {
    **LANGUAGES,
    ".jsx": "javascript", ".cjs": "javascript", ".mts": "typescript", ".cts": "typescript", ".vue": "javascript",
    ".svelte": "javascript", ".cxx": "c++", ".c++": "c++", ".hh": "c++", ".hxx": "c++", ".cuh": "cuda", ".m": "c",
    ".mm": "c++", ".kts": "kotlin", ".groovy": "groovy", ".gradle": "groovy", ".pyx": "python", ".pxd": "python",
    ".dart": "dart", ".hs": "haskell", ".proto": "proto", ".scss": "css", ".sass": "css", ".less": "css",
    ".pl": "perl", ".pm": "perl", ".zig": "zig", ".sol": "solidity", ".bash": "shell", ".zsh": "shell",
}  # fmt: skip
_OTHER_NAMES = {"c#": "c-sharp", "cpp": "c++", "js": "javascript", "ts": "typescript", "tsx": "typescript"}


def language_of(path: str, language: str | None) -> str:
    """The language whose imports a file has: by its suffix, or else as the document states it; '' if neither tells."""
    found = _SUFFIXES.get(suffixes(path)[0])
    if found is not None:
        return found
    stated = (language or "").lower()
    return _OTHER_NAMES.get(stated, stated)


def imports_of(text: str, language: str) -> list[str]:
    """What a file imports, in its order, without repeats; what it declares itself as, with ``=`` before it.

    Args:
        text: the file.
        language: from :func:`language_of`.
    """
    scan = SCANS.get(language)
    if scan is None:
        return []
    found: dict[str, None] = {}
    for name in scan(text[:HEAD]):
        if name and len(name) <= LONGEST and not any(c in name for c in "\n\r\0"):
            found[name] = None
            if len(found) == MOST:
                break
    return list(found)


def _pattern(source: str) -> Callable[[str], Iterator[str]]:
    """A scan that takes the first group of a pattern that took part in a match."""
    compiled = re.compile(source, re.MULTILINE)

    def scan(text: str) -> Iterator[str]:
        for match in compiled.finditer(text):
            yield match[match.lastindex or 0].strip()

    return scan


_PYTHON = re.compile(
    r"^[ \t]*(?:from[ \t]+([\w.]+)[ \t]+c?import[ \t]+(\([^)]{0,1000}\)|[^\n#;]{0,400})"
    r"|c?import[ \t]+([^\n#;]{1,400}))",
    re.MULTILINE,
)
_COMMENT = re.compile(r"#[^\n]*")


def _python(text: str) -> Iterator[str]:
    """``a.b.c`` for a module, or a name in one; with leading dots if it is relative."""
    for module, names, modules in _PYTHON.findall(text):
        if module:
            base = module if module.endswith(".") else f"{module}."
            for name in _COMMENT.sub("", names).strip("()").split(","):
                first = name.split()
                yield base + first[0] if first and first[0].isidentifier() else module
        else:
            for name in modules.split(","):
                yield from name.split()[:1]


_JAVA = re.compile(r"^[ \t]*import[ \t]+(?:static[ \t]+)?([\w.]+)(\{[^}\n]{0,400}\})?", re.MULTILINE)


def _java(text: str) -> Iterator[str]:
    for name, several in _JAVA.findall(text):
        if several:
            yield from (name + one.split()[0] for one in several[1:-1].split(",") if one.split())
        else:
            yield name.rstrip(".")


_GO = re.compile(r'^[ \t]*(?:import[ \t]+\(?[ \t]*)?(?:[\w.]+[ \t]+)?"([^"\n]{1,200})"[ \t]*(?:$|//|\))', re.MULTILINE)


def _go(text: str) -> Iterator[str]:
    body = text.find("\nfunc ")
    yield from _GO.findall(text if body < 0 else text[:body])


_RUST = re.compile(
    r"^[ \t]*(?:pub(?:\([^)\n]{0,50}\))?[ \t]+)?(?:mod[ \t]+(\w+)[ \t]*;|use[ \t]+([\w:]+)(\{[^;]{0,1000})?)",
    re.MULTILINE,
)
_WORDS = re.compile(r"[\w:]+")


def _rust(text: str) -> Iterator[str]:
    """``mod name`` for a module that the file declares, ``crate::a::b`` and the like for what it uses."""
    for module, base, several in _RUST.findall(text):
        if module:
            yield f"mod {module}"
        elif several:
            yield from (base + name for name in _WORDS.findall(several))
        else:
            yield base


_SHARP = re.compile(r"^[ \t]*(?:global[ \t]+)?(?:(namespace)|using(?:[ \t]+static)?)[ \t]+([\w.]+)", re.MULTILINE)


def _sharp(text: str) -> Iterator[str]:
    for declared, name in _SHARP.findall(text):
        yield f"={name}" if declared else name


_QUOTED = r"""["']([^"'\n]{1,200})["']"""
SCANS: dict[str, Callable[[str], Iterator[str]]] = {
    "python": _python,
    **dict.fromkeys(
        ("javascript", "typescript"), _pattern(rf"\b(?:from|import|require[ \t]*\(|import[ \t]*\()[ \t]*{_QUOTED}")
    ),
    **dict.fromkeys(("java", "kotlin", "scala", "groovy"), _java),
    "go": _go,
    "rust": _rust,
    "c-sharp": _sharp,
    **dict.fromkeys(
        ("c", "c++", "cuda", "objective-c", "objective-c++"),
        _pattern(r'^[ \t]*#[ \t]*(?:include|import)[ \t]*["<]([^">\n]{1,200})[">]'),
    ),
    "ruby": _pattern(rf"^[ \t]*(?:require|require_relative|load)[ \t(]*{_QUOTED}"),
    "php": _pattern(
        r"^[ \t]*(?:use[ \t]+(?:function[ \t]+|const[ \t]+)?([\w\\]+)|(?:include|require)(?:_once)?[ \t(]*"
        rf"(?:__DIR__[ \t]*\.[ \t]*)?{_QUOTED})"
    ),
    "dart": _pattern(rf"^[ \t]*(?:import|export|part)[ \t]+{_QUOTED}"),
    "shell": _pattern(r"""^[ \t]*(?:source|\.)[ \t]+["']?(?:\$\{?\w+\}?/)?([\w./-]+)"""),
    "lua": _pattern(rf"\brequire[ \t(]*{_QUOTED}"),
    "haskell": _pattern(r"^import[ \t]+(?:qualified[ \t]+)?([\w.]+)"),
    "julia": _pattern(rf"\binclude\([ \t]*{_QUOTED}"),
    "r": _pattern(rf"\bsource\([ \t]*{_QUOTED}"),
    "proto": _pattern(rf"^[ \t]*import[ \t]+(?:public[ \t]+|weak[ \t]+)?{_QUOTED}"),
    "css": _pattern(rf"@(?:import|use|forward)[ \t]+(?:url\([ \t]*)?{_QUOTED}"),
    "perl": _pattern(r"^[ \t]*(?:use|require)[ \t]+([\w:]+)"),
    "zig": _pattern(rf"@import\([ \t]*{_QUOTED}"),
    "solidity": _pattern(rf"^[ \t]*import[ \t]+(?:[^\n\"';]{{0,200}}from[ \t]+)?{_QUOTED}"),
    "tex": _pattern(r"\\(?:input|include|subfile|bibliography)\{([^}\n]{1,200})\}"),
}
