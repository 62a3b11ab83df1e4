"""The whole path: raw .jsonl.zst to a packed, shuffled stage sequence, every cleaning step on."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pyarrow.parquet as pq

from bench import pipelines
from bench.corpus import texts as read_texts
from bench.harness import Result, Setting, megabytes, require, result
from bench.tokenise import library
from bench.vocabularies import byte_level
from headrace.sequence.store import open_sequence

CHECKED_ROWS = 20


def check(made: pipelines.Run, definition: dict) -> None:
    """Segments of some rows are the tokens that ``tokenizers`` makes of the documents they name."""
    reader = open_sequence(made.artifact("sequence-all").path)
    documents, peer = made.artifact("documents"), library(definition)
    for row in np.linspace(0, len(reader) - 1, min(CHECKED_ROWS, len(reader)), dtype=int).tolist():
        tokens = reader.rows(row, row + 1)[0]
        for segment in reader.segments(row):
            shard, at = documents.locate(int(segment["row"]))
            text = pq.read_table(documents.shard_path(shard), columns=["text"])["text"][at].as_py()
            ids = [*peer.encode(text, add_special_tokens=False).ids, reader.manifest["eod"]]
            first, start, length = (int(segment[name]) for name in ("offset", "start", "length"))
            require(
                tokens[start : start + length].tolist() == ids[first : first + length],
                f"row {row} does not hold the tokens of its document",
            )


def run(setting: Setting) -> Iterator[Result]:
    """The rate a core of the whole path."""
    texts = read_texts(setting.corpus)
    definition = byte_level(setting, texts)
    sections = pipelines.all_steps(setting) | {"tokenizer": pipelines.tokenizer_file(setting, definition)}
    recipe = pipelines.recipe(setting, **sections)
    stage = {"name": "all", "sequence_length": pipelines.SEQUENCE_LENGTH, "sources": {s: {} for s in recipe["sources"]}}
    rates, startup = [], 0.0
    for turn in range(setting.rounds + 1):
        made = pipelines.run(recipe | {"stages": [stage]}, setting.work / "whole", "sequence-all", setting.cores)
        if turn == 0:
            check(made, definition)
            continue
        startup = made.startup
        rates.append(megabytes(texts) / made.seconds / setting.cores)
    note = f"without the start of the workers, {startup:.1f} s"
    yield result(setting, "raw-to-sequence", None, "MB/s per core", rates, None, 10, "ours", note)
