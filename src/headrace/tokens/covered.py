"""Which tokenizers the fast engine supports, and their definitions as the tables it uses."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np

from headrace.tokens.merge_table import MOST_RANKS, MergeTable, merge_table
from headrace.tokens.meta_space import META_SPACE
from headrace.tokens.regex import NotReadError
from headrace.tokens.splitting import split_scanner
from headrace.tokens.vocabulary import byte_alphabet, byte_pieces, parts, spelled_bytes
from headrace.tokens.whole_words import WholeWords, whole_words
from headrace.tokens.word_cache import TOKEN_BITS
from headrace.tokens.words import Scanner, cuts_scanner


class NotCoveredError(Exception):
    """The fast engine does not support what a tokenizer needs; the message says what."""


class Tables(NamedTuple):
    """A tokenizer as arrays; see the types of the fields."""

    scanner: Scanner
    merges: MergeTable
    whole: WholeWords


def fast_tables(definition: dict[str, Any], lengths: np.ndarray) -> Tables:
    """Build the tables of a tokenizer.

    Args:
        definition: a tokenizers JSON, parsed.
        lengths: int64[vocab_size]: each token's length in bytes.

    Raises:
        NotCoveredError: the fast engine does not support it.
    """
    model = definition["model"]
    if model.get("type") != "BPE":
        raise NotCoveredError(f"its model is {model.get('type')}, not BPE")
    for key in ("dropout", "continuing_subword_prefix", "end_of_word_suffix"):
        if model.get(key):
            raise NotCoveredError(f"its model has {key}")
    if len(set(model["vocab"].values())) < len(model["vocab"]):
        raise NotCoveredError("two of its tokens have the same id")
    if len(lengths) > 1 << TOKEN_BITS or len(model["merges"]) >= MOST_RANKS:
        raise NotCoveredError(f"it has more than {1 << TOKEN_BITS} tokens or {MOST_RANKS} merges")
    if parts(definition, "pre_tokenizer") and parts(definition, "pre_tokenizer")[-1]["type"] == "ByteLevel":
        return _byte_level(definition, lengths)
    return _meta_space(definition, lengths)


def _byte_level(definition: dict[str, Any], lengths: np.ndarray) -> Tables:
    model = definition["model"]
    scanner = _scanner(parts(definition, "pre_tokenizer"))
    vocab, alphabet = model["vocab"], byte_alphabet()
    if any(char not in vocab for char in alphabet):
        raise NotCoveredError("some bytes have no token")
    byte_ids = np.empty(256, dtype=np.int32)
    for char, byte in alphabet.items():
        byte_ids[byte] = vocab[char]
    left, right, result = _merges(model)
    table = merge_table(left, right, result, byte_ids, np.empty(0, np.int32), lengths)
    words: dict[bytes, int] = {}
    if model.get("ignore_merges"):
        spelled = ((spelled_bytes(piece), index) for piece, index in vocab.items())
        words = {piece: index for piece, index in spelled if piece}
    return Tables(scanner, table, whole_words(words, table))


def _scanner(splits: list[dict[str, Any]]) -> Scanner:
    """How a byte-level tokenizer splits texts into words."""
    try:
        return split_scanner(splits)
    except NotReadError as reason:
        raise NotCoveredError(f"its rules for splitting text have {reason}") from None


def _merges(model: dict[str, Any]) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Left, right and resulting ids of the merges, int64[n] each."""
    vocab = model["vocab"]
    pairs = [merge.split(" ") if isinstance(merge, str) else merge for merge in model["merges"]]
    try:
        left, right = [left for left, _ in pairs], [right for _, right in pairs]
        made = map(str.__add__, left, right)
        # One side after the other, with maps: takes a third of the time of a loop over 50,000 merges.
        sides = [np.fromiter(map(vocab.__getitem__, side), np.int64, len(pairs)) for side in (left, right, made)]
    except (KeyError, ValueError):
        raise NotCoveredError("some merges refer to missing tokens") from None
    return sides[0], sides[1], sides[2]


def _meta_space(definition: dict[str, Any], lengths: np.ndarray) -> Tables:
    """SentencePiece: the whole text is one word; it is cut where no token spans the cut."""
    model = definition["model"]
    vocab: dict[str, int] = model["vocab"]
    _require_plain_spaces(definition)
    pieces = byte_pieces()
    if not model.get("byte_fallback") or any(piece not in vocab for piece in pieces):
        raise NotCoveredError("it has no byte fallback tokens")
    if META_SPACE not in vocab:
        raise NotCoveredError("it has no token for a space")
    if model.get("ignore_merges"):
        raise NotCoveredError("its model has ignore_merges")
    byte_ids = np.array([vocab[piece] for piece in pieces], dtype=np.int32)
    left, right, result = _merges(model)
    if np.isin(byte_ids, np.concatenate([left, right, result])).any():
        raise NotCoveredError("it merges tokens of single bytes")
    char_ids = np.full(0x110000, -1, dtype=np.int32)
    for piece, index in vocab.items():
        if len(piece) == 1 and piece != " ":
            char_ids[ord(piece)] = index
    # The engine works on text with spaces for U+2581, as in the bytes that tokens decode to.
    char_ids[ord(" ")], char_ids[ord(META_SPACE)] = char_ids[ord(META_SPACE)], -1
    names = {index: piece for piece, index in vocab.items()}
    flat = b"".join(names[index].replace(META_SPACE, " ").encode() + b"\xff" for index in set(result.tolist()))
    table = merge_table(left, right, result, byte_ids, char_ids, lengths)
    scanner = cuts_scanner(_joined(np.frombuffer(flat, dtype=np.uint8)))
    return Tables(scanner, table, whole_words({}, table))


def _require_plain_spaces(definition: dict[str, Any]) -> None:
    """Raise unless the only changes to a text are U+2581 for spaces, and one before the text."""
    normalizers, splits = parts(definition, "normalizer"), parts(definition, "pre_tokenizer")
    if len(splits) == 1 and splits[0]["type"] == "Split" and splits[0]["pattern"] == {"String": " "} and normalizers:
        splits = []  # Gemma's, which never matches because U+2581 replaces all spaces
    kinds = [part["type"] for part in normalizers if part["type"] != "Prepend"]
    prepended = [part["prepend"] for part in normalizers if part["type"] == "Prepend"]
    if not splits and kinds == ["Replace"] and prepended in ([], [META_SPACE]):
        replace = next(part for part in normalizers if part["type"] == "Replace")
        if replace["pattern"] == {"String": " "} and replace["content"] == META_SPACE:
            return
    metaspace = {"type": "Metaspace", "replacement": META_SPACE, "split": False}
    if not normalizers and len(splits) == 1 and metaspace.items() <= splits[0].items():
        return
    raise NotCoveredError("it treats spaces differently from SentencePiece's BPE models")


def _joined(flat: np.ndarray) -> np.ndarray:
    """uint8[65536], 0 or 1: which two bytes are adjacent in a token (each ends with 0xFF) or a character."""
    out = np.zeros((256, 256), dtype=np.uint8)
    out[flat[:-1], flat[1:]] = 1
    out[:, 0x80:0xC0] = 1
    return out.reshape(-1)
