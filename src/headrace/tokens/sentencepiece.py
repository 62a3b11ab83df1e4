"""Read SentencePiece ``.model`` files without the library, using a small parser for the protobuf wire format.

The format is ``sentencepiece_model.proto`` of Kudo and Richardson 2018 (1808.06226). Only BPE models with byte fallback
and the identity normalizer are supported (LLaMA, Gemma): for these, merging by the rank of the resulting piece gives
SentencePiece's ids, once user-defined pieces have been cut out of the text.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from itertools import pairwise
from typing import Any

from headrace.errors import UserError
from headrace.tokens.meta_space import META_SPACE

_PIECES, _TRAINER, _NORMALIZER = 1, 2, 3  # fields of ModelProto
_NORMAL, _UNKNOWN, _CONTROL, _USER_DEFINED, _UNUSED, _BYTE = range(1, 7)  # SentencePiece.Type
_BPE = 2  # TrainerSpec.ModelType


def _varint(data: bytes, at: int) -> tuple[int, int]:
    value = shift = 0
    while True:
        byte = data[at]
        value |= (byte & 0x7F) << shift
        at, shift = at + 1, shift + 7
        if byte < 0x80:
            return value, at


def _fields(data: bytes) -> Iterator[tuple[int, Any]]:
    """Field numbers and values of one message: int for varints, bytes for everything else."""
    at = 0
    while at < len(data):
        tag, at = _varint(data, at)
        wire = tag & 7
        if wire == 0:
            value, at = _varint(data, at)
            yield tag >> 3, value
            continue
        if wire == 2:
            size, at = _varint(data, at)
        elif wire in (1, 5):
            size = 8 if wire == 1 else 4
        else:
            raise ValueError(f"wire type {wire}")
        if at + size > len(data):
            raise ValueError("a field goes beyond the end")
        yield tag >> 3, data[at : at + size]
        at += size


def _read(data: bytes) -> tuple[list[tuple[str, float, int]], dict[int, Any], dict[int, Any]]:
    pieces: list[tuple[str, float, int]] = []
    trainer: dict[int, Any] = {}
    normalizer: dict[int, Any] = {}
    for number, value in _fields(data):
        if number == _PIECES:
            piece = dict(_fields(value))
            score = struct.unpack("<f", piece[2])[0] if 2 in piece else 0.0
            pieces.append((piece[1].decode("utf-8"), score, piece.get(3, _NORMAL)))
        elif number == _TRAINER:
            trainer = dict(_fields(value))
        elif number == _NORMALIZER:
            normalizer = dict(_fields(value))
    return pieces, trainer, normalizer


def definition_of_model(data: bytes, where: str) -> tuple[dict[str, Any], dict[str, str]]:
    """Convert a SentencePiece model into a tokenizers definition that produces the same ids.

    Args:
        data: the file's bytes.
        where: the file's name, for messages.

    Returns:
        The definition, and the control pieces that the model declares: role -> spelling.

    Raises:
        UserError: the file is damaged, or an unsupported kind of model.
    """
    try:
        pieces, trainer, normalizer = _read(data)
    except (ValueError, IndexError, KeyError, struct.error, TypeError, AttributeError) as error:
        raise UserError(f"This is not a SentencePiece model: {error}.", where, "Use another tokenizer.file.") from None
    reason = _not_read(pieces, trainer, normalizer)
    if reason:
        raise UserError(
            f"This SentencePiece model cannot be used: {reason}.",
            where,
            "Supported: models like LLaMA's and Gemma's, that is, BPE with byte fallback that does not change text.",
        )
    vocab = {piece: index for index, (piece, _, _) in enumerate(pieces)}
    dummy = [{"type": "Prepend", "prepend": META_SPACE}] if normalizer.get(3, 1) else []
    replace = {"type": "Replace", "pattern": {"String": " "}, "content": META_SPACE}
    unknown = next((piece for piece, _, kind in pieces if kind == _UNKNOWN), None)
    added = [
        {"id": index, "content": piece, "single_word": False, "lstrip": False, "rstrip": False,
         **({"normalized": True, "special": False, "user_defined": True} if kind == _USER_DEFINED
            else {"normalized": False, "special": True})}
        for index, (piece, _, kind) in enumerate(pieces) if kind in (_UNKNOWN, _CONTROL, _USER_DEFINED)
    ]  # fmt: skip
    model = {
        "type": "BPE", "dropout": None, "unk_token": unknown, "continuing_subword_prefix": None,
        "end_of_word_suffix": None, "fuse_unk": True, "byte_fallback": True, "ignore_merges": False,
        "vocab": vocab, "merges": _merges(pieces, vocab),
    }  # fmt: skip
    decoders = [
        {"type": "Replace", "pattern": {"String": META_SPACE}, "content": " "},
        {"type": "ByteFallback"},
        {"type": "Fuse"},
        *([{"type": "Strip", "content": " ", "start": 1, "stop": 0}] if dummy else []),
    ]
    definition = {
        "version": "1.0", "truncation": None, "padding": None, "added_tokens": added,
        "normalizer": {"type": "Sequence", "normalizers": [*dummy, replace]}, "pre_tokenizer": None,
        "post_processor": None, "decoder": {"type": "Sequence", "decoders": decoders}, "model": model,
    }  # fmt: skip
    control = {piece for piece, _, kind in pieces if kind == _CONTROL}
    # TrainerSpec: 46 bos_piece, 47 eos_piece, 48 pad_piece.
    named = {"bos": trainer.get(46, b"<s>"), "eod": trainer.get(47, b"</s>"), "pad": trainer.get(48, b"<pad>")}
    roles = {role: piece.decode("utf-8", "replace") for role, piece in named.items()}
    return definition, {role: piece for role, piece in roles.items() if piece in control}


def _not_read(pieces: list[tuple[str, float, int]], trainer: dict[int, Any], normalizer: dict[int, Any]) -> str | None:
    """Why a model is not supported, or None.

    Fields of TrainerSpec: 3 model_type, 24 treat_whitespace_as_suffix, 35 byte_fallback. Of NormalizerSpec: 1 name, 2
    precompiled_charsmap, 4 remove_extra_whitespaces, 5 escape_whitespaces.
    """
    kinds = {1: "unigram", 2: "BPE", 3: "word", 4: "char"}
    if trainer.get(3, 1) != _BPE:
        return f"its type is {kinds.get(trainer.get(3, 1), 'unknown')}"
    if not trainer.get(35) or sum(kind == _BYTE for _, _, kind in pieces) != 256:
        return "it has no byte fallback, so characters without a piece are lost"
    if normalizer.get(2):
        name = normalizer.get(1, b"")
        return f"it normalizes text ({name.decode('utf-8', 'replace') if isinstance(name, bytes) else 'by a table'})"
    if normalizer.get(4, 1):
        return "it removes spaces (remove_extra_whitespaces)"
    if not normalizer.get(5, 1):
        return "it does not write U+2581 for spaces (escape_whitespaces)"
    if trainer.get(24):
        return "it puts spaces at the ends of words (treat_whitespace_as_suffix)"
    names = [piece for piece, _, _ in pieces]
    if len(set(names)) < len(names) or "" in names:
        return "two of its pieces are the same, or one is empty"
    if any(kind == _UNUSED for _, _, kind in pieces):
        return "it has pieces of type UNUSED"
    if any(kind == _USER_DEFINED and " " in piece for piece, _, kind in pieces):
        # SentencePiece looks for such a piece before it writes U+2581 for spaces, and cannot find it afterwards.
        return "a user-defined piece contains a space instead of U+2581"
    if META_SPACE not in {piece for piece, _, kind in pieces if kind in (_NORMAL, _USER_DEFINED)}:
        return "it has no piece for a space, U+2581"
    tied = _tied(pieces)
    if tied:
        return f"{tied[0]!r} and {tied[1]!r} have the same score, so their order decides which is merged first"
    return None


def _tied(pieces: list[tuple[str, float, int]]) -> list[str]:
    """Two pieces with equal scores for which SentencePiece and ranked merges disagree; empty if there are none.

    SentencePiece merges the leftmost of them first. For runs of one character, of every length from 2 on and in no
    other piece (LLaMA's runs of spaces), both methods end with the longest run as often as it fits, and the rest.
    """
    groups: dict[float, list[str]] = {}
    words = [(piece, score) for piece, score, kind in pieces if kind == _NORMAL and len(piece) > 1]
    for piece, score in words:
        groups.setdefault(score, []).append(piece)
    for score, group in groups.items():
        if len(group) == 1 and score == score:
            continue
        longest = max(map(len, group))
        runs = set(group) == {group[0][0] * size for size in range(2, longest + 1)}
        alone = not any(group[0][0] * 2 in word for word, other in words if other != score)
        if not (runs and alone and _ends_in_runs([len(piece) for piece in group])):
            return [group[0], group[-1]]
    return []


def _ends_in_runs(lengths: list[int]) -> bool:
    """Whether merging runs, in order of their results, ends with the longest as often as it fits, and the rest."""
    longest = max(lengths)
    for size in range(2, 4 * longest):
        symbols = [1] * size
        while True:
            sums = [a + b for a, b in pairwise(symbols)]
            found = [length for length in lengths if length in sums]
            if not found:
                break
            at = sums.index(found[0])
            symbols[at : at + 2] = [found[0]]
        if symbols != [longest] * (size // longest) + [size % longest] * bool(size % longest):
            return False
    return True


def _merges(pieces: list[tuple[str, float, int]], vocab: dict[str, int]) -> list[list[str]]:
    """All ways to form a normal piece from two normal pieces, best score first.

    SentencePiece merges the adjacent pair whose result has the best score. As ranked merges, that is: by decreasing
    score of the result; pairs with the same result by the ids of their parts, as in existing conversions of LLaMA's
    tokenizer.
    """
    normal = {piece for piece, _, kind in pieces if kind == _NORMAL}
    found: list[tuple[float, str, str]] = []
    for piece, score, kind in pieces:
        if kind == _NORMAL:
            pairs = [(piece[:cut], piece[cut:]) for cut in range(1, len(piece))]
            pairs = [pair for pair in pairs if pair[0] in normal and pair[1] in normal]
            pairs.sort(key=lambda pair: (vocab[pair[0]], vocab[pair[1]]))
            found += [(score, left, right) for left, right in pairs]
    found.sort(key=lambda merge: -merge[0])  # stable: keeps the order within a result
    return [[left, right] for _, left, right in found]
