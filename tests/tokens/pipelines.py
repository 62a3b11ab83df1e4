"""Tokenizers put together as published ones are: one vocabulary behind other normalisers, added tokens and splits."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from headrace.tokens.o200k import O200K_PATTERN, TEKKEN_PATTERN
from headrace.tokens.split_patterns import QWEN2_PATTERN

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from bench.vocabularies import gpt_neox, starcoder, with_added, with_pattern


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


PIPELINES: dict[str, Callable[[dict[str, Any]], dict[str, Any]]] = {
    "neox": gpt_neox,
    "qwen": qwen,
    "starcoder": starcoder,
    "gpt-oss": gpt_oss,
    "tekken": tekken,
}
