"""A model's configuration with other rotary frequencies, for rows longer than it was trained on."""

from __future__ import annotations

from typing import Any

from headrace.errors import UserError
from headrace.model.config import AnyConfig, ForeignConfig
from headrace.recipe.model import Rotary, RotaryScaling, StageScaling

_OLDER = {"rope_theta", "rope_scaling", "rope_parameters", "partial_rotary_factor", "rotary_pct", "rotary_emb_base"}


def rescaled(config: AnyConfig, rotary: Rotary | None, stage: str) -> AnyConfig:
    """The configuration of a stage's model.

    Args:
        config: the model as the recipe has it.
        rotary: what the stage, or one before it, changes, with all lengths; None: nothing.
        stage: the stage's name.

    Raises:
        UserError: the model has no rotary embedding.
    """
    if rotary is None:
        return config
    if isinstance(config, ForeignConfig):
        return _foreign(config, rotary, stage)
    if config.rotated == 0:
        raise no_rotary("the model", stage)
    update: dict[str, Any] = {}
    base = rotary.base or config.rotary_base
    if rotary.scaling is not None and rotary.scaling.kind == "ntk":
        base, update["rotary_scaling"] = larger_base(base, rotary.scaling, config.rotated), None
    elif rotary.scaling is not None:
        update["rotary_scaling"] = RotaryScaling.model_validate(rotary.scaling.model_dump())
    return config.model_copy(update={**update, "rotary_base": base})


def larger_base(base: float, scaling: StageScaling, rotated: int) -> float:
    """The base of NTK-aware scaling (bloc97, 2023; Peng et al., 2023, section 3.1), of so many rotated dimensions: the
    last pair turns ``factor`` times more slowly."""
    assert scaling.factor is not None
    return float(base * scaling.factor ** (rotated / max(1, rotated - 2)))


def no_rotary(what: str, stage: str) -> UserError:
    """The error for a model without rotary embedding."""
    return UserError(
        f"Stage {stage!r} changes rotary frequencies, and {what} has no rotary embedding.",
        f"stages.{stage}.rotary",
        "Remove it, or use a model that turns queries and keys by their positions.",
    )


def _foreign(config: ForeignConfig, rotary: Rotary, stage: str) -> ForeignConfig:
    """A model of transformers. Of one whose layers differ, those that see the whole row are changed."""
    from headrace.model.foreign.configuration import configuration
    from headrace.model.huggingface.rope import scaled  # imports torch

    found = configuration(config.huggingface)
    of_layers = getattr(found, "rope_parameters", None)
    if not of_layers:
        raise no_rotary(f"a model of type {found.model_type!r}", stage)
    nested = "full_attention" in of_layers
    values: dict[str, Any] = dict(of_layers["full_attention"] if nested else of_layers)
    told = {key: value for key, value in config.huggingface.items() if key not in _OLDER}
    values["rope_theta"] = rotary.base or values["rope_theta"]
    scaling = rotary.scaling
    if scaling is not None:
        values = {key: value for key, value in values.items() if key in ("rope_theta", "partial_rotary_factor")}
        size = getattr(found, "head_dim", None) or found.hidden_size // found.num_attention_heads
        if scaling.kind == "ntk":
            rotated = int(size * values.get("partial_rotary_factor", 1.0))
            values |= {"rope_type": "default", "rope_theta": larger_base(values["rope_theta"], scaling, rotated)}
        else:
            values |= scaled(RotaryScaling.model_validate(scaling.model_dump()))
        if scaling.kind == "dynamic":
            told["max_position_embeddings"] = scaling.original_length
    told["rope_parameters"] = {**of_layers, "full_attention": values} if nested else values
    return config.model_copy(update={"huggingface": told})
