"""The benchmark index: n-grams with the items that contain them, texts to find whole, and shapes of programs."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import chain
from typing import Literal

import numpy as np

from headrace.recipe.schema import Shapes
from headrace.select.contamination.benchmarks import Item
from headrace.select.contamination.ngrams import GramTable, Ints, directory_of, every_ngram
from headrace.select.contamination.shapes import ShapeTable, shape_table
from headrace.select.contamination.substrings import PatternTable, pattern_table
from headrace.select.contamination.verbatim import VerbatimTable, verbatim_table

Substring = bool | Literal["bigcode"]


@dataclass(frozen=True)
class Index:
    """What to search documents for.

    Attributes:
        items: the items, in order.
        grams: the distinct n-grams of all items.
        holders: int64[...]: the items that contain each n-gram, ascending, delimited by ``holder_offsets`` int64[g +
            1].
        holder_offsets: see ``holders``.
        sizes: int64[items]: distinct n-grams of each item.
        patterns: the texts to find whole; None if substrings are off.
        pattern_items: int64[patterns]: the item of each.
        pattern_fields: the field name of each.
        pattern_texts: the texts themselves.
        pattern_lengths: int64[patterns]: characters of each.
        shapes: the shapes of programs; None if they are off.
        program_items: int64[programs]: the item of each program.
    """

    items: list[Item]
    grams: GramTable
    holders: Ints
    holder_offsets: Ints
    sizes: Ints
    patterns: PatternTable | VerbatimTable | None
    pattern_items: Ints
    pattern_fields: list[str]
    pattern_texts: list[str]
    pattern_lengths: Ints
    shapes: ShapeTable | None
    program_items: Ints


def build(items: Sequence[Item], n: int, code: bool, substring: Substring, shapes: Shapes | None = None) -> Index:
    """Index items.

    Args:
        items: from the benchmark files.
        n: units in an n-gram.
        code: whether units are code tokens rather than words.
        substring: whether to search for whole texts too, and how.
        shapes: how to search for shapes of programs; None does not.
    """
    owners = [(i, name, text) for i, item in enumerate(items) for name, text in item.fields.items()]
    texts = [text for _, _, text in owners]
    grams, held_by = gram_table(texts, n, code)
    owner = np.array([item for item, _, _ in owners], dtype=np.int64)
    many = np.fromiter(map(len, held_by), dtype=np.int64, count=len(held_by))
    held = np.fromiter(chain.from_iterable(held_by), dtype=np.int64, count=int(many.sum()))
    pairs = np.unique(np.repeat(np.arange(len(many)), many) * max(1, len(items)) + owner[held])
    holding, holders = pairs // max(1, len(items)), pairs % max(1, len(items))
    whole = _whole(items, substring)
    patterns = [text for _, _, text in whole]
    programs = [(i, text) for i, item in enumerate(items) for text in item.programs.values()] if shapes else []
    return Index(
        list(items),
        grams,
        holders,
        np.searchsorted(holding, np.arange(len(many) + 1)).astype(np.int64),
        np.bincount(holders, minlength=len(items)).astype(np.int64),
        verbatim_table(patterns) if substring == "bigcode" else pattern_table(patterns) if substring else None,
        np.array([item for item, _, _ in whole], dtype=np.int64),
        [name for _, name, _ in whole],
        patterns,
        np.array([len(text) for text in patterns], dtype=np.int64),
        shape_table([text for _, text in programs], shapes.ngram, shapes.least) if shapes else None,
        np.array([item for item, _ in programs], dtype=np.int64),
    )


def _whole(items: Sequence[Item], substring: Substring) -> list[tuple[int, str, str]]:
    """The texts to find whole: (item, field, text)."""
    if not substring:
        return []
    texts = [_verbatim(item) if substring == "bigcode" else item.fields | item.alternatives for item in items]
    return [(i, name, text) for i, of_item in enumerate(texts) for name, text in of_item.items()]


def _verbatim(item: Item) -> dict[str, str]:
    """What bigcode-dataset searches for: of columns that it does not know, their texts without the whitespace around
    them."""
    return {name: text.strip() for name, text in item.fields.items()} if item.verbatim is None else item.verbatim


def gram_table(texts: Sequence[str], n: int, code: bool) -> tuple[GramTable, list[list[int]]]:
    """The distinct n-grams of texts, and for each the texts that contain it, ascending.

    N-grams with equal hashes but different units are kept apart.
    """
    parts = [text.encode() for text in texts]
    data = np.frombuffer(b"".join(parts), dtype=np.uint8)
    offsets = np.cumsum([0, *map(len, parts)], dtype=np.int64)
    hashes, owner, points, point_offsets = every_ngram(data, offsets, n, code)
    known: dict[tuple[int, bytes], list[int]] = {}
    edges = point_offsets.tolist()
    for g, (value, text) in enumerate(zip(hashes.tolist(), owner.tolist(), strict=True)):
        held = known.setdefault((value, points[edges[g] : edges[g + 1]].tobytes()), [])
        if not held or held[-1] != text:
            held.append(text)
    ordered = sorted(known)
    table_hashes = np.array([value for value, _ in ordered], dtype=np.uint64)
    directory, shift = directory_of(table_hashes)
    table = GramTable(
        n,
        code,
        table_hashes,
        directory,
        shift,
        np.frombuffer(bytearray(b"".join(form for _, form in ordered)), dtype=np.int32),  # writable, like the others
        np.cumsum([0, *(len(form) // 4 for _, form in ordered)], dtype=np.int64),
    )
    return table, [known[key] for key in ordered]
