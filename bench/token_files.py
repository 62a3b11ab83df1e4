"""Files of token ids for other trainers: written and read back, beside their own writers and readers.

Ours writes segments, digests and a manifest too, and waits until all is on the disk; the peers write tokens and index.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np

from bench.built import sequence
from bench.harness import Result, Setting, Side, compare, require, result
from headrace.export import write
from headrace.formats.format import Exported
from headrace.formats.opening import open_files
from headrace.formats.options import Options
from headrace.formats.sequences import SequenceExport
from headrace.sequence.reader import SequenceReader

BATCH = 16
TARGET = 50
Peer = tuple[Callable[[SequenceReader, Path], None], Callable[[Path, SequenceReader], Callable[[int], np.ndarray]]]


def megatron() -> Peer:
    """megatron-core's IndexedDatasetBuilder and IndexedDataset, a row a sequence."""
    import torch
    from megatron.core.datasets.indexed_dataset import IndexedDataset, IndexedDatasetBuilder

    def put(reader: SequenceReader, folder: Path) -> None:
        builder = IndexedDatasetBuilder(str(folder / "rows.bin"), dtype=reader.dtype.type)
        for start in range(0, len(reader), BATCH):
            for row in torch.from_numpy(np.array(reader.rows(start, min(start + BATCH, len(reader))))):
                builder.add_item(row)
                builder.end_document()
        builder.finalize(str(folder / "rows.idx"))

    def get(folder: Path, reader: SequenceReader) -> Callable[[int], np.ndarray]:
        return IndexedDataset(str(folder / "rows")).__getitem__

    return put, get


def datatrove() -> Peer:
    """datatrove's TokenizedFile and DatatroveFileDataset."""
    from datatrove.pipeline.tokens.tokenizer import TokenizedFile
    from datatrove.utils.dataset import DatatroveFileDataset

    def put(reader: SequenceReader, folder: Path) -> None:
        file = TokenizedFile(str(folder), "rows.ds", token_size=reader.dtype.itemsize)
        for start in range(0, len(reader), BATCH):
            for row in reader.rows(start, min(start + BATCH, len(reader))):
                file.write_bytes(row.tobytes())
        file.close()

    def get(folder: Path, reader: SequenceReader) -> Callable[[int], np.ndarray]:
        data = DatatroveFileDataset(str(folder / "rows.ds"), reader.seq_len, reader.dtype.itemsize)
        return lambda row: data[row]["input_ids"].numpy()

    return put, get


def olmo_core() -> Peer:
    """A file mapped by NumPy, as OLMo-core's own preparation writes, and NumpyFSLDataset."""
    from olmo_core.data.numpy_dataset import NumpyFSLDataset

    def put(reader: SequenceReader, folder: Path) -> None:
        shape = (len(reader), reader.seq_len + 1)
        file = np.memmap(folder / "rows.npy", mode="w+", dtype=reader.dtype, shape=shape)
        for start in range(0, len(reader), BATCH):
            stop = min(start + BATCH, len(reader))
            file[start:stop] = reader.rows(start, stop)
        file.flush()

    def get(folder: Path, reader: SequenceReader) -> Callable[[int], np.ndarray]:
        ids = {"pad_token_id": 0, "eos_token_id": 0, "vocab_size": 1 << 16}
        width, dtype = reader.seq_len + 1, reader.dtype.type
        data = NumpyFSLDataset(folder / "rows.npy", sequence_length=width, dtype=dtype, **ids)
        return lambda row: data[row]["input_ids"].numpy()

    return put, get


# Format -> the peer's package and what gives its writer and reader.
PEERS: dict[str, tuple[str, Callable[[], Peer]]] = {
    "megatron": ("megatron-core", megatron),
    "nanotron": ("datatrove", datatrove),
    "olmo-core": ("ai2-olmo-core", olmo_core),
}


def run(setting: Setting) -> Iterator[Result]:
    """Each format: writing, then reading all rows in order."""
    artifact = sequence(setting)
    one = Exported("rows", str(artifact.path), artifact.manifest.identity)
    reader = one.open()
    n, amount = len(reader), len(reader) * (reader.seq_len + 1) / 1e6
    for format, (peer, prepare) in PEERS.items():
        out, theirs = setting.work / f"{format}-ours", setting.work / f"{format}-theirs"

        def fresh(folder: Path) -> Callable[[], None]:
            return lambda: shutil.rmtree(folder, ignore_errors=True)

        def export(format: str = format, out: Path = out) -> Any:
            return write(SequenceExport(format, (one,), Options()), out, workers=0)

        fresh(out)()
        export()
        back = open_files(out)

        def batches(back: SequenceReader = back) -> int:
            return sum(int(back.rows(at, min(at + BATCH, n))[0, 0]) for at in range(0, n, BATCH))

        mine, my_reading = Side(export, amount, fresh(out)), Side(batches, amount)
        try:
            put, get = prepare()
        except ImportError as error:
            rate, note = [amount / mine.seconds()], f"unavailable: {error!r}"[:300]
            yield result(setting, f"{format}, written", peer, "M tokens/s", rate, None, TARGET, "ours", note)
            continue

        def copy(put: Any = put, theirs: Path = theirs) -> None:
            theirs.mkdir(parents=True)
            put(reader, theirs)

        wrote = Side(copy, amount, fresh(theirs))
        yield compare(setting, f"{format}, written", peer, "M tokens/s", mine, wrote, TARGET, "ours")
        row = get(theirs, reader)
        require(all((row(i) == back.rows(i, i + 1)[0]).all() for i in range(0, n, 97)), f"{peer} reads other rows")
        read = Side(lambda row=row: sum(int(row(i)[0]) for i in range(n)), amount)
        yield compare(setting, f"{format}, read", peer, "M tokens/s", my_reading, read, TARGET, "ours")
        fresh(out)(), fresh(theirs)()
