"""Which documents inspire what: the kept ones of some sources, in keyed order, with shares by language."""

from __future__ import annotations

import heapq
from collections.abc import Iterator, Sequence
from itertools import count, islice
from typing import Any

import numpy as np
import numpy.typing as npt
import orjson
import pyarrow as pa

from headrace.documents.store import fetch
from headrace.flow.artifact import Artifact
from headrace.flow.keys import keyed, parse_ids, salt
from headrace.recipe.synthetic import Seeds
from headrace.synthetic.items import Item, Seed

RANKED = pa.schema([("key", pa.uint64()), ("row", pa.int64()), ("id", pa.string()), ("language", pa.string())])
COLUMNS = ["id", "text", "source", "language", "license", "repo", "path", "turns"]
TOGETHER = 512  # items whose seeds are read at once: each row group that holds one is read for it

Pick = tuple[int, tuple[int, ...]]
"""How often the seeds were used before, and their places in the ranking."""


def rank(batch: pa.RecordBatch, row: int, wanted: npt.NDArray[np.bool_], seed: int) -> pa.Table:
    """Candidates of a batch of documents, with their keys.

    Args:
        batch: documents with ``id`` and ``language``.
        row: the first one's number.
        wanted: bool[n], which of them may inspire.
        seed: the recipe's.
    """
    rows = np.flatnonzero(wanted)
    ids = batch.column("id").take(pa.array(rows))
    keys = keyed(salt(seed, "synthetic", "seeds"), parse_ids(ids)) if len(rows) else np.empty(0, np.uint64)
    columns = [pa.array(keys), pa.array(rows + row, pa.int64()), ids.cast(pa.string())]
    return pa.table([*columns, batch.column("language").take(pa.array(rows))], schema=RANKED)


def smallest(table: pa.Table, most: int, languages: Sequence[str]) -> pa.Table:
    """The ``most`` rows with the smallest keys, of each language that has a share of its own and of all others."""
    table = table.sort_by([("key", "ascending"), ("id", "ascending")])
    groups = _groups(table, languages)
    kept = np.sort(np.concatenate([np.flatnonzero(groups == group)[:most] for group in range(len(languages) + 1)]))
    return table.take(pa.array(kept))


def _groups(table: pa.Table, languages: Sequence[str]) -> npt.NDArray[np.int64]:
    """Each row's group: its language's place in the list, or the number after the last."""
    spoken = [None if one is None else one.lower() for one in table.column("language").to_pylist()]
    places = {language.lower(): place for place, language in enumerate(languages)}
    return np.array([places.get(one or "", len(languages)) for one in spoken], np.int64)


def picks(table: pa.Table, config: Seeds, total: int, each: int, seed: int) -> Iterator[Pick]:
    """The seeds of each item, without end; none if there are no seeds.

    Within a group every seed is used once before any is used again, and each time in another order. Groups take turns
    in proportion to their shares, so that any number of first items has the shares that the recipe asks for.

    Args:
        table: candidates, in order of keys (:func:`smallest` of all).
        config: the recipe's section.
        total: how many candidates there were.
        each: seeds of an item.
        seed: the recipe's.
    """
    most = config.count if config.share is None else max(1, round(config.share * total))
    table = table.slice(0, most) if most is not None else table
    languages = list(config.languages)
    groups = _groups(table, languages)
    rest = 1 - sum(config.languages.values())
    shares = [*config.languages.values(), rest if languages else 1.0]
    ids = parse_ids(table.column("id")) if table.num_rows else np.empty((0, 2), np.uint64)
    lanes = [
        (share, _in_turn(np.flatnonzero(groups == group), ids, each, seed))
        for group, share in enumerate(shares)
        if share > 0 and np.any(groups == group)
    ]
    heap = [(0.5 / share, lane, share, picked) for lane, (share, picked) in enumerate(lanes)]
    heapq.heapify(heap)
    while heap:
        at, lane, share, picked = heap[0]
        yield next(picked)
        heapq.heapreplace(heap, (at + 1 / share, lane, share, picked))


def _in_turn(places: npt.NDArray[np.int64], ids: npt.NDArray[np.uint64], each: int, seed: int) -> Iterator[Pick]:
    for turn in count():
        order = places if turn == 0 else places[np.argsort(keyed(salt(seed, "synthetic", "turn", turn), ids[places]))]
        for first in range(0, max(len(order) - each + 1, 1), each):
            yield turn, tuple(order[first : first + each].tolist())


def items(documents: Artifact, table: pa.Table, picked: Iterator[Pick], config: Seeds, seed: int) -> Iterator[Item]:
    """Items with their seeds' texts.

    Args:
        documents: the documents that seeds are taken from.
        table: the candidates that ``picked`` speaks of.
        picked: from :func:`picks`.
        config: the recipe's section.
        seed: the recipe's.
    """
    rows = table.column("row").to_numpy()
    number = 0
    while some := list(islice(picked, TOGETHER)):
        wanted = np.unique([place for _, places in some for place in places])
        found = dict(zip(wanted.tolist(), fetch(documents, rows[wanted], COLUMNS).to_pylist(), strict=True))
        for turn, places in some:
            seeds = tuple(_seed(found[place], int(rows[place]), turn, config.characters) for place in places)
            yield Item(number, seeds, turn, seed)
            number += 1


def _seed(document: dict[str, Any], row: int, turn: int, most: int) -> Seed:
    text = document["text"]
    turns = []
    if document["turns"] is not None:
        spans = orjson.loads(document["turns"])
        turns = [(span["role"], text[span["start"] : span["end"]][:most]) for span in spans]
    if len(text) > most:  # another stretch each time, until all has been shown
        stretches = -(-len(text) // most)
        first = turn % stretches * most
        text = text[first : first + most]
    about = {name: document[name] for name in ("source", "language", "license", "repo", "path")}
    return Seed(document["id"], row, text, turns=tuple(turns), **about)
