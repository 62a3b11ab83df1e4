"""A model of any configuration."""

from __future__ import annotations

from typing import cast

import torch

from headrace.environment import multiplies_bfloat16
from headrace.model.config import AnyConfig, ForeignConfig
from headrace.model.transformer import Transformer


def dtype_of(precision: str, device: torch.device) -> torch.dtype:
    """The type of matrix products and activations; 8-bit products begin and end in bfloat16.

    On a CPU that cannot multiply bfloat16 it is float32, which rounds less: torch would multiply number by number, in 5
    (4,096 x 256 by 704) to 8 times (batches of 512 x 64) the time (AMD EPYC with AVX2).

    Args:
        precision: the recipe's.
        device: where it is computed.
    """
    if precision == "fp32" or (precision == "bf16" and device.type == "cpu" and not multiplies_bfloat16()):
        return torch.float32
    return torch.bfloat16


def build(config: AnyConfig, dtype: torch.dtype = torch.float32) -> Transformer:
    """headrace's own model, or one of transformers behind the same face.

    Args:
        config: complete.
        dtype: of matrix products and activations.
    """
    if isinstance(config, ForeignConfig):
        from headrace.model.foreign.module import Foreign

        return cast(Transformer, Foreign(config, dtype))
    return Transformer(config, dtype)
