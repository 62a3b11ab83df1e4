"""Benchmark items beside the documents that contain them: from the artifact ``hits``."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from typing import Any

from headrace.flow.artifact import Artifact
from headrace.report.excerpts import LENGTH, alike, around, beginning
from headrace.report.facts import Hit, Hits, Place
from headrace.report.markup import Markup, element
from headrace.report.numbers import percent, whole
from headrace.report.tables import details

SHOWN = 20  # of each benchmark


def hits_of(artifact: Artifact) -> Hits:
    """How many items were found, and the first of each benchmark."""
    total: Counter[str] = Counter()
    shown: list[Hit] = []
    for shard in range(len(artifact.shards)):
        if not artifact.shards[shard]["rows"]:
            continue
        items = _read(artifact, shard, ["item"])
        wanted = []
        for at, row in enumerate(items):
            benchmark = str(row["item"]).partition(":")[0]
            total[benchmark] += 1
            if total[benchmark] <= SHOWN:
                wanted.append(at)
        shown += [hit_of(row) for row in _read(artifact, shard, None, wanted)] if wanted else []
    return Hits(dict(sorted(total.items())), shown, f"artifacts/{artifact.path.name}")


def hits_in(artifact: Artifact, shard: int, row: int) -> list[Hit]:
    """The items in one document.

    Args:
        artifact: the hits.
        shard: the document's shard.
        row: its row.
    """
    if not artifact.shards[shard]["rows"]:
        return []
    rows = [at for at, found in enumerate(_read(artifact, shard, ["row"])) if found["row"] == row]
    return [hit_of(found) for found in _read(artifact, shard, None, rows)] if rows else []


def _read(
    artifact: Artifact, shard: int, columns: list[str] | None, rows: list[int] | None = None
) -> Iterator[dict[str, Any]]:
    import pyarrow.parquet as pq

    table = pq.read_table(artifact.shard_path(shard), columns=columns)
    yield from (table if rows is None else table.take(rows)).to_pylist()


def hit_of(row: dict[str, Any]) -> Hit:
    """A row of the artifact side by side: the context of the evidence, and the item's text."""
    context, base = row["context"], row["context_start"]
    start, end = row["start"] - base, min(row["end"] - base, len(context))
    text, marks = beginning(row["text"], 2 * LENGTH)
    shown, ((low, high),) = around(context, start, end)
    if row["method"] == "substring":
        here, marks = [(low, high)], [(0, len(text))]
    else:
        mine, marks = alike(shown[low:high], text)
        here = [(low + first, low + last) for first, last in mine]
    place = Place(row["id"], row["source"], f"{row['origin_file']}:{row['origin_row']}", shown, here)
    names = ("item", "method", "field", "overlap", "start", "end", "row")
    return Hit(**{name: row[name] for name in names}, document=place, text=text, marks=marks)


def draw_hits(hits: Hits) -> list[Markup]:
    """The items by benchmark, each beside its document."""
    drawn = []
    for benchmark, total in hits.total.items():
        some = [draw_hit(hit) for hit in hits.shown if hit.benchmark == benchmark]
        drawn.append(details(f"{benchmark}: {whole(len(some))} of {whole(total)}", some))
    note = "Each item that a removed document contains, beside it; marked: what both have. All are in "
    return [element("p", note, element("code", hits.folder), " (Parquet)."), *drawn] if drawn else []


METHODS = {
    "substring": "the text of {field}, whole",
    "ngram": "{share} of its n-grams",
    "shape": "{share} of the shape of its program, under other names",
}


def draw_hit(hit: Hit, where: object = None) -> Markup:
    """An item beside a document, with what they have in common marked."""
    how = METHODS[hit.method].format(field=hit.field, share=percent(hit.overlap, 1))
    said = f"{how}; characters {whole(hit.start)} to {whole(hit.end)}"
    mine = hit.document
    place = where or f"{mine.source}, {mine.origin}, id {mine.id}"
    return element(
        "article",
        element("p", element("strong", hit.item), f": {said}"),
        element(
            "div",
            _side(place, mine.text, mine.marks),
            _side("the item", hit.text, hit.marks),
            class_="pair",
        ),
    )


def _side(head: object, text: str, marks: list[tuple[int, int]]) -> Markup:
    parts: list[object] = []
    at = 0
    for start, end in marks:
        parts += [text[at:start], element("mark", text[start:end])]
        at = end
    return element(
        "div", element("p", head, class_="where"), element("pre", [*parts, text[at:]], class_="text", tabindex=0)
    )
