"""Folders with a model of transformers: reading its configuration and weights, and writing both."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from headrace.errors import UserError
from headrace.model.config import ForeignConfig
from headrace.model.foreign.configuration import configuration, first_line, known
from headrace.model.foreign.module import Foreign, count
from headrace.model.foreign.proof import prove
from headrace.model.huggingface.reading import read_json, refuse_nan

_NOT_THE_MODELS = ("_name_or_path", "transformers_version", "auto_map", "torch_dtype", "dtype", "use_cache")


def read_foreign(folder: Path) -> ForeignConfig:
    """The model of a folder's config.json.

    Raises:
        UserError: there is none, transformers is not installed, or has no such causal model.
    """
    path = folder / "config.json"
    told = read_json(path)
    try:
        if "auto_map" in told and not known(told.get("model_type")):
            raise UserError(
                f"The model's code lies beside it (model_type {told.get('model_type')!r}, trust_remote_code). Such code"
                " is not run.",
                "config.json",
                "Use a model that this transformers has, or a newer transformers.",
            )
        told = {key: value for key, value in told.items() if key not in _NOT_THE_MODELS}
        size = getattr(configuration(told), "vocab_size", None)
        if not isinstance(size, int) or size < 1:
            raise UserError("The configuration has no vocab_size.", "config.json", "Copy the model again.")
        config = ForeignConfig(huggingface=told, vocab_size=size)
        count(config)
    except UserError as error:
        raise UserError(error.what, str(path), error.fix) from None
    return config


def read_weights(config: ForeignConfig, folder: Path) -> dict[str, Tensor]:
    """The weights in a folder by the names of :class:`~headrace.model.foreign.module.Foreign`, float32.

    Raises:
        UserError: they are not safetensors, or not those of the configuration.
    """
    from transformers import AutoModelForCausalLM

    try:
        loaded: Any = AutoModelForCausalLM.from_pretrained(
            folder,
            config=configuration(config.huggingface),
            dtype=torch.float32,
            use_safetensors=True,
            local_files_only=True,
            trust_remote_code=False,
            output_loading_info=True,
        )
    except Exception as error:
        raise UserError(
            f"The weights cannot be read: {first_line(error)}",
            str(folder),
            "Copy the model again, or install the transformers that it was saved with.",
        ) from None
    model, report = loaded
    if missing := sorted(report["missing_keys"]):
        more = f" and {len(missing) - 1} more" if len(missing) > 1 else ""
        raise UserError(f"The weights lack {missing[0]}{more}.", str(folder), "Copy the model again.")
    found = {f"model.{name}": parameter.detach() for name, parameter in model.named_parameters()}
    for name, tensor in found.items():
        refuse_nan(name, tensor, folder)
    prove(model, config, str(folder))
    return found


def write(config: ForeignConfig, get: Callable[[str], Tensor], out: Path, most: int, dtype: torch.dtype) -> None:
    """Write config.json and safetensors as transformers does, by the names that it publishes models with.

    Args:
        config: the model.
        get: returns a parameter by the name that :class:`~headrace.model.foreign.module.Foreign` has for it.
        out: an existing folder.
        most: bytes in a file.
        dtype: of the weights to write.
    """
    model = Foreign(config)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            parameter.copy_(get(name))
    model.model.to(dtype).save_pretrained(out, max_shard_size=most)
