"""Tokenising: byte-level and SentencePiece-style BPE against ``tokenizers``, tiktoken and tokenizers that keep words.

``tokenizers`` and tiktoken keep no words between texts and stand beside ours cold. The peers of ``tokenise_peers`` do,
so they are measured twice: new, and on texts that they have seen.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import orjson
import pyarrow as pa
import tiktoken
from tokenizers import Tokenizer

from bench.corpus import texts as read_texts
from bench.harness import (
    Crew,
    Result,
    Setting,
    Side,
    compare,
    first_runs,
    in_turn,
    megabytes,
    parts,
    require,
    result,
    sample,
)
from bench.tokenise_peers import PEERS, Encode
from bench.vocabularies import byte_level, byte_level_pipelines, ranks, sentencepiece, special_of
from headrace.tokens.engine import Encoded, Texts
from headrace.tokens.fast import FastEngine
from headrace.tokens.word_cache import new_cache

# Megabytes for a peer in one round: tokenizers does some 2 to 5 MB/s on a core, tiktoken 10.
LIBRARY_MB, TIKTOKEN_MB = 8.0, 16.0
# Documents in one call: what a data loader would hand over.
BATCH = 256
# A second corpus: documents of at most so many bytes, so many megabytes of them, with these pipelines.
SMALL_BYTES, SMALL_MB = 8192, 20.0
SMALL_KINDS = ("GPT-2", "cl100k pattern", "CrystalCoder")


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
    """The same vocabulary as a tiktoken encoding."""
    return tiktoken.Encoding("bench", pat_str=pattern, mergeable_ranks=ranks(definition), special_tokens={})


class Ours:
    """Our engine and a share of texts for each core. What it costs to take them from Python or Arrow is in the time.

    Args:
        engine: the engine.
        texts: all texts.
        cores: how many share them.
        arrow: whether they are given as slices of an Arrow column; else as ``list[str]``.
    """

    def __init__(self, engine: FastEngine, texts: list[str], cores: int, arrow: bool = False) -> None:
        shares = [pa.array(part, pa.large_string()) if arrow else part for part in parts(texts, cores)]
        self.batches = [[share[start : start + BATCH] for start in range(0, len(share), BATCH)] for share in shares]
        self.engine = engine

    def renew(self) -> None:
        """Forget the words that earlier texts had."""
        forget(self.engine)

    def encode(self, part: int) -> int:
        """Encode a share; the number of tokens."""
        return sum(len(self.engine.encode(Texts.of(batch)).tokens) for batch in self.batches[part])


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
    cold = Ours(our_engine(definition), texts, setting.cores)
    require_equal(cold.engine, texts, theirs(texts), peer)
    few = sample(texts, min(mb, setting.mb / 2))
    with Crew(setting, cold.encode, cold.renew) as us:
        sides = us.side(megabytes(texts)), Side(lambda: theirs(few), megabytes(few))
        return compare(setting, name, peer, "MB/s", *sides, target)


class Theirs:
    """A peer with its texts.

    Args:
        fresh: makes a tokenizer with nothing remembered.
        texts: all texts.
    """

    def __init__(self, fresh: Callable[[], Encode], texts: list[str]) -> None:
        self.fresh, self.texts = fresh, texts
        self.renew()

    def renew(self) -> None:
        """A new tokenizer."""
        self.encode = self.fresh()

    def run(self) -> Encoded:
        """All texts at once, so that the peer makes its own batches."""
        return self.encode(self.texts)


def typed(definition: dict[str, Any]) -> list[str]:
    """Texts that spell the special tokens."""
    spelt = [token["content"] for token in definition["added_tokens"] if token["special"]]
    return [f"typed {content}{content} here" for content in dict.fromkeys([*spelt, "<|endoftext|>", "</s>"])]


def installed(setting: Setting, pipeline: str, definition: dict[str, Any], texts: list[str], engine: FastEngine
              ) -> tuple[dict[str, Callable[[], Encode]], dict[str, str]]:  # fmt: skip
    """The peers that remember words, each found to give our tokens for all texts; and why others are not there."""
    ready, absent = {}, {}
    mine = engine.encode(Texts.of(texts))
    for name, peer in PEERS.items():
        if pipeline in peer.refused:
            continue
        try:
            fresh = peer.fresh(definition, pipeline, setting.work, setting.cores)
        except ImportError as error:
            absent[name] = f"unavailable: {error!r}"[:300]
            continue
        theirs = fresh()(texts)
        for i in range(len(texts)):
            same = np.array_equal(mine.of(i), theirs.of(i))
            require(same, f"document {i} has other tokens than with {name}: {texts[i][:200]!r}")
        ready[name] = fresh
    return ready, absent


def remembering(setting: Setting, name: str, pipeline: str, definition: dict[str, Any], texts: list[str]
                ) -> Iterator[Result]:  # fmt: skip
    """Ours and the peers that remember words, all in turn: cold, then on texts that each of them has seen.

    Ours is measured from ``list[str]``, as the peers are, and from an Arrow column.
    """
    engine = our_engine(definition)
    ready, absent = installed(setting, pipeline, definition, [*texts, *typed(definition)], engine)
    strings, column = Ours(engine, texts, setting.cores), Ours(engine, texts, setting.cores, arrow=True)
    peers = {peer: Theirs(fresh, texts) for peer, fresh in ready.items()}
    size = megabytes(texts)
    for state in ("cold", "warm"):
        before = strings.renew if state == "cold" else None
        with Crew(setting, strings.encode, before) as us, Crew(setting, column.encode, before) as arrow:
            sides = [us.side(size), arrow.side(size)]
            sides += [Side(peer.run, size, peer.renew if state == "cold" else None) for peer in peers.values()]
            first_runs(sides)
            rates, of_column, *theirs = in_turn(setting, sides, "MB/s")
        case = f"{name}, {state}"
        yield result(setting, f"{case}, from Arrow", None, "MB/s", of_column, None)
        for peer, found in zip(peers, theirs, strict=True):
            yield result(setting, case, peer, "MB/s", rates, found, 1, note=PEERS[peer].call)
        for peer, why in absent.items():
            yield result(setting, case, peer, "MB/s", rates, None, 1, note=why)


def small_files(texts: list[str]) -> list[str]:
    """Short documents of all sources: what a call and a document cost counts for more than in long ones."""
    return sample([text for text in texts if 0 < len(text.encode()) <= SMALL_BYTES], SMALL_MB)


def run(setting: Setting) -> Iterator[Result]:
    """Byte-level BPE with the parts of several tokenizers, then SentencePiece's kind."""
    texts = read_texts(setting.corpus)
    gpt2 = byte_level(setting, texts)
    definitions = {}
    for kind, (definition, pattern) in byte_level_pipelines(gpt2).items():
        definitions[kind] = definition
        name = case(kind)
        tokenizer = library(definition)
        yield against(setting, name, "tokenizers", 40, definition, texts, LIBRARY_MB,
                      lambda some, peer=tokenizer: library_ids(peer, some))  # fmt: skip
        if pattern is None:
            continue
        encoding = as_tiktoken(definition, pattern)

        def encode(some: list[str], peer: tiktoken.Encoding = encoding) -> list[list[int]]:
            return peer.encode_ordinary_batch(some, num_threads=setting.cores)

        yield against(setting, name, "tiktoken", 7, definition, texts, TIKTOKEN_MB, encode)
    for kind, definition in sentencepiece().items():
        definitions[kind] = definition
        tokenizer = library(definition)
        yield against(setting, case(kind), "tokenizers", 25, definition, texts, LIBRARY_MB,
                      lambda some, peer=tokenizer: library_ids(peer, some))  # fmt: skip
    small = small_files(texts)
    for kind, definition in definitions.items():
        yield from remembering(setting, case(kind), kind, definition, texts)
        if kind in SMALL_KINDS:
            yield from remembering(setting, f"{case(kind)}, small files", kind, definition, small)


def case(kind: str) -> str:
    """The name of a pipeline's rows."""
    return f"tokenise, {'GPT-2 pattern' if kind == 'GPT-2' else kind}"
