"""What a model's configuration alone says about it, without torch: sizes and work per token."""

from __future__ import annotations

from headrace.recipe.model import Initialisation, ModelConfig, Mup

__all__ = ["Initialisation", "ModelConfig", "Mup", "flops_per_token", "parameter_count"]


def parameter_count(config: ModelConfig, embedding: bool = True) -> int:
    """The number of parameters, each tensor once (a tied head is the embedding).

    Args:
        config: with its vocabulary size resolved.
        embedding: include the tables of tokens and positions, and the output head's matrix.
    """
    width, norm = config.width, config.width * (2 if config.norm == "layernorm" else 1)
    vocab = _vocabulary(config)
    block = _matrices(config) + _biases(config) + 2 * norm + 2 * config.head_size * config.qk_norm
    ends = norm + config.output_bias * vocab
    if embedding:
        ends += (vocab * (1 if config.tied else 2) + (config.learned_positions or 0)) * width
    return config.layers * block + ends


def flops_per_token(config: ModelConfig, sequence_length: int) -> int:
    """Floating-point operations of one training step per token (forward and backward).

    Six per entry of a matrix that tokens are multiplied with (Kaplan et al., 2020), plus attention's two products over
    the causal half of the row: 6 * layers * sequence_length * heads * head_dim.
    """
    matrices = config.layers * _matrices(config) + _vocabulary(config) * config.width
    return 6 * matrices + 6 * config.layers * sequence_length * config.heads * config.head_size


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
