"""Reading batches from the page cache, against litdata, mosaicml-streaming and datasets; and what resuming costs.

The peers give tokens alone, so ours is asked for nothing else beside them; loss mask, segment ids and positions, which
the peers do not have, are measured for themselves.
"""

from __future__ import annotations

import os
import shutil
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import xxhash

from bench.built import sequence
from bench.harness import Result, Setting, Side, compare, require, result
from headrace.sequence.batch import Batch
from headrace.sequence.loader import Loader
from headrace.sequence.store import open_sequence

BATCH = 16
RESUMES = 50


def digest(arrays: Iterator[Any]) -> str:
    """The hash of batches of tokens, in order."""
    state = xxhash.xxh3_128()
    for array in arrays:
        state.update(np.ascontiguousarray(np.asarray(array), dtype=np.int64).data)
    return state.hexdigest()


def rows_of(path: str) -> Iterator[Any]:
    """The rows of a sequence as litdata wants them: a flat array each."""
    reader = open_sequence(path)
    for row in range(len(reader)):
        yield np.array(reader.rows(row, row + 1)[0])


def litdata_batches(path: Path, work: Path, width: int) -> Callable[[], Iterator[Any]]:
    """Write the rows with litdata's optimize; gives what iterates over them."""
    os.environ.setdefault("LITDATA_DISABLE_VERSION_CHECK", "1")
    import litdata
    from litdata.streaming.item_loader import TokensLoader

    folder = work / "litdata"
    if not (folder / "index.json").exists():
        shutil.rmtree(folder, ignore_errors=True)
        litdata.optimize(
            fn=rows_of,
            inputs=[str(path)],
            output_dir=str(folder),
            num_workers=1,
            chunk_bytes="64MB",
            item_loader=TokensLoader(block_size=width),
        )

    def batches() -> Iterator[Any]:
        dataset = litdata.StreamingDataset(str(folder), item_loader=TokensLoader(block_size=width), shuffle=False)
        return iter(litdata.StreamingDataLoader(dataset, batch_size=BATCH, num_workers=0))

    return batches


def streaming_batches(path: Path, work: Path, width: int) -> Callable[[], Iterator[Any]]:
    """Write the rows as MDS shards; gives what iterates over them."""
    from torch.utils.data import DataLoader

    from bench.mosaic import streaming as package

    streaming = package()
    from streaming.base.util import clean_stale_shared_memory

    folder = work / "mds"
    reader = open_sequence(path)
    if not (folder / "index.json").exists():
        shutil.rmtree(folder, ignore_errors=True)
        columns = {"tokens": f"ndarray:{reader.dtype}:{width}"}
        with streaming.MDSWriter(out=str(folder), columns=columns, size_limit=64 << 20) as out:
            for row in rows_of(str(path)):
                out.write({"tokens": row})
    clean_stale_shared_memory()
    dataset = streaming.StreamingDataset(local=str(folder), shuffle=False, batch_size=BATCH)

    def batches() -> Iterator[Any]:
        for batch in DataLoader(dataset, batch_size=BATCH):
            yield batch["tokens"]

    return batches


def datasets_batches(path: Path, work: Path, width: int) -> Callable[[], Iterator[Any]]:
    """Write the rows as a Hugging Face dataset, memory-mapped Arrow files; gives what iterates over them."""
    import datasets

    folder = work / "datasets"
    if not (folder / "state.json").exists():
        shutil.rmtree(folder, ignore_errors=True)
        value = datasets.Value(str(open_sequence(path).dtype))
        made = datasets.Dataset.from_generator(
            lambda: ({"tokens": row} for row in rows_of(str(path))),
            features=datasets.Features({"tokens": datasets.List(value, length=width)}),
            cache_dir=str(work / "datasets-cache"),
        )
        made.save_to_disk(str(folder))
        shutil.rmtree(work / "datasets-cache")

    def batches() -> Iterator[Any]:
        dataset = datasets.load_from_disk(str(folder)).with_format("numpy")
        return (batch["tokens"] for batch in dataset.iter(batch_size=BATCH))

    return batches


# Peer -> what prepares it, and the target, where there is one.
PEERS = {
    "litdata": (litdata_batches, 10),
    "mosaicml-streaming": (streaming_batches, 10),
    "datasets": (datasets_batches, None),
}


def consume(batches: Iterator[Any]) -> int:
    """Take every batch and look at one token of each, so that it must be there."""
    return sum(int(np.asarray(batch)[0, 0]) for batch in batches)


def consume_whole(batches: Iterator[Batch]) -> int:
    """Take every batch with its loss mask, segment ids and positions."""
    return sum(int(array[0, 0]) for batch in batches for array in batch)


def run(setting: Setting) -> Iterator[Result]:
    """Whole batches of ours, tokens alone against each peer, then ours at the start and at the end of the sequence."""
    artifact = sequence(setting)
    reader = open_sequence(artifact.path)
    width = reader.seq_len + 1
    amount = len(reader) * width / 1e6
    work = setting.work / f"{artifact.path.parents[1].name}-peers"
    work.mkdir(exist_ok=True)

    def ours() -> Loader:
        return Loader(artifact.path, BATCH, drop_last=False)

    whole = Side(lambda: consume_whole(iter(ours())), amount)
    yield compare(setting, "loader, whole batches", None, "M tokens/s", whole, None, 100, "ours")
    alone = Side(lambda: consume(batch.tokens for batch in ours()), amount)
    expected = digest(batch.tokens for batch in ours())
    for peer, (prepare, target) in PEERS.items():
        name, unit = "loader, tokens alone", "M tokens/s"
        try:
            batches = prepare(artifact.path, work, width)
        except (ImportError, RuntimeError) as error:
            rate = [amount / alone.seconds()]
            yield result(setting, name, peer, unit, rate, None, target, note=f"unavailable: {error!r}"[:300])
            continue
        require(digest(batches()) == expected, f"{peer} reads other rows")
        theirs = Side(lambda batches=batches: consume(batches()), amount)
        yield compare(setting, name, peer, unit, alone, theirs, target)
    yield resume(setting, reader)


def resume(setting: Setting, reader: Any) -> Result:
    """Milliseconds from a state to its first batch: at the last rows (ours) and at the first (the other side)."""
    last = len(reader) - BATCH

    def first_batch(row: int) -> float:
        taken = []
        for i in range(RESUMES):
            state = {"rows": abs(row - i), "fingerprint": reader.fingerprint}
            start = time.perf_counter()
            next(iter(Loader(reader.artifact.path, BATCH, state=state)))
            taken.append(time.perf_counter() - start)
        return float(np.median(taken) * 1e3)

    first_batch(0)
    ends, starts = [], []
    for _ in range(setting.rounds):
        starts.append(first_batch(0))
        ends.append(first_batch(last))
    return result(setting, "loader, resume at the end", "itself at the start", "ms", ends, starts)
