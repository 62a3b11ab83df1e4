"""Tokenizers put together as published ones are: one vocabulary behind other normalisers, added tokens and splits."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from headrace.tokens.o200k import O200K_PATTERN, TEKKEN_PATTERN
from headrace.tokens.split_patterns import QWEN2_PATTERN

NFC = {"type": "NFC"}
PLAIN = {"single_word": False, "lstrip": False, "rstrip": False, "normalized": False, "special": False}


def level(use_regex: bool) -> dict[str, Any]:
    return {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, "use_regex": use_regex}


def splitting(*first: dict[str, Any], use_regex: bool) -> dict[str, Any]:
    return {"type": "Sequence", "pretokenizers": [*first, level(use_regex)]}


def with_pattern(definition: dict[str, Any], pattern: str, **model: Any) -> dict[str, Any]:
    """Behind a split pattern; ``model`` changes the model."""
    split = {"type": "Split", "pattern": {"Regex": pattern}, "behavior": "Isolated", "invert": False}
    pre = splitting(split, use_regex=False)
    return {**definition, "pre_tokenizer": pre, "model": {**definition["model"], **model}}


def with_added(definition: dict[str, Any], *contents: str, **flags: bool) -> dict[str, Any]:
    """With more added tokens, numbered on from the last."""
    vocab, added = definition["model"]["vocab"], list(definition["added_tokens"])
    following = max([len(vocab), *(token["id"] + 1 for token in added)])
    for content in contents:
        index = vocab.get(content, following)
        following = max(following, index + 1)
        added.append({**PLAIN, "id": index, "content": content, **flags})
    return {**definition, "added_tokens": added}


def neox(definition: dict[str, Any]) -> dict[str, Any]:
    """GPT-NeoX, Pythia, OLMo: NFC, and runs of spaces as tokens."""
    runs = [" " * count for count in range(24, 1, -1)]
    return with_added({**definition, "normalizer": NFC, "pre_tokenizer": level(True)}, *runs, normalized=True)


def qwen(definition: dict[str, Any]) -> dict[str, Any]:
    """Qwen 2 to 3: NFC, and markers that are not special; special ones that overlap them, and some cut after NFC."""
    made = with_added({**with_pattern(definition, QWEN2_PATTERN), "normalizer": NFC}, "<tool_call>", "</tool_call>")
    made = with_added(made, "<tool", "|>x", "a", "\u0301'", "\xe9s", "\u6f22>")
    made = with_added(made, "'S", "\u1e9b\u0323", "\u1100", "<<", normalized=True)
    return with_added(made, "<|x|>", "<<|", special=True)


def starcoder(definition: dict[str, Any]) -> dict[str, Any]:
    """StarCoder, SmolLM: numbers one by one, then GPT-2's pattern."""
    digits = {"type": "Digits", "individual_digits": True}
    return {**definition, "pre_tokenizer": splitting(digits, use_regex=True)}


def gpt_oss(definition: dict[str, Any]) -> dict[str, Any]:
    """GPT-4o, gpt-oss, Llama 4: o200k_base."""
    return with_pattern(definition, O200K_PATTERN, ignore_merges=True)


def tekken(definition: dict[str, Any]) -> dict[str, Any]:
    """Mistral NeMo and after: Tekken."""
    return with_pattern(definition, TEKKEN_PATTERN, ignore_merges=True)


PIPELINES: dict[str, Callable[[dict[str, Any]], dict[str, Any]]] = {
    "neox": neox,
    "qwen": qwen,
    "starcoder": starcoder,
    "gpt-oss": gpt_oss,
    "tekken": tekken,
}
