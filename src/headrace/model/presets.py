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

NORMAL = Initialisation(distribution="normal")


def _llama(vocab: int, layers: int, width: int, heads: int, kv_heads: int, ffn: int, **more: Any) -> ModelConfig:
    """Llama (Touvron et al., 2023) and its kin."""
    told = {"vocab_size": vocab, "layers": layers, "width": width, "heads": heads, "ffn": ffn}
    shared = None if kv_heads == heads else kv_heads
    return ModelConfig.model_validate({**told, "kv_heads": shared, "init": NORMAL, **more})


def _qwen(
    layers: int, width: int, heads: int, kv_heads: int, ffn: int, vocab: int = 151936, **more: Any
) -> ModelConfig:
    """Qwen 2 and 3."""
    return _llama(vocab, layers, width, heads, kv_heads, ffn, norm_eps=1e-6, rotary_base=1e6, **more)


def _gpt2(layers: int, width: int, heads: int) -> ModelConfig:
    return ModelConfig(
        vocab_size=50257, layers=layers, width=width, heads=heads, ffn=4 * width, norm="layernorm",
        activation="gelu_tanh", attention_bias=True, ffn_bias=True, learned_positions=1024, rotary_dim=0, init=NORMAL,
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

LLAMA_3_2 = RotaryScaling(kind="llama3", factor=32)

PRESETS: dict[Preset, ModelConfig] = {
    "demo": DEMO,
    "tiny": ModelConfig(layers=2, width=64, heads=4, kv_heads=2, ffn=176, init=NORMAL),
    "crystalcoder-7b": CRYSTALCODER_7B,
    # Arctic-SnowCoder, arXiv 2409.02326, section 3: a Llama-2 style decoder.
    "snowcoder-1.3b": _llama(64000, 24, 2048, 16, 16, 5632),
    # Each as in the config.json of its organization on Hugging Face.
    "llama-7b": _llama(32000, 32, 4096, 32, 32, 11008, tied=False),
    "llama-3-8b": _llama(128256, 32, 4096, 32, 8, 14336, tied=False, rotary_base=5e5),
    "llama-3.2-1b": _llama(128256, 16, 2048, 32, 8, 8192, rotary_base=5e5, rotary_scaling=LLAMA_3_2),
    "llama-3.2-3b": _llama(128256, 28, 3072, 24, 8, 8192, rotary_base=5e5, rotary_scaling=LLAMA_3_2),
    "mistral-7b": _llama(32768, 32, 4096, 32, 8, 14336, tied=False, rotary_base=1e6),
    "smollm2-135m": _llama(49152, 30, 576, 9, 3, 1536, rotary_base=1e5),
    "smollm2-360m": _llama(49152, 32, 960, 15, 5, 2560, rotary_base=1e5),
    "smollm2-1.7b": _llama(49152, 24, 2048, 32, 32, 8192, rotary_base=1.3e5),
    "qwen2-0.5b": _qwen(24, 896, 14, 2, 4864, attention_bias="qkv"),
    "qwen2-1.5b": _qwen(28, 1536, 12, 2, 8960, attention_bias="qkv"),
    "qwen2-7b": _qwen(28, 3584, 28, 4, 18944, vocab_size=152064, attention_bias="qkv", tied=False),
    "qwen3-0.6b": _qwen(28, 1024, 16, 8, 3072, head_dim=128, qk_norm=True),
    "qwen3-1.7b": _qwen(28, 2048, 16, 8, 6144, head_dim=128, qk_norm=True),
    "qwen3-4b": _qwen(36, 2560, 32, 8, 9728, head_dim=128, qk_norm=True),
    "qwen3-8b": _qwen(36, 4096, 32, 8, 12288, qk_norm=True, tied=False),
    "gpt2": _gpt2(12, 768, 12),
    "gpt2-medium": _gpt2(24, 1024, 16),
    "gpt2-large": _gpt2(36, 1280, 20),
    "gpt2-xl": _gpt2(48, 1600, 25),
    # Biderman et al., 2023.
    "pythia-14m": _neox(50304, 6, 128, 4),
    "pythia-70m": _neox(50304, 6, 512, 8),
    "pythia-160m": _neox(50304, 12, 768, 12),
    "pythia-410m": _neox(50304, 24, 1024, 16),
    "pythia-1b": _neox(50304, 16, 2048, 8),
    "pythia-1.4b": _neox(50304, 24, 2048, 16),
    "pythia-2.8b": _neox(50304, 32, 2560, 32),
    "pythia-6.9b": _neox(50432, 32, 4096, 32),
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
        from headrace.model.foreign.folder import read_foreign

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
