"""A tiny sequence, tokenizer and model as a graph of real steps, and a coordinator to kill.

Run as a program, ``python tiny_training.py RUN STAGE STEP``, it kills itself at that step. The file RUN/tiny.json holds
the training section.
"""

from __future__ import annotations

import os
import signal
import sys
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import orjson
import pyarrow as pa

from headrace.evaluate.step import Evaluation, Samples
from headrace.flow.events import Event, EventLog, Listener
from headrace.flow.executors.inline import InlineExecutor
from headrace.flow.executors.local import LocalExecutor
from headrace.flow.keys import keyed, salt
from headrace.flow.lock import lock
from headrace.flow.runner import make
from headrace.flow.step import Phase, Step, topological
from headrace.flow.storage import write_json
from headrace.model.presets import resolve
from headrace.recipe.model import ModelSection
from headrace.recipe.training import TrainSection
from headrace.sequence.reader import SequenceReader
from headrace.sequence.store import SEGMENT, ArrowSequence, schema
from headrace.tokens.definition import byte_level_definition
from headrace.train.job import Job, Start
from headrace.train.step import Model
from headrace.train.trajectory import Trajectory, decisive, sequence_content

SPECIAL = ("eod", "pad", "fim_prefix", "fim_middle", "fim_suffix")
BYTES = 256
SIZES = np.array([1] * BYTES + [0] * len(SPECIAL))  # bytes of text per id


def byte_alphabet() -> list[str]:
    """GPT-2's printable character for each byte."""
    plain = [*range(33, 127), *range(161, 173), *range(174, 256)]
    rest = [b for b in range(256) if b not in plain]
    return [chr(b) if b in plain else chr(256 + rest.index(b)) for b in range(256)]


def definition() -> dict:
    """A tokenizer of bytes and special tokens."""
    value = byte_level_definition({c: i for i, c in enumerate(byte_alphabet())}, [])
    flags = {"single_word": False, "lstrip": False, "rstrip": False, "normalized": False, "special": True}
    value["added_tokens"] = [{"id": BYTES + i, "content": f"<|{name}|>", **flags} for i, name in enumerate(SPECIAL)]
    return value


def rows(count: int, seq_len: int, seed: int) -> tuple[np.ndarray, list[list[tuple]], np.ndarray]:
    """Rows of two documents, padding at the end of some, a mask on some: tokens, segments, loss.

    Source 0 counts upwards through letters, source 1 alternates between two: both can be learnt.
    """
    tokens = np.full((count, seq_len + 1), BYTES + 1, dtype=np.uint16)
    loss = np.ones((count, seq_len + 1), dtype=bool)
    segments = []
    draws = keyed(salt(seed, "rows"), np.arange(3 * count, dtype=np.uint64)).reshape(count, 3)
    for r in range(count):
        first = 3 + int(draws[r, 0] % np.uint64(seq_len - 5))
        end = seq_len + 1 - (2 if r % 5 == 0 else 0)
        start = int(draws[r, 1] % np.uint64(26))
        tokens[r, :first] = 97 + (start + np.arange(first)) % 26
        pair = 65 + np.array([draws[r, 2] % np.uint64(26), draws[r, 2] // np.uint64(26) % np.uint64(26)], dtype=int)
        tokens[r, first:end] = pair[np.arange(end - first) % 2]
        row = [(0, first, 2 * r, 0, 0, 0, 0), (first, end - first, 2 * r + 1, 0, 1, 0, 0)]
        segments.append([*row, (end, seq_len + 1 - end, 0, 0, 0, 255, 0)] if end <= seq_len else row)
        if r % 3 == 0:
            loss[r, : first // 2] = False
    return tokens, segments, loss


@dataclass(frozen=True)
class TinySequence(Step):
    """A sequence in two shards."""

    stage: str = field()
    count: int
    seq_len: int = 16
    seed: int = 1

    kind = "sequence"
    VERSION = 1

    def params(self):
        return {"stage": self.stage, "count": self.count, "seq_len": self.seq_len, "seed": self.seed}

    def inputs(self):
        return {}

    def phases(self):
        half = self.count // 2
        return [Phase("write", lambda ctx: [{"span": [0, half]}, {"span": [half, self.count]}], self.write)]

    def write(self, ctx, spec):
        tokens, segments, loss = rows(self.count, self.seq_len, self.seed)
        part = slice(*spec["span"])
        names = SEGMENT.names
        kind = schema(self.seq_len, tokens.dtype)
        batch = pa.record_batch(
            [
                pa.array(tokens[part].tolist(), type=kind.field("tokens").type),
                pa.array([m.tolist() if not m.all() else None for m in loss[part]], type=kind.field("loss").type),
                pa.array(
                    [[dict(zip(names, s, strict=True)) for s in row] for row in segments[part]],
                    type=kind.field("segments").type,
                ),
            ],
            schema=kind,
        )
        with ctx.shard(".arrow") as out:
            out.rows = batch.num_rows
            with pa.OSFile(str(out.path), "wb") as sink, pa.ipc.new_file(sink, kind) as writer:
                writer.write_batch(batch)
        return {}

    def finish(self, ctx):
        extra = {
            "seq_len": self.seq_len,
            "dtype": "uint16",
            "vocab_size": 261,
            "sources": ["count", "pairs"],
            "tokenizer": "bytes",
        }
        return {"counts": {}, **extra, "seeds": {"order": self.seed}, "ledger": {}}


class TinyReader(ArrowSequence):
    """Another sequence's rows, to be changed by a subclass."""

    def __init__(self, sequence: ArrowSequence) -> None:
        super().__init__(sequence.artifact)


@dataclass(frozen=True)
class TinyTokenizer(Step):
    """Bytes and five special tokens."""

    kind = "tokenizer"
    VERSION = 1

    def params(self):
        return {}

    def inputs(self):
        return {}

    def phases(self):
        return [Phase("write", lambda ctx: [{}], self.write)]

    def write(self, ctx, spec):
        with ctx.file("tokenizer.json") as out:
            write_json(out.path, definition())
        return {}

    def finish(self, ctx):
        special = {name: BYTES + i for i, name in enumerate(SPECIAL)}
        return {"counts": {}, "special": special, "vocab_size": BYTES + len(SPECIAL)}


TINY = ModelSection(layers=2, width=32, heads=2, ffn=48, rotary_dim=8, vocab_multiple=1)


SECTION = {
    "batch": 4,
    "micro_batch": 2,
    "precision": "fp32",
    "checkpoint_every": 4,
    "optimizer": {"learning_rate": 0.01},
    "samples": {"prompts": ["abc"], "infills": [{"prefix": "abc", "suffix": "fgh"}], "tokens": 5},
}


def tiny_job(
    run: Path,
    sequence: SequenceReader,
    steps: int = 25,
    seed: int = 5,
    measured_on: SequenceReader | None = None,
    sizes: np.ndarray | None = None,
    model: dict | None = None,
    **changes,
) -> Job:
    """A stage to train without a graph; ``model``: where it differs from :data:`TINY`, or a folder of transformers'."""
    section, own = TrainSection.model_validate({**SECTION, **changes}), model or {}
    differs = {} if "huggingface" in own else TINY.model_dump(exclude_unset=True)
    config = resolve(ModelSection(**{**differs, **own}), 261)
    content = sequence_content(sequence.fingerprint, len(sequence), sequence.seq_len)
    trajectory = Trajectory(config.model_dump(mode="json"), decisive(section), seed, steps, content, {})
    return Job(run, "one", section, config, sequence, trajectory, Start(), sizes, measured_on)


def graph(train: dict) -> list[Model]:
    """Two stages, the second from the first."""
    tokenizer, section = TinyTokenizer(), TrainSection.model_validate(train)
    one = Model("one", TINY, section, 5, TinySequence("one", 100), tokenizer)
    two = Model("two", TINY, section, 5, TinySequence("two", 60, seed=2), tokenizer, one)
    return [one, two]


def measures(train: dict) -> list[Step]:
    """What is measured of the models, on a held-out sequence, and what they write."""
    held_out, found = TinySequence("heldout", 12, seed=9), []
    for model in graph(train):
        about = model.stage, model.train, 5, model
        found.append(Evaluation(*about, model.previous is None, held_out, model.tokenizer, model.sequence))
        if model.train.samples.tokens:
            found.append(Samples(*about, model.tokenizer, model.sequence, held_out))
    return found


def targets(run: Path) -> list[Step]:
    """The graph for workers."""
    train = orjson.loads((run / "tiny.json").read_bytes())
    return [*graph(train), *measures(train)]


def coordinate(run: Path, workers: int = 1, listener: Listener | None = None) -> None:
    """Make everything."""
    with lock(run):
        log = EventLog(run, listener)
        executor = LocalExecutor(run, "tiny_training:targets", workers, 1 << 28, log)
        try:
            make(topological(targets(run)), run, executor, log, 1 << 28)
        finally:
            executor.close()
            log.close()


def coordinate_steps(run: Path, steps: list[Step]) -> list[Path]:
    """Make some steps in this process; returns their artifacts."""
    with lock(run):
        log = EventLog(run)
        make(steps, run, InlineExecutor(run, steps, 1 << 28), log, 1 << 28)
        log.close()
    return [run / "artifacts" / step.name for step in steps]


def kill_at(stage: str, step: int) -> Listener:
    """What ends the process when it first hears of that step of a stage, or of a later one."""

    def listen(event: Event) -> None:
        if event.get("artifact", "").startswith(f"model-{stage}-") and event.get("step", 0) >= step:
            os.kill(os.getpid(), signal.SIGKILL)

    return listen


if __name__ == "__main__":
    coordinate(Path(sys.argv[1]), listener=kill_at(sys.argv[2], int(sys.argv[3])))
