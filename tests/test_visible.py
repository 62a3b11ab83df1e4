"""What is shown of other people's text."""

from __future__ import annotations

import json
import unicodedata

import orjson
from hypothesis import given
from hypothesis import strategies as st

from headrace.visible import escaped_json, json_line, one_line, visible

EVERY = "".join(map(chr, range(0x110000)))
ANY_TEXT = st.text(st.characters(codec=None, exclude_categories=()))


def unseen(text: str) -> set[str]:
    """The characters that a terminal obeys or that have neither picture nor width."""
    return {char for char in text if unicodedata.category(char) in ("Cc", "Cf", "Cs", "Zl", "Zp")}


def test_every_character_that_cannot_be_seen_is_named():
    assert unseen(visible(EVERY)) == {"\t", "\n"}
    assert unseen(one_line(EVERY)) == set()


def test_what_can_be_seen_stays():
    seen = "".join(char for char in EVERY if unicodedata.category(char)[0] in "LNPSZ" and not unseen(char))
    fillers = "\u115f\u1160\u17b4\u17b5\u3164\uffa0"  # letters without a picture
    kept = seen.translate({ord(char): None for char in fillers})
    assert visible(kept) == kept


def test_names():
    assert visible("\x1b[31m\x9b\u202e\x7f\r") == "␛[31m<U+009B><U+202E>␡␍"
    assert visible("a\r\nb\tc") == "a\nb\tc"
    assert one_line("a\n\tb") == "a␊␉b"
    assert visible("\U000e0041") == "<U+E0041>"


@given(st.dictionaries(st.text(), st.text()))
def test_escaped_json_reads_back_the_same(value):
    text = escaped_json(orjson.dumps(value).decode())
    assert json.loads(text) == value
    assert not unseen(text)


@given(ANY_TEXT)
def test_lines_are_kept_apart_or_joined(text):
    assert "\n" not in one_line(text)
    assert visible(text).count("\n") == text.count("\n")


@given(st.dictionaries(ANY_TEXT, ANY_TEXT, max_size=3))
def test_any_message_is_a_line_of_json(message):
    line = json_line(message)
    assert line.count(b"\n") == 1
    shown = {encodable(key): encodable(value) for key, value in message.items()}
    assert orjson.loads(line) == shown


def encodable(text: str) -> str:
    return "".join(one_line(char) if "\ud800" <= char <= "\udfff" else char for char in text)
