"""The normaliser leaves alone what the library would not change, and makes of the rest what the library makes."""

from __future__ import annotations

import random

import numpy as np
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from tokenizers.normalizers import NFC

from headrace.tokens.engine import Texts
from headrace.tokens.nfc import combining_classes, normalised
from headrace.tokens.pieces import Pieces, whole
from quick import examples

CHARS = [chr(point) for point in range(0x110000) if not 0xD800 <= point < 0xE000]
CHANGEABLE = [char for char in CHARS[:0x40000] if combining_classes()[ord(char)]]
# Of every combining class, what composes, what is a composite, Hangul, blanks and letters, and what is not assigned.
AWKWARD = [
    *"aAeEoOuU <>=\n", *map(chr, [*range(0x300, 0x315), 0x323, 0x327, 0x328, 0x334, 0x338, 0x345, 0x378, 0x5B0]),
    *"\xe9\xc5\u1e9b\u1ea5\u212b\u0958\u0915\u093c\u094d\u09c7\u09be\u09d7\u0344\u2adc\U0001d15f\U0001d160\U0001d165",
    *"\u1100\u1161\u11a8\uac00\uac01\uf900\U0002f800\u3099\u304b\u6f22\u0e38\u0e48\u064e\u0651\u0898\U0001133b\U00011070",
]  # fmt: skip
FUZZ = settings(max_examples=examples(500), suppress_health_check=list(HealthCheck))


def texts_of(pieces: Pieces) -> list[str]:
    return [Texts(pieces.data, pieces.bounds).bytes_of(i).decode() for i in range(len(pieces.ids))]


def check(texts: list[str]) -> None:
    nfc = NFC()
    assert texts_of(normalised(whole(Texts.of(texts)))) == [nfc.normalize_str(text) for text in texts]


def test_every_character_among_letters_and_marks():
    check([f"a{char}b" for char in [*CHARS[:0x40000], *CHARS[0x40000::61]]])
    check(
        [
            text
            for char in CHANGEABLE
            for text in (f"a{char}\u0334", f"a\u0301{char}", f"{char}\u0345{char}", f"e{char}\u0301")
        ]
    )


def test_every_pair_of_awkward_characters():
    check([f"x{a}{b}{c}" for a in AWKWARD for b in AWKWARD for c in ("", "\u0323", "y")])


@FUZZ
@given(st.lists(st.text(st.sampled_from(AWKWARD) | st.characters(exclude_categories=["Cs"]), max_size=30), max_size=5))
def test_fuzzed_texts(texts):
    check(texts)


def test_long_texts_in_which_little_changes():
    rng = random.Random(6)
    for letters in ("ab \xe9\xdf", "\u6f22\u5b57", "\U0001f600a", "\xe9"):
        for _ in range(40):
            text = "".join(rng.choices(letters, k=rng.randrange(200)))
            check([text, text + "e\u0301" + text + "\u0323", "a" * rng.randrange(70) + "\xe9\u0301" + text])


def test_normal_text_is_not_copied_and_tokens_are_left_alone():
    batch = Texts.of(["caf\xe9 \u6f22\u5b57 \u0939\u093f\u0928\u094d\u0926\u0940 x\u0334\u0315", "", "plain"])
    assert normalised(whole(batch)).data is batch.data
    batch = Texts.of(["e\u0301", "e\u0301", "u\u0308"])
    made = normalised(Pieces(batch.data, batch.offsets, np.array([-1, 7, -1], np.int32), np.arange(4)))
    assert texts_of(made) == ["\xe9", "e\u0301", "\xfc"]
    assert made.ids.tolist() == [-1, 7, -1]


def test_characters_before_the_marks_are_never_changeable():
    assert not combining_classes()[:0x300].any()
