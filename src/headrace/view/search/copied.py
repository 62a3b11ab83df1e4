"""Looking for a text in all documents in the background, and what was found so far."""

from __future__ import annotations

import hashlib
import threading
from collections import OrderedDict
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq

from headrace.documents.store import text_buffers
from headrace.flow.artifact import Artifact
from headrace.view.large import texts_of
from headrace.view.search.scan import Group, each
from headrace.view.search.stretches import Table, find_stretches, table_of

HELD = 8  # texts whose results are kept
MOST = 400  # matches kept of a text: the longest
DOCUMENTS = 20  # listed of a stretch


@dataclass(frozen=True)
class Match:
    """A stretch of the text in a document: bytes of both."""

    row: int
    start: int
    at: int
    length: int


@dataclass
class Job:
    """A text that is looked for.

    Attributes:
        text: the text, UTF-8.
        rows: documents in all.
        searched: documents searched so far.
        matches: the longest matches so far, longest first.
        failed: what went wrong, if anything did.
        ended: set when it has ended, well or not.
    """

    text: bytes
    rows: int
    searched: int = 0
    matches: list[Match] = field(default_factory=list)
    failed: Exception | None = None
    ended: threading.Event = field(default_factory=threading.Event)

    @property
    def name(self) -> str:
        """What its address says."""
        return hashlib.sha256(self.text).hexdigest()[:16]


class Jobs:
    """The texts that were looked for last."""

    def __init__(self) -> None:
        self._jobs: OrderedDict[tuple[Path, str], Job] = OrderedDict()
        self._lock = threading.Lock()

    def start(self, text: bytes, documents: Artifact) -> Job:
        """Look for a text, unless that was done already."""
        job = Job(text, documents.rows)
        key = documents.path, job.name
        with self._lock:
            known = self._jobs.get(key)
            if known is not None and known.failed is None:
                self._jobs.move_to_end(key)
                return known
            self._jobs[key] = job
            while len(self._jobs) > HELD:
                self._jobs.popitem(last=False)
        threading.Thread(target=self._run, args=(key, job, documents), daemon=True).start()
        return job

    def find(self, name: str) -> Job | None:
        """A text that was looked for."""
        with self._lock:
            return next((job for (_, other), job in self._jobs.items() if other == name), None)

    def _run(self, key: tuple[Path, str], job: Job, documents: Artifact) -> None:
        try:
            table = table_of(job.text)
            for group, found in each(documents, lambda group: _search(documents, table, group)):
                if key not in self._jobs:  # one that nobody keeps is not gone on with
                    return
                matches = [*job.matches, *(match for _, many in found for match in many)]
                job.matches = sorted(matches, key=lambda m: (-m.length, m.start, m.row))[:MOST]
                job.searched = group.base + group.stop
            job.searched = job.rows
        except Exception as error:  # shown on the page
            job.failed = error
        finally:
            job.ended.set()


def _search(documents: Artifact, table: Table, group: Group) -> list[tuple[int, list[Match]]]:
    """The matches of each document of a row group that has any: the longest of each document."""
    path = documents.shard_path(group.shard)
    with pq.ParquetFile(path, pre_buffer=False) as file, texts_of(file, path, group.number) as texts:
        found = find_stretches(*text_buffers(texts.combine_chunks()), table)
    base = group.base + group.start
    out: dict[int, list[Match]] = {}
    for i in np.argsort(-found.length, kind="stable")[: 4 * MOST].tolist():
        row = base + int(found.document[i])
        out.setdefault(row, []).append(Match(row, int(found.start[i]), int(found.at[i]), int(found.length[i])))
    return sorted(out.items())


@dataclass(frozen=True)
class Stretch:
    """A stretch of the text, and where it stands.

    Attributes:
        start, length: bytes of the text.
        matches: one a document, in order; the first :data:`DOCUMENTS`.
        documents: how many there are.
    """

    start: int
    length: int
    matches: list[Match]
    documents: int


def stretches(matches: list[Match]) -> list[Stretch]:
    """Stretches of the text, longest first, without those inside a longer one.

    Args:
        matches: longest first.
    """
    out: dict[tuple[int, int], list[Match]] = {}
    for match in matches:
        key = match.start, match.length
        if key in out:
            out[key].append(match)
        elif not any(s <= match.start and match.start + match.length <= s + n for s, n in out):
            out[key] = [match]
    found = []
    for (start, length), many in out.items():
        rows: dict[int, Match] = {}
        for match in many:
            rows.setdefault(match.row, match)
        found.append(Stretch(start, length, list(rows.values())[:DOCUMENTS], len(rows)))
    return found
