"""Llama, Mistral, Qwen 2 and 3, StableLM and StarCoder 2, whose configurations have the same names, and GPT-NeoX."""

from __future__ import annotations

from typing import Any

from headrace.errors import UserError
from headrace.model.huggingface import layout
from headrace.model.huggingface.family import (
    ACTIVATIONS,
    EITHER_GELU,
    EVERY_BIAS,
    GELU,
    MEND,
    Family,
    Told,
    renamed,
    require,
    shape,
)
from headrace.model.huggingface.rope import read_rope, rope, share
from headrace.recipe.model import ModelConfig

_SHAPE = {
    "hidden_size": "width",
    "intermediate_size": "ffn",
    "num_hidden_layers": "layers",
    "num_attention_heads": "heads",
}
_GROUPED = {**_SHAPE, "num_key_value_heads": "key_value_heads"}
_READ = {**_SHAPE, "num_key_value_heads": "kv_heads", "head_dim": "head_dim"}


def _write_llama(config: ModelConfig, length: int) -> dict[str, Any]:
    return {
        **shape(_GROUPED, config),
        "max_position_embeddings": length,
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
    return {**renamed(_READ, told), "norm_eps": told.get("rms_norm_eps", 1e-6), **biases, **read_rope(told)}


def _write_mistral(config: ModelConfig, length: int) -> dict[str, Any]:
    return {**_write_llama(config, length), "sliding_window": config.sliding_window}


def _read_mistral(told: Told) -> dict[str, Any]:
    return {**_read_llama(told), "sliding_window": told.get("sliding_window", 4096)}


def _write_qwen(config: ModelConfig, length: int) -> dict[str, Any]:
    windows = [config.window(layer) for layer in range(config.layers)]
    told = {**_write_llama(config, length), "use_sliding_window": any(windows)}
    del told["mlp_bias"]
    if not any(windows):
        return told
    types = ["sliding_attention" if window else "full_attention" for window in windows]
    # A reader that does not know layer_types slides all layers from the first of those on.
    return {**told, "sliding_window": config.sliding_window, "layer_types": types, "max_window_layers": 0}


def _read_qwen2(told: Told) -> dict[str, Any]:
    require(told, hidden_act=("silu",))
    values = {**renamed(_READ, told), "norm_eps": told.get("rms_norm_eps", 1e-6), "attention_bias": "qkv"}
    return {**values, **read_rope(told), **_read_windows(told)}


def _read_windows(told: Told) -> dict[str, Any]:
    window, layers, types = told.get("sliding_window", 4096), told.get("num_hidden_layers"), told.get("layer_types")
    if not told.get("use_sliding_window", False) or window is None:
        return {}
    first = told.get("max_window_layers", 28)
    if types is None and isinstance(first, int) and isinstance(layers, int) and (first <= 0 or first >= layers):
        return {"sliding_window": window} if first <= 0 else {}
    if isinstance(types, list) and types:
        whole = [layer for layer, kind in enumerate(types, start=1) if kind != "sliding_attention"]
        if not whole or len(whole) == len(types):
            return {} if whole else {"sliding_window": window}
        if whole[0] > 1 and whole == list(range(whole[0], len(types) + 1, whole[0])):
            return {"sliding_window": window, "sliding_window_pattern": whole[0]}
    raise UserError(
        "The layers with a window (layer_types) are not all but every second, third and so on.",
        "config.json",
        "Train it as `model: {huggingface: PATH}`.",
    )


def _read_qwen3(told: Told) -> dict[str, Any]:
    values = {**_read_qwen2(told), "qk_norm": True, "attention_bias": told.get("attention_bias", False)}
    return {**values, "head_dim": told.get("head_dim", 128)}


def _write_stablelm(config: ModelConfig, length: int) -> dict[str, Any]:
    return {
        **shape(_GROUPED, config),
        "max_position_embeddings": length,
        "hidden_act": "silu",
        "layer_norm_eps": config.norm_eps,
        "use_qkv_bias": config.attention_bias == "qkv",
        "use_parallel_residual": False,
        "qk_layernorm": False,
        **rope(config, partial=True),
    }


def _read_stablelm(told: Told) -> dict[str, Any]:
    require(told, hidden_act=("silu",), use_parallel_residual=(False,), qk_layernorm=(False,))
    values = {**renamed(_READ, told), "norm": "layernorm", "norm_eps": told.get("layer_norm_eps", 1e-5)}
    biases = "qkv" if told.get("use_qkv_bias", False) else False
    return {**values, "attention_bias": biases, **_rotated(told, 0.25), **read_rope(told)}


def _rotated(told: Told, default: float) -> dict[str, Any]:
    width, heads = told.get("hidden_size"), told.get("num_attention_heads")
    if not isinstance(width, int) or not isinstance(heads, int) or heads < 1:
        raise UserError("The configuration names no width and heads.", "config.json", MEND)
    return {"rotary_dim": share(told, width // heads, default)}


def _write_starcoder2(config: ModelConfig, length: int) -> dict[str, Any]:
    return {
        **shape(_GROUPED, config),
        "max_position_embeddings": length,
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
        **renamed(_READ, told),
        "norm": "layernorm",
        "norm_eps": told.get("norm_epsilon", 1e-5),
        "activation": GELU[told.get("hidden_act", "gelu_pytorch_tanh")],
        "attention_bias": bias,
        "ffn_bias": bias,
        "tied": told.get("tie_word_embeddings", True),
        **read_rope(told),
    }


def _write_gpt_neox(config: ModelConfig, length: int) -> dict[str, Any]:
    return {
        **shape(_SHAPE, config),
        "max_position_embeddings": length,
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
        **renamed(_SHAPE, told),
        "norm": "layernorm",
        "norm_eps": told.get("layer_norm_eps", 1e-5),
        "activation": GELU[told.get("hidden_act", "gelu")],
        "attention_bias": told.get("attention_bias", True),
        "ffn_bias": True,
        "parallel_residual": told.get("use_parallel_residual", True),
        **_rotated(told, 0.25),
        **read_rope(told),
    }


_LAYERNORM = {"norm": ("layernorm",), "positions": ("rotary", "partly rotary"), "head_dim": ("null",)}
_WITH_GELU = {**_LAYERNORM, "activation": EITHER_GELU}

_ANY_WINDOW = {"sliding_window": ("null", "N", "N by pattern")}

QWEN2 = Family("qwen2", "Qwen2ForCausalLM", layout.LLAMA, (("qkv", False),), _write_qwen, _read_qwen2, _ANY_WINDOW)
LLAMA = Family("llama", "LlamaForCausalLM", layout.LLAMA, EVERY_BIAS, _write_llama, _read_llama)
MISTRAL = Family(
    "mistral",
    "MistralForCausalLM",
    layout.LLAMA,
    EVERY_BIAS[:1],
    _write_mistral,
    _read_mistral,
    {"sliding_window": ("N",)},
)
QWEN3 = Family(
    "qwen3",
    "Qwen3ForCausalLM",
    layout.LLAMA,
    ((False, False), (True, False)),
    _write_qwen,
    _read_qwen3,
    {"qk_norm": (True,), **_ANY_WINDOW},
)
STABLELM = Family(
    "stablelm",
    "StableLmForCausalLM",
    layout.LLAMA,
    ((False, False), ("qkv", False)),
    _write_stablelm,
    _read_stablelm,
    _LAYERNORM,
)
GPT_NEOX = Family(
    "gpt_neox",
    "GPTNeoXForCausalLM",
    layout.GPT_NEOX,
    ((False, True), (True, True)),
    _write_gpt_neox,
    _read_gpt_neox,
    {**_WITH_GELU, "kv_heads": ("null",), "parallel_residual": (False, True)},
)
STARCODER2 = Family(
    "starcoder2",
    "Starcoder2ForCausalLM",
    layout.STARCODER2,
    ((False, False), (True, True)),
    _write_starcoder2,
    _read_starcoder2,
    {**_WITH_GELU, "positions": ("rotary",), "head_dim": ("null", "other")},
)
