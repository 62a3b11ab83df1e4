"""What a model's configuration alone says about it, without torch: sizes and work per token."""

from __future__ import annotations

from headrace.recipe.model import Initialisation, ModelConfig, Mup

__all__ = ["Initialisation", "ModelConfig", "Mup", "flops_per_token", "parameter_count"]


def parameter_count(config: ModelConfig, embedding: bool = True) -> int:
    """The number of parameters, each tensor once (a tied head is the embedding).

    Args:
        config: with its vocabulary size resolved.
        embedding: include the token embedding and the output head's matrix.
    """
    width, ffn = config.width, config.ffn
    projected = (config.heads + 2 * config.key_value_heads) * config.head_dim
    inner = 2 * ffn if config.activation == "swiglu" else ffn
    norm = 2 * width if config.norm == "layernorm" else width
    block = projected * width + width * width + inner * width + width * ffn + 2 * norm
    block += config.attention_bias * (projected + width) + config.ffn_bias * (inner + width)
    vocab = _vocabulary(config)
    ends = norm + config.output_bias * vocab
    if embedding:
        ends += vocab * width * (1 if config.tied else 2)
    return config.layers * block + ends


def flops_per_token(config: ModelConfig, sequence_length: int) -> int:
    """Floating-point operations of one training step per token (forward and backward).

    Six per parameter that takes part in a matrix product (Kaplan et al., 2020), plus attention's two products over the
    causal half of the row: 6 * layers * sequence_length * width.
    """
    matrices = parameter_count(config, embedding=False) + _vocabulary(config) * config.width
    return 6 * matrices + 6 * config.layers * sequence_length * config.width


def _vocabulary(config: ModelConfig) -> int:
    if config.vocab_size is None:
        raise ValueError("the vocabulary size is not resolved yet")
    return config.vocab_size
