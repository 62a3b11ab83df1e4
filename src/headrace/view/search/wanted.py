"""Which documents are wanted: by what is known of them, by name, and by text, with Arrow's kernels, whose regular
expressions (RE2) take linear time whatever the expression."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from headrace.documents.store import read_columns
from headrace.flow.artifact import Artifact
from headrace.select.licences.columns import Declared, licence_columns
from headrace.view.large import texts_of
from headrace.view.named_labels import SEPARATOR, NamedLabels
from headrace.view.search.scan import Group
from headrace.view.target import Wrong

How = Literal["text", "phrase", "regex", "name"]
AROUND = 160  # bytes of text shown on either side of a match
BEGINS = 320  # characters of a document shown without a match
WINDOW = 1 << 14  # bytes from a match's beginning in which its end is looked for
NONE = ""  # the facet of documents without a language, or without a license
FACETS = ("source", "language", "license", "reason", "label")


@dataclass(frozen=True)
class Wanted:
    """What is looked for.

    Attributes:
        q: words, a phrase, an expression, or a part of a name; '' for all documents.
        how: ``text``: each word somewhere; ``phrase``: as it stands; ``regex``: RE2; ``name``: in the id, path,
            repository or file.
        case: whether case matters.
        facets: facet -> values, one of which a document must have; for ``reason``, '' is kept, for ``label``, one of
            several.
    """

    q: str = ""
    how: How = "text"
    case: bool = False
    facets: Mapping[str, Sequence[str]] = field(default_factory=dict)

    def expressions(self) -> list[str]:
        """RE2 expressions that a text must all match.

        Raises:
            Wrong: it is no expression.
        """
        if not self.q or self.how == "name":
            return []
        prefix = "" if self.case else "(?i)"
        if self.how == "regex":
            told = [self.q]
        else:
            told = [quoted(one) for one in (self.q.split() if self.how == "text" else [self.q])]
        expressions = [f"{prefix}{one}" for one in told]
        for one in expressions:
            try:
                pc.match_substring_regex(pa.array(["x"]), one)
            except pa.ArrowInvalid as error:
                why = str(error).removeprefix("Invalid regular expression: ")
                raise Wrong(
                    f"This is no regular expression: {why}.", self.q, "See https://github.com/google/re2/wiki/Syntax."
                ) from None
        return expressions


def quoted(text: str) -> str:
    """A text as an expression that matches it alone."""
    return "".join(one if one.isalnum() or one in " _" or ord(one) > 127 else f"\\x{ord(one):02x}" for one in text)


@dataclass(frozen=True)
class Hit:
    """A document found.

    Attributes:
        row: its global row.
        id, source, origin, path, repo, language, license: what is known of it.
        reason: why it was removed; None if it was kept, or not judged yet.
        bytes: of its text.
        matches: how many times the first word, the phrase or the expression stands in it.
        before, match, after: its text around the first of them; without a query, how it begins.
    """

    row: int
    id: str
    source: str
    origin: str
    path: str | None
    repo: str | None
    language: str | None
    license: str | None
    reason: str | None
    bytes: int
    matches: int
    before: str
    match: str
    after: str


@dataclass(frozen=True)
class Corpus:
    """Documents and what was found about them.

    Attributes:
        documents: the documents.
        verdicts: what was decided; None if nothing is yet.
        licences: the sidecar of licenses, if the run has one.
        declared: the license that the recipe declares for each source.
        labels: those that a person gave to documents.
    """

    documents: Artifact
    verdicts: Artifact | None
    licences: Artifact | None
    declared: Declared
    labels: NamedLabels

    def facets(self, shard: int) -> pa.Table:
        """:data:`FACETS` of a shard's documents, strings; no text is read. Columns without values are ''; several
        labels are one value (:meth:`headrace.view.named_labels.NamedLabels.of`)."""
        table = read_columns(self.documents.shard_path(shard), ["source", "language"])
        license = licence_columns(self.documents, shard, self.licences, self.declared).column("license")
        if self.verdicts is None:
            reason: Any = pa.nulls(len(table), pa.string())
        else:
            reason = read_columns(self.verdicts.shard_path(shard), ["reason"]).column("reason")
        label: Any = pa.nulls(len(table), pa.string())
        if self.labels.ids:
            label = self.labels.of(read_columns(self.documents.shard_path(shard), ["id"]).column("id"))
        columns = [*table.columns, license, reason, label]
        return pa.table([pc.fill_null(one.cast(pa.string()), NONE) for one in columns], names=list(FACETS))


def search(
    corpus: Corpus, wanted: Wanted, group: Group, expressions: Sequence[str], first: int, most: int
) -> list[tuple[int, Hit]]:
    """The first ``most`` documents of a row group, from row ``first`` on, that are wanted, in order."""
    path, count = corpus.documents.shard_path(group.shard), group.stop - group.start
    base = group.base + group.start
    mask = np.arange(base, base + count) >= first
    if wanted.facets:
        facets = corpus.facets(group.shard).slice(group.start, count)
        for name, values in wanted.facets.items():
            column, some = facets.column(name), list(values)
            if name == "label":
                some = [one for one in pc.unique(column).to_pylist() if set(one.split(SEPARATOR)) & set(values)]
            mask &= pc.is_in(column, pa.array(some, pa.string())).to_numpy()
        if not mask.any():
            return []
    with pq.ParquetFile(path, pre_buffer=False) as file:
        if wanted.q and wanted.how == "name":
            names = file.read_row_group(group.number, ["id", "path", "repo", "origin_file"], use_threads=False)
            mask &= _named(names, wanted)
        if not mask.any():
            return []
        with texts_of(file, path, group.number) as text:
            for expression in expressions:
                mask &= pc.match_substring_regex(text, expression).to_numpy()
                if not mask.any():
                    return []
            rows = np.flatnonzero(mask)[:most]
            found = text if len(text) == 1 else text.take(pa.array(rows))
            shown = _excerpts(found, expressions[0] if expressions else None)
            del found
        columns = ["id", "bytes", "source", "origin_file", "origin_row", "repo", "path", "language"]
        told = file.read_row_group(group.number, columns, use_threads=False).take(rows).to_pylist()
    about = corpus.facets(group.shard).slice(group.start, count).take(rows).to_pylist()
    return [
        (
            base + row,
            Hit(
                base + row,
                one["id"],
                one["source"],
                f"{one['origin_file']}:{one['origin_row']}",
                one["path"],
                one["repo"],
                one["language"],
                facet["license"] or None,
                facet["reason"] or None,
                one["bytes"],
                *excerpt,
            ),
        )
        for row, one, facet, excerpt in zip(rows.tolist(), told, about, shown, strict=True)
    ]


def _named(names: pa.Table, wanted: Wanted) -> np.ndarray:
    expression = ("" if wanted.case else "(?i)") + quoted(wanted.q)
    found = np.zeros(len(names), dtype=bool)
    for column in names.columns:
        found |= pc.fill_null(pc.match_substring_regex(column, expression), False).to_numpy()
    return found


def _excerpts(text: pa.ChunkedArray, expression: str | None) -> list[tuple[int, str, str, str]]:
    """How often each text matches, and what stands before, in and after the first match."""
    if expression is None:
        return [(0, "", "", one) for one in pc.utf8_slice_codeunits(text, 0, BEGINS).to_pylist()]
    # As text: of bytes, expressions would see Latin-1.
    at = pc.find_substring_regex(text, expression).to_pylist()
    counts = pc.count_substring_regex(text, expression).to_pylist()
    texts = [one.as_buffer() for one in text]
    stops = _ends(texts, at, expression)
    out = []
    for i, (start, stop) in enumerate(zip(at, stops, strict=True)):
        whole = texts[i]
        before = whole.slice(max(0, start - AROUND), min(start, AROUND)).to_pybytes()
        after = whole.slice(stop, min(AROUND, whole.size - stop)).to_pybytes()
        shown = whole.slice(start, min(stop - start, 4 * AROUND)).to_pybytes()
        out.append((counts[i], *(_text(part) for part in (before, shown, after))))
    return out


def _ends(texts: list[pa.Buffer], at: list[int], expression: str) -> list[int]:
    """Where matches end. Arrow says where they begin, not how long they are: without one, a text is so much shorter. So
    as not to copy large texts, only what follows is looked at, as if the text began there."""
    follow = [one.slice(start, min(WINDOW, one.size - start)) for one, start in zip(texts, at, strict=True)]
    windows = [_text(one.to_pybytes()) for one in follow]
    told = pa.array(windows, pa.large_string())
    begins = pc.find_substring_regex(told, expression).to_pylist()
    without = pc.binary_length(pc.replace_substring_regex(told, expression, "", max_replacements=1)).to_pylist()
    lengths = pc.binary_length(told).to_pylist()
    return [
        start + (size - left if begin == 0 else 0)
        for start, size, left, begin in zip(at, lengths, without, begins, strict=True)
    ]


def _text(data: bytes) -> str:
    """Text that was cut between bytes: characters that lost some are left out."""
    return data.decode("utf-8", "ignore")
