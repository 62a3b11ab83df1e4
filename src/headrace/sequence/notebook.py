"""How sequences and batches show themselves in a notebook: a few rows as text, coloured by segment."""

from __future__ import annotations

from html import escape
from typing import TYPE_CHECKING, Any

import numpy as np

from headrace.errors import UserError
from headrace.visible import visible

if TYPE_CHECKING:
    from headrace.sequence.batch import Batch
    from headrace.sequence.reader import SequenceReader

ROWS, TOKENS = 4, 160  # a screenful
# Legible on light and dark backgrounds alike; neighbours differ in lightness too.
COLOURS = ("#4c8dff40", "#ffb02e4d", "#34c77b40", "#e05fc733", "#b5b53a4d")


def sequence_html(sequence: SequenceReader) -> str:
    """What a sequence is, and its first rows."""
    from headrace.sequence.batch import read

    rows, L = len(sequence), sequence.seq_len
    facts = [f"{rows:,} rows of {L:,} + 1 tokens", f"{rows * L:,} targets", str(sequence.dtype)]
    if sequence.sources:
        facts.append("sources: " + ", ".join(sequence.sources))
    head = f"<b>{escape(str(sequence.path))}</b><br>{escape(visible(', '.join(facts)))}"
    return _page(head, read(sequence, 0, min(rows, ROWS), np.dtype(np.int64), restart=False), _decoder(sequence), rows)


def batch_html(batch: Batch) -> str:
    """A batch's shape, and its first rows."""
    B, width = batch.tokens.shape
    head = f"<b>Batch</b> of {B:,} rows of {width - 1:,} + 1 tokens, {int(batch.loss.sum()):,} targets with loss"
    return _page(head, batch, _decoder(batch.sequence) if batch.sequence is not None else None, B)


def _decoder(sequence: SequenceReader) -> Any:
    """What turns ids into text, if the sequence's tokenizer lies beside it."""
    from headrace.sequence.provenance import beside
    from headrace.tokens.load import open_decoder

    try:
        return open_decoder(beside(sequence, "tokenizer"))
    except UserError:
        return None


def _page(head: str, batch: Batch, decoder: Any, rows: int) -> str:
    lines = [
        f'<div style="margin:.4em 0"><span style="opacity:.6">row {row}</span> {_row(batch, row, decoder)}</div>'
        for row in range(min(len(batch.tokens), ROWS))
    ]
    more = f"<div>and {rows - ROWS:,} more rows</div>" if rows > ROWS else ""
    key = '<div style="opacity:.6">Colours: documents. Faded: no loss.</div>'
    style = "font-family:monospace;white-space:pre-wrap;overflow-wrap:anywhere"
    return f"<div>{head}{key}</div><div style='{style}'>{''.join(lines)}{more}</div>"


def _row(batch: Batch, row: int, decoder: Any) -> str:
    """The inputs of a row, in spans of one segment and one loss. An input is faded if it was no target."""
    tokens, ids = batch.tokens[row, :-1][:TOKENS], batch.segment_ids[row][:TOKENS]
    learned = np.concatenate([[False], batch.loss[row]])[: len(tokens)]
    cuts = np.flatnonzero((np.diff(ids) != 0) | (np.diff(learned) != 0)) + 1
    spans = []
    for a, b in zip([0, *cuts], [*cuts, len(tokens)], strict=True):
        text = " ".join(map(str, tokens[a:b])) + " "
        if decoder is not None:
            text = decoder.decode(tokens[a:b], first=False).decode("utf-8", "replace")
        colour = f"background:{COLOURS[int(ids[a]) % len(COLOURS)]};" if ids[a] else ""
        faded = "" if learned[a] else "opacity:.45;"
        spans.append(f'<span style="{colour}{faded}">{escape(visible(text))}</span>')
    return "".join(spans) + ("&hellip;" if batch.tokens.shape[1] - 1 > TOKENS else "")
