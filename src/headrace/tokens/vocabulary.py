"""The bytes that each token id stands for, and decoding by table."""

from __future__ import annotations

from typing import Any

from headrace.errors import UserError
from headrace.tokens.meta_space import META_SPACE


def byte_alphabet() -> dict[str, int]:
    """The printable character for each byte in byte-level vocabularies (Radford et al. 2019, GPT-2)."""
    printable = [*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    rest = [byte for byte in range(256) if byte not in set(printable)]
    return {chr(byte): byte for byte in printable} | {chr(256 + i): byte for i, byte in enumerate(rest)}


def byte_pieces() -> list[str]:
    """The tokens for single bytes in SentencePiece vocabularies."""
    return [f"<0x{byte:02X}>" for byte in range(256)]


_BYTES = {ord(char): byte for char, byte in byte_alphabet().items()}
_SPELLERS = frozenset(map(chr, _BYTES))


def spelled_bytes(piece: str) -> bytes | None:
    """The bytes that a piece of a byte-level vocabulary stands for; None if it is not in the byte alphabet."""
    return piece.translate(_BYTES).encode("latin-1") if _SPELLERS.issuperset(piece) else None


def parts(definition: dict[str, Any], section: str) -> list[dict[str, Any]]:
    """A section of a tokenizer definition as a flat list: null is empty, sequences are expanded."""
    value = definition.get(section)
    if value is None:
        return []
    if value["type"] != "Sequence":
        return [value]
    names = ("normalizers", "pretokenizers", "decoders", "processors")
    inner: list[Any] = next((value[name] for name in names if name in value), [])
    return [part for item in inner for part in parts({section: item}, section)]


def added_tokens(definition: dict[str, Any]) -> list[dict[str, Any]]:
    """The added tokens in a definition."""
    return definition.get("added_tokens") or []


def is_byte_level(definition: dict[str, Any]) -> bool:
    """Whether the model's tokens are written in the byte alphabet."""
    both = [*parts(definition, "normalizer"), *parts(definition, "pre_tokenizer")]
    return any(part["type"] == "ByteLevel" for part in both)


def is_meta_space(definition: dict[str, Any]) -> bool:
    """Whether the model's tokens use U+2581 for a space."""
    replaces = [p for p in parts(definition, "normalizer") if p["type"] == "Replace"]
    splits = [p for p in parts(definition, "pre_tokenizer") if p["type"] == "Metaspace"]
    return any(p.get("replacement") == META_SPACE for p in splits) or any(
        p["content"] == META_SPACE and p["pattern"] == {"String": " "} for p in replaces
    )


def vocabulary(definition: dict[str, Any]) -> dict[str, int]:
    """The model's pieces and their ids, excluding added tokens."""
    vocab = definition["model"]["vocab"]
    return vocab if isinstance(vocab, dict) else {piece: index for index, (piece, _) in enumerate(vocab)}


def vocabulary_size(definition: dict[str, Any]) -> int:
    """One more than the largest id."""
    return 1 + max([*vocabulary(definition).values(), *(token["id"] for token in added_tokens(definition))])


def token_bytes(definition: dict[str, Any]) -> list[bytes]:
    """The bytes of every id; empty for ids without a token (gaps).

    Args:
        definition: a Hugging Face tokenizers JSON, parsed.

    Raises:
        UserError: the tokenizer does not preserve bytes (WordPiece and the like), so text cannot be recovered.
    """
    byte_level, meta_space = is_byte_level(definition), is_meta_space(definition)
    if definition["model"].get("type") not in ("BPE", "Unigram") or not (byte_level or meta_space):
        raise UserError(
            f"This {definition['model'].get('type', 'unknown')} tokenizer does not preserve every byte of the text.",
            "tokenizer.file",
            "Use a byte-level BPE tokenizer, or a SentencePiece model with byte fallback.",
        )
    vocab = vocabulary(definition)
    added = {token["id"]: token["content"].encode() for token in definition.get("added_tokens") or []}
    table = [b""] * vocabulary_size(definition)
    single = {piece: bytes([byte]) for byte, piece in enumerate(byte_pieces())}
    for piece, index in vocab.items():
        spelled = spelled_bytes(piece) if byte_level else None
        if spelled is not None:
            table[index] = spelled
        elif piece in single and not byte_level:
            table[index] = single[piece]
        else:
            table[index] = (piece if byte_level else piece.replace(META_SPACE, " ")).encode()
    for index, content in added.items():
        # Gemma also lists runs of U+2581, which stand for spaces in its vocabulary, as added tokens.
        table[index] = content if byte_level else content.replace(META_SPACE.encode(), b" ")
    return table
