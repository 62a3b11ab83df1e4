"""A config.json as transformers has it, and the model that it makes of it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch

from headrace.errors import UserError
from headrace.model.config import ForeignConfig

_MOST_LAYERS = 10_000  # more are a damaged file, and modules without end
_OTHER = "Use a decoder of text alone that this transformers has."


def known(kind: Any) -> bool:
    """Whether transformers has models of a ``model_type``.

    Raises:
        UserError: transformers is not installed.
    """
    try:
        from transformers import CONFIG_MAPPING
    except ImportError:
        raise UserError(
            "`model.huggingface` needs transformers, not installed here.", "model", "pip install transformers"
        ) from None
    return isinstance(kind, str) and kind in CONFIG_MAPPING


def configuration(huggingface: Mapping[str, Any]) -> Any:
    """A config.json as transformers has it.

    Raises:
        UserError: it has no such model, or one that does not predict text from text before it.
    """
    told = dict(huggingface)
    kind = told.pop("model_type", None)
    if not known(kind):
        raise UserError(
            f"transformers has no model of type {kind!r}.",
            "config.json",
            "Use one that it has, or a newer transformers.",
        )
    from transformers import AutoConfig

    try:
        config = AutoConfig.for_model(kind, **told)
        composite, layers = config.get_text_config() is not config, getattr(config, "num_hidden_layers", 1)
    except Exception as error:  # transformers raises many kinds for what a configuration may say
        raise UserError(
            f"The configuration cannot be used: {first_line(error)}", "config.json", "Copy the model again."
        ) from None
    if getattr(config, "is_encoder_decoder", False):
        raise UserError(f"{kind} is an encoder and a decoder: its text has two parts.", "config.json", _OTHER)
    if composite or hasattr(config, "vision_config"):
        raise UserError(f"{kind} is a model of more than text, such as images.", "config.json", _OTHER)
    if told.get("quantization_config"):
        raise UserError(
            "The model is quantized: its weights cannot be trained.", "config.json", "Use the model it was made from."
        )
    if not isinstance(layers, int) or layers > _MOST_LAYERS:
        raise UserError(f"The configuration has {layers} layers.", "config.json", "Copy the model again.")
    return config


def made(config: ForeignConfig) -> Any:
    """The model of transformers in float32 on torch's default device, with weights drawn by torch's own generator.

    Raises:
        UserError: transformers makes no causal model of the configuration.
    """
    found = configuration(config.huggingface)
    from transformers import AutoModelForCausalLM

    try:
        return AutoModelForCausalLM.from_config(found, dtype=torch.float32)
    except Exception as error:
        raise UserError(
            f"transformers makes no causal model of this configuration: {first_line(error)}", "config.json", _OTHER
        ) from None


def first_line(error: Exception) -> str:
    """What an exception says, in short."""
    return (str(error).splitlines() or [type(error).__name__])[0][:200]
