"""Where a long text may be cut so that its parts, encoded apart, give the ids of the whole."""

from __future__ import annotations

from typing import Any, Literal

import numpy as np

from headrace.tokens.vocabulary import parts

# The split patterns for which a cut between a letter and " <letter>" is known to be exact: in each of them a run of
# letters ends before a space, and the token that begins at the space is the same whether or not text stands before it.
GPT2_PATTERN = r"'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+"
LLAMA3_PATTERN = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+"
    r"|\s+(?!\S)|\s+"
)

Rule = Literal["word", "line"]


def chunk_rule(definition: dict[str, Any]) -> Rule | None:
    """How this tokenizer's texts may be cut.

    ``word``: between an ASCII letter and a space that an ASCII letter follows (byte-level BPE with a known pattern).
    ``line``: after a line feed, where no token but the line feed itself holds one, so that no merge crosses it.
    None: nowhere that is known to be exact.
    """
    normal = [token for token in definition.get("added_tokens") or [] if not token.get("special")]
    if normal or definition["model"].get("type") != "BPE" or definition["model"].get("dropout"):
        return None
    kinds = [(part["type"], part) for part in parts(definition, "pre_tokenizer")]
    normalizers = {part["type"] for part in parts(definition, "normalizer")}
    if [kind for kind, _ in kinds] in (["ByteLevel"], ["Split", "ByteLevel"]) and normalizers <= {"NFC"}:
        if len(kinds) == 1:
            return "word" if kinds[0][1].get("use_regex", True) else None
        split = kinds[0][1]
        known = split["pattern"].get("Regex") in (GPT2_PATTERN, LLAMA3_PATTERN) and split["behavior"] == "Isolated"
        return "word" if known and not split.get("invert") and not kinds[1][1].get("use_regex", True) else None
    vocab = definition["model"]["vocab"]
    alone = "<0x0A>" in vocab and bool(definition["model"].get("byte_fallback"))
    if not kinds and normalizers <= {"Prepend", "Replace"} and alone and not any("\n" in piece for piece in vocab):
        return "line"
    return None


def cut_points(data: np.ndarray, rule: Rule, size: int) -> list[int]:
    """Where to cut one text into chunks of about ``size`` bytes.

    Args:
        data: uint8[n], UTF-8.
        rule: from :func:`chunk_rule`.
        size: bytes; a chunk is longer where no cut is allowed sooner.

    Returns:
        Ascending positions strictly inside the text.
    """
    cuts: list[int] = []
    at = size
    while at < len(data) - 1:
        # Looking window by window keeps the search linear and small however far the next allowed cut is.
        window = data[at - 1 : at + size + 1]
        if rule == "line":
            allowed = window[:-1] == 0x0A
        else:
            letter = ((window | 0x20) >= 0x61) & ((window | 0x20) <= 0x7A)
            allowed = letter[:-2] & (window[1:-1] == 0x20) & letter[2:]
        found = np.flatnonzero(allowed)
        if len(found):
            cuts.append(at + int(found[0]))
            at = cuts[-1] + size
        else:
            at += size
    return cuts
