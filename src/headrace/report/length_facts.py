"""Document lengths before and after cleaning, and the bytes removed for each reason.

Lengths come from a sidecar that has them, if the run built one, otherwise from the texts.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field, replace

import numpy as np
import numpy.typing as npt

from headrace.flow.artifact import Artifact
from headrace.report.facts import SourceFacts

# Bin 0 holds empty documents, bin k those of 2^(k-1) to 2^k - 1 bytes.
BINS = 64
SIDECARS = ("measures", "signatures")  # in order of preference
TEXT_BYTES = 8 << 20  # bytes of text at a time
ROWS = 1 << 16  # sidecar rows at a time


@dataclass
class _Tally:
    read: npt.NDArray[np.int64] = field(default_factory=lambda: np.zeros(BINS, dtype=np.int64))
    kept: npt.NDArray[np.int64] = field(default_factory=lambda: np.zeros(BINS, dtype=np.int64))
    removed_bytes: Counter[str] = field(default_factory=Counter)


def bins(lengths: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
    """The bin of each length, which is its number of bits. float64 represents lengths up to 2^53 exactly."""
    return np.frexp(lengths.astype(np.float64))[1].astype(np.int64)


def with_lengths(
    sources: list[SourceFacts],
    documents: Artifact,
    verdicts: Artifact | None,
    measures: Artifact | None,
    signatures: Artifact | None,
) -> list[SourceFacts]:
    """The sources with their documents' lengths.

    One shard's lengths and reasons are held at a time, about 20 bytes per document.
    """
    told: dict[str, _Tally] = {source.name: _Tally() for source in sources}
    for shard in range(len(documents.shards)):
        lengths = np.concatenate([np.empty(0, np.int64), *_lengths(documents, measures, signatures, shard)])
        names, source = _coded(documents, shard, "source")
        reasons, reason = ([], None) if verdicts is None else _coded(verdicts, shard, "reason")
        binned = bins(lengths)
        for code, name in enumerate(names):
            mine, tally = source == code, told.get(name)
            if tally is None:
                continue
            tally.read += np.bincount(binned[mine], minlength=BINS)
            if reason is None:
                continue
            tally.kept += np.bincount(binned[mine & (reason < 0)], minlength=BINS)
            gone = mine & (reason >= 0)
            # Not with np.bincount's weights, which are doubles.
            for which in np.unique(reason[gone]):
                tally.removed_bytes[reasons[which]] += int(lengths[gone & (reason == which)].sum())
    return [
        replace(
            source,
            lengths=_trimmed(told[source.name].read),
            kept_lengths=None if verdicts is None else _trimmed(told[source.name].kept),
            removed_bytes=dict(told[source.name].removed_bytes),
        )
        for source in sources
    ]


def _trimmed(counts: npt.NDArray[np.int64]) -> list[int]:
    return [int(n) for n in np.trim_zeros(counts, "b")]


def _lengths(
    documents: Artifact, measures: Artifact | None, signatures: Artifact | None, shard: int
) -> Iterator[npt.NDArray[np.int64]]:
    """The UTF-8 bytes of a shard's texts, in order."""
    import pyarrow.parquet as pq

    from headrace.documents.store import read_batches, text_buffers
    from headrace.select.duplicates.signatures import read

    if measures is not None:
        with pq.ParquetFile(measures.shard_path(shard)) as file:
            for batch in file.iter_batches(ROWS, columns=["bytes"]):
                yield batch.column(0).to_numpy()
    elif signatures is not None:
        for signed in read(signatures, shard):
            yield signed.bytes.copy()  # a view of a file that will be closed
    else:
        for batch in read_batches(documents.shard_path(shard), ["text"], TEXT_BYTES):
            yield np.diff(text_buffers(batch.column("text"))[1])


def _coded(artifact: Artifact, shard: int, column: str) -> tuple[list[str], npt.NDArray[np.int32]]:
    """A column of names: the distinct names, and each row's index into them; -1 if null."""
    import pyarrow.compute as pc
    import pyarrow.parquet as pq

    table = pq.read_table(artifact.shard_path(shard), columns=[column], read_dictionary=[column], use_threads=False)
    values = table.column(0).unify_dictionaries().combine_chunks()
    return values.dictionary.to_pylist(), pc.fill_null(values.indices, -1).to_numpy().astype(np.int32)
