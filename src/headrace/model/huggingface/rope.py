"""The rotary embedding in a config.json."""

from __future__ import annotations

from typing import Any

from headrace.errors import UserError
from headrace.model.huggingface.family import MEND, Told, require
from headrace.recipe.model import ModelConfig, RotaryScaling


def rope(config: ModelConfig, partial: bool = False) -> dict[str, Any]:
    """Both as transformers 4 and 5 have it; 5 reads 4's names too."""
    scaling = config.rotary_scaling
    told: dict[str, Any] = {"rope_theta": config.rotary_base}
    if partial:
        told["partial_rotary_factor"] = config.rotated / config.head_size
    if scaling is None:
        return told
    if scaling.kind == "dynamic":  # its original length is the configuration's
        told["max_position_embeddings"] = scaling.original_length
    return {**told, "rope_scaling": scaled(scaling)}


def scaled(scaling: RotaryScaling) -> dict[str, Any]:
    """The scaling alone."""
    values: dict[str, Any] = {"rope_type": scaling.kind, "factor": scaling.factor}
    if scaling.kind not in ("linear", "dynamic"):
        values["original_max_position_embeddings"] = scaling.original_length
    if scaling.kind == "llama3":
        values |= {"low_freq_factor": scaling.low_turns, "high_freq_factor": scaling.most_turns}
    if scaling.kind == "yarn":
        values |= {"beta_slow": scaling.low_turns, "beta_fast": scaling.most_turns}
        values["attention_factor"] = scaling.temperature
    return values


def read_rope(told: Told) -> dict[str, Any]:
    """Our keys of the rotary embedding, but for ``rotary_dim``; see :func:`share`."""
    values = _values(told)
    base = values.get("rope_theta") or told.get("rope_theta") or told.get("rotary_emb_base") or 10000.0
    kind = values.get("rope_type", values.get("type", "default"))
    if kind == "default":
        return {"rotary_base": base}
    require({"rope_type": kind}, rope_type=("linear", "dynamic", "yarn", "llama3"))
    require(values, truncate=(True,), mscale=(None,), mscale_all_dim=(None,))
    low, high = ("beta_slow", "beta_fast") if kind == "yarn" else ("low_freq_factor", "high_freq_factor")
    length = None if kind == "dynamic" else values.get("original_max_position_embeddings")
    length = length or told.get("max_position_embeddings")
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


def _values(told: Told) -> Told:
    """As transformers 5 names them, or 4."""
    values = told.get("rope_parameters") or told.get("rope_scaling") or {}
    if not isinstance(values, dict):
        raise UserError("rope_scaling must be an object.", "config.json", MEND)
    return values


def share(told: Told, size: int, default: float) -> int:
    """``rotary_dim``, of heads of some size."""
    values = _values(told)
    older = told.get("partial_rotary_factor", told.get("rotary_pct", default))
    share = values.get("partial_rotary_factor", older)
    if not isinstance(share, int | float):
        raise UserError("partial_rotary_factor must be a number.", "config.json", MEND)
    return int(size * share)
