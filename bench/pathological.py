"""Texts that make tokenizers crawl: how much slower than on ordinary text ours is on them, and that it is right.

Each text is of one kind from its first byte to its last. The target is a time per byte of at most 20 times that of the
corpus, the vocabulary of words cold in both. The tokens are compared with those of ``tokenizers`` on the text's
beginning: the library takes 0.1 to 1 s for a megabyte of these.
"""

from __future__ import annotations

import random
from collections.abc import Iterator
from functools import partial
from typing import Any

import numpy as np

from bench.corpus import texts as read_texts
from bench.harness import Result, Setting, Side, compare, megabytes, require, sample
from bench.tokenise import Ours, library, our_engine
from bench.vocabularies import byte_level, byte_level_pipelines, sentencepiece

LIBRARY_BYTES = 2_000_000
LEAST_RATIO = 1 / 20
ORDINARY_MB = 16.0
LETTERS = "abcdefghijklmnopqrstuvwxyz"


def pathological(size: int) -> dict[str, str]:
    """Name -> text of about so many bytes of UTF-8."""
    draw = random.Random(1)
    latin = "".join(map(chr, range(256)))
    whole = {
        "one word, random letters": "".join(draw.choices(LETTERS, k=size)),
        "one word, one letter": "a" * size,
        "one word, Cyrillic": "".join(draw.choices("\u0430\u0431\u0432\u0433\u0434\u0435\u0436\u0437", k=size // 2)),
        "spaces": " " * size,
        "newlines": "\n" * size,
        "digits": "".join(draw.choices("0123456789", k=size)),
        "apostrophes": "'" * size,
        "combining marks": "".join(draw.choices([chr(point) for point in range(0x300, 0x370)], k=size // 2)),
        "four-byte characters": "".join(
            draw.choices("\U0001f600\U00020000\U0001d7d9\U000e0101\U0010ffff", k=size // 4)
        ),
        "every byte, as Latin-1": "".join(draw.choices(latin, k=size * 2 // 3)),
        "every pair of bytes, as Latin-1": "".join(a + b for a in latin for b in latin) * (size // 196_608 + 1),
        "decomposed letters": "e\u0301" * (size // 3),
        "signs and line ends": "(\n/" * (size // 3),
        "upper case after Chinese": "\u6f22" + "A" * size,
        "replacement characters": "\ufffd" * (size // 3),
        "random bytes, with replacement": draw.randbytes(size // 2).decode("utf-8", "replace"),
    }
    return {name: cut(text, size) for name, text in whole.items()}


def cut(text: str, size: int) -> str:
    """The beginning of a text, of at most so many bytes."""
    return text.encode()[:size].decode("utf-8", "ignore")


def require_equal_start(cold: Ours, peer: Any, name: str, text: str) -> int:
    """Compare with the library on the text's beginning; gives how many bytes that was."""
    start = cut(text, LIBRARY_BYTES)
    found = peer.encode_batch_fast([start], add_special_tokens=False)[0].ids
    mine = cold.engine.encode([start]).tokens
    require(np.array_equal(mine, np.array(found, dtype=np.uint32)), f"{name}: other tokens than with tokenizers")
    return len(start.encode())


def run(setting: Setting) -> Iterator[Result]:
    """Each kind of text with each way of splitting text."""
    corpus = read_texts(setting.corpus)
    ordinary = sample(corpus, min(ORDINARY_MB, setting.mb))
    size = int(min(8.0, setting.mb) * 1e6)
    gpt2 = byte_level(setting, corpus)
    definitions = {name: made.definition for name, made in byte_level_pipelines(gpt2).items()} | sentencepiece()
    definitions = {"GPT-2 pattern": definitions.pop("GPT-2"), **definitions}
    definitions.pop("LLaMA", None)  # of CrystalCoder's kind
    for tokenizer, definition in definitions.items():
        peer = library(definition)
        usual = Ours(our_engine(definition), ordinary, 1)
        for name, text in pathological(size).items():
            odd = Ours(usual.engine, [text], 1)
            compared = require_equal_start(odd, peer, f"{tokenizer}, {name}", text)
            yield compare(
                setting,
                f"pathological, {tokenizer}: {name}",
                "itself on ordinary text",
                "MB/s",
                Side(partial(odd.encode, 0), megabytes([text]), odd.renew),
                Side(partial(usual.encode, 0), megabytes(ordinary), usual.renew),
                LEAST_RATIO,
                note=f"equal to tokenizers on {compared / 1e6:.1f} MB",
            )
