"""Tokenising: byte-level BPE against ``tokenizers`` and tiktoken, SentencePiece-style BPE against ``tokenizers``."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import orjson
import tiktoken
from tokenizers import Tokenizer

from bench.corpus import texts as read_texts
from bench.harness import Crew, Result, Setting, Side, compare, megabytes, parts, require, sample
from bench.vocabularies import byte_level, byte_level_pipelines, sentencepiece, special_of
from headrace.tokens.engine import Texts
from headrace.tokens.fast import FastEngine
from headrace.tokens.vocabulary import token_bytes
from headrace.tokens.word_cache import new_cache

# Megabytes for a peer in one round: tokenizers does some 2 to 5 MB/s on a core, tiktoken 10.
LIBRARY_MB, TIKTOKEN_MB = 8.0, 16.0
# Documents in one call: what a data loader would hand over.
BATCH = 256


def library(definition: dict[str, Any]) -> Tokenizer:
    """The peer ``tokenizers``, with special tokens' spellings taken as text, as ours takes them."""
    made = Tokenizer.from_str(orjson.dumps({**definition, "post_processor": None}).decode())
    made.encode_special_tokens = True
    return made


def library_ids(tokenizer: Tokenizer, texts: list[str]) -> list[list[int]]:
    """``encode_batch`` over batches."""
    out = []
    for start in range(0, len(texts), BATCH):
        found = tokenizer.encode_batch(texts[start : start + BATCH], add_special_tokens=False)
        out += [encoding.ids for encoding in found]
    return out


def as_tiktoken(definition: dict[str, Any], pattern: str) -> tiktoken.Encoding:
    """The same vocabulary as a tiktoken encoding: its ids rise with the ranks of the merges."""
    special = {token["id"] for token in definition["added_tokens"]}
    ranks = {piece: i for i, piece in enumerate(token_bytes(definition)) if piece and i not in special}
    # Tiktoken has merges only through ranks, so <|endoftext|> of GPT-2's vocabulary would be a word of the text.
    ranks.pop(b"<|endoftext|>", None)
    return tiktoken.Encoding("bench", pat_str=pattern, mergeable_ranks=ranks, special_tokens={})


class Cold:
    """Our engine with nothing remembered of the texts it saw before, and a share of texts for each core."""

    def __init__(self, engine: FastEngine, texts: list[str], cores: int) -> None:
        self.batches = [
            [Texts.of(part[start : start + BATCH]) for start in range(0, len(part), BATCH)]
            for part in parts(texts, cores)
        ]
        self.engine = engine

    def renew(self) -> None:
        """Forget the words that earlier texts had."""
        forget(self.engine)

    def encode(self, part: int) -> int:
        """Encode a share; the number of tokens."""
        return sum(len(self.engine.encode(batch).tokens) for batch in self.batches[part])


def forget(engine: FastEngine) -> None:
    """Have an engine forget the words that earlier texts had. A new engine would have none either, and take seconds."""
    engine._caches = [new_cache()]


def our_engine(definition: dict[str, Any]) -> FastEngine:
    """Ours for a definition."""
    return FastEngine(definition, special_of(definition))


def require_equal(engine: FastEngine, texts: list[str], theirs: list[list[int]], peer: str) -> None:
    """Token for token, document by document."""
    mine = engine.encode(Texts.of(texts))
    for i, ids in enumerate(theirs):
        same = np.array_equal(mine.of(i), np.array(ids, dtype=np.uint32))
        require(same, f"document {i} has other tokens than with {peer}: {texts[i][:200]!r}")


def against(setting: Setting, name: str, peer: str, target: float, definition: dict[str, Any], texts: list[str],
            mb: float, theirs: Any) -> Result:  # fmt: skip
    """Ours on all texts against a peer on a sample, after both agreed on all texts."""
    cold = Cold(our_engine(definition), texts, setting.cores)
    require_equal(cold.engine, texts, theirs(texts), peer)
    few = sample(texts, min(mb, setting.mb / 2))
    with Crew(setting, cold.encode, cold.renew) as us:
        sides = us.side(megabytes(texts)), Side(lambda: theirs(few), megabytes(few))
        return compare(setting, name, peer, "MB/s", *sides, target)


def run(setting: Setting) -> Iterator[Result]:
    """Byte-level BPE with the parts of several tokenizers, then SentencePiece's kind."""
    texts = read_texts(setting.corpus)
    gpt2 = byte_level(setting, texts)
    for kind, (definition, pattern) in byte_level_pipelines(gpt2).items():
        name = f"tokenise, {'GPT-2 pattern' if kind == 'GPT-2' else kind}"
        tokenizer = library(definition)
        yield against(setting, name, "tokenizers", 40, definition, texts, LIBRARY_MB,
                      lambda some, peer=tokenizer: library_ids(peer, some))  # fmt: skip
        if pattern is None:
            continue
        encoding = as_tiktoken(definition, pattern)

        def encode(some: list[str], peer: tiktoken.Encoding = encoding) -> list[list[int]]:
            return peer.encode_ordinary_batch(some, num_threads=setting.cores)

        yield against(setting, name, "tiktoken", 7, definition, texts, TIKTOKEN_MB, encode)
    for name, definition in sentencepiece().items():
        tokenizer = library(definition)
        yield against(setting, f"tokenise, {name}", "tokenizers", 25, definition, texts, LIBRARY_MB,
                      lambda some, peer=tokenizer: library_ids(peer, some))  # fmt: skip
