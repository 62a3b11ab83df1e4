"""What a tokenizer does to a text before splitting it: added tokens and NFC normalization, as operations on pieces."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

from tokenizers.normalizers import NFC

from headrace.tokens.added_tokens import NOT_CUT, cut, spellings_of
from headrace.tokens.covered import NotCoveredError
from headrace.tokens.meta_space import META_SPACE
from headrace.tokens.nfc import normalised
from headrace.tokens.pieces import Pieces
from headrace.tokens.vocabulary import added_tokens, is_byte_level, is_meta_space, parts

Change = Callable[[Pieces], Pieces]


class Changes(NamedTuple):
    """What is done to a text before it is split, in order.

    Attributes:
        first: changes to the original text.
        spaced: changes after U+2581 has become a space and the dummy space has been inserted.
    """

    first: list[Change]
    spaced: list[Change]


def changes_before_split(definition: dict[str, Any]) -> Changes:
    """The changes: cut at added tokens, normalize, cut at added tokens that are ``normalized``.

    Args:
        definition: a parsed tokenizers JSON with ``fast_tables``.

    Raises:
        NotCoveredError: it makes an unsupported change.
    """
    added = added_tokens(definition)
    kinds = [part["type"] for part in parts(definition, "normalizer")]
    byte_level = is_byte_level(definition)
    if not byte_level:
        kinds = []  # its rules for spaces are part of the tables
    elif set(kinds) - {"NFC"}:
        raise NotCoveredError(f"it changes text before splitting it, with {' and '.join(kinds)}")
    if any(not token.get("special") for token in added):
        _require_plain(definition, added, bool(kinds))
    first = _cuts([token for token in added if not token.get("normalized")])
    normal = [token for token in added if token.get("normalized")]
    if byte_level:
        return Changes([*first, *([normalised] if kinds else []), *_cuts(normal)], [])
    return Changes(first, _cuts([{**token, "content": _spaced(token["content"])} for token in normal]))


def _spaced(content: str) -> str:
    return content.replace(META_SPACE, " ")


def _require_plain(definition: dict[str, Any], added: list[dict[str, Any]], nfc: bool) -> None:
    """Raise unless added tokens match wherever they are spelled, keep all bytes, and have the ids they state."""
    flags = ("lstrip", "rstrip", "single_word")
    if any(token.get(flag) for token in added if not token.get("special") for flag in flags):
        raise NotCoveredError("it has added tokens that are not special and depend on the text around them")
    told = {(token["content"], token["id"], token.get("normalized"), token.get("special")) for token in added}
    spaces = is_meta_space(definition)
    contents = {_spaced(token["content"]) if spaces else token["content"] for token in added}
    if len(contents) < len(told) or "" in contents:
        raise NotCoveredError("two of its added tokens are equal, or one is empty")
    normal = [token["content"] for token in added if token.get("normalized")]
    if nfc and any(NFC().normalize_str(content) != content for content in normal):
        raise NotCoveredError("it has added tokens that are not in its own normal form")
    vocab = definition["model"]["vocab"]
    following = len(vocab)
    for token in added:
        # The library assigns ids itself: as in the vocabulary, or after the largest.
        if token["id"] != vocab.get(token["content"], following):
            raise NotCoveredError("it has added tokens whose ids differ from those the library assigns")
        following = max(following, token["id"] + 1)


def _cuts(tokens: list[dict[str, Any]]) -> list[Change]:
    """The cut at some added tokens; none if all of them are special, since those stay text."""
    if all(token.get("special") for token in tokens):
        return []
    values = {token["content"].encode(): NOT_CUT if token.get("special") else token["id"] for token in tokens}
    return [partial(cut, spellings=spellings_of(values))]
