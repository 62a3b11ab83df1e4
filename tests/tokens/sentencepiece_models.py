"""SentencePiece models put together piece by piece: what the trainer makes, and what it never would."""

from __future__ import annotations

import random
import struct
from collections.abc import Iterable

NORMAL, UNKNOWN, CONTROL, USER_DEFINED, UNUSED, BYTE = 1, 2, 3, 4, 5, 6

Piece = tuple[str, float, int]


def _varint(value: int) -> bytes:
    out = b""
    while value >= 0x80:
        out, value = out + bytes([value & 0x7F | 0x80]), value >> 7
    return out + bytes([value])


def _field(number: int, value: int | float | bytes) -> bytes:
    if isinstance(value, float):
        return _varint(number << 3 | 5) + struct.pack("<f", value)
    if isinstance(value, int):
        return _varint(number << 3) + _varint(value)
    return _varint(number << 3 | 2) + _varint(len(value)) + value


def message(fields: dict[int, int | float | bytes]) -> bytes:
    """A protobuf message of single fields."""
    return b"".join(_field(number, value) for number, value in fields.items())


def model(
    pieces: Iterable[Piece],
    trainer: dict[int, int | float | bytes] | None = None,
    normalizer: dict[int, int | float | bytes] | None = None,
) -> bytes:
    """A model's bytes: BPE with byte fallback and the identity normaliser unless the fields say otherwise."""
    body = b"".join(_field(1, message({1: piece.encode(), 2: float(score), 3: kind})) for piece, score, kind in pieces)
    body += _field(2, message({3: 2, 35: 1, **(trainer or {})}))
    return body + _field(3, message({1: b"identity", 3: 0, 4: 0, **(normalizer or {})}))


def base() -> list[Piece]:
    """What every model with byte fallback begins with."""
    control: list[Piece] = [("<unk>", 0.0, UNKNOWN), ("<s>", 0.0, CONTROL), ("</s>", 0.0, CONTROL)]
    return [*control, *((f"<0x{byte:02X}>", 0.0, BYTE) for byte in range(256))]


def random_pieces(rng: random.Random, user_defined: int = 0, alphabet: str = "ab\u2581\n\u00e9") -> list[Piece]:
    """Pieces in an order that no training gives, in whose scores nothing ties, after those of every model."""
    words = {"\u2581": None, **dict.fromkeys(rng.sample(alphabet, rng.randrange(1, len(alphabet) + 1)))}
    for _ in range(rng.randrange(30)):
        words.setdefault(rng.choice([*words]) + rng.choice([*words]))
    words = [word for word in words if len(word) <= 12]
    special = {"".join(rng.choices(alphabet, k=rng.randrange(1, 5))) for _ in range(user_defined)}
    scores = [-float(i) for i in range(len(words))]
    rng.shuffle(scores)
    normal = [(word, score, NORMAL) for word, score in zip(words, scores, strict=True) if word not in special]
    return [*base(), *((word, 0.0, USER_DEFINED) for word in sorted(special)), *normal]
