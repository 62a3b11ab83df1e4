"""Loss by position: what each further token of context is worth, as the loss of long documents from their start.

    loss-by-position-<hash>/
        settings.json      everything that decides the bytes of the others; the hash is of this
        documents.jsonl    a line per document: its mean loss in each bin of positions
        summary.json       means over documents with their standard errors; written last

Xiong et al. (2023, 2309.16039) judge long contexts so. A model that uses its context has less loss the further on; one
that was trained on shorter rows has more from about their length on.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from headrace.evaluate.identified import Identified
from headrace.evaluate.language import Language
from headrace.evaluate.log import Log
from headrace.evaluate.long_texts import LongTexts
from headrace.flow.lock import lock
from headrace.flow.storage import write_json

TASK = "loss-by-position"
DOCUMENTS, SETTINGS, SUMMARY = "documents.jsonl", "settings.json", "summary.json"


@dataclass(frozen=True)
class Settings(Identified):
    """What decides the results.

    Attributes:
        model: digest of model and tokenizer.
        texts: digest of the documents' tokens.
        length: tokens of each document whose loss is measured.
    """

    model: str
    texts: str
    length: int


def edges(length: int) -> list[int]:
    """Where bins of positions 1 to ``length`` begin, two for each doubling, and ``length`` + 1.

    The position of a token is the number of those before it. A last bin of less than half its width is part of the one
    before.
    """
    starts = sorted({start for k in range(2 * length.bit_length()) if (start := math.ceil(2 ** (k / 2))) <= length})
    if len(starts) > 1 and 2 * (length + 1 - starts[-1]) < starts[-1] - starts[-2]:
        starts.pop()
    return [*starts, length + 1]


def evaluate(
    language: Language,
    texts: LongTexts,
    settings: Settings,
    folder: Path,
    progress: Callable[[str, int, int], None] = lambda what, done, total: None,
) -> dict[str, Any]:
    """Measure a model, or go on where a measurement with the same settings was stopped.

    Args:
        language: the model.
        texts: the documents, at least one, of ``settings.length`` + 1 tokens.
        settings: as above.
        folder: where to; created.
        progress: hears how far it is.

    Returns:
        ``{"length", "documents", "long_enough", "read", "positions": [{"first", "last", "loss", "error"}]}``: losses in
        nats per token, means over documents; the error is that of the mean, None for a single document.

    Raises:
        UserError: another evaluation is using the folder, or it cannot be written.
    """
    cuts = edges(settings.length)
    count = len(texts.tokens)
    with lock(folder):
        write_json(folder / SETTINGS, asdict(settings))
        log = Log(folder / DOCUMENTS, [{"document": i} for i in range(count)])
        for i in range(len(log.lines), count):
            progress(TASK, i, count)
            with torch.inference_mode():
                losses = language.losses(texts.tokens[i]).double().numpy()
            means = np.add.reduceat(losses, np.array(cuts[:-1]) - 1) / np.diff(cuts)
            log.append([{"document": i, "losses": means.tolist()}])
        progress(TASK, count, count)
        found = np.array([line["losses"] for line in log.lines])
        errors = found.std(axis=0, ddof=1) / math.sqrt(count) if count > 1 else [None] * found.shape[1]
        summary = {
            "length": settings.length,
            "documents": count,
            "long_enough": texts.long_enough,
            "read": texts.read,
            "positions": [
                {"first": first, "last": after - 1, "loss": float(loss), "error": None if e is None else float(e)}
                for first, after, loss, e in zip(cuts, cuts[1:], found.mean(axis=0), errors, strict=False)
            ],
        }
        write_json(folder / SUMMARY, summary)
    return summary
