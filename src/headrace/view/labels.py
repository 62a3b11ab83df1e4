"""A person's judgement of what filters removed: ``RUN/labels.jsonl``, and the precision that follows from it.

========= =============================================================================================
field     meaning
========= =============================================================================================
time      seconds since 1970
id        the document's id
source    its source
reason    why it was removed; of a kept document, what would remove it next
limit     what decided: place in the recipe -> value; a label counts while this holds
label     ``right``: it should be removed; ``wrong``: it should not; null takes the last label back
order     how the document was come upon: ``sample``, ``nearest`` or ``kept``
of        the source that the sample was drawn from; null for all
seed      the sample's
========= =============================================================================================

(Lines with a ``name`` are labels of whole choices: :mod:`headrace.view.named_labels`.)

Only documents of a random sample tell about the filter as a whole. A sample's documents are labelled in its order, so
the first n of them are a sample as well.
"""

from __future__ import annotations

import math
import os
import threading
import time
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from headrace.flow.journal import Journal, read_journal

FILE = "labels.jsonl"
Verdict = Literal["right", "wrong"]
Key = tuple[str, str, str]
Z = 1.959964  # the normal distribution's 97.5 % quantile
WRITING = threading.Lock()  # one line at a time


@dataclass(frozen=True)
class Label:
    """A line of the file."""

    id: str
    source: str
    reason: str
    limit: dict[str, Any]
    label: Verdict | None
    order: str
    of: str | None
    seed: int


@dataclass(frozen=True)
class Precision:
    """How often a filter was right, by its labels.

    Attributes:
        right: documents that should be removed.
        wrong: those that should not.
        low, high: the interval that holds the share of right ones with a probability of 95 %; None without labels.
        apart: labels of documents that were not sampled.
    """

    right: int
    wrong: int
    low: float | None
    high: float | None
    apart: int

    @property
    def share(self) -> float | None:
        """The share of right ones; None without labels."""
        return self.right / (self.right + self.wrong) if self.right + self.wrong else None


def can_label(run: Path) -> bool:
    """Whether labels can be saved in a run folder."""
    file = run / FILE
    return os.access(file if file.exists() else run, os.W_OK)


def add_label(run: Path, label: Label) -> None:
    """Save a label.

    Raises:
        OSError: the run folder cannot be written.
    """
    with WRITING:
        journal = Journal(run / FILE)
        try:
            journal.add({"time": round(time.time(), 3), **label.__dict__})
        finally:
            journal.close()


def read_labels(run: Path) -> list[Label]:
    """The labels that hold: of each document, reason and limit the last, in the order in which they were given."""
    held: dict[tuple[str, str, str], Label] = {}
    for label in _read(run):
        key = (label.id, label.reason, repr(sorted(label.limit.items())))
        held.pop(key, None)
        if label.label is not None:
            held[key] = label
    return list(held.values())


def _read(run: Path) -> Iterator[Label]:
    fields = Label.__dataclass_fields__
    for entry in read_journal(run / FILE):
        told = {name: entry.get(name) for name in fields}
        texts = (told["id"], told["source"], told["reason"], told["order"])
        if all(isinstance(text, str) for text in texts) and isinstance(told["limit"], dict):
            yield Label(**told)  # type: ignore[arg-type]


def precision(labels: Iterable[Label], source: str | None) -> Precision:
    """The precision of a filter.

    Args:
        labels: those of one reason, under the limits in force.
        source: of which documents; None for all. A sample of all is one of each source as well, but not the reverse.
    """
    right = wrong = apart = 0
    for label in labels:
        if source is not None and label.source != source:
            continue
        if label.order != "sample" or (label.of is not None and label.of != source):
            apart += label.order != "kept"
        elif label.label == "right":
            right += 1
        else:
            wrong += 1
    low, high = wilson(right, right + wrong)
    return Precision(right, wrong, low, high, apart)


def wilson(hits: int, of: int) -> tuple[float | None, float | None]:
    """Wilson's 95 % interval of a share (JASA 22, 1927), which keeps its level for small samples and shares near 0 or
    1 (Brown, Cai and DasGupta, Statistical Science 16, 2001)."""
    if not of:
        return None, None
    share, z2 = hits / of, Z * Z
    middle = (share + z2 / (2 * of)) / (1 + z2 / of)
    half = Z / (1 + z2 / of) * math.sqrt(share * (1 - share) / of + z2 / (4 * of * of))
    return max(0.0, middle - half), min(1.0, middle + half)
