"""Licenses in texts: SPDX lines among the first lines of a document, and the texts of license files.

License texts are recognized by `licenseclassifier`, a port of the matcher of Go's package site to pure Python, with its
693 templates. It reports nothing rather than something doubtful. (scancode needs dozens of packages and seconds a file;
osslili and its fork hash fuzzily and need `requests`; pyaskalono has compiled code for one platform only.)
"""

from __future__ import annotations

import re

from headrace import spdx

HEAD = 4096  # bytes: SPDX asks for the line near the top, after `#!` or the like
FILE = 64 << 10  # bytes of a license file; the longest on the SPDX list has 40 kB
# The tag in a line of its own but for the signs of a comment, so that prose about the tag is not taken for it.
_TAG = re.compile(rb"^[^\w\n]*(?:(?:REM|dnl)\s+)?SPDX-License-Identifier:[ \t]*([^\r\n]+)", re.MULTILINE)
_CLOSERS = re.compile(r"\s*(?:\*+/|-->|--%?>|#}|%}|\*\)|\"\"\"|'''|\|#|-}|[*#;%/-]+)\s*$")
_FILE = re.compile(
    r"(?:un)?licen[cs]e(?:[-_.][\w.+-]*)?|copying(?:[-_.][\w.+-]*)?|(?:mit|apache|gpl|bsd)[-_]licen[cs]e(?:\.\w+)?",
    re.IGNORECASE | re.ASCII,
)
_CODE = (".py", ".js", ".ts", ".c", ".h", ".go", ".rs", ".java", ".rb", ".php", ".cs", ".cpp", ".json", ".xml", ".yml")


def spdx_lines(head: bytes) -> str | None:
    """The license in a document's first lines: all that SPDX lines name; None if there is none that is recognized."""
    if b"SPDX-License-Identifier" not in head:
        return None
    named = (_CLOSERS.sub("", line.decode("utf-8", "replace")).strip() for line in _TAG.findall(head))
    found = [expression for expression in map(spdx.expression, named) if expression is not None]
    return spdx.joined(found) if found else None


def is_licence_file(path: str) -> bool:
    """Whether a path is that of a file with the license of its folder, by its name."""
    name = path.rsplit("/", 1)[-1]
    return bool(_FILE.fullmatch(name)) and not name.lower().endswith(_CODE)


def licence_text(text: bytes) -> str | None:
    """The license in a text: all that are found whole; None if there is none."""
    from licenseclassifier import identify_license

    found = identify_license(text[:FILE].decode("utf-8", "ignore"))
    named = (spdx.expression(result.id) for result in found)
    expressions = [one for one in named if one is not None]
    return spdx.joined(expressions) if expressions else None


def folders(path: str) -> list[str]:
    """The folders above a path, nearest first, ending with the root ``''``."""
    parts = [part for part in path.split("/")[:-1] if part not in ("", ".")]
    return ["/".join(parts[:n]) for n in range(len(parts), -1, -1)]
