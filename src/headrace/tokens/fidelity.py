"""Check that a tokenizer's tokens reproduce every text; what it loses is rejected, or must be named in the recipe."""

from __future__ import annotations

from collections.abc import Collection, Iterator
from contextlib import contextmanager
from typing import Any

import orjson
from tokenizers import Tokenizer

from headrace.errors import UserError
from headrace.tokens.automaton import matches_all
from headrace.tokens.dummy_prefix import inserts_space
from headrace.tokens.meta_space import META_SPACE
from headrace.tokens.regex import NotReadError, parse
from headrace.tokens.vocabulary import (
    added_tokens,
    byte_alphabet,
    byte_pieces,
    is_byte_level,
    is_meta_space,
    parts,
    vocabulary,
)

_NORMALIZERS = {
    "Lowercase": "lowercases letters",
    "Strip": "strips whitespace from the ends of texts",
    "StripAccents": "strips accents",
    "NFD": "decomposes characters",
    "NFKC": "merges compatible characters",
    "NFKD": "merges compatible characters and decomposes them",
    "Nmt": "removes control characters and turns line endings into spaces",
    "Precompiled": "replaces characters using a SentencePiece model's table",
    "BertNormalizer": "cleans text as BERT does",
    "Replace": "replaces parts of the text",
    "ByteLevel": "byte-encodes text twice",
}
_SPLITS = {
    "Whitespace": "drops whitespace",
    "WhitespaceSplit": "drops whitespace",
    "BertPreTokenizer": "drops whitespace",
    "CharDelimiterSplit": "drops the character it splits on",
    "Split": "drops what it splits on",
    "Punctuation": "drops punctuation",
}


def losses(definition: dict[str, Any]) -> dict[str, str]:
    """What a definition loses of a text, so that its tokens do not reproduce it: the part's name -> what it does.

    Not included: NFC, which documents use by default and which preserves meaning; U+2581, which is a space for
    SentencePiece models; and one space at the very start of a text (:mod:`headrace.tokens.dummy_prefix`).
    """
    byte_level = is_byte_level(definition)
    normalizers, splits = parts(definition, "normalizer"), parts(definition, "pre_tokenizer")
    out: dict[str, str] = {}
    spelled = any(part["type"] == "ByteLevel" for part in splits)
    for part in normalizers:
        kind = part["type"]
        spaces = kind == "Replace" and part["pattern"] == {"String": " "} and part["content"] == META_SPACE
        once = kind == "ByteLevel" and not spelled
        if kind not in ("NFC", "Prepend") and not once and not (spaces and not byte_level):
            out[kind] = _NORMALIZERS.get(kind, "is of an unknown kind")
    prepended = [part["prepend"] for part in normalizers if part["type"] == "Prepend"]
    if prepended not in ([], [" " if byte_level else META_SPACE]):
        out["Prepend"] = f"puts {''.join(reversed(prepended))!r} before every text"
    for i, part in enumerate(splits):
        if _drops(part):
            out[part["type"]] = _SPLITS[part["type"]]
        elif i > 0 and inserts_space(part):
            out[part["type"]] = "puts a space before every piece of a split text"
    loose = [token for token in added_tokens(definition) if not token.get("special")]
    if (prepended or any(map(inserts_space, splits))) and any(not token.get("user_defined") for token in loose):
        out["added_tokens"] = (
            f"also get a space after each of them, such as {loose[0]['content']!r} (named under `special.add`, "
            "they become special and are not matched in text)"
        )
    for flag in ("lstrip", "rstrip"):
        for token in loose:
            if token.get(flag):
                out[flag] = f"drops whitespace next to added tokens, such as {token['content']!r}"
    return out


def _drops(split: dict[str, Any]) -> bool:
    """Whether a pre-tokenizer drops part of the text."""
    kind = split["type"]
    if kind in ("Split", "Punctuation"):
        if split.get("behavior") != "Removed":
            return False
        pattern = split.get("pattern", {}).get("Regex")
        if not split.get("invert") or pattern is None:
            return True
        try:
            return not matches_all(parse(pattern))
        except NotReadError:
            return True
    return kind in _SPLITS


def require_asked(definition: dict[str, Any], asked: Collection[str]) -> None:
    """Reject a tokenizer that loses text, unless the recipe names what it loses.

    Args:
        definition: a tokenizers JSON, parsed.
        asked: the recipe's ``tokenizer.loses``.

    Raises:
        UserError: a loss is not named, or a named one does not occur.
    """
    found = losses(definition)
    missing = [name for name in found if name not in asked]
    if missing:
        does = "; ".join(f"{name} {found[name]}" for name in missing)
        raise UserError(
            f"The tokenizer's tokens do not reproduce every text: {does}.",
            "tokenizer.file",
            f"Use another one, or accept this with `tokenizer: {{loses: [{', '.join(found)}]}}`.",
        )
    idle = [name for name in asked if name not in found]
    if idle:
        raise UserError(
            f"The tokenizer has no {idle[0]} that loses text.",
            "tokenizer.loses",
            f"Write [{', '.join(found)}]." if found else "Remove the key.",
        )


def require_usable(definition: dict[str, Any]) -> None:
    """Reject unusable definitions: models whose tokens are not text, randomness, and characters without tokens.

    Raises:
        UserError: the definition is unusable; the message says why.
    """
    model, vocab = definition["model"], vocabulary(definition)
    kind = model.get("type")
    if kind not in ("BPE", "Unigram"):
        raise _refused(f"a {kind} model drops or replaces text that it has no piece for")
    if model.get("dropout"):
        raise _refused(
            f"dropout of {model['dropout']:g} gives different tokens on every run", "Set `dropout` to null in the file."
        )
    for key in ("continuing_subword_prefix", "end_of_word_suffix"):
        if model.get(key):
            raise _refused(f"its tokens use {key} {model[key]!r}, which decoding does not undo")
    byte_level, meta_space = is_byte_level(definition), is_meta_space(definition)
    written = [part["replacement"] for part in parts(definition, "pre_tokenizer") if part["type"] == "Metaspace"]
    if set(written) - {META_SPACE}:
        raise _refused(f"it writes {written[0]!r} for spaces and cannot tell the two apart")
    if byte_level and meta_space:
        raise _refused("it writes U+2581 for spaces and spells text in bytes")
    if not byte_level and not meta_space:
        raise _refused("it preserves neither bytes nor spaces: its tokens cannot reproduce the text")
    if len(set(vocab.values())) < len(vocab):
        raise _refused("two of its tokens have the same id")
    if byte_level:
        missing = [byte for char, byte in byte_alphabet().items() if char not in vocab]
        if missing:
            raise _refused(f"it has no token for {len(missing)} of the 256 bytes, such as 0x{missing[0]:02X}")
        return
    missing = [byte for byte, piece in enumerate(byte_pieces()) if piece not in vocab]
    if not model.get("byte_fallback") or missing:
        what = "has no byte fallback" if not model.get("byte_fallback") else f"has no {byte_pieces()[missing[0]]}"
        raise _refused(f"characters without a token are lost, because it {what}")
    if META_SPACE not in vocab:
        raise _refused("it has no token for a space, U+2581")


FIX = "Use a byte-level BPE tokenizer, or SentencePiece's BPE with byte fallback."


def _refused(what: str, fix: str = FIX) -> UserError:
    return UserError(f"The tokenizer cannot be used: {what}.", "tokenizer.file", fix)


def require_valid(definition: dict[str, Any]) -> None:
    """Load the definition with the tokenizers library, and compare the ids it assigns to all tokens.

    Raises:
        UserError: the library rejects it, or numbers its tokens differently from the file.
    """
    plain = {**definition, "truncation": None, "padding": None, "post_processor": None, "decoder": None}
    given = read_by_library(plain).get_vocab(with_added_tokens=True)
    for piece, index in [
        *vocabulary(definition).items(),
        *((token["content"], token["id"]) for token in added_tokens(definition)),
    ]:
        if given.get(piece) != index:
            raise _refused(
                f"{piece!r} has the id {index} in it, and {given.get(piece)} when the tokenizers library reads it",
                "Number the added tokens consecutively after the vocabulary's last id.",
            )


@contextmanager
def library_errors() -> Iterator[None]:
    """Turn what the library raises into a :class:`UserError`: bare exceptions, and panics, which are not even those."""
    try:
        yield
    except BaseException as error:
        if not isinstance(error, Exception) and type(error).__name__ != "PanicException":
            raise
        raise _refused(
            f"the tokenizers library says: {error}", "Use a tokenizer.json that the library can read and use."
        ) from None


def read_by_library(definition: dict[str, Any]) -> Tokenizer:
    """The library's tokenizer for a definition.

    Raises:
        UserError: the library rejects it.
    """
    with library_errors():
        return Tokenizer.from_str(orjson.dumps(definition).decode())


def canonical(definition: dict[str, Any]) -> dict[str, Any]:
    """The definition with its normalizer and pre-tokenizer as the library writes them, with defaults filled in.

    Raises:
        UserError: the library rejects them.
    """
    sections = {key: definition.get(key) for key in ("normalizer", "pre_tokenizer")}
    model: dict[str, Any] = {"type": "BPE", "vocab": {}, "merges": []}
    others: dict[str, Any] = {"added_tokens": [], "post_processor": None, "decoder": None}
    written = orjson.loads(read_by_library({"version": "1.0", **others, **sections, "model": model}).to_str())
    return {**definition, **{key: written[key] for key in sections}}
