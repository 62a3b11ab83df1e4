"""Exact duplicates: documents in, the set of those that have an equal one before them out.

Once with the documents in memory, each side in its own form: against datatrove's first two exact-dedup steps, and
against a frame library and a database, polars' ``unique`` and DuckDB's ``group by`` on an Arrow column of the texts.
Then as whole runs from .jsonl.zst against datatrove: until the duplicates are known, where ours has written all the
documents and the peer its hashes only; and until those that stay are on disk, for which the peer reads once more.
"""

from __future__ import annotations

import contextlib
import io
import logging
import tempfile
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from bench import pipelines
from bench.corpus import texts as read_texts
from bench.harness import Result, Setting, Side, compare, megabytes, require, result
from headrace.documents.ids import content_id
from headrace.flow.sorting import sort_by
from headrace.flow.xxh3 import xxh3_128
from headrace.select.duplicates.components import star_edges
from headrace.select.duplicates.repeats import Repeats
from headrace.select.duplicates.step import ID
from headrace.tokens.engine import Texts


def content(doc: object) -> bytes:
    """What datatrove hashes: the text. Bytes, because xxhash 4 takes no strings."""
    text: str = doc.text  # type: ignore[attr-defined]
    return text.encode()


content.__annotations__["return"] = bytes  # datatrove looks at the type itself, not at its name


def find_duplicates(documents: Iterable[Any], folder: Path) -> Path:
    """datatrove's first two steps, hash and sort and find; the folder of what they found."""
    from datatrove.pipeline.dedup.exact_dedup import ExactDedupConfig, ExactDedupSignature, ExactFindDedups
    from datatrove.utils.logging import logger

    logger.remove()
    config = ExactDedupConfig(content_getter=content)
    hashes, found = folder / "hashes", folder / "found"
    ExactDedupSignature(str(hashes), config).run(iter(documents))
    ExactFindDedups(str(hashes), str(found), config).run(None, 0, 1)
    return found


def datatrove_steps(documents: Iterable[Any]) -> list[int]:
    """The documents that datatrove's first two steps would drop, by their place in the order of reading."""
    from datatrove.utils.typeshelper import ExtensionHelperSD

    with tempfile.TemporaryDirectory() as folder, contextlib.redirect_stderr(io.StringIO()):
        found = find_duplicates(documents, Path(folder))
        files = [np.fromfile(path, dtype="<u4") for path in found.rglob(f"*{ExtensionHelperSD.stage_2_duplicates}")]
        return sorted(np.concatenate(files).tolist()) if files else []


def datatrove_kept(setting: Setting) -> int:
    """All three steps, the last of which reads the documents again and writes those that stay; how many those are."""
    from datatrove.pipeline.dedup.exact_dedup import ExactDedupConfig, ExactDedupFilter
    from datatrove.pipeline.writers.jsonl import JsonlWriter

    with tempfile.TemporaryDirectory() as folder, contextlib.redirect_stderr(io.StringIO()):
        found = find_duplicates(reading(setting), Path(folder))
        left = ExactDedupFilter(str(found), ExactDedupConfig(content_getter=content)).run(reading(setting))
        return sum(1 for _ in JsonlWriter(str(Path(folder) / "kept"), compression="zstd").run(left))


def reading(setting: Setting) -> Iterator[Any]:
    """datatrove's documents from the corpus."""
    from datatrove.pipeline.readers import JsonlReader

    reader = JsonlReader(str(setting.corpus), glob_pattern="*/*.jsonl.zst", compression="zstd")
    yield from reader.run(rank=0, world_size=1)


def ours_in_memory(texts: Texts) -> list[int]:
    """Content ids, those that may occur twice sorted, and of each the members beyond the first: what the steps do."""
    halves = xxh3_128(texts.data, texts.offsets)
    records = np.empty(len(halves), dtype=ID)
    records["high"], records["low"], records["row"] = halves[:, 0], halves[:, 1], np.arange(len(halves))
    repeats = Repeats(len(records), records.nbytes)
    repeats.see(records)
    records = sort_by(repeats.pick(records), ("high", "low"))
    edges = np.empty((len(records), 2), dtype=np.uint64)
    count = star_edges(
        records["high"], records["low"], records["row"], np.uint64(len(halves)), np.zeros(4, dtype=np.uint64), edges
    )
    return sorted(edges[:count, 1].tolist())


def others(kept: np.ndarray, count: int) -> list[int]:
    """The numbers below ``count`` that are not among ``kept``."""
    left = np.ones(count, dtype=bool)
    left[kept] = False
    return np.flatnonzero(left).tolist()  # type: ignore[no-any-return]


def polars_unique(table: pa.Table) -> list[int]:
    """The first of equal texts by polars; of the ways that compare texts and not hashes alone, its fastest here."""
    import polars

    frame = polars.from_arrow(table)
    assert isinstance(frame, polars.DataFrame)
    return others(frame.unique(subset="text", keep="first")["row"].to_numpy(), table.num_rows)


def duckdb_group(table: pa.Table, threads: int) -> Callable[[], list[int]]:
    """The first of equal texts by DuckDB; grouping by MD5 and ranking within a partition are slower."""
    import duckdb

    database = duckdb.connect(config={"threads": threads})
    database.register("documents", table)

    def find() -> list[int]:
        found = database.execute("select min(row) as first from documents group by text").fetchnumpy()
        return others(found["first"], table.num_rows)

    return find


def dropped(made: pipelines.Run) -> Counter[str]:
    """Content ids of the documents that have an equal one before them."""
    documents, duplicates = made.artifact("documents"), made.artifact("duplicates")
    out: Counter[str] = Counter()
    for i in range(len(documents.shards)):
        ids = pq.read_table(documents.shard_path(i), columns=["id"])["id"]
        first = pq.read_table(duplicates.shard_path(i), columns=["exact_of"])["exact_of"]
        out.update(ids.filter(first.is_valid()).to_pylist())
    return out


def kept(made: pipelines.Run) -> int:
    """How many documents stay."""
    verdicts = made.artifact("verdicts")
    shards = map(verdicts.shard_path, range(len(verdicts.shards)))
    return sum(pc.sum(pq.read_table(path, columns=["keep"])["keep"]).as_py() for path in shards)


def run(setting: Setting) -> Iterator[Result]:
    """In memory against each peer, then whole runs against datatrove's two steps and its three."""
    from datatrove.data import Document

    logging.disable(logging.INFO)
    texts = read_texts(setting.corpus)
    arrow, documents = Texts.of(texts), [Document(text=text, id=str(i)) for i, text in enumerate(texts)]
    table = pa.table({"row": pa.array(range(len(texts)), pa.int64()), "text": pa.array(texts, pa.large_string())})
    peers: dict[str, tuple[Callable[[], list[int]], float | None]] = {
        "datatrove": (lambda: datatrove_steps(documents), 5),
        "polars": (lambda: polars_unique(table), 1),
        "duckdb": (duckdb_group(table, setting.cores), None),
    }
    for peer, (find, target) in peers.items():
        yield compare(
            setting,
            "exact-dedup, documents in memory",
            peer,
            "MB/s",
            Side(lambda: ours_in_memory(arrow), megabytes(texts)),
            Side(find, megabytes(texts)),
            target,
            agree=lambda a, b: require(a == b, "the sets of exact duplicates differ"),
        )
    recipe = pipelines.recipe(
        setting, documents={"normalise": "none"}, deduplicate={"exact": True, "near": None}, split={"validation": 0}
    )
    made = pipelines.run(recipe, setting.work / "exact", "verdicts", 1)
    there = datatrove_steps(reading(setting))
    require(
        dropped(made) == Counter(content_id(texts[i].encode()) for i in there), "the sets of exact duplicates differ"
    )
    require(kept(made) == datatrove_kept(setting) == len(texts) - len(there), "not as many documents stay")
    found = Side(lambda: datatrove_steps(reading(setting)), megabytes(texts))
    whole = Side(lambda: datatrove_kept(setting), megabytes(texts))
    for name, until, peer, more in (
        ("duplicates found", "duplicates", found, "ours writes the documents too, "),
        ("documents that stay written", "verdicts", whole, ""),
    ):
        mine, theirs = [], []
        for _ in range(setting.rounds):
            made = pipelines.run(recipe, setting.work / "exact", until, 1)
            mine.append(megabytes(texts) / made.seconds)
            theirs.append(megabytes(texts) / peer.seconds())
        note = f"{more}without the start of the workers, {made.startup:.1f} s"
        yield result(setting, f"exact-dedup, from .jsonl.zst, {name}", "datatrove", "MB/s", mine, theirs, note=note)
