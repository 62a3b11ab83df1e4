"""A model of any configuration."""

from __future__ import annotations

from typing import cast

import torch

from headrace.model.config import AnyConfig, ForeignConfig
from headrace.model.transformer import Transformer

# Of matrix products and activations; 8-bit products begin and end in bfloat16.
DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp8": torch.bfloat16}


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
