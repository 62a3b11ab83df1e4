"""GPT-2, and CrystalCoder, which descends from it."""

from __future__ import annotations

from typing import Any

from headrace.model.config import Mup
from headrace.model.huggingface import layout
from headrace.model.huggingface.family import (
    ACTIVATIONS,
    GELU,
    MEND,
    Family,
    Told,
    UnsupportedError,
    departure,
    require,
)
from headrace.recipe.model import ModelConfig


def _gpt2(config: ModelConfig) -> ModelConfig | str:
    wanted: dict[str, tuple[Any, ...]] = {"norm": ("layernorm",), "activation": ("gelu", "gelu_tanh")}
    wanted |= {
        "parallel_residual": (False,),
        "rotated": (0,),
        "output_bias": (False,),
        "qk_norm": (False,),
        "key_value_heads": (config.heads,),
    }
    lacking = departure(config, **wanted, head_size=(config.width / config.heads,))
    if lacking is None and config.learned_positions is None:
        lacking = "learned_positions: None"
    return lacking or config.model_copy(update={"attention_bias": True, "ffn_bias": True})


def _write_gpt2(config: ModelConfig, length: int) -> dict[str, Any]:
    return {
        "n_embd": config.width,
        "n_layer": config.layers,
        "n_head": config.heads,
        "n_inner": config.ffn,
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
    width = told.get("n_embd")
    return {
        "width": width,
        "layers": told.get("n_layer"),
        "heads": told.get("n_head"),
        "ffn": told.get("n_inner") or (4 * width if isinstance(width, int) else None),
        "norm": "layernorm",
        "norm_eps": told.get("layer_norm_epsilon", 1e-5),
        "attention_bias": True,
        "ffn_bias": True,
    }


def _crystalcoder(config: ModelConfig) -> ModelConfig | str:
    wanted: dict[str, tuple[Any, ...]] = {"norm": ("layernorm",), "parallel_residual": (False,)}
    wanted |= {"output_bias": (False,), "qk_norm": (False,)}
    wanted |= {"key_value_heads": (config.heads,), "head_size": (config.width / config.heads,)}
    wanted |= {"rotary_base": (10000.0,), "rotary_scaling": (None,)}
    lacking = departure(config, **wanted)
    if lacking is not None:
        return lacking
    if (config.rotated > 0) == (config.learned_positions is not None):
        return f"rotary_dim: {config.rotated} with learned_positions: {config.learned_positions}"
    if config.rotated and config.rotary_pairs != "interleaved":
        return "rotary_pairs: half"
    return config.model_copy(update={"attention_bias": True, "ffn_bias": True})


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
        raise UnsupportedError("mup_width_scale and mup_output_alpha must be numbers.", "config.json", MEND)
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


GPT2 = Family("gpt2", "GPT2LMHeadModel", layout.GPT2, _gpt2, _write_gpt2, _read_gpt2)
CRYSTALCODER = Family(
    "crystalcoder", "CrystalCoderLMHeadModel", layout.GPT2, _crystalcoder, _write_crystalcoder, _read_crystalcoder
)
