"""Infilling of held-out code: how often a model writes exactly what was taken out (after Bavarian et al. 2022).

Two holes are cut into each document: one line, and a random span of characters, which may begin and end within a word.
The model sees what stands before and after (prefix, suffix, middle) and writes greedily.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np

from headrace.evaluate.generation import generate
from headrace.evaluate.language import Own
from headrace.evaluate.sampling import infilling
from headrace.flow.keys import keyed, salt, unit
from headrace.sequence.store import ArrowSequence
from headrace.tokens.engine import Engine

LINE, SPAN = "line", "span"
SPAN_CHARACTERS = 64  # of the longest random span
SHORTEST, LEAST_LINES = 200, 4  # characters and lines of a document
SPARE = 8  # tokens that a model may write beyond those that were taken out
ROWS = 16  # holes filled at once
SEARCHED_ROWS = 4096  # rows of held-out text searched for documents


@dataclass(frozen=True)
class Hole:
    """What was taken out of a document.

    Attributes:
        kind: ``line`` or ``span``.
        prefix: the text before.
        truth: what was taken out.
        suffix: the text after.
    """

    kind: str
    prefix: str
    truth: str
    suffix: str

    def filled(self, text: str) -> bool:
        """Whether a model's text is what was taken out; of a line, what it writes in that line counts."""
        if self.kind == LINE:
            return text.partition("\n")[0].rstrip() == self.truth.rstrip()
        return text == self.truth


def infilling_exact_match(
    language: Own, sequence: ArrowSequence, sources: Collection[str], documents: int, seed: int
) -> dict[str, dict[str, Any]] | None:
    """Measure a model on held-out documents.

    Args:
        language: the model, on its device, with its tokenizer.
        sequence: the held-out sequence, in the order of which documents are taken.
        sources: the documents' sources, such as those that the model was trained to infill.
        documents: how many.
        seed: of the holes: the same seed cuts the same holes, whatever the model.

    Returns:
        ``{"line": {"exact", "holes"}, "span": {"exact", "holes"}}``; None if the tokenizer has no sentinels, or the
        sequence no such document.
    """
    engine = language.engine
    if not {"fim_prefix", "fim_suffix", "fim_middle", "eod"} <= engine.special.keys():
        return None
    holes = list(cut_holes(sequence, engine, sources, documents, seed))
    if not holes:
        return None
    most = sequence.seq_len // 4  # tokens of a side, and of what is taken out: the prompt is as long as training's rows
    prompts, counts = [], []
    for hole in holes:
        prefix, truth, suffix = (
            engine.encode([text], first=first).tokens
            for text, first in ((hole.prefix, True), (hole.truth, False), (hole.suffix, False))
        )
        prompts.append(infilling(prefix[-most:], suffix[:most], engine).tolist())
        counts.append(min(len(truth), most) + SPARE)
    result: dict[str, dict[str, Any]] = {kind: {"exact": 0, "holes": 0} for kind in (LINE, SPAN)}
    order = sorted(range(len(holes)), key=lambda i: len(prompts[i]))
    for at in range(0, len(order), ROWS):
        some = order[at : at + ROWS]
        limits = [counts[i] for i in some]
        written = generate(
            language.decoding(),
            [prompts[i] for i in some],
            max(limits),
            [0] * len(some),
            stop=language.stop,
            ended=partial(_too_long, limits),
        )
        for i, tokens in zip(some, written, strict=True):
            text = language.decode(prompts[i], tokens)
            result[holes[i].kind]["exact"] += holes[i].filled(text)
            result[holes[i].kind]["holes"] += 1
    return result


def _too_long(limits: list[int], row: int, tokens: list[int]) -> bool:
    return len(tokens) > limits[row]


def cut_holes(
    sequence: ArrowSequence, engine: Engine, sources: Collection[str], documents: int, seed: int
) -> Iterator[Hole]:
    """A line and a span of each document, drawn with keys of the document's row."""
    for row, text in _documents(sequence, engine, sources, documents):
        draws = {
            kind: unit(keyed(salt(seed, "infilling", kind, k), np.array([row], dtype=np.uint64)))[0]
            for k, kind in enumerate((LINE, SPAN, "length"))
        }
        lines = text.splitlines(keepends=True)
        starts = np.cumsum([0, *map(len, lines)])
        # Not the first, which nothing leads to, nor the last, which the end of the row may have cut.
        full = [k for k in range(1, len(lines) - 1) if lines[k].strip()]
        if full:
            k = full[int(draws[LINE] * len(full))]
            indent = len(lines[k]) - len(lines[k].lstrip())
            start, end = int(starts[k]) + indent, int(starts[k]) + len(lines[k].rstrip("\r\n"))
            yield Hole(LINE, text[:start], text[start:end], text[end:])
        size = 1 + int(draws["length"] * SPAN_CHARACTERS)
        start = int(draws[SPAN] * (len(text) - size))
        yield Hole(SPAN, text[:start], text[start : start + size], text[start + size :])


def _documents(
    sequence: ArrowSequence, engine: Engine, sources: Collection[str], count: int
) -> Iterator[tuple[int, str]]:
    """Rows in the documents artifact and texts of plain documents, as far as they stand in one row of the sequence."""
    seen: set[int] = set()
    for at in range(min(SEARCHED_ROWS, len(sequence))):
        tokens = None
        for segment in sequence.segments(at):
            row = int(segment["row"])
            source = int(segment["source"])
            if segment["kind"] != 0 or segment["offset"] != 0 or row in seen or sequence.sources[source] not in sources:
                continue
            if tokens is None:
                tokens = sequence.rows(at, at + 1)[0]
            part = tokens[int(segment["start"]) : int(segment["start"]) + int(segment["length"])]
            known = part[~np.isin(part, engine.special_ids)].astype(np.uint32)
            text = engine.decode(known).decode("utf-8", errors="ignore")
            if len(text) < SHORTEST or text.count("\n") < LEAST_LINES:
                continue
            seen.add(row)
            yield row, text
            if len(seen) == count:
                return
