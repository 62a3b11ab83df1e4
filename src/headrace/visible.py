"""Make untrusted text safe to display: nothing that a terminal obeys or an eye cannot see is left unmarked.

Corpora, file names and recipes contain terminal escapes, bidirectional marks, and zero-width characters. They are shown
by name, so that what is on the screen is what is in the data.
"""

from __future__ import annotations

import json
import re
from typing import Any

# Unicode 16: categories Cc, Cf, Cs, Zl and Zp, code points that are ignored if no glyph exists
# (Default_Ignorable_Code_Point: fillers, variation selectors, tags), and two that XML does not allow.
_UNSEEN = (
    "\x00-\x1f\x7f-\x9f\xad\u034f\u0600-\u0605\u061c\u06dd\u070f\u0890\u0891\u08e2\u115f\u1160\u17b4\u17b5\u180b-\u180f"
    "\u200b-\u200f\u2028-\u202e\u2060-\u206f\u3164\ud800-\udfff\ufe00-\ufe0f\ufeff\uffa0\ufff0-\ufffb\ufffe\uffff"
    "\U000110bd\U000110cd\U00013430-\U0001343f\U0001bca0-\U0001bca3\U0001d173-\U0001d17a\U000e0000-\U000e0fff"
)
_ANY = re.compile(f"[{_UNSEEN}]")
_SURROGATE = re.compile("[\ud800-\udfff]")
_BUT_LAYOUT = re.compile(f"(?![\t\n])[{_UNSEEN}]")


def visible(text: str) -> str:
    """Text of several lines: C0 controls become symbols (``␛``), others ``<U+202E>``; tabs and line endings stay."""
    return _BUT_LAYOUT.sub(_name, text.replace("\r\n", "\n"))


def one_line(text: str) -> str:
    """The same for text that must stay on one line, such as a path: tabs and line feeds are shown too."""
    return _ANY.sub(_name, text)


def escaped_json(text: str) -> str:
    """JSON text with all such characters escaped; it parses to the same value."""
    return _BUT_LAYOUT.sub(lambda found: _escape(ord(found[0])), text)


def encodable(text: str) -> str:
    """Text with lone surrogates, which UTF-8 cannot hold, shown as ``<U+D800>``."""
    return text if text.isascii() else _SURROGATE.sub(_name, text)


def json_line(value: Any) -> bytes:
    """A message as a line of JSON, whatever text is in it: lone surrogates, which UTF-8 cannot hold, are shown."""
    import orjson  # the command line imports this module to print its help

    try:
        return orjson.dumps(value, option=orjson.OPT_APPEND_NEWLINE)
    except TypeError:
        text = json.dumps(value, ensure_ascii=False)
        return orjson.dumps(orjson.loads(encodable(text)), option=orjson.OPT_APPEND_NEWLINE)


def _name(found: re.Match[str]) -> str:
    code = ord(found[0])
    if code < 0x20 or code == 0x7F:
        return chr(0x2400 + code) if code < 0x20 else "␡"
    return f"<U+{code:04X}>"


def _escape(code: int) -> str:
    if code < 0x10000:
        return f"\\u{code:04x}"
    code -= 0x10000
    return f"\\u{0xD800 + (code >> 10):04x}\\u{0xDC00 + (code & 0x3FF):04x}"
