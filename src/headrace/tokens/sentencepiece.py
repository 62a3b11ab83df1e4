"""SentencePiece ``.model`` files, read without the library: a small reader of the protobuf wire format.

The format is ``sentencepiece_model.proto`` of Kudo and Richardson 2018 (1808.06226). Only BPE models with byte
fallback and the identity normaliser are taken (the LLaMA family): for these, merging by the rank of the resulting
piece gives the ids that SentencePiece gives.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from typing import Any

from headrace.errors import UserError
from headrace.tokens.meta_space import META_SPACE

_PIECES, _TRAINER, _NORMALIZER = 1, 2, 3  # fields of ModelProto
_NORMAL, _UNKNOWN, _CONTROL, _USER_DEFINED, _BYTE = 1, 2, 3, 4, 6  # SentencePiece.Type
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
    """Turn a SentencePiece model into a tokenizers definition that gives the same ids.

    Args:
        data: the file's bytes.
        where: the file's name, for messages.

    Returns:
        The definition, and the control pieces that the model names: role -> spelling.

    Raises:
        UserError: the file is damaged, or a kind of model that this does not read.
    """
    try:
        pieces, trainer, normalizer = _read(data)
    except (ValueError, IndexError, KeyError, struct.error, TypeError, AttributeError) as error:
        raise UserError(f"This is not a SentencePiece model: {error}.", where, "Give another tokenizer.file.") from None
    bytes_known = sum(kind == _BYTE for _, _, kind in pieces) == 256
    # NormalizerSpec: 1 name, 2 precompiled map, 3 add_dummy_prefix, 4 remove_extra_whitespaces (default true).
    if trainer.get(3, 1) != _BPE or not bytes_known or normalizer.get(2) or normalizer.get(4, 1):
        raise UserError(
            "Only SentencePiece BPE models with byte fallback and without normalisation are read.",
            where,
            "Convert it to a tokenizer.json first.",
        )
    vocab = {piece: index for index, (piece, _, _) in enumerate(pieces)}
    dummy = [{"type": "Prepend", "prepend": META_SPACE}] if normalizer.get(3, 1) else []
    replace = {"type": "Replace", "pattern": {"String": " "}, "content": META_SPACE}
    unknown = next((piece for piece, _, kind in pieces if kind == _UNKNOWN), None)
    added = [
        {"id": index, "content": piece, "single_word": False, "lstrip": False, "rstrip": False, "normalized": False,
         "special": kind != _USER_DEFINED}
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


def _merges(pieces: list[tuple[str, float, int]], vocab: dict[str, int]) -> list[list[str]]:
    """Every way to make a normal piece of two normal pieces, best score first.

    SentencePiece merges the adjacent pair whose result scores best. As ranked merges that is: by falling score of the
    result; pairs of one result by the ids of their parts, as in the converted LLaMA tokenizers that are in use.
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
