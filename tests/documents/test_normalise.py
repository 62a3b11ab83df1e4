"""Normalisation and ids."""

from __future__ import annotations

import builtins
import unicodedata

import pytest
import xxhash
from hypothesis import given
from hypothesis import strategies as st

from headrace.documents.ids import content_id
from headrace.documents.normalise import nfc, normaliser, versions
from headrace.errors import UserError


@given(st.text())
def test_nfc(text):
    assert nfc(text) == unicodedata.normalize("NFC", text)
    assert nfc(nfc(text)) == nfc(text)


def test_ftfy_mends_what_slimpajama_mended():
    fix = normaliser("ftfy")
    assert fix("schÃ¶n \u201cquoted\u201d e\u0301\r\n") == 'schön "quoted" é\n'
    assert set(versions("ftfy")) == {"ftfy", "unicode"}


def test_none_leaves_text_alone():
    assert normaliser("none")("e\u0301") == "e\u0301"


def test_ftfy_missing(monkeypatch):
    real = builtins.__import__

    def without(name, *args, **kwargs):
        if name == "ftfy":
            raise ImportError(name)
        return real(name, *args, **kwargs)

    monkeypatch.setattr(builtins, "__import__", without)
    with pytest.raises(UserError, match="ftfy"):
        normaliser("ftfy")


def test_content_id_is_of_the_bytes():
    assert content_id(b"abc") == xxhash.xxh3_128(b"abc").hexdigest()
    assert len(content_id(b"")) == 32
