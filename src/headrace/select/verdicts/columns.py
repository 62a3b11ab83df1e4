"""One shard of verdicts: what the judges said of each document, and what the settlement decided."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from headrace.flow.artifact import ConservationError
from headrace.select.verdicts.evidence import REASONS, place, write_evidence
from headrace.select.verdicts.splits import SPLITS


def columns(
    judged: pa.Table, records: npt.NDArray[np.void], names: npt.NDArray[np.uint8], start: int, sources: Sequence[str]
) -> list[pa.Array]:
    """The columns of a shard: keep, reason, evidence, split.

    Args:
        judged: reason, evidence, source and split of each document as the judges leave it.
        records: DECISION[n] of documents of the shard.
        names: their payload.
        start: dense row id of the shard's first document.
        sources: the names of sources.

    Raises:
        ConservationError: a document is removed twice.
    """
    reason, evidence, split = (_whole(judged.column(name)) for name in ("reason", "evidence", "split"))
    at = place(records, start, judged.num_rows)
    removed = at >= 0
    if np.any(removed & reason.is_valid().to_numpy(zero_copy_only=False)):
        raise ConservationError(f"rows {start} to {start + judged.num_rows - 1}: a document was removed twice")
    told = write_evidence(records, names, at, sources)
    codes = np.zeros(len(at), dtype=np.uint8)
    codes[removed] = records["reason"][at[removed]]
    lost = pa.DictionaryArray.from_arrays(pa.array(codes, mask=~removed), pa.array(REASONS)).cast(pa.string())
    reason = pc.coalesce(reason, lost) if reason.null_count < len(reason) else lost
    evidence = pc.coalesce(evidence, told) if evidence.null_count < len(evidence) else told
    splits = pa.DictionaryArray.from_arrays(split, pa.array(SPLITS)).cast(pa.string())
    return [pc.is_null(reason), reason, evidence, splits]


def tally(
    source: pa.ChunkedArray, reason: pa.ChunkedArray, split: pa.ChunkedArray, sources: Sequence[str]
) -> list[dict[str, Any]]:
    """How many documents there are of each source, reason and split that occur together."""
    reasons = _whole(reason).dictionary_encode()
    names = [*reasons.dictionary.to_pylist(), None]
    shape = (len(sources), len(names), len(SPLITS))
    code = reasons.indices.fill_null(len(names) - 1).to_numpy().astype(np.int64)
    code += source.to_numpy().astype(np.int64) * shape[1]
    code = code * shape[2] + split.to_numpy()
    counts = np.bincount(code, minlength=int(np.prod(shape))).reshape(shape)
    return [
        {"source": sources[i], "reason": names[j], "split": SPLITS[k], "count_all": int(counts[i, j, k])}
        for i, j, k in np.argwhere(counts).tolist()
    ]


def _whole(column: pa.ChunkedArray) -> pa.Array:
    return column.chunk(0) if column.num_chunks == 1 else pa.concat_arrays([pa.array([], column.type), *column.chunks])
