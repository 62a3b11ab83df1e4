"""The space that some tokenizers insert before a text: which rule does it, and for which texts."""

from __future__ import annotations

from typing import Any, Literal

import numpy as np
import orjson

from headrace.tokens.engine import Texts
from headrace.tokens.meta_space import META_SPACE
from headrace.tokens.vocabulary import parts

DummyPrefix = Literal["none", "always", "unless there is one"]


def dummy_prefix_rule(definition: dict[str, Any]) -> DummyPrefix:
    """When a tokenizer inserts a space before a text; supports only tokenizers that change nothing else.

    There are three forms of the rule: a ``Prepend`` normalizer, which always inserts it, as SentencePiece does; and
    ``Metaspace`` with a prepend scheme and byte-level ``add_prefix_space``, which omit it before a text that starts
    with a space.
    """
    if any(part["type"] == "Prepend" for part in parts(definition, "normalizer")):
        return "always"
    return "unless there is one" if any(map(inserts_space, parts(definition, "pre_tokenizer"))) else "none"


def inserts_space(split: dict[str, Any]) -> bool:
    """Whether a pre-tokenizer inserts a space before its input."""
    if split["type"] == "Metaspace":
        return bool(split.get("prepend_scheme", "always") != "never")
    return bool(split["type"] == "ByteLevel" and split.get("add_prefix_space", True))


def without_dummy_prefix(definition: dict[str, Any]) -> dict[str, Any]:
    """The definition without its dummy space rule; the engine inserts the space before first pieces itself."""
    value = orjson.loads(orjson.dumps({key: definition.get(key) for key in ("normalizer", "pre_tokenizer")}))
    for part in parts(value, "pre_tokenizer"):
        if part["type"] == "Metaspace":
            part.pop("add_prefix_space", None)
            part["prepend_scheme"] = "never"
        elif part["type"] == "ByteLevel":
            part["add_prefix_space"] = False
    kept = [part for part in parts(value, "normalizer") if part["type"] != "Prepend"]
    value["normalizer"] = {"type": "Sequence", "normalizers": kept} if kept else None
    return {**definition, **value}


def leading(batch: Texts, first: bool | np.ndarray, rule: DummyPrefix, meta_space: bool) -> np.ndarray:
    """bool[n]: which texts get the space.

    Args:
        batch: the texts.
        first: whether texts begin a document, one value or bool[n]. An empty text gets no space.
        rule: when the tokenizer inserts it.
        meta_space: whether the tokenizer treats U+2581 as a space.
    """
    starts, sizes = batch.offsets[:-1], np.diff(batch.offsets)
    prefixed = np.broadcast_to(np.asarray(first, dtype=bool), batch.count) & (sizes > 0) & (rule != "none")
    if rule == "unless there is one":
        places = np.flatnonzero(prefixed)
        begins = batch.data[starts[places]]
        prefixed[places[begins == ord(" ")]] = False
        for i in places[begins == META_SPACE.encode()[0]] if meta_space else ():
            prefixed[i] = not batch.bytes_of(int(i)).startswith(META_SPACE.encode())
    return prefixed
