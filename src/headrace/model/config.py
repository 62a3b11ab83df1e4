"""What a model's configuration alone says about it, without torch: sizes and work per token."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from pydantic import PositiveInt

from headrace.recipe.base import Section
from headrace.recipe.model import Initialisation, ModelConfig, Mup

__all__ = [
    "AnyConfig",
    "ForeignConfig",
    "Initialisation",
    "ModelConfig",
    "Mup",
    "flops_per_token",
    "parameter_count",
    "read_any",
]


class ForeignConfig(Section):
    """A model that transformers has.

    Attributes:
        huggingface: its config.json.
        vocab_size: rows of its embedding.
        mup: no multipliers.
    """

    huggingface: dict[str, Any]
    vocab_size: PositiveInt
    mup: Mup = Mup()


AnyConfig = ModelConfig | ForeignConfig


def read_any(told: Mapping[str, Any]) -> AnyConfig:
    """The configuration in a model artifact's config.json."""
    return (ForeignConfig if "huggingface" in told else ModelConfig).model_validate(told)


def parameter_count(config: AnyConfig, embedding: bool = True) -> int:
    """The number of parameters, each tensor once (a tied head is the embedding).

    Args:
        config: with its vocabulary size resolved.
        embedding: include the tables of tokens and positions, and the output head's matrix.
    """
    if isinstance(config, ForeignConfig):
        from headrace.model.foreign.module import count

        return count(config, embedding)
    width, norm = config.width, config.width * (2 if config.norm == "layernorm" else 1)
    vocab = _vocabulary(config)
    block = _matrices(config) + _biases(config) + 2 * norm + 2 * config.head_size * config.qk_norm
    ends = norm + config.output_bias * vocab
    if embedding:
        ends += (vocab * (1 if config.tied else 2) + (config.learned_positions or 0)) * width
    return config.layers * block + ends


def flops_per_token(config: AnyConfig, sequence_length: int) -> int:
    """Floating-point operations of one training step per token (forward and backward).

    Six per entry of a matrix that tokens are multiplied with (Kaplan et al., 2020), plus attention's two products over
    what a token sees, half of the row or less: 12 * layers * keys * heads * head_dim. Of a model of transformers only
    the former are known.
    """
    if isinstance(config, ForeignConfig):
        return 6 * parameter_count(config)
    matrices = config.layers * _matrices(config) + _vocabulary(config) * config.width
    windows = (min(config.window(i) or sequence_length, sequence_length) for i in range(config.layers))
    twice_keys = sum(2 * window - window * window // sequence_length for window in windows)
    return 6 * matrices + 6 * twice_keys * config.heads * config.head_size


def _matrices(config: ModelConfig) -> int:
    attended = (2 * config.heads + 2 * config.key_value_heads) * config.head_size
    return config.width * (attended + (3 if config.gated else 2) * config.ffn)


def _biases(config: ModelConfig) -> int:
    qkv = (config.heads + 2 * config.key_value_heads) * config.head_size
    attention = {False: 0, "qkv": qkv, True: qkv + config.width}[config.attention_bias]
    return attention + config.ffn_bias * ((2 if config.gated else 1) * config.ffn + config.width)


def _vocabulary(config: ModelConfig) -> int:
    if config.vocab_size is None:
        raise ValueError("the vocabulary size is not resolved yet")
    return config.vocab_size
