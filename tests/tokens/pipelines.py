"""Tokenizers put together as published ones are: one vocabulary behind other normalisers, added tokens and splits."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from bench.published_patterns import (
    BLOOM_PATTERN,
    DEEPSEEK_CODER_PATTERNS,
    DEEPSEEK_V3_PATTERNS,
    KIMI_PATTERN,
    O200K_PATTERN,
    QWEN2_PATTERN,
    TEKKEN_PATTERN,
)
from bench.vocabularies import gpt_neox, starcoder, with_added, with_pattern, with_splits


def qwen(definition: dict[str, Any]) -> dict[str, Any]:
    """Qwen 2 to 3: NFC, and markers that are not special; special ones that overlap them, and some cut after NFC."""
    changed = {**with_pattern(definition, QWEN2_PATTERN), "normalizer": {"type": "NFC"}}
    made = with_added(changed, "<tool_call>", "</tool_call>")
    made = with_added(made, "<tool", "|>x", "a", "\u0301'", "\xe9s", "\u6f22>")
    made = with_added(made, "'S", "\u1e9b\u0323", "\u1100", "<<", normalized=True)
    return with_added(made, "<|x|>", "<<|", special=True)


def gpt_oss(definition: dict[str, Any]) -> dict[str, Any]:
    """GPT-4o, gpt-oss, Llama 4: o200k_base."""
    return with_pattern(definition, O200K_PATTERN)


def tekken(definition: dict[str, Any]) -> dict[str, Any]:
    """Mistral NeMo and after: Tekken."""
    return with_pattern(definition, TEKKEN_PATTERN)


def deepseek_v3(definition: dict[str, Any]) -> dict[str, Any]:
    """DeepSeek-V3 and R1: numbers, Chinese and Japanese, then the rest, and markers that are not special."""
    return with_added(with_splits(definition, *DEEPSEEK_V3_PATTERNS), "<\uff5cUser\uff5c>", "\n7")


def deepseek_coder(definition: dict[str, Any]) -> dict[str, Any]:
    """DeepSeek-Coder: five splits, one within the other, which leave text between them."""
    made = with_splits(definition, *DEEPSEEK_CODER_PATTERNS)
    splits = made["pre_tokenizer"]["pretokenizers"]
    splits.insert(-1, {"type": "Digits", "individual_digits": True})
    return made


def bloom(definition: dict[str, Any]) -> dict[str, Any]:
    """BLOOM: a pattern that leaves white space and some marks between its matches."""
    return with_splits(definition, BLOOM_PATTERN)


def kimi(definition: dict[str, Any]) -> dict[str, Any]:
    """Kimi K2: GPT-4o's pattern with Chinese for itself, by intersections of classes."""
    return with_pattern(definition, KIMI_PATTERN)


def gemma(sentencepiece: dict[str, Any]) -> dict[str, Any]:
    """Gemma: SentencePiece's BPE without a space before texts, and many added tokens that are not special."""
    model = sentencepiece["model"]
    replace = {"type": "Replace", "pattern": {"String": " "}, "content": "\u2581"}
    split = {"type": "Split", "pattern": {"String": " "}, "behavior": "MergedWithPrevious", "invert": False}
    changed = {**sentencepiece, "normalizer": replace, "pre_tokenizer": split, "decoder": None, "model": model}
    made = with_added(changed, "\n\n", "\n\n\n", "\u2581\u2581", "<table>", "e\u0301", "a b")
    return with_added(with_added(made, "<|x|>", "<<|", "\n", special=True), "'s", "\xe9", normalized=True)


PIPELINES: dict[str, Callable[[dict[str, Any]], dict[str, Any]]] = {
    "neox": gpt_neox,
    "qwen": qwen,
    "starcoder": starcoder,
    "gpt-oss": gpt_oss,
    "tekken": tekken,
    "deepseek-v3": deepseek_v3,
    "deepseek-coder": deepseek_coder,
    "bloom": bloom,
    "kimi": kimi,
}
