"""Llama, Qwen 2 and 3, StableLM and StarCoder 2, whose configurations have the same names, and GPT-NeoX."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

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
from headrace.model.huggingface.rope import read_rope, rope, share
from headrace.recipe.model import ModelConfig


def _common(config: ModelConfig, length: int) -> dict[str, Any]:
    return {
        "hidden_size": config.width,
        "intermediate_size": config.ffn,
        "num_hidden_layers": config.layers,
        "num_attention_heads": config.heads,
        "num_key_value_heads": config.key_value_heads,
        "max_position_embeddings": length,
    }


def _read_common(told: Told) -> dict[str, Any]:
    return {
        "width": told.get("hidden_size"),
        "ffn": told.get("intermediate_size"),
        "layers": told.get("num_hidden_layers"),
        "heads": told.get("num_attention_heads"),
        "kv_heads": told.get("num_key_value_heads"),
        "head_dim": told.get("head_dim"),
    }


_ROTARY = {"learned_positions": (None,), "output_bias": (False,)}
_SWIGLU = {"norm": ("rmsnorm",), "activation": ("swiglu",), "parallel_residual": (False,), **_ROTARY}


def _llama_like(qk_norm: bool, biases: tuple[Any, ...], ffn_bias: bool) -> Callable[[ModelConfig], ModelConfig | str]:
    def holds(config: ModelConfig) -> ModelConfig | str:
        wanted = {**_SWIGLU, "qk_norm": (qk_norm,), "attention_bias": biases, "rotated": (config.head_size,)}
        lacking = departure(config, **wanted, **({} if ffn_bias else {"ffn_bias": (False,)}))
        if lacking is not None:
            return lacking
        whole = config.attention_bias == "qkv" and biases[-1] is True
        return config.model_copy(update={"attention_bias": True}) if whole else config

    return holds


def _write_llama(config: ModelConfig, length: int) -> dict[str, Any]:
    return {
        **_common(config, length),
        "head_dim": config.head_size,
        "hidden_act": "silu",
        "rms_norm_eps": config.norm_eps,
        "attention_bias": config.attention_bias is True,
        "mlp_bias": config.ffn_bias,
        **rope(config),
    }


def _read_llama(told: Told) -> dict[str, Any]:
    require(told, hidden_act=("silu",), pretraining_tp=(1, None))
    biases = {"attention_bias": told.get("attention_bias", False), "ffn_bias": told.get("mlp_bias", False)}
    return {**_read_common(told), "norm_eps": told.get("rms_norm_eps", 1e-6), **biases, **read_rope(told)}


def _write_qwen(config: ModelConfig, length: int) -> dict[str, Any]:
    told = {**_write_llama(config, length), "use_sliding_window": False}
    del told["mlp_bias"]
    return told


def _read_qwen2(told: Told) -> dict[str, Any]:
    require(told, hidden_act=("silu",), use_sliding_window=(False,))
    eps = {"norm_eps": told.get("rms_norm_eps", 1e-6)}
    return {**_read_common(told), **eps, "attention_bias": "qkv", **read_rope(told)}


def _read_qwen3(told: Told) -> dict[str, Any]:
    values = {**_read_qwen2(told), "qk_norm": True, "attention_bias": told.get("attention_bias", False)}
    return {**values, "head_dim": told.get("head_dim", 128)}


def _stablelm(config: ModelConfig) -> ModelConfig | str:
    wanted = {**_SWIGLU, "norm": ("layernorm",), "attention_bias": (False, "qkv"), "ffn_bias": (False,)}
    if config.rotated == 0 or config.head_size * config.heads != config.width:
        return f"heads of {config.head_size} dimensions, {config.rotated} of them rotated"
    return departure(config, **wanted, qk_norm=(False,)) or config


def _write_stablelm(config: ModelConfig, length: int) -> dict[str, Any]:
    return {
        **_common(config, length),
        "hidden_act": "silu",
        "layer_norm_eps": config.norm_eps,
        "use_qkv_bias": config.attention_bias == "qkv",
        "use_parallel_residual": False,
        "qk_layernorm": False,
        **rope(config, partial=True),
    }


def _read_stablelm(told: Told) -> dict[str, Any]:
    require(told, hidden_act=("silu",), use_parallel_residual=(False,), qk_layernorm=(False,))
    values = {**_read_common(told), "norm": "layernorm", "norm_eps": told.get("layer_norm_eps", 1e-5)}
    biases = "qkv" if told.get("use_qkv_bias", False) else False
    return {**values, "attention_bias": biases, **_rotated(told, 0.25), **read_rope(told)}


def _rotated(told: Told, default: float) -> dict[str, Any]:
    width, heads = told.get("hidden_size"), told.get("num_attention_heads")
    if not isinstance(width, int) or not isinstance(heads, int) or heads < 1:
        raise UnsupportedError("The configuration names no width and heads.", "config.json", MEND)
    return {"rotary_dim": share(told, width // heads, default)}


def _starcoder2(config: ModelConfig) -> ModelConfig | str:
    wanted = {**_ROTARY, "norm": ("layernorm",), "activation": ("gelu", "gelu_tanh"), "parallel_residual": (False,)}
    lacking = departure(config, **wanted, qk_norm=(False,), rotated=(config.head_size,))
    if lacking is not None or (config.attention_bias is False and not config.ffn_bias):
        return lacking or config
    return config.model_copy(update={"attention_bias": True, "ffn_bias": True})


def _write_starcoder2(config: ModelConfig, length: int) -> dict[str, Any]:
    return {
        **_common(config, length),
        "head_dim": config.head_size,
        "hidden_act": "gelu" if config.activation == "gelu" else "gelu_pytorch_tanh",
        "norm_epsilon": config.norm_eps,
        "use_bias": config.ffn_bias,
        "sliding_window": None,
        **rope(config),
    }


def _read_starcoder2(told: Told) -> dict[str, Any]:
    require(told, hidden_act=("gelu_pytorch_tanh", *ACTIVATIONS), sliding_window=(None,))
    bias = told.get("use_bias", True)
    return {
        **_read_common(told),
        "norm": "layernorm",
        "norm_eps": told.get("norm_epsilon", 1e-5),
        "activation": GELU[told.get("hidden_act", "gelu_pytorch_tanh")],
        "attention_bias": bias,
        "ffn_bias": bias,
        "tied": told.get("tie_word_embeddings", True),
        **read_rope(told),
    }


def _gpt_neox(config: ModelConfig) -> ModelConfig | str:
    wanted = {**_ROTARY, "norm": ("layernorm",), "activation": ("gelu", "gelu_tanh"), "qk_norm": (False,)}
    lacking = departure(config, **wanted, key_value_heads=(config.heads,), head_size=(config.width / config.heads,))
    if lacking is not None:
        return lacking
    if config.rotated == 0:
        return "rotary_dim: 0"
    return config.model_copy(update={"attention_bias": bool(config.attention_bias), "ffn_bias": True})


def _write_gpt_neox(config: ModelConfig, length: int) -> dict[str, Any]:
    told = _common(config, length)
    del told["num_key_value_heads"]
    return {
        **told,
        "hidden_act": "gelu" if config.activation == "gelu" else "gelu_pytorch_tanh",
        "layer_norm_eps": config.norm_eps,
        "attention_bias": config.attention_bias is True,
        "use_parallel_residual": config.parallel_residual,
        "rotary_emb_base": config.rotary_base,
        "rotary_pct": config.rotated / config.head_size,
        **rope(config, partial=True),
    }


def _read_gpt_neox(told: Told) -> dict[str, Any]:
    require(told, hidden_act=ACTIVATIONS)
    return {
        **_read_common(told),
        "kv_heads": None,
        "norm": "layernorm",
        "norm_eps": told.get("layer_norm_eps", 1e-5),
        "activation": GELU[told.get("hidden_act", "gelu")],
        "attention_bias": told.get("attention_bias", True),
        "ffn_bias": True,
        "parallel_residual": told.get("use_parallel_residual", True),
        **_rotated(told, 0.25),
        **read_rope(told),
    }


QWEN2 = Family("qwen2", "Qwen2ForCausalLM", layout.LLAMA, _llama_like(False, ("qkv",), False), _write_qwen, _read_qwen2)
LLAMA = Family(
    "llama",
    "LlamaForCausalLM",
    layout.LLAMA,
    _llama_like(False, (False, "qkv", True), True),
    _write_llama,
    _read_llama,
)
QWEN3 = Family(
    "qwen3", "Qwen3ForCausalLM", layout.LLAMA, _llama_like(True, (False, "qkv", True), False), _write_qwen, _read_qwen3
)
STABLELM = Family("stablelm", "StableLmForCausalLM", layout.LLAMA, _stablelm, _write_stablelm, _read_stablelm)
GPT_NEOX = Family("gpt_neox", "GPTNeoXForCausalLM", layout.GPT_NEOX, _gpt_neox, _write_gpt_neox, _read_gpt_neox)
STARCODER2 = Family(
    "starcoder2", "Starcoder2ForCausalLM", layout.STARCODER2, _starcoder2, _write_starcoder2, _read_starcoder2
)
