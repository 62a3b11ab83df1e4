"""GPT-2, and CrystalCoder, which descends from it."""

from __future__ import annotations

from typing import Any

from headrace.errors import UserError
from headrace.model.config import Mup
from headrace.model.huggingface import layout
from headrace.model.huggingface.family import (
    ACTIVATIONS,
    EITHER_GELU,
    GELU,
    MEND,
    Family,
    Told,
    renamed,
    require,
    shape,
)
from headrace.recipe.model import ModelConfig

_SHAPE = {"n_embd": "width", "n_layer": "layers", "n_head": "heads", "n_inner": "ffn"}
_OWN = {"norm": ("layernorm",), "kv_heads": ("null",), "head_dim": ("null",)}


def _write_gpt2(config: ModelConfig, length: int) -> dict[str, Any]:
    return {
        **shape(_SHAPE, config),
        "n_positions": config.learned_positions or length,
        "layer_norm_epsilon": config.norm_eps,
        "activation_function": {"gelu_tanh": "gelu_new"}.get(config.activation, config.activation),
        "attn_pdrop": 0.0,
        "embd_pdrop": 0.0,
        "resid_pdrop": 0.0,
    }


def _read_gpt2(told: Told) -> dict[str, Any]:
    require(told, scale_attn_weights=(True,), scale_attn_by_inverse_layer_idx=(False,), add_cross_attention=(False,))
    require(told, activation_function=("gelu_new", *ACTIVATIONS))
    return {
        **_read_shape(told),
        "activation": GELU[told.get("activation_function", "gelu_new")],
        "tied": told.get("tie_word_embeddings", True),
        "learned_positions": told.get("n_positions", 1024),
        "rotary_dim": 0,
    }


def _read_shape(told: Told) -> dict[str, Any]:
    found, width = renamed(_SHAPE, told), told.get("n_embd")
    return {
        **found,
        "ffn": found["ffn"] or (4 * width if isinstance(width, int) else None),
        "norm": "layernorm",
        "norm_eps": told.get("layer_norm_epsilon", 1e-5),
        "attention_bias": True,
        "ffn_bias": True,
    }


def _write_crystalcoder(config: ModelConfig, length: int) -> dict[str, Any]:
    mup = config.mup
    return {
        **_write_gpt2(config, length),
        "scale_attn_weights": True,
        "position_embedding_type": "rotary" if config.rotated else "learned",
        "rotary_dim": config.rotated,
        "mup_embeddings_scale": mup.embedding_multiplier,
        "mup_output_alpha": mup.logit_multiplier / mup.hidden_learning_rate,
        "mup_width_scale": mup.hidden_learning_rate,
        "mup_scale_qk_dot_by_d": mup.attention == "d",
        # The code is not part of transformers: it lies beside the released weights.
        "auto_map": {
            "AutoConfig": "LLM360/CrystalCoder--configuration_crystalcoder.CrystalCoderConfig",
            "AutoModel": "LLM360/CrystalCoder--modeling_crystalcoder.CrystalCoderModel",
            "AutoModelForCausalLM": "LLM360/CrystalCoder--modeling_crystalcoder.CrystalCoderLMHeadModel",
        },
    }


def _read_crystalcoder(told: Told) -> dict[str, Any]:
    require(told, scale_attn_weights=(True,), position_embedding_type=("learned", "rotary"))
    require(told, activation_function=("swiglu", *ACTIVATIONS))
    rotary = told.get("position_embedding_type", "learned") == "rotary"
    scale, alpha = (told.get(key, 1.0) for key in ("mup_width_scale", "mup_output_alpha"))
    if not isinstance(scale, int | float) or not isinstance(alpha, int | float):
        raise UserError("mup_width_scale and mup_output_alpha must be numbers.", "config.json", MEND)
    return {
        **_read_shape(told),
        "activation": GELU.get(told.get("activation_function", "swiglu"), "swiglu"),
        "tied": told.get("tie_word_embeddings", True),
        "learned_positions": None if rotary else told.get("n_positions"),
        "rotary_dim": told.get("rotary_dim") if rotary else 0,
        "rotary_pairs": "interleaved",
        "mup": Mup(
            embedding_multiplier=told.get("mup_embeddings_scale", 1.0),
            logit_multiplier=alpha * scale,
            hidden_learning_rate=scale,
            attention="d" if told.get("mup_scale_qk_dot_by_d", False) else "sqrt_d",
        ),
    }


GPT2 = Family(
    "gpt2",
    "GPT2LMHeadModel",
    layout.GPT2,
    ((True, True),),
    _write_gpt2,
    _read_gpt2,
    {**_OWN, "activation": EITHER_GELU, "positions": ("learned",)},
)
CRYSTALCODER = Family(
    "crystalcoder",
    "CrystalCoderLMHeadModel",
    layout.GPT2,
    ((True, True),),
    _write_crystalcoder,
    _read_crystalcoder,
    {
        **_OWN,
        "activation": ("swiglu", *EITHER_GELU),
        "positions": ("learned", "rotary", "partly rotary"),
        "rotary_base": ("10000",),
        "rotary_scaling": ("null",),
    },
    multipliers=True,
)
