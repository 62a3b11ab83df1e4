"""The space that some tokenizers put before a text: which rule does it, and for which texts."""

from __future__ import annotations

from typing import Any, Literal

import numpy as np
import orjson

from headrace.tokens.engine import Texts
from headrace.tokens.meta_space import META_SPACE
from headrace.tokens.vocabulary import parts

Dummy = Literal["none", "always", "unless there is one"]


def dummy_rule(definition: dict[str, Any]) -> Dummy:
    """When a tokenizer puts a space before a text, of those that do nothing else to it.

    The rule is spelled in three ways: a ``Prepend`` normaliser, which does it always, as SentencePiece does; and
    ``Metaspace`` with a prepend scheme and ``add_prefix_space`` of the byte level, which leave it out before a text
    that begins with a space.
    """
    if any(part["type"] == "Prepend" for part in parts(definition, "normalizer")):
        return "always"
    return "unless there is one" if any(map(prefixes, parts(definition, "pre_tokenizer"))) else "none"


def prefixes(split: dict[str, Any]) -> bool:
    """Whether a pre-tokenizer puts a space before what it is given."""
    if split["type"] == "Metaspace":
        return bool(split.get("prepend_scheme", "always") != "never")
    return bool(split["type"] == "ByteLevel" and split.get("add_prefix_space", True))


def without_dummy(definition: dict[str, Any]) -> dict[str, Any]:
    """The definition with its rule of a dummy space taken out; the engine puts it before first pieces itself."""
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


def leading(batch: Texts, first: bool | np.ndarray, rule: Dummy, meta_space: bool) -> np.ndarray:
    """bool[n]: which texts get the space.

    Args:
        batch: the texts.
        first: for all, or bool[n] for each: whether it begins a document. An empty one gets none.
        rule: when a tokenizer puts it.
        meta_space: whether U+2581 is a space to it.
    """
    starts, sizes = batch.offsets[:-1], np.diff(batch.offsets)
    leads = np.broadcast_to(np.asarray(first, dtype=bool), batch.count) & (sizes > 0) & (rule != "none")
    if rule == "unless there is one":
        places = np.flatnonzero(leads)
        begins = batch.data[starts[places]]
        leads[places[begins == ord(" ")]] = False
        for i in places[begins == META_SPACE.encode()[0]] if meta_space else ():
            leads[i] = not batch.bytes_of(int(i)).startswith(META_SPACE.encode())
    return leads
