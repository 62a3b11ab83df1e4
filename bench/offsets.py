"""How many tokens texts have, and which bytes each of them spells, against ``tokenizers``.

The library gives the characters that a token touches, ours the bytes that it spells; they must be of the same
characters. Where the library puts a dummy space before a text it counts it as the first character; ours has no bytes.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial

import numpy as np
from tokenizers import Tokenizer

from bench.corpus import texts as read_texts
from bench.harness import Result, Setting, Side, compare, megabytes, require, sample
from bench.tokenise import BATCH, forget, library, our_engine
from bench.vocabularies import byte_level, sentencepiece
from headrace.tokens.engine import Texts
from headrace.tokens.fast import FastEngine

LIBRARY_MB = 8.0


def library_counts(tokenizer: Tokenizer, texts: list[str]) -> list[int]:
    """The lengths of what ``encode_batch_fast`` gives, which does not work out offsets."""
    starts = range(0, len(texts), BATCH)
    batches = (tokenizer.encode_batch_fast(texts[at : at + BATCH], add_special_tokens=False) for at in starts)
    return [len(encoding) for batch in batches for encoding in batch]


def library_offsets(tokenizer: Tokenizer, texts: list[str]) -> list[list[tuple[int, int]]]:
    """The offsets of ``encode_batch``, in characters."""
    starts = range(0, len(texts), BATCH)
    batches = (tokenizer.encode_batch(texts[at : at + BATCH], add_special_tokens=False) for at in starts)
    return [encoding.offsets for batch in batches for encoding in batch]


def our_spans(engine: FastEngine, batch: Texts) -> tuple[np.ndarray, np.ndarray]:
    """int64[n_tokens, 2] and the offsets of each text's tokens."""
    encoded = engine.encode(batch)
    return engine.spans(encoded, True, batch), encoded.offsets


def require_same_characters(
    texts: list[str], spans: np.ndarray, offsets: np.ndarray, theirs: list[list[tuple[int, int]]]
) -> None:
    """Each token touches the same characters, text by text."""
    for i, (text, found) in enumerate(zip(texts, theirs, strict=True)):
        own, other = spans[offsets[i] : offsets[i + 1]], np.array(found, dtype=np.int64).reshape(-1, 2)
        require(len(own) == len(other), f"document {i} has {len(own)} tokens, not {len(other)}")
        # The character that each byte is of: continuation bytes begin with the bits 10.
        owner = np.cumsum((np.frombuffer(text.encode(), dtype=np.uint8) & 0xC0) != 0x80) - 1
        real = own[:, 1] > own[:, 0]
        require(bool(real[1:].all()), f"a token of document {i} has no bytes")
        low, high = owner[own[real, 0]], owner[own[real, 1] - 1] + 1
        require(np.array_equal(np.stack([low, high], axis=1), other[real]), f"document {i} has other offsets")


def run(setting: Setting) -> Iterator[Result]:
    """Each tokenizer: counts, then offsets, of the whole corpus by ours and of a sample by the peer."""
    texts = read_texts(setting.corpus)
    few = sample(texts, min(LIBRARY_MB, setting.mb / 2))
    for name, definition in {"GPT-2": byte_level(setting, texts), **sentencepiece()}.items():
        peer, engine = library(definition), our_engine(definition)
        batch, small = Texts.of(texts), Texts.of(few)
        renew = partial(forget, engine)
        counts = library_counts(peer, few)
        require(engine.count(small).tolist() == counts, f"{name}: other numbers of tokens")
        yield compare(
            setting,
            f"offsets, count of tokens, {name}",
            "tokenizers",
            "MB/s",
            Side(partial(engine.count, batch), megabytes(texts), renew),
            Side(partial(library_counts, peer, few), megabytes(few)),
        )
        require_same_characters(few, *our_spans(engine, small), library_offsets(peer, few))
        yield compare(
            setting,
            f"offsets, bytes of tokens, {name}",
            "tokenizers",
            "MB/s",
            Side(partial(our_spans, engine, batch), megabytes(texts), renew),
            Side(partial(library_offsets, peer, few), megabytes(few)),
        )
