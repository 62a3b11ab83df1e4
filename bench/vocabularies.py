"""The tokenizers of the benchmarks: the fixtures beside the checkout, or one trained on the corpus without them."""

from __future__ import annotations

from typing import Any

import orjson

from bench.corpus import SHARED
from bench.harness import Setting, sample
from headrace.recipe.stages import SpecialTokens, TokenizerTrain
from headrace.tokens.definition import read_definition
from headrace.tokens.load import special_ids
from headrace.tokens.split_patterns import LLAMA3_PATTERN
from headrace.tokens.training import train

FIXTURES = SHARED / "fixtures" / "tokenizers"
SENTENCEPIECE = SpecialTokens(eod="</s>", bos="<s>")
TRAINED_SIZE, TRAINED_MB = 8192, 4.0


def byte_level(setting: Setting, texts: list[str]) -> dict[str, Any]:
    """GPT-2's tokenizer; without the fixture, one of 8,192 tokens with GPT-2's pattern, trained on the corpus."""
    if (FIXTURES / "gpt2-vocab.json").is_file():
        return read_definition(FIXTURES / "gpt2-vocab.json")
    path = setting.work / "trained.json"
    if not path.exists():
        learnt = train(sample(texts, TRAINED_MB), TokenizerTrain(vocab_size=TRAINED_SIZE), [], 1)
        level = {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, "use_regex": True}
        path.write_bytes(orjson.dumps({**learnt, "pre_tokenizer": level}))
    return read_definition(path)


def with_llama3_pattern(definition: dict[str, Any]) -> dict[str, Any]:
    """The same vocabulary behind Llama 3's split pattern, and whole words looked up first, as in Llama 3's own."""
    split = {"type": "Split", "pattern": {"Regex": LLAMA3_PATTERN}, "behavior": "Isolated", "invert": False}
    level = {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, "use_regex": False}
    first = {"type": "Sequence", "pretokenizers": [split, level]}
    return {**definition, "pre_tokenizer": first, "model": {**definition["model"], "ignore_merges": True}}


def sentencepiece() -> dict[str, dict[str, Any]]:
    """Name -> definition of the SentencePiece-style fixtures; empty without them."""
    files = {"CrystalCoder": "crystalcoder.json", "LLaMA": "llama.model"}
    return {name: read_definition(FIXTURES / file) for name, file in files.items() if (FIXTURES / file).is_file()}


def special_of(definition: dict[str, Any]) -> dict[str, int]:
    """The special tokens of a definition by role."""
    byte = definition["model"].get("byte_fallback")
    return special_ids(definition, SENTENCEPIECE if byte else SpecialTokens())
