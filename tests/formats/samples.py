"""What samples of a sequence must hold, worked out from the sequence a row at a time."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, NamedTuple

import numpy as np

from headrace.formats.format import Exported
from headrace.sequence.windows import KINDS


class Told(NamedTuple):
    """A row: L + 1 tokens, whether each carries loss, its segments."""

    tokens: np.ndarray
    loss: np.ndarray
    segments: list[dict[str, Any]]


def told(one: Exported) -> list[Told]:
    """All rows."""
    sequence = one.open()
    out = []
    for row in range(len(sequence)):
        [loss] = sequence.loss(row, row + 1)
        segments = []
        for s in sequence.segments(row):
            segment = {"start": int(s["start"]), "length": int(s["length"]), "kind": KINDS[int(s["kind"])]}
            if segment["kind"] == "padding":
                loss[s["start"] : s["start"] + s["length"]] = False
            else:
                segment["source"] = sequence.sources[s["source"]]
                segment |= {name: int(s[name]) for name in ("epoch", "offset")} | {"document": int(s["row"])}
            segments.append(segment)
        loss[0] = False
        out.append(Told(sequence.rows(row, row + 1)[0], loss, segments))
    return out


def assert_equal(read: Iterable[tuple[Any, Any, Any]], one: Exported) -> None:
    """Whether somebody read all rows in order."""
    for ours, theirs in zip(told(one), read, strict=True):
        assert np.asarray(theirs[0]).dtype == ours.tokens.dtype
        assert (np.asarray(theirs[0]) == ours.tokens).all()
        assert (np.asarray(theirs[1]) == ours.loss).all()
        assert theirs[2] == ours.segments
