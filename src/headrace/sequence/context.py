"""Context-level fill-in-the-middle on finished rows, updating segments and loss."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from headrace.flow.keys import salt
from headrace.flow.slices import copy
from headrace.flow.task import TaskContext
from headrace.sequence.fim import PLAIN
from headrace.sequence.fim_context import transform_windows
from headrace.sequence.parameters import SequenceParameters
from headrace.sequence.store import SEGMENT
from headrace.sequence.windows import PADDING

# Rows passed to the tokenizer at once hold about this many tokens: a few megabytes of text.
_TOKENS = 1 << 20


class PlacedRows(NamedTuple):
    """Rows and their contents, segments in order.

    Attributes:
        numbers: uint64[R], row numbers in the order of packing.
        tokens: [R, W].
        loss: bool[R, W]; None if every target in every row carries loss.
        masked: bool[R].
        segments: SEGMENT[n].
        rows: int64[n], the row of each segment.
    """

    numbers: np.ndarray
    tokens: np.ndarray
    loss: np.ndarray | None
    masked: np.ndarray
    segments: np.ndarray
    rows: np.ndarray


def rearrange(sequence: SequenceParameters, ctx: TaskContext, laid: PlacedRows) -> PlacedRows:
    """Rearrange the pieces of rows from sources with fill-in-the-middle."""
    if laid.loss is None:
        laid = laid._replace(loss=np.ones(laid.tokens.shape, dtype=bool))
    names = ctx.input("tokens").manifest.extra["sources"]
    rates, orders = np.zeros(len(names)), np.zeros(len(names))
    for name, take in sequence.section.sources.items():
        if take.fim is not None:
            rates[names.index(name)], orders[names.index(name)] = take.fim.rate, take.fim.spm
    real = laid.segments["kind"] != PADDING
    touched = np.unique(laid.rows[real & (rates[laid.segments["source"]] > 0)])
    others = ~np.isin(laid.rows, touched)
    segments, rows = [laid.segments[others]], [laid.rows[others]]
    each = max(1, _TOKENS // laid.tokens.shape[1])
    for start in range(0, len(touched), each):
        ctx.at(f"rows {laid.numbers[touched[start]]} and after")
        new, which = _rearrange_some(sequence, ctx, laid, touched[start : start + each], rates, orders)
        segments.append(new)
        rows.append(which)
    joined, which = np.concatenate(segments), np.concatenate(rows)
    order = np.lexsort((joined["start"], which))
    return laid._replace(segments=joined[order], rows=which[order])


def _rearrange_some(
    sequence: SequenceParameters,
    ctx: TaskContext,
    laid: PlacedRows,
    some: np.ndarray,
    rates: np.ndarray,
    orders: np.ndarray,
) -> tuple[np.ndarray, np.ndarray]:
    """Rearrange some rows in place; returns their new segments and rows."""
    assert laid.loss is not None
    width = laid.tokens.shape[1]
    mine = np.flatnonzero(np.isin(laid.rows, some))
    old, row = laid.segments[mine], np.searchsorted(some, laid.rows[mine])
    # Segments cover their rows without gaps, so their rates extend to positions by repetition.
    share = np.where(old["kind"] == PADDING, 0.0, rates[old["source"]])
    spread = [np.repeat(values, old["length"]).reshape(-1, width) for values in (share, orders[old["source"]])]
    salt_key = salt(sequence.draws, "fim", sequence.stage)
    out = transform_windows(laid.tokens[some], laid.numbers[some], sequence.engine(ctx), salt_key, *spread)

    # A piece lies within one segment, but a segment of padding may consist of several pieces.
    begins = row * width + old["start"]
    of = np.searchsorted(begins, out.pieces.window * width + out.pieces.source_start, side="right") - 1
    length = np.bincount(of, weights=out.pieces.length, minlength=len(old)).astype(np.int64)
    first = np.searchsorted(of, np.arange(len(old)))
    new = old.copy()
    new["start"], new["length"] = np.minimum(out.pieces.start[first], width), length
    drawn = (out.pieces.kind[first] != PLAIN) & (old["kind"] != PADDING)
    new["kind"][drawn] = out.pieces.kind[first][drawn]

    # Tokens left unchanged keep their loss.
    loss = out.loss.copy()
    kept = np.flatnonzero(~drawn & (length > 0))
    at = row[kept] * width + new["start"][kept]
    before = np.ascontiguousarray(laid.loss[some]).reshape(-1).view(np.uint8)
    copy(before, begins[kept].astype(np.int64), length[kept], loss.reshape(-1).view(np.uint8), at.astype(np.int64))
    laid.tokens[some], laid.loss[some] = out.tokens, loss
    laid.masked[some] |= ~loss.all(axis=1)

    fill = np.bincount(row, weights=length, minlength=len(some)).astype(np.int64)
    short = np.flatnonzero(fill < width)
    pad = np.zeros(len(short), dtype=SEGMENT)
    pad["start"], pad["length"], pad["kind"] = fill[short], width - fill[short], PADDING
    there = length > 0
    return np.concatenate([new[there], pad]), np.concatenate([some[row[there]], some[short]])
