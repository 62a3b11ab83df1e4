"""One shard of verdicts: what the filters found for each document, and what deduplication decided."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from headrace.flow.artifact import ConservationError
from headrace.select.verdicts.evidence import REASONS, place, write_evidence
from headrace.select.verdicts.splits import SPLITS


def columns(
    filtered: pa.Table,
    records: npt.NDArray[np.void],
    names: npt.NDArray[np.uint8],
    start: int,
    sources: Sequence[str],
    against: Sequence[int] = (),
) -> list[pa.Array]:
    """The columns of a shard: keep, reason, evidence, split.

    Args:
        filtered: each document's reason, evidence, source and split after the filters.
        records: DECISION[n], the decisions about documents of the shard.
        names: the records' payload.
        start: global row number of the shard's first document.
        sources, against: as for :func:`headrace.select.verdicts.evidence.write_evidence`.

    Raises:
        ConservationError: a document is removed twice.
    """
    reason, evidence, split = (whole(filtered.column(name)) for name in ("reason", "evidence", "split"))
    at = place(records, start, filtered.num_rows)
    removed = at >= 0
    if np.any(removed & reason.is_valid().to_numpy(zero_copy_only=False)):
        raise ConservationError(f"rows {start} to {start + filtered.num_rows - 1}: a document was removed twice")
    told = write_evidence(records, names, at, sources, against)
    codes = np.zeros(len(at), dtype=np.uint8)
    codes[removed] = records["reason"][at[removed]]
    copies = pa.DictionaryArray.from_arrays(pa.array(codes, mask=~removed), pa.array(REASONS)).cast(pa.string())
    reason = pc.coalesce(reason, copies) if reason.null_count < len(reason) else copies
    evidence = pc.coalesce(evidence, told) if evidence.null_count < len(evidence) else told
    splits = pa.DictionaryArray.from_arrays(split, pa.array(SPLITS)).cast(pa.string())
    return [pc.is_null(reason), reason, evidence, splits]


def whole(column: pa.ChunkedArray) -> pa.Array:
    """A column as one contiguous array."""
    return column.chunk(0) if column.num_chunks == 1 else pa.concat_arrays([pa.array([], column.type), *column.chunks])
