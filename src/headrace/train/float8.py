"""Matrix products in 8-bit floating point, by torchao (Micikevicius et al., FP8 Formats for Deep Learning, 2022).

Values are scaled by each tensor's largest as they are multiplied; weights, sums and all else stay as for bf16. Head and
embedding are no part of it.
"""

from __future__ import annotations

import importlib.util
import sys

import torch
from torch import nn

from headrace.errors import UserError
from headrace.model.transformer import Transformer

MULTIPLE = 16  # of both dimensions of a matrix, for the GPU's kernels
CAPABILITY = (8, 9)  # Ada, Hopper and later multiply it


def check() -> None:
    """Look for what it needs.

    Raises:
        UserError: torchao is not installed, or this machine has no GPU that multiplies 8-bit floating point.
    """
    if importlib.util.find_spec("torchao") is None:
        raise UserError(
            "8-bit products need torchao, which is not installed here.",
            "train.precision",
            f"{sys.executable} -m pip install torchao; or set precision: bf16.",
        )
    if torch.version.hip is not None:
        return
    found = torch.cuda.get_device_capability() if torch.cuda.is_available() else None
    if found is None or found < CAPABILITY:
        what = "no GPU" if found is None else f"a GPU of compute capability {found[0]}.{found[1]}"
        raise UserError(
            f"8-bit products need a GPU of compute capability 8.9 or more; there is {what} here.",
            "train.precision",
            "Set precision: bf16; or make the data here (`--until sequence`), and train where there is one.",
        )


def convert(model: Transformer, device: torch.device) -> None:
    """Let a model's linear maps multiply in 8 bits: those of its blocks whose dimensions are multiples of 16.

    Args:
        model: the model, not yet placed; names and types of its parameters stay.
        device: where it will be; on a CPU the arithmetic is emulated.
    """
    from torchao.float8 import Float8LinearConfig, convert_to_float8_training

    def fits(module: nn.Module, name: str) -> bool:
        return isinstance(module, nn.Linear) and all(size % MULTIPLE == 0 for size in module.weight.shape)

    # A row of tokens may be of any length: the products over tokens are padded where they must be.
    config = Float8LinearConfig(pad_inner_dim=True, emulate=device.type == "cpu")
    for block in model.blocks:
        convert_to_float8_training(block, config=config, module_filter_fn=fits)
