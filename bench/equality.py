"""Whether ours gives the tokens of ``tokenizers``: every document of the corpus, and texts of random Unicode.

No speeds: a row says how many megabytes have the same tokens (ours) of how many were compared (theirs). The first
difference ends the benchmark with the document's beginning.
"""

from __future__ import annotations

import random
from collections.abc import Iterator

import numpy as np

from bench.corpus import texts as read_texts
from bench.harness import Result, Setting, megabytes, require, result
from bench.tokenise import BATCH, library, library_ids, our_engine
from bench.vocabularies import byte_level, byte_level_pipelines, sentencepiece

FUZZED = 20_000
# First and last code points of what texts are made of. Some of every range is unassigned.
SCRIPTS = [
    (0x20, 0x7E), (0x00, 0x1F), (0x7F, 0x24F), (0x250, 0x36F), (0x370, 0x52F), (0x530, 0x6FF), (0x900, 0xDFF),
    (0xE00, 0x10FF), (0x1100, 0x11FF), (0x1200, 0x1AFF), (0x1E00, 0x206F), (0x2070, 0x2BFF), (0x3000, 0x30FF),
    (0x4E00, 0x9FFF), (0xAC00, 0xD7FF), (0xE000, 0xE0FF), (0xF900, 0xFFFF), (0x10000, 0x10FFF), (0x1D400, 0x1D7FF),
    (0x1F000, 0x1FAFF), (0x20000, 0x2A6FF), (0xE0000, 0xE01FF), (0x10FF00, 0x10FFFF),
]  # fmt: skip
MARKS = (*range(0x300, 0x370), 0x200D, 0xFE0F, 0x20E3)
# What split patterns name, and what they have trouble with.
SIGNS = (
    " ", "  ", "\t", "\n", "\n\n", "\r\n", "\r", "\x85", "\u2028", "\xa0", "\u3000", "'s", "'LL", "\u2019", "'", "12",
    "3.1415", "\u0663", "\xb2", "\u2167", "\u2581", "<|endoftext|>", "</s>", "<0x0A>", "...", "(", '");\n', "\u017f",
)  # fmt: skip


def fuzzed(count: int) -> Iterator[str]:
    """Texts of runs of one script, of marks, of signs, and of any code points but surrogates."""
    draw = random.Random(20)
    for _ in range(count):
        pieces = []
        for _ in range(draw.randint(1, 16)):
            kind, length = draw.random(), draw.choice((1, 1, 2, 3, 5, 8, 20))
            if kind < 0.5:
                low, high = draw.choice(SCRIPTS)
                points = draw.choices(range(low, high + 1), k=length)
            elif kind < 0.6:
                points = draw.choices(MARKS, k=length)
            elif kind < 0.7:
                points = [point for point in draw.choices(range(0x110000), k=length) if not 0xD800 <= point < 0xE000]
            else:
                pieces.append(draw.choice(SIGNS) * draw.choice((1, 1, 1, 2, 5)))
                continue
            pieces.append("".join(map(chr, points)))
        yield "".join(pieces)


def run(setting: Setting) -> Iterator[Result]:
    """Each tokenizer; without the fixtures the byte-level ones."""
    corpus = read_texts(setting.corpus)
    gpt2 = byte_level(setting, corpus)
    definitions = {name: made.definition for name, made in byte_level_pipelines(gpt2).items()} | sentencepiece()
    sets = {"corpus": corpus, "random Unicode": [text for text in fuzzed(FUZZED) if text]}
    for tokenizer, definition in definitions.items():
        engine, peer = our_engine(definition), library(definition)
        for name, texts in sets.items():
            tokens = 0
            for start in range(0, len(texts), BATCH):
                some = texts[start : start + BATCH]
                mine = engine.encode(some)
                for i, ids in enumerate(library_ids(peer, some)):
                    same = np.array_equal(mine.of(i), np.array(ids, dtype=np.uint32))
                    require(same, f"{tokenizer}: document {start + i} of {name} differs: {some[i][:200]!r}")
                tokens += len(mine.tokens)
            note = f"{len(texts):,} documents, {tokens:,} tokens, 0 differences"
            size = megabytes(texts)
            yield result(setting, f"equality, {tokenizer}: {name}", "tokenizers", "MB", [size], [size], 1, note=note)
