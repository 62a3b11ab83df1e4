"""The architectures that models come from and go to: what each can hold, and its config.json."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from pydantic import ValidationError

from headrace.errors import UserError
from headrace.model.config import Mup
from headrace.model.huggingface import layout
from headrace.model.huggingface.plain import Plain
from headrace.recipe.model import ModelConfig

Told = Mapping[str, Any]
"""A config.json."""


@dataclass(frozen=True)
class Family:
    """An architecture.

    Attributes:
        name: its ``model_type``.
        architecture: the class of transformers that generates.
        layout: its tensors.
        holds: the model that it holds if biases of 0 are added to a plain one, or a sentence that says what it lacks.
        write: config.json of such a model, for rows of a length, but for what all have.
        read: the model of a config.json.
    """

    name: str
    architecture: str
    layout: layout.Layout
    holds: Callable[[ModelConfig], ModelConfig | str]
    write: Callable[[ModelConfig, int], dict[str, Any]]
    read: Callable[[Told], dict[str, Any]]

    def config(self, config: ModelConfig, length: int) -> dict[str, Any]:
        """config.json of a model that :attr:`holds` has returned.

        Args:
            config: the model.
            length: tokens of the longest row.
        """
        common = {
            "architectures": [self.architecture],
            "model_type": self.name,
            "vocab_size": config.vocab_size,
            "tie_word_embeddings": config.tied,
            "torch_dtype": "float32",
        }
        return {**common, **self.write(config, length)}

    def model(self, told: Told) -> ModelConfig:
        """The model of a config.json.

        Raises:
            UserError: it is not complete, or says what headrace's model cannot do.
        """
        values = {"vocab_size": told.get("vocab_size"), "tied": told.get("tie_word_embeddings", False)}
        try:
            return ModelConfig.model_validate({**values, **self.read(told)})
        except ValidationError as error:
            first = error.errors()[0]
            place = ".".join(map(str, first["loc"]))
            raise UserError(
                f"The model's configuration cannot be used: {place}{': ' if place else ''}{first['msg']}.",
                "config.json",
                "",
            ) from None


class UnsupportedError(UserError):
    """A configuration says what headrace's model cannot do."""


def _require(told: Told, **wanted: tuple[Any, ...]) -> None:
    """Refuse other values of some keys than these; the first is the default."""
    for key, values in wanted.items():
        found = told.get(key, values[0])
        if found not in values:
            allowed = " or ".join(map(repr, values))
            raise UnsupportedError(
                f"The model has {key}: {found!r}; headrace's own model can only have {allowed}.",
                "config.json",
                "Train it as `model: {huggingface: PATH}`.",
            )


_GELU = {"gelu": "gelu", "gelu_new": "gelu_tanh", "gelu_pytorch_tanh": "gelu_tanh", "gelu_fast": "gelu_tanh"}
_ACTIVATIONS = tuple(_GELU)


# Rotary embedding.


def _rope(config: ModelConfig, partial: bool = False) -> dict[str, Any]:
    """Both as transformers 4 and 5 have it; 5 reads 4's names too."""
    scaling = config.rotary_scaling
    told: dict[str, Any] = {"rope_theta": config.rotary_base}
    if partial:
        told["partial_rotary_factor"] = config.rotated / config.head_size
    if scaling is None:
        return told
    values: dict[str, Any] = {"rope_type": scaling.kind, "factor": scaling.factor}
    if scaling.kind != "linear":
        values["original_max_position_embeddings"] = scaling.original_length
    if scaling.kind == "llama3":
        values |= {"low_freq_factor": scaling.low_turns, "high_freq_factor": scaling.most_turns}
    if scaling.kind == "yarn":
        values |= {"beta_slow": scaling.low_turns, "beta_fast": scaling.most_turns}
        values["attention_factor"] = scaling.temperature
    return {**told, "rope_scaling": values}


def _read_rope(told: Told, share: float = 1.0) -> dict[str, Any]:
    """Our keys of the rotary embedding, but for ``rotary_dim``; see :func:`_share`."""
    values = told.get("rope_parameters") or told.get("rope_scaling") or {}
    base = values.get("rope_theta") or told.get("rope_theta") or told.get("rotary_emb_base") or 10000.0
    kind = values.get("rope_type", values.get("type", "default"))
    if kind == "default":
        return {"rotary_base": base}
    _require({"rope_type": kind}, rope_type=("linear", "yarn", "llama3"))
    _require(values, truncate=(True,), mscale=(None,), mscale_all_dim=(None,))
    low, high = ("beta_slow", "beta_fast") if kind == "yarn" else ("low_freq_factor", "high_freq_factor")
    length = values.get("original_max_position_embeddings") or told.get("max_position_embeddings")
    scaling = {
        "kind": kind,
        "factor": values.get("factor"),
        "original_length": length,
        "low_turns": values.get(low),
        "high_turns": values.get(high),
        "attention_factor": values.get("attention_factor"),
    }
    return {
        "rotary_base": base,
        "rotary_scaling": {key: value for key, value in scaling.items() if value is not None},
    }


def _share(told: Told, size: int, default: float) -> int:
    """``rotary_dim``, of heads of some size."""
    values = told.get("rope_parameters") or {}
    older = told.get("partial_rotary_factor", told.get("rotary_pct", default))
    share = values.get("partial_rotary_factor", older)
    if not isinstance(share, int | float):
        raise UnsupportedError("partial_rotary_factor must be a number.", "config.json", "")
    return int(size * share)


# Llama, Qwen 2 and 3, StableLM, StarCoder 2: the same names.


def _lacking(config: ModelConfig, **wanted: tuple[Any, ...]) -> str | None:
    """The first key that has none of these values."""
    for key, values in wanted.items():
        value = getattr(config, key)
        if value not in values:
            return f"{key}: {value!r}"
    return None


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
        lacking = _lacking(config, **wanted, **({} if ffn_bias else {"ffn_bias": (False,)}))
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
        **_rope(config),
    }


def _read_llama(told: Told) -> dict[str, Any]:
    _require(told, hidden_act=("silu",), pretraining_tp=(1, None))
    biases = {"attention_bias": told.get("attention_bias", False), "ffn_bias": told.get("mlp_bias", False)}
    return {**_read_common(told), "norm_eps": told.get("rms_norm_eps", 1e-6), **biases, **_read_rope(told)}


def _write_qwen(config: ModelConfig, length: int) -> dict[str, Any]:
    told = {**_write_llama(config, length), "use_sliding_window": False}
    del told["mlp_bias"]
    return told


def _read_qwen2(told: Told) -> dict[str, Any]:
    _require(told, hidden_act=("silu",), use_sliding_window=(False,))
    eps = {"norm_eps": told.get("rms_norm_eps", 1e-6)}
    return {**_read_common(told), **eps, "attention_bias": "qkv", **_read_rope(told)}


def _read_qwen3(told: Told) -> dict[str, Any]:
    values = {**_read_qwen2(told), "qk_norm": True, "attention_bias": told.get("attention_bias", False)}
    return {**values, "head_dim": told.get("head_dim", 128)}


def _stablelm(config: ModelConfig) -> ModelConfig | str:
    wanted = {**_SWIGLU, "norm": ("layernorm",), "attention_bias": (False, "qkv"), "ffn_bias": (False,)}
    if config.rotated == 0 or config.head_size * config.heads != config.width:
        return f"heads of {config.head_size} dimensions, {config.rotated} of them rotated"
    return _lacking(config, **wanted, qk_norm=(False,)) or config


def _write_stablelm(config: ModelConfig, length: int) -> dict[str, Any]:
    return {
        **_common(config, length),
        "hidden_act": "silu",
        "layer_norm_eps": config.norm_eps,
        "use_qkv_bias": config.attention_bias == "qkv",
        "use_parallel_residual": False,
        "qk_layernorm": False,
        **_rope(config, partial=True),
    }


def _read_stablelm(told: Told) -> dict[str, Any]:
    _require(told, hidden_act=("silu",), use_parallel_residual=(False,), qk_layernorm=(False,))
    values = {**_read_common(told), "norm": "layernorm", "norm_eps": told.get("layer_norm_eps", 1e-5)}
    biases = "qkv" if told.get("use_qkv_bias", False) else False
    return {**values, "attention_bias": biases, **_rotated(told, 0.25), **_read_rope(told)}


def _rotated(told: Told, default: float) -> dict[str, Any]:
    width, heads = told.get("hidden_size"), told.get("num_attention_heads")
    if not isinstance(width, int) or not isinstance(heads, int) or heads < 1:
        raise UnsupportedError("The configuration names no width and heads.", "config.json", "")
    return {"rotary_dim": _share(told, width // heads, default)}


def _starcoder2(config: ModelConfig) -> ModelConfig | str:
    wanted = {**_ROTARY, "norm": ("layernorm",), "activation": ("gelu", "gelu_tanh"), "parallel_residual": (False,)}
    lacking = _lacking(config, **wanted, qk_norm=(False,), rotated=(config.head_size,))
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
        **_rope(config),
    }


def _read_starcoder2(told: Told) -> dict[str, Any]:
    _require(told, hidden_act=("gelu_pytorch_tanh", *_ACTIVATIONS), sliding_window=(None,))
    bias = told.get("use_bias", True)
    return {
        **_read_common(told),
        "norm": "layernorm",
        "norm_eps": told.get("norm_epsilon", 1e-5),
        "activation": _GELU[told.get("hidden_act", "gelu_pytorch_tanh")],
        "attention_bias": bias,
        "ffn_bias": bias,
        "tied": told.get("tie_word_embeddings", True),
        **_read_rope(told),
    }


# GPT-NeoX.


def _gpt_neox(config: ModelConfig) -> ModelConfig | str:
    wanted = {**_ROTARY, "norm": ("layernorm",), "activation": ("gelu", "gelu_tanh"), "qk_norm": (False,)}
    lacking = _lacking(config, **wanted, key_value_heads=(config.heads,), head_size=(config.width / config.heads,))
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
        **_rope(config, partial=True),
    }


def _read_gpt_neox(told: Told) -> dict[str, Any]:
    _require(told, hidden_act=_ACTIVATIONS)
    return {
        **_read_common(told),
        "kv_heads": None,
        "norm": "layernorm",
        "norm_eps": told.get("layer_norm_eps", 1e-5),
        "activation": _GELU[told.get("hidden_act", "gelu")],
        "attention_bias": told.get("attention_bias", True),
        "ffn_bias": True,
        "parallel_residual": told.get("use_parallel_residual", True),
        **_rotated(told, 0.25),
        **_read_rope(told),
    }


# GPT-2, and CrystalCoder, which descends from it.


def _gpt2(config: ModelConfig) -> ModelConfig | str:
    wanted: dict[str, tuple[Any, ...]] = {"norm": ("layernorm",), "activation": ("gelu", "gelu_tanh")}
    wanted |= {
        "parallel_residual": (False,),
        "rotated": (0,),
        "output_bias": (False,),
        "qk_norm": (False,),
        "key_value_heads": (config.heads,),
    }
    lacking = _lacking(config, **wanted, head_size=(config.width / config.heads,))
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
    _require(told, scale_attn_weights=(True,), scale_attn_by_inverse_layer_idx=(False,), add_cross_attention=(False,))
    _require(told, activation_function=("gelu_new", *_ACTIVATIONS))
    return {
        **_read_shape(told),
        "activation": _GELU[told.get("activation_function", "gelu_new")],
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
    lacking = _lacking(config, **wanted)
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
    _require(told, scale_attn_weights=(True,), position_embedding_type=("learned", "rotary"))
    _require(told, activation_function=("swiglu", *_ACTIVATIONS))
    rotary = told.get("position_embedding_type", "learned") == "rotary"
    scale, alpha = (told.get(key, 1.0) for key in ("mup_width_scale", "mup_output_alpha"))
    if not isinstance(scale, int | float) or not isinstance(alpha, int | float):
        raise UnsupportedError("mup_width_scale and mup_output_alpha must be numbers.", "config.json", "")
    return {
        **_read_shape(told),
        "activation": _GELU.get(told.get("activation_function", "swiglu"), "swiglu"),
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


# In the order in which a model's home is sought: the narrower one first.
FAMILIES = {
    family.name: family
    for family in (
        Family(
            "qwen2", "Qwen2ForCausalLM", layout.LLAMA, _llama_like(False, ("qkv",), False), _write_qwen, _read_qwen2
        ),
        Family(
            "llama", "LlamaForCausalLM", layout.LLAMA, _llama_like(False, (False, "qkv", True), True), _write_llama,
            _read_llama,
        ),
        Family(
            "qwen3", "Qwen3ForCausalLM", layout.LLAMA, _llama_like(True, (False, "qkv", True), False), _write_qwen,
            _read_qwen3,
        ),
        Family("stablelm", "StableLmForCausalLM", layout.LLAMA, _stablelm, _write_stablelm, _read_stablelm),
        Family("gpt_neox", "GPTNeoXForCausalLM", layout.GPT_NEOX, _gpt_neox, _write_gpt_neox, _read_gpt_neox),
        Family("gpt2", "GPT2LMHeadModel", layout.GPT2, _gpt2, _write_gpt2, _read_gpt2),
        Family("starcoder2", "Starcoder2ForCausalLM", layout.STARCODER2, _starcoder2, _write_starcoder2,
               _read_starcoder2),
        Family("crystalcoder", "CrystalCoderLMHeadModel", layout.GPT2, _crystalcoder, _write_crystalcoder,
               _read_crystalcoder),
    )
}  # fmt: skip
CRYSTALCODER = FAMILIES["crystalcoder"]


def home(config: ModelConfig) -> tuple[Family, ModelConfig]:
    """The architecture that holds a model, and the model as it holds it, with biases of 0 where it has none.

    All but CrystalCoder's hold the model that :class:`headrace.model.huggingface.plain.Plain` makes of it.

    Raises:
        UserError: none does.
    """
    reasons = []
    for family in FAMILIES.values():
        held = family.holds(config if family is CRYSTALCODER else Plain(config).config)
        if isinstance(held, ModelConfig):
            return family, held
        reasons.append(f"{family.name} has no {held}")
    raise UserError(
        "No architecture of transformers, nor CrystalCoder's, holds this model.",
        "model",
        "For the next one, change what prevents it: " + "; ".join(reasons) + ".",
    )
