"""Documents of synthetic sources that were found wanting when they were made."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import orjson
import pyarrow as pa
import pyarrow.compute as pc

from headrace.documents.synthetic import ABOUT
from headrace.select.verdicts.filters import Removals


def ill_made(batch: pa.RecordBatch, sources: Sequence[str]) -> Removals:
    """Remove what has a finding.

    Args:
        batch: documents with ``source`` and ``meta``.
        sources: the synthetic ones.

    Returns:
        The reason ``synthetic:<finding>`` or null, and the finding's evidence.
    """
    reasons = np.full(batch.num_rows, None, dtype=object)
    evidence = np.full(batch.num_rows, None, dtype=object)
    named = batch.column("source").cast(pa.string())
    rows = np.flatnonzero(np.asarray(pc.is_in(named, pa.array(sources, pa.string()))))
    for row, meta in zip(rows.tolist(), batch.column("meta").take(pa.array(rows)).to_pylist(), strict=True):
        made = orjson.loads(meta)[ABOUT] if meta is not None else {}
        if "finding" in made:
            reasons[row] = f"synthetic:{made['finding']}"
            evidence[row] = orjson.dumps(made["evidence"]).decode()
    return Removals(pa.array(reasons, pa.string()), pa.array(evidence, pa.string()))
