"""The tokenizers of the benchmarks: the fixtures beside the checkout, or one trained on the corpus without them."""

from __future__ import annotations

from typing import Any, NamedTuple

import orjson

from bench.corpus import SHARED
from bench.harness import Setting, sample
from bench.published_patterns import CL100K_PATTERN, DEEPSEEK_V3_PATTERNS, O200K_PATTERN
from headrace.recipe.stages import SpecialTokens, TokenizerTrain
from headrace.tokens.definition import read_definition
from headrace.tokens.special import own_ids
from headrace.tokens.split_patterns import GPT2_PATTERN, LLAMA3_PATTERN
from headrace.tokens.training import train
from headrace.tokens.vocabulary import token_bytes

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


def _level(use_regex: bool) -> dict[str, Any]:
    return {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, "use_regex": use_regex}


def with_splits(definition: dict[str, Any], *patterns: str) -> dict[str, Any]:
    """The same vocabulary behind split patterns, each within the pieces of the one before."""
    splits = [
        {"type": "Split", "pattern": {"Regex": pattern}, "behavior": "Isolated", "invert": False}
        for pattern in patterns
    ]
    return {**definition, "pre_tokenizer": {"type": "Sequence", "pretokenizers": [*splits, _level(False)]}}


def with_pattern(definition: dict[str, Any], pattern: str) -> dict[str, Any]:
    """The same vocabulary behind a split pattern, and whole words looked up first, as in Llama 3's own."""
    return {**with_splits(definition, pattern), "model": {**definition["model"], "ignore_merges": True}}


def with_added(definition: dict[str, Any], *contents: str, **flags: bool) -> dict[str, Any]:
    """With added tokens, numbered on from the last, plain ones but for the flags."""
    vocab, added = definition["model"]["vocab"], list(definition["added_tokens"])
    plain = dict.fromkeys(("single_word", "lstrip", "rstrip", "normalized", "special"), False)
    following = max([len(vocab), *(token["id"] + 1 for token in added)])
    for content in contents:
        index = vocab.get(content, following)
        following = max(following, index + 1)
        added.append({**plain, "id": index, "content": content, **flags})
    return {**definition, "added_tokens": added}


def gpt_neox(definition: dict[str, Any]) -> dict[str, Any]:
    """The same vocabulary with the parts of GPT-NeoX, Pythia and OLMo: NFC, and runs of spaces as added tokens."""
    runs = [" " * count for count in range(24, 1, -1)]
    changed = {**definition, "normalizer": {"type": "NFC"}, "pre_tokenizer": _level(True)}
    return with_added(changed, *runs, normalized=True)


def starcoder(definition: dict[str, Any]) -> dict[str, Any]:
    """The same vocabulary with the parts of StarCoder and SmolLM: numbers one by one, then GPT-2's pattern."""
    digits = {"type": "Digits", "individual_digits": True}
    return {**definition, "pre_tokenizer": {"type": "Sequence", "pretokenizers": [digits, _level(True)]}}


class Pipeline(NamedTuple):
    """A byte-level tokenizer, and its pattern where tiktoken can have it."""

    definition: dict[str, Any]
    pattern: str | None


def byte_level_pipelines(definition: dict[str, Any]) -> dict[str, Pipeline]:
    """Name -> a vocabulary behind the parts of tokenizers that are in use."""
    return {
        "GPT-2": Pipeline(definition, GPT2_PATTERN),
        "Llama 3 pattern": Pipeline(with_pattern(definition, LLAMA3_PATTERN), LLAMA3_PATTERN),
        "cl100k pattern": Pipeline(with_pattern(definition, CL100K_PATTERN), CL100K_PATTERN),
        "o200k pattern": Pipeline(with_pattern(definition, O200K_PATTERN), O200K_PATTERN),
        "GPT-NeoX": Pipeline(gpt_neox(definition), None),
        "StarCoder": Pipeline(starcoder(definition), None),
        "DeepSeek-V3": Pipeline(with_splits(definition, *DEEPSEEK_V3_PATTERNS), None),
    }


def ranks(definition: dict[str, Any]) -> dict[bytes, int]:
    """Token -> id of a byte-level vocabulary whose ids rise with the ranks of the merges, without special tokens."""
    special = {token["id"] for token in definition["added_tokens"]}
    found = {piece: i for i, piece in enumerate(token_bytes(definition)) if piece and i not in special}
    # Merges known through ranks alone would make <|endoftext|> of GPT-2's vocabulary a word of the text.
    found.pop(b"<|endoftext|>", None)
    return found


def sentencepiece() -> dict[str, dict[str, Any]]:
    """Name -> definition of the SentencePiece-style fixtures; empty without them."""
    files = {"CrystalCoder": "crystalcoder.json", "LLaMA": "llama.model"}
    return {name: read_definition(FIXTURES / file) for name, file in files.items() if (FIXTURES / file).is_file()}


def special_of(definition: dict[str, Any]) -> dict[str, int]:
    """The special tokens of a definition by role."""
    byte = definition["model"].get("byte_fallback")
    return own_ids(definition, SENTENCEPIECE if byte else SpecialTokens())
