"""Labels that a person gives to a choice of documents, by name: in ``RUN/labels.jsonl``, beside those of single ones.

========= =============================================================================================
field     meaning
========= =============================================================================================
time      seconds since 1970
name      the label
on        whether the documents have it from now on, or no longer
ids       ids of documents, at most 1,000: a larger choice takes several lines
chosen    the choice: field of the corpus page's address -> values
========= =============================================================================================

An id is that of a text: documents that are copies of each other to the byte share their labels. Of each id and label
the last line counts. What was said of single documents on the page of removed ones (:mod:`headrace.view.labels`) is a
label as well: :data:`RIGHT` or :data:`WRONG`.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from headrace.errors import UserError
from headrace.flow.journal import Journal, read_journal
from headrace.view.labels import FILE, WRITING, read_labels
from headrace.view.target import Target, file_stamp

RIGHT, WRONG = "rightly removed", "wrongly removed"
MOST = 60  # labels of a run: they are bits of a number
A_LINE = 1000  # ids
SEPARATOR = "\x1f"  # between the labels of a document; no name has it
Ids = npt.NDArray[np.bytes_]


@dataclass(frozen=True)
class NamedLabels:
    """The labels that hold.

    Attributes:
        ids: name -> bytes32[n], the ids of its documents, ascending.
    """

    ids: Mapping[str, Ids]

    def of(self, ids: pa.Array) -> pa.Array:
        """The labels of some documents, string[n]: their names with :data:`SEPARATOR` between them; '' without any."""
        asked, bits = np.array(ids.to_pylist(), dtype="S32"), np.zeros(len(ids), dtype=np.int64)
        for k, some in enumerate(self.ids.values()):
            at = np.minimum(np.searchsorted(some, asked), max(len(some) - 1, 0))
            bits |= (some[at] == asked if len(some) else np.zeros(len(asked), dtype=bool)).astype(np.int64) << k
        names = list(self.ids)
        sets, place = np.unique(bits, return_inverse=True)
        told = [SEPARATOR.join(name for k, name in enumerate(names) if one >> k & 1) for one in sets.tolist()]
        return pa.array(told, pa.string()).take(pa.array(place.ravel()))


def named_labels(target: Target) -> NamedLabels:
    """The labels of a run's documents, read again when the file has changed."""
    return target.kept("named labels", lambda: NamedLabels(read_named(target.path)), labels_stamp(target))


def labels_stamp(target: Target) -> tuple[int, int]:
    """What changes with the labels."""
    return file_stamp(target.path / FILE) or (0, 0)


def read_named(run: Path) -> dict[str, Ids]:
    """The labels of a run folder that hold: name -> bytes32[n], the ids of its documents, ascending."""
    found: dict[str, Ids] = {}
    for (name, on), entries in groupby(_entries(run), key=lambda entry: (entry["name"], bool(entry.get("on")))):
        ids = np.concatenate([_ids(entry["ids"]) for entry in entries])
        before = found.get(name, _ids([]))
        found[name] = np.union1d(before, ids) if on else np.setdiff1d(before, ids)
    said = read_labels(run)
    for name, label in ((RIGHT, "right"), (WRONG, "wrong")):
        found[name] = np.unique(_ids([one.id for one in said if one.label == label]))
    return {name: found[name] for name in sorted(found) if len(found[name])}


def _entries(run: Path) -> Iterator[dict[str, Any]]:
    for entry in read_journal(run / FILE):
        if isinstance(entry.get("name"), str) and isinstance(entry.get("ids"), list):
            yield entry


def _ids(values: list[Any]) -> Ids:
    return np.array([one for one in values if isinstance(one, str) and one.isascii()], dtype="S32")


def give(run: Path, name: str, on: bool, ids: list[str], chosen: Mapping[str, Any]) -> None:
    """Give documents a label, or take it from them.

    Raises:
        UserError: the name is taken, or there are too many.
        OSError: the run folder cannot be written.
    """
    if name in (RIGHT, WRONG):
        raise UserError(f"{name!r} is what the page of removed documents says.", "name", "Choose another name.")
    with WRITING:
        known = read_named(run)
        if on and name not in known and len(known) >= MOST:
            raise UserError(f"There are {len(known)} labels already.", str(run / FILE), "Take one back.")
        journal = Journal(run / FILE)
        try:
            for part in _lines(ids):
                about = {"time": round(time.time(), 3), "name": name, "on": on, "ids": part}
                journal.add({**about, "chosen": dict(chosen)})
        finally:
            journal.close()


def _lines(ids: list[str]) -> Iterator[list[str]]:
    return (ids[i : i + A_LINE] for i in range(0, len(ids), A_LINE))
