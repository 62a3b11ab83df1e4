"""Exact duplicates: .jsonl.zst in, the set of duplicates out; against datatrove's first two exact-dedup steps."""

from __future__ import annotations

import logging
import tempfile
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq

from bench import pipelines
from bench.corpus import texts as read_texts
from bench.harness import Result, Setting, Side, megabytes, require, result
from headrace.documents.ids import content_id


def content(doc: object) -> bytes:
    """What datatrove hashes: the text. Bytes, because xxhash 4 takes no strings."""
    text: str = doc.text  # type: ignore[attr-defined]
    return text.encode()


content.__annotations__["return"] = bytes  # datatrove looks at the type itself, not at its name


def datatrove_steps(setting: Setting) -> list[int]:
    """Read, hash, sort, find; the dropped documents by their place in the order of reading."""
    from datatrove.pipeline.dedup.exact_dedup import ExactDedupConfig, ExactDedupSignature, ExactFindDedups
    from datatrove.pipeline.readers import JsonlReader
    from datatrove.utils.logging import logger
    from datatrove.utils.typeshelper import ExtensionHelperSD

    logger.remove()
    config = ExactDedupConfig(content_getter=content)
    with tempfile.TemporaryDirectory() as folder:
        hashes, found = Path(folder) / "hashes", Path(folder) / "found"
        reader = JsonlReader(str(setting.corpus), glob_pattern="*/*.jsonl.zst", compression="zstd")
        ExactDedupSignature(str(hashes), config).run(reader.run(rank=0, world_size=1))
        ExactFindDedups(str(hashes), str(found), config).run(None, 0, 1)
        files = [np.fromfile(path, dtype="<u4") for path in found.rglob(f"*{ExtensionHelperSD.stage_2_duplicates}")]
        return sorted(np.concatenate(files).tolist()) if files else []


def dropped(made: pipelines.Run) -> Counter[str]:
    """Content ids of the documents that have an equal one before them."""
    documents, duplicates = made.artifact("documents"), made.artifact("duplicates")
    out: Counter[str] = Counter()
    for i in range(len(documents.shards)):
        ids = pq.read_table(documents.shard_path(i), columns=["id"])["id"]
        first = pq.read_table(duplicates.shard_path(i), columns=["exact_of"])["exact_of"]
        out.update(ids.filter(first.is_valid()).to_pylist())
    return out


def run(setting: Setting) -> Iterator[Result]:
    """Whole runs of ours, which also write the documents, against the peer's steps."""
    logging.disable(logging.INFO)
    texts = read_texts(setting.corpus)
    recipe = pipelines.recipe(
        setting, documents={"normalise": "none"}, deduplicate={"exact": True, "near": None}, split={"validation": 0}
    )
    peer = Side(lambda: datatrove_steps(setting), megabytes(texts))
    mine, theirs = [], []
    for turn in range(setting.rounds + 1):
        made = pipelines.run(recipe, setting.work / "exact", "duplicates", 1)
        if turn == 0:
            there = Counter(content_id(texts[i].encode()) for i in datatrove_steps(setting))
            require(dropped(made) == there, "the sets of exact duplicates differ")
            continue
        mine.append(megabytes(texts) / made.seconds)
        theirs.append(megabytes(texts) / peer.seconds())
    note = f"{sum(there.values())} duplicates; without the start of the workers, {made.startup:.1f} s"
    yield result(setting, "exact-dedup, from .jsonl.zst", "datatrove", "MB/s", mine, theirs, 5, note=note)
