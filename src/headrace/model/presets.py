"""Named architectures, and how a recipe's `model:` section is resolved against them."""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from headrace.errors import UserError
from headrace.model.config import AnyConfig, ForeignConfig, Initialisation, ModelConfig, Mup
from headrace.recipe.model import ModelSection, Preset, RotaryScaling

CRYSTALCODER_7B = ModelConfig(
    # LLM360/crystalcoder-train, pretrain/params: muP with base width 256.
    vocab_size=32032,
    layers=32,
    width=4096,
    heads=32,
    ffn=10922,
    norm="layernorm",
    norm_eps=1e-5,
    activation="swiglu",
    attention_bias=True,
    ffn_bias=True,
    tied=True,
    rotary_dim=32,
    rotary_pairs="interleaved",
    init=Initialisation(embedding_std=0.073, hidden_std=0.01825, output_std=0.00228125),
    mup=Mup(embedding_multiplier=14.6, logit_multiplier=0.13875, attention="d", hidden_learning_rate=0.0625),
)

SNOWCODER_1B3 = ModelConfig(
    # Arctic-SnowCoder, arXiv 2409.02326, section 3: a Llama-2 style decoder.
    vocab_size=64000,
    layers=24,
    width=2048,
    heads=16,
    ffn=5632,
    init=Initialisation(distribution="normal"),
)

NORMAL = Initialisation(distribution="normal")

LLAMA_7B = ModelConfig(
    # Touvron et al., 2023 (Llama 2).
    vocab_size=32000, layers=32, width=4096, heads=32, ffn=11008, tied=False, init=NORMAL,
)  # fmt: skip

LLAMA_3_8B = ModelConfig(
    # meta-llama/Meta-Llama-3-8B.
    vocab_size=128256, layers=32, width=4096, heads=32, kv_heads=8, ffn=14336, tied=False, rotary_base=500_000,
    init=NORMAL,
)  # fmt: skip

LLAMA_3_2_1B = ModelConfig(
    # meta-llama/Llama-3.2-1B.
    vocab_size=128256, layers=16, width=2048, heads=32, kv_heads=8, ffn=8192, rotary_base=500_000,
    rotary_scaling=RotaryScaling(kind="llama3", factor=32), init=NORMAL,
)  # fmt: skip

QWEN2_05B = ModelConfig(
    # Qwen/Qwen2-0.5B.
    vocab_size=151936, layers=24, width=896, heads=14, kv_heads=2, ffn=4864, norm_eps=1e-6, attention_bias="qkv",
    rotary_base=1_000_000, init=NORMAL,
)  # fmt: skip

QWEN2_7B = ModelConfig(
    # Qwen/Qwen2-7B.
    vocab_size=152064, layers=28, width=3584, heads=28, kv_heads=4, ffn=18944, norm_eps=1e-6, attention_bias="qkv",
    tied=False, rotary_base=1_000_000, init=NORMAL,
)  # fmt: skip

QWEN3_06B = ModelConfig(
    # Qwen/Qwen3-0.6B.
    vocab_size=151936, layers=28, width=1024, heads=16, kv_heads=8, head_dim=128, ffn=3072, norm_eps=1e-6, qk_norm=True,
    rotary_base=1_000_000, init=NORMAL,
)  # fmt: skip

QWEN3_8B = ModelConfig(
    # Qwen/Qwen3-8B.
    vocab_size=151936, layers=36, width=4096, heads=32, kv_heads=8, ffn=12288, norm_eps=1e-6, qk_norm=True, tied=False,
    rotary_base=1_000_000, init=NORMAL,
)  # fmt: skip

GPT2 = ModelConfig(
    # openai-community/gpt2.
    vocab_size=50257, layers=12, width=768, heads=12, ffn=3072, norm="layernorm", activation="gelu_tanh",
    attention_bias=True, ffn_bias=True, learned_positions=1024, rotary_dim=0, init=NORMAL,
)  # fmt: skip


def _neox(vocab_size: int, layers: int, width: int, heads: int) -> ModelConfig:
    """GPT-NeoX (Black et al., 2022), initialized as there: `small_init` and `wang_init`."""
    small = math.sqrt(2 / (5 * width))
    return ModelConfig(
        vocab_size=vocab_size, layers=layers, width=width, heads=heads, ffn=4 * width, norm="layernorm",
        activation="gelu", attention_bias=True, ffn_bias=True, tied=False, parallel_residual=True,
        rotary_dim=width // heads // 4,
        init=Initialisation(
            distribution="normal", embedding_std=small, hidden_std=small, output_std=2 / (layers * math.sqrt(width))
        ),
    )  # fmt: skip


DEMO = ModelConfig(
    # CrystalCoder at its muP base width, 256, with its embedding multiplier and standard deviation (0.073). Its logit
    # multiplier, 2.22, makes a tied model start at a loss of 28, because a token's state points at its own embedding.
    # That does not matter over 80,000 steps, but over 40 steps of 4,096 Python tokens 2.22, 1, 0.5 and 0.25 reach 7.38,
    # 6.50, 6.46 and 6.69. Six layers also reach 6.46, in 1.5 times the time. 5.3 M parameters with 8,192 tokens.
    layers=4,
    width=256,
    heads=4,
    ffn=682,
    norm="layernorm",
    activation="swiglu",
    attention_bias=True,
    ffn_bias=True,
    tied=True,
    rotary_dim=16,
    rotary_pairs="interleaved",
    init=Initialisation(embedding_std=0.073, hidden_std=0.073),
    mup=Mup(embedding_multiplier=14.6, logit_multiplier=0.5, attention="d"),
)

PRESETS: dict[Preset, ModelConfig] = {
    "demo": DEMO,
    "tiny": ModelConfig(layers=2, width=64, heads=4, kv_heads=2, ffn=176, init=NORMAL),
    "crystalcoder-7b": CRYSTALCODER_7B,
    "snowcoder-1.3b": SNOWCODER_1B3,
    "llama-7b": LLAMA_7B,
    "llama-3-8b": LLAMA_3_8B,
    "llama-3.2-1b": LLAMA_3_2_1B,
    "qwen2-0.5b": QWEN2_05B,
    "qwen2-7b": QWEN2_7B,
    "qwen3-0.6b": QWEN3_06B,
    "qwen3-8b": QWEN3_8B,
    "gpt2": GPT2,
    # Biderman et al., 2023.
    "pythia-14m": _neox(50304, 6, 128, 4),
    "pythia-160m": _neox(50304, 12, 768, 12),
    "pythia-1.4b": _neox(50304, 24, 2048, 16),
    "gpt-neox-20b": _neox(50432, 44, 6144, 64),
}


def read(section: ModelSection) -> dict[str, Any] | None:
    """What the folder that a section names says of the model; None if it names none.

    Raises:
        UserError: it holds no model.
    """
    if section.weights is not None:
        from headrace.model.huggingface.reading import read_config

        return read_config(Path(section.weights))[0].model_dump(mode="json")
    if section.huggingface is not None:
        from headrace.model.foreign import read_foreign

        return read_foreign(Path(section.huggingface)).model_dump(mode="json")
    return None


def resolve(section: ModelSection, tokenizer_size: int | None, found: Mapping[str, Any] | None = None) -> AnyConfig:
    """The complete configuration of a recipe's model section.

    Args:
        section: the name of a preset or of a folder, and what differs from it. Keys of `init` and `mup` override
            individually.
        tokenizer_size: the tokenizer's vocabulary size, used (rounded up to `vocab_multiple`) if neither the section
            nor its preset states one; None leaves it open.
        found: from :func:`read`, which is called without it.

    Raises:
        UserError: the overrides conflict with the preset's shapes, or the vocabulary is smaller than the tokenizer's.
    """
    config = _chosen(section, read(section) if found is None else found)
    if tokenizer_size is None:
        return config
    if config.vocab_size is None:
        assert isinstance(config, ModelConfig)
        rounded = -(-tokenizer_size // config.vocab_multiple) * config.vocab_multiple
        return config.model_copy(update={"vocab_size": rounded})
    if config.vocab_size < tokenizer_size:
        own = section.weights is None and section.huggingface is None
        raise UserError(
            f"The model has {config.vocab_size} tokens, but the tokenizer has {tokenizer_size}.",
            "model.vocab_size",
            "Set `vocab_size: null` to use the tokenizer's size." if own else "Use the model's own tokenizer.",
        )
    return config


def _chosen(section: ModelSection, found: Mapping[str, Any] | None) -> AnyConfig:
    if section.huggingface is not None:
        return ForeignConfig.model_validate(found)
    values = dict(found) if found else PRESETS[section.preset].model_dump() if section.preset else {}
    given = section.model_dump(exclude_unset=True, exclude={"preset", "weights"})
    for key, value in given.items():
        values[key] = {**values[key], **value} if isinstance(value, dict) and values.get(key) else value
    try:
        return ModelConfig.model_validate(values)
    except ValidationError as error:
        raise UserError(
            f"The model's keys conflict with its preset: {error.errors()[0]['msg']}.",
            "model",
            "Set the conflicting key too.",
        ) from None
