"""Evidence written by the kernel against what orjson makes of the same facts."""

from __future__ import annotations

import numpy as np
import orjson
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from headrace.flow.artifact import ConservationError
from headrace.select.verdicts.evidence import DECISION, HOLDOUT, place, write_evidence
from headrace.select.verdicts.splits import SPLITS

WORD = st.integers(0, 2**64 - 1)
SOURCES = ["talk", 'quo"ted', "Zürich\n"]
ONE = st.tuples(
    WORD,
    WORD,
    WORD,
    st.integers(-(2**63) + 1, 2**63 - 1),
    WORD,
    st.one_of(st.none(), st.floats(0, 1)),
    st.text(st.characters(exclude_categories=["Cs"]), max_size=12),
    st.integers(0, 2),
    st.integers(0, 1),
    st.booleans(),
    st.integers(0, 2),
)


def reference(told: tuple) -> bytes:
    high, low, row, origin, size, jaccard, name, source, reason, exact, split = told
    evidence = {
        "kept_id": f"{high:016x}{low:016x}",
        "kept_row": row,
        "kept_source": SOURCES[source],
        "kept_file": name,
        "kept_origin_row": origin,
        "method": "exact" if exact else "minhash",
    }
    if jaccard is not None:
        evidence["jaccard"] = round(jaccard, 6)
    evidence["component_size"] = size
    if reason == HOLDOUT:
        evidence["kept_split"] = SPLITS[split]
    return orjson.dumps(evidence)


@given(st.lists(st.one_of(st.none(), ONE), max_size=12), st.randoms(use_true_random=False))
def test_equal_to_orjson(rows: list[tuple | None], random) -> None:
    start = 1000
    decided = [(start + i, told) for i, told in enumerate(rows) if told is not None]
    random.shuffle(decided)
    records, names = np.empty(len(decided), dtype=DECISION), b""
    for i, (row, told) in enumerate(decided):
        high, low, kept, origin, size, jaccard, name, source, reason, exact, split = told
        similar = np.nan if jaccard is None else round(jaccard, 6)
        raw = name.encode()
        names += raw
        records[i] = (row, high, low, kept, origin, size, similar, len(raw), source, reason, exact + 2 * split)
    at = place(records, start, len(rows))
    got = write_evidence(records, np.frombuffer(names, dtype=np.uint8), at, SOURCES)
    assert got.type == pa.string()
    got.validate(full=True)
    assert got.to_pylist() == [None if told is None else reference(told).decode() for told in rows]


def test_a_document_removed_twice_is_an_error() -> None:
    records = np.zeros(2, dtype=DECISION)
    records["row"] = 7
    with pytest.raises(ConservationError, match="removed twice"):
        place(records, 0, 10)
