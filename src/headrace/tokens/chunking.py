"""Where a long text can be cut so that its parts, encoded separately, give the ids of the whole.

Two kinds of tokenizer are supported. Without a split pattern (SentencePiece), merges cannot cross two bytes that are
adjacent in no token, so a text may be cut between any such two. With GPT-2's or Llama 3's pattern, in ASCII text:

- between a letter or digit and a space followed by a letter or digit: no match of either pattern continues from one to
  the other, and what starts at the space matches the same with or without the text before it;
- between a letter and a digit, for the same reason;
- within a run of at least two more other characters, if the two at the cut are adjacent in no token.

A text with none of these (a megabyte of one letter) is encoded as a whole.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from headrace.tokens.split_patterns import GPT2_PATTERN, LLAMA3_PATTERN
from headrace.tokens.vocabulary import parts, token_bytes

_LETTER, _DIGIT, _OTHER, _NEITHER = 0, 1, 2, 3


def _classes() -> np.ndarray:
    """uint8[256]: the class of each ASCII byte in the patterns; whitespace, "'" and everything beyond ASCII are in
    neither."""
    out = np.full(256, _NEITHER, dtype=np.uint8)
    for byte in range(128):
        char = chr(byte)
        if char.isalpha():
            out[byte] = _LETTER
        elif char.isdigit():
            out[byte] = _DIGIT
        elif not char.isspace() and char != "'":
            out[byte] = _OTHER
    return out


_CLASS = _classes()


@dataclass(frozen=True, eq=False)
class Chunker:
    """Where one tokenizer's texts can be cut.

    Attributes:
        adjacent: bool[256, 256]: whether some token contains these two adjacent bytes.
        pattern: whether there is a split pattern before the merges.
    """

    adjacent: np.ndarray
    pattern: bool

    def allowed(self, data: np.ndarray) -> np.ndarray:
        """Whether a text may be cut before each byte.

        Args:
            data: uint8[n], a slice of a text.

        Returns:
            bool[n - 2], for bytes 1 to n - 2.
        """
        before, at, after = data[:-2], data[1:-1], data[2:]
        never_joined = ~self.adjacent[before, at]
        if not self.pattern:
            return never_joined & ((at & 0xC0) != 0x80)
        x, y, z = _CLASS[before], _CLASS[at], _CLASS[after]
        words = (x <= _DIGIT) & (at == 0x20) & (z <= _DIGIT)
        numbers = (x == _LETTER) & (y == _DIGIT)
        return words | numbers | (never_joined & (x == _OTHER) & (y == _OTHER) & (z == _OTHER))

    def cuts(self, data: np.ndarray, size: int) -> list[int]:
        """Where to cut one text into chunks of about ``size`` bytes.

        Args:
            data: uint8[n], UTF-8.
            size: bytes; a chunk is longer if no cut is possible sooner.

        Returns:
            Ascending positions strictly within the text.
        """
        found: list[int] = []
        at = size
        while at < len(data) - 1:
            # Window by window, so that the search stays linear and small however far away the next possible cut is.
            allowed = np.flatnonzero(self.allowed(data[at - 1 : at + size + 1]))
            if len(allowed):
                found.append(at + int(allowed[0]))
                at = found[-1]
            at += size
        return found


def chunker(definition: dict[str, Any]) -> Chunker | None:
    """The chunker for a tokenizer, or None for kinds for which no exact cut is known."""
    model = definition["model"]
    odd = [key for key in ("dropout", "continuing_subword_prefix", "end_of_word_suffix") if model.get(key)]
    normal = [token for token in definition.get("added_tokens") or [] if not token.get("special")]
    if normal or odd or model.get("type") != "BPE":
        return None
    splits, normalizers = parts(definition, "pre_tokenizer"), parts(definition, "normalizer")
    if splits:
        known = _is_known(splits) and {part["type"] for part in normalizers} <= {"NFC"}
    else:
        spaces = [part["type"] == "Prepend" or part.get("pattern") == {"String": " "} for part in normalizers]
        known = (
            all(spaces)
            and bool(model.get("byte_fallback"))
            and all(f"<0x{b:02X}>" in model["vocab"] for b in range(256))
        )
    return Chunker(_adjacent(token_bytes(definition), bool(splits)), bool(splits)) if known else None


def _is_known(splits: list[dict[str, Any]]) -> bool:
    kinds = [part["type"] for part in splits]
    if kinds == ["ByteLevel"]:
        return bool(splits[0].get("use_regex", True))
    if kinds != ["Split", "ByteLevel"] or splits[1].get("use_regex", True) or splits[0].get("invert"):
        return False
    return splits[0]["pattern"].get("Regex") in (GPT2_PATTERN, LLAMA3_PATTERN) and splits[0]["behavior"] == "Isolated"


def _adjacent(table: list[bytes], pattern: bool) -> np.ndarray:
    flat = np.frombuffer(b"".join(table), dtype=np.uint8)
    inside = np.ones(len(flat), dtype=bool)
    inside[np.cumsum([len(token) for token in table if token]) - 1] = False
    out = np.zeros((256, 256), dtype=bool)
    out[flat[:-1][inside[:-1]], flat[1:][inside[:-1]]] = True
    if not pattern:
        # U+2581 (E2 96 81) in a text becomes the tokens' space, so its own bytes say nothing.
        out[0x81, :] = True
        out[:, 0xE2] = True
    return out
