"""Turning queries and keys, and turning their gradients back."""

from __future__ import annotations

import pytest
import torch

from headrace.model.rotary import Rotary
from headrace.recipe.model import ModelConfig, RotaryScaling

CONFIG = ModelConfig(vocab_size=9, layers=1, width=20, heads=2, ffn=8)


def rotary(pairs, rotated, positions):
    config = ModelConfig(
        vocab_size=9, layers=1, width=20, heads=2, ffn=8, rotary_dim=rotated, rotary_pairs=pairs, norm="rmsnorm"
    )
    return Rotary(config, positions)


@pytest.mark.parametrize("pairs", ["half", "interleaved"])
@pytest.mark.parametrize("rotated", [6, 10])
@pytest.mark.parametrize("rows", [False, True])
def test_pairs_are_turned_as_complex_numbers(pairs, rotated, rows):
    generator = torch.Generator().manual_seed(0)
    positions = torch.randint(0, 50, (2, 7), generator=generator) if rows else torch.arange(7)
    turn = rotary(pairs, rotated, positions)
    x = torch.randn(2, 3, 1, 7, 10, generator=generator, dtype=torch.float64, requires_grad=True)
    half = rotated // 2
    a, b = (
        (x[..., :rotated:2], x[..., 1:rotated:2]) if pairs == "interleaved" else (x[..., :half], x[..., half:rotated])
    )
    expected = torch.complex(a, b) * torch.complex(turn.cos.double(), turn.sin.double())
    y = turn(x)
    c, d = (
        (y[..., :rotated:2], y[..., 1:rotated:2]) if pairs == "interleaved" else (y[..., :half], y[..., half:rotated])
    )
    torch.testing.assert_close(torch.complex(c, d), expected)
    assert torch.equal(y[..., rotated:], x[..., rotated:])
    assert torch.autograd.gradcheck(turn, x)
    torch.testing.assert_close(turn(x.bfloat16()), turn(x.bfloat16().float()).bfloat16(), rtol=0, atol=0)


def test_dynamic_scaling_depends_on_each_row_alone():
    """Rows up to the original length are as they were; longer ones do not change what others see."""
    scaled = CONFIG.model_copy(update={"rotary_scaling": RotaryScaling(kind="dynamic", factor=4, original_length=8)})
    rows = torch.stack((torch.arange(20), torch.arange(20) % 8))
    both, plain = Rotary(scaled, rows), Rotary(CONFIG, rows)
    for i, row in enumerate(rows):
        torch.testing.assert_close(both.cos[i, 0, 0], Rotary(scaled, row).cos)
    torch.testing.assert_close(both.cos[1], plain.cos[1])
    assert (both.cos[0] - plain.cos[0]).abs().max() > 0.1
