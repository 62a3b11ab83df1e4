"""A small corpus as artifacts of the real formats, steps that make them, and ways to build sequences from them.

Worker processes rebuild the graph through :func:`targets` from RUN/small.json.
"""

from __future__ import annotations

import json
import random
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import orjson
import pyarrow as pa
import pyarrow.parquet as pq
import xxhash

from headrace.documents.store import GIVEN, documents_of, fetch
from headrace.flow.artifact import Artifact
from headrace.flow.events import EventLog
from headrace.flow.executors.inline import InlineExecutor
from headrace.flow.keys import keyed, parse_ids, salt, unit
from headrace.flow.runner import make
from headrace.flow.step import Phase, Step, topological
from headrace.recipe.stages import SpecialTokens, Stage
from headrace.sequence.chat import transform as chat_transform
from headrace.sequence.chat import turns_of
from headrace.sequence.fim import transform as fim_transform
from headrace.sequence.parameters import SequenceParameters
from headrace.sequence.step import Sequence
from headrace.sequence.store import ArrowSequence, open_sequence
from headrace.tokens.definition import byte_level_definition, fingerprint
from headrace.tokens.engine import Engine, Texts
from headrace.tokens.load import open_control, open_engine
from headrace.tokens.special import own_ids, trained_roles
from headrace.tokens.store import TokenShard, write_shard
from headrace.tokens.vocabulary import byte_alphabet

SPECIAL = SpecialTokens(pad="<|pad|>", bos="<s>")
SPLITS = ("train", "validation", "test")


def texts_of(source: str, documents: int, seed: int) -> list[str]:
    """Texts of very different lengths, with characters of one to four bytes, all different."""
    rng = random.Random(f"{source} {seed}")
    words = ["mill", "wheel", "water", "race", "größe", "naïve", "水車", "🌊", "x = 1\n", "\t"]
    out = []
    for i in range(documents):
        length = int(rng.lognormvariate(3, 1))
        out.append(f"{source} {i}: " + " ".join(rng.choice(words) for _ in range(length)))
    return out


@dataclass(frozen=True)
class SmallDocuments(Step):
    """Documents of several sources in shards of ``per_shard``, sources mixed."""

    sources: tuple[tuple[str, int], ...]
    seed: int = 0
    per_shard: int = 100
    kind = "documents"
    VERSION = 1

    def params(self):
        return {"sources": self.sources, "seed": self.seed, "per_shard": self.per_shard}

    def inputs(self):
        return {}

    def phases(self):
        return [Phase("write", lambda ctx: [{}], self.write)]

    def rows(self) -> list[dict[str, Any]]:
        rows = []
        for source, documents in self.sources:
            for i, text in enumerate(texts_of(source, documents, self.seed)):
                said = None
                if source == "chat":
                    cut = len(text) // 2
                    turns = [
                        {"role": "user", "start": 0, "end": cut},
                        {"role": "assistant", "start": cut, "end": len(text)},
                    ]
                    # A third of them end with the user, a third say that their answer is not learned.
                    turns = [turns[::-1], [turns[0], turns[1] | {"loss": False}], turns][i % 3]
                    said = orjson.dumps(turns).decode()
                row = {"id": xxhash.xxh3_128_hexdigest(text.encode()), "text": text, "source": source, "turns": said}
                rows.append(
                    {**row, "origin_file": f"{source}.jsonl", "origin_row": i, "license": f"licence of {source}"}
                )
        return sorted(rows, key=lambda row: row["id"])

    def write(self, ctx, spec):
        rows = self.rows()
        for part, start in enumerate(range(0, len(rows), self.per_shard)):
            some = rows[start : start + self.per_shard]
            with ctx.shard(part=part) as out:
                pq.write_table(documents_of(pa.Table.from_pylist(some, schema=GIVEN)), out.path, row_group_size=32)
                out.rows = len(some)
        return {}

    def finish(self, ctx):
        return {"counts": {}}


@dataclass(frozen=True)
class SmallTokenizer(Step):
    """Every byte is a token; the special tokens follow."""

    kind = "tokenizer"
    VERSION = 1

    def params(self):
        return {}

    def inputs(self):
        return {}

    def phases(self):
        return [Phase("write", lambda ctx: [{}], self.write)]

    def definition(self) -> dict[str, Any]:
        value = byte_level_definition(dict(byte_alphabet()), [])
        names = dict.fromkeys(trained_roles(SPECIAL).values())
        value["added_tokens"] = [
            {"id": 256 + i, "content": name, "single_word": False, "lstrip": False, "rstrip": False,
             "normalized": False, "special": True}
            for i, name in enumerate(names)
        ]  # fmt: skip
        return value

    def write(self, ctx, spec):
        with ctx.file("tokenizer.json") as out:
            out.path.write_bytes(orjson.dumps(self.definition()))
        return {}

    def finish(self, ctx):
        value = self.definition()
        special = own_ids(value, SPECIAL)
        size = 256 + len(value["added_tokens"])
        return {"counts": {}, "special": special, "fingerprint": fingerprint(value), "vocab_size": size}


@dataclass(frozen=True)
class SmallTokens(Step):
    """The token store of the small documents: a twentieth is not kept, a tenth of the rest is held out."""

    documents: SmallDocuments
    tokenizer: SmallTokenizer
    kind = "tokens"
    VERSION = 1

    def params(self):
        return {}

    def inputs(self):
        return {"documents": self.documents, "tokenizer": self.tokenizer}

    def phases(self):
        return [
            Phase("write", lambda ctx: [{"shard": i} for i in range(len(ctx.input("documents").shards))], self.write)
        ]

    def names(self) -> list[str]:
        return [name for name, _ in self.documents.sources]

    def write(self, ctx, spec):
        engine = open_engine(ctx.input("tokenizer"))
        documents = ctx.input("documents")
        table = pq.read_table(documents.shard_path(spec["shard"]))
        at = np.arange(len(table), dtype=np.uint64)
        rows = at + np.uint64(documents.row_offsets[spec["shard"]])
        kept = unit(keyed(salt(0, "kept"), rows)) >= 0.05
        split = (unit(keyed(salt(0, "split"), rows)) < 0.1).astype(np.uint8)
        names = self.names()
        source = np.array([names.index(name) for name in table["source"].to_pylist()], dtype=np.uint16)
        texts = Texts.of(table["text"].combine_chunks().filter(pa.array(kept)))
        encoded = engine.encode(texts)
        with ctx.shard(".arrow") as out:
            about = (at[kept], source[kept], split[kept], np.diff(texts.offsets))
            write_shard(out.path, TokenShard(*about, encoded.offsets, encoded.tokens.astype(np.uint16)), names)
            out.rows = int(kept.sum())
        lengths = np.diff(encoded.offsets)
        counts: dict[str, Any] = {name: {} for name in names}
        for i, name in enumerate(names):
            for s in (0, 1):
                mine = (source[kept] == i) & (split[kept] == s)
                counts[name][SPLITS[s]] = {"documents": int(mine.sum()), "tokens": int(lengths[mine].sum())}
        return counts

    def finish(self, ctx):
        total: dict[str, Any] = {name: {} for name in self.names()}
        for result in ctx.results("write"):
            for name, splits in result.items():
                for split, held in splits.items():
                    sums = total[name].setdefault(split, {"documents": 0, "tokens": 0})
                    for key, value in held.items():
                        sums[key] += value
        first = ctx.input("documents").row_offsets[:-1].tolist()
        extra = {"dtype": "uint16", "sources": self.names(), "splits": list(SPLITS), "first_rows": first}
        return {"counts": total, "fingerprint": ctx.input("tokenizer").manifest.extra["fingerprint"], **extra}


SOURCES = (("a", 300), ("b", 120), ("chat", 40), ("empty", 0))


def inputs(sources: tuple[tuple[str, int], ...] = SOURCES) -> dict[str, Step]:
    """Documents, tokenizer and tokens."""
    documents, tokenizer = SmallDocuments(sources), SmallTokenizer()
    return {"documents": documents, "tokenizer": tokenizer, "tokens": SmallTokens(documents, tokenizer)}


def stage(**keys: Any) -> Stage:
    """A stage's section."""
    return Stage.model_validate({"name": "one", "sequence_length": 64, "sources": {"a": {}, "b": {}}, **keys})


def of_stage(config: Stage, seed: int = 1, sources: tuple[tuple[str, int], ...] = SOURCES, **keys: Any) -> Sequence:
    """The step of a stage's sequence."""
    chat = tuple(name for name in config.sources if name == "chat")
    return Sequence(SequenceParameters(config.name, config, seed, chat, **keys), **inputs(sources))


def build(run: Path, step: Step, memory: int = 64 << 20) -> ArrowSequence:
    """Make a sequence and its inputs in this process, and open it."""
    run.mkdir(parents=True, exist_ok=True)
    log = EventLog(run)
    make(topological([step]), run, InlineExecutor(run, [step], memory), log, memory)
    log.close()
    return open_sequence(run / "artifacts" / step.name)


def open_input(sequence: ArrowSequence, step: Step, role: str) -> Artifact:
    """An input of a built sequence."""
    return Artifact.open(sequence.artifact.path.parent / step.inputs()[role].name)


def engine_of(sequence: ArrowSequence, step: Step) -> Engine:
    """The tokenizer of a built sequence."""
    return open_engine(open_input(sequence, step, "tokenizer"))


def expected_documents(sequence: ArrowSequence, step: Sequence) -> Any:
    """A function that gives a document's tokens in a copy, its end and its loss, straight from its text."""
    documents, engine = open_input(sequence, step, "documents"), engine_of(sequence, step)
    control = open_control(open_input(sequence, step, "tokenizer"))
    rows = fetch(documents, np.arange(documents.rows), ["id", "text", "source", "turns"]).to_pylist()
    cache: dict[tuple[int, int], tuple[list[int], list[bool], int]] = {}

    def get(row: int, epoch: int) -> tuple[list[int], list[bool], int]:
        if (row, epoch) in cache:
            return cache[row, epoch]
        text, source = Texts.of([rows[row]["text"]]), rows[row]["source"]
        fim = step.parameters.section.sources[source].fim
        kind, loss = 0, None
        if source in step.parameters.chat_sources:
            turns, limit = turns_of(rows[row]["turns"]), step.parameters.seq_len
            chats = chat_transform(text, [turns], engine, step.parameters.template, control, limit)
            assert not chats.refused
            tokens, kind, loss = chats.tokens, 3, np.append(chats.loss, chats.end_loss)
        elif fim is not None:
            key = salt(step.parameters.seed, "fim", step.stage, epoch)
            out = fim_transform(text, parse_ids([rows[row]["id"]]), engine, key, fim.rate, fim.spm)
            tokens, kind = out.tokens, int(out.kind[0])
        else:
            tokens = engine.encode(text).tokens
        flags = [True] * (len(tokens) + 1) if loss is None else loss.tolist()
        cache[row, epoch] = [*tokens.tolist(), engine.special["eod"]], flags, kind
        return cache[row, epoch]

    return get


def targets(run: Path) -> list[Step]:
    """What a worker calls to rebuild the graph."""
    return [of_stage(Stage.model_validate(keys)) for keys in json.loads((run / "small.json").read_text())]


# Stages that use every phase: infilling, conversations, fractions, lengths, both ways of packing.
CHANGED: list[dict[str, Any]] = [
    {
        "name": "one",
        "sequence_length": 64,
        "sources": {"a": {"epochs": 1.5, "fim": {"rate": 0.5}}, "b": {}, "chat": {}},
        "chat": "chatml",
    },
    {
        "name": "two",
        "sequence_length": 64,
        "sources": {"a": {"epochs": {60: 1.5}}, "b": {}},
        "pack": {"method": "best_fit"},
    },
    {
        "name": "three",
        "sequence_length": 64,
        "sources": {
            "a": {"weight": {0: 1, 100: 1}, "fim": {"rate": 0.5}},
            "b": {"weight": 1},
            "chat": {"weight": 1, "slice": [0, 0.5]},
        },
        "tokens": 100_000,
        "chat": "chatml",
    },
]
