"""Decoding: token ids to text, against ``tokenizers`` ``decode_batch``."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from bench.corpus import texts as read_texts
from bench.harness import Result, Setting, Side, compare, megabytes, require, sample
from bench.tokenise import library
from bench.vocabularies import byte_level, sentencepiece, special_of
from headrace.tokens.engine import Encoded, Texts
from headrace.tokens.fast import FastEngine

LIBRARY_MB = 8.0


def run(setting: Setting) -> Iterator[Result]:
    """Each tokenizer: ids of the whole corpus by ours, of a sample by the peer."""
    texts = read_texts(setting.corpus)
    few = sample(texts, min(LIBRARY_MB, setting.mb / 2))
    for name, definition in {"GPT-2": byte_level(setting, texts), **sentencepiece()}.items():
        engine = FastEngine(definition, special_of(definition))
        mine, small = engine.encode(Texts.of(texts)), engine.encode(Texts.of(few))
        lists = [small.of(i).tolist() for i in range(small.count)]
        peer = library(definition)

        def agree(ours: Texts, theirs: list[str], small: Encoded = small, engine: FastEngine = engine) -> None:
            require(
                np.array_equal(ours.data, Texts.of(texts).data) or engine.dummy_prefix,
                "decoded text is not the text that was encoded",
            )
            for i, text in enumerate(theirs):
                require(engine.decode(small.of(i)) == text.encode(), f"document {i} of the sample decodes differently")

        yield compare(
            setting,
            f"decode, {name}",
            "tokenizers",
            "MB/s",
            Side(lambda mine=mine, engine=engine: engine.decode_batch(mine), megabytes(texts)),
            Side(lambda peer=peer, lists=lists: peer.decode_batch(lists, skip_special_tokens=False), megabytes(few)),
            10,
            agree=agree,
        )
