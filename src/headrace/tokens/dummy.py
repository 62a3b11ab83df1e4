"""The space that some tokenizers put before a text: which rule does it, and for which texts."""

from __future__ import annotations

from typing import Any, Literal

import numpy as np
import orjson

from headrace.errors import UserError
from headrace.tokens.engine import Texts
from headrace.tokens.meta_space import META_SPACE
from headrace.tokens.vocabulary import added_tokens, is_byte_level, parts

Dummy = Literal["none", "always", "unless there is one"]


def dummy_rule(definition: dict[str, Any]) -> Dummy:
    """When a tokenizer puts a space before a text.

    The rule is spelled in three ways: a ``Prepend`` normaliser, which does it always, as SentencePiece does; and
    ``Metaspace`` with a prepend scheme and ``add_prefix_space`` of the byte level, which leave it out before a text
    that begins with a space.

    Raises:
        UserError: it would put a space, or something else, into the text in other places too.
    """
    normalizers, splits = parts(definition, "normalizer"), parts(definition, "pre_tokenizer")
    prepends = [part["prepend"] for part in normalizers if part["type"] == "Prepend"]
    prefixing = [i for i, part in enumerate(splits) if _prefixes(part)]
    if not prepends and not prefixing:
        return "none"
    if [i for i in prefixing if i > 0] or len(prepends) > 1:
        raise _refused("It puts a space before every piece that it splits a text into, not only before the text")
    loose = [token["content"] for token in added_tokens(definition) if not token["special"]]
    if loose and not all(token.get("user_defined") for token in added_tokens(definition) if not token["special"]):
        raise _refused(
            f"It puts a space before texts, and after each of its added tokens too, such as {loose[0]!r}",
            "Name these under `special.add`: they are then special, and not looked for in text.",
        )
    if prepends and prepends[0] != (" " if is_byte_level(definition) else META_SPACE):
        raise _refused(f"It puts {prepends[0]!r} before every text")
    return "always" if prepends else "unless there is one"


def _prefixes(part: dict[str, Any]) -> bool:
    if part["type"] == "Metaspace":
        return bool(part.get("prepend_scheme", "always") != "never")
    return bool(part["type"] == "ByteLevel" and part.get("add_prefix_space", True))


def _refused(what: str, mend: str = "Use a tokenizer that does so before whole texts only.") -> UserError:
    return UserError(f"The tokenizer cannot be used: {what[0].lower()}{what[1:]}.", "tokenizer.file", mend)


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
