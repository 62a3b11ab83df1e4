"""AdamW's groups, its rates and its state by name."""

from __future__ import annotations

import pytest
import torch

from headrace.model.config import ModelConfig, Mup
from headrace.model.transformer import Transformer
from headrace.recipe.training import OptimizerSection
from headrace.train.optimizer import AdamW

CONFIG = ModelConfig(
    vocab_size=40, layers=1, width=16, heads=2, ffn=24, norm="layernorm", attention_bias=True, tied=False,
    mup=Mup(hidden_learning_rate=0.0625),
)  # fmt: skip


def trained(steps: int, optimizer_from: AdamW | None = None, model_from: Transformer | None = None):
    model = Transformer(CONFIG)
    model.initialise(1)
    optimizer = AdamW(model, OptimizerSection(learning_rate=0.01))
    if optimizer_from is not None and model_from is not None:
        model.load_state_dict(model_from.state_dict())
        for name, tensor in optimizer.named_state().items():
            tensor.copy_(optimizer_from.named_state()[name])
    for _ in range(steps):
        optimizer.zero_grad()
        model(torch.arange(12).view(2, 6)).square().mean().backward()
        optimizer.step()
    return model, optimizer


def test_groups_are_crystalcoders():
    model = Transformer(CONFIG)
    optimizer = AdamW(model, OptimizerSection(weight_decay=0.1))
    optimizer.set_learning_rate(0.012)
    rates = {name: (g["lr"], g["weight_decay"]) for g in optimizer.param_groups for p in g["params"]
             for name in [optimizer.names[p]]}  # fmt: skip
    assert rates.keys() == dict(model.named_parameters()).keys()
    assert rates["blocks.0.attention.qkv.weight"] == pytest.approx((7.5e-4, 0.1))
    assert rates["blocks.0.ffn.down.weight"] == pytest.approx((7.5e-4, 0.1))
    assert rates["embedding.weight"] == pytest.approx((0.012, 0.1))
    assert rates["head.weight"] == pytest.approx((0.012, 0.1))
    assert rates["blocks.0.attention.qkv.bias"] == pytest.approx((0.012, 0.0))
    assert rates["norm.weight"] == pytest.approx((0.012, 0.0))
    bare = AdamW(model, OptimizerSection(decay_embedding=False))
    decays = {bare.names[p]: g["weight_decay"] for g in bare.param_groups for p in g["params"]}
    assert decays["embedding.weight"] == 0
    assert decays["head.weight"] == 0.1  # an untied head is no embedding


def test_one_step_is_adamws_formula():
    model, optimizer = trained(0)
    optimizer.set_learning_rate(0.01)
    before = {name: p.detach().clone() for name, p in model.named_parameters()}
    model(torch.arange(12).view(2, 6)).square().mean().backward()
    optimizer.step()
    for name, p in model.named_parameters():
        rate = 0.01 * (0.0625 if name.startswith("blocks.") and p.dim() == 2 else 1)
        decay = 0.1 if p.dim() == 2 else 0
        expected = before[name] * (1 - rate * decay) - rate * p.grad / (p.grad.abs() + 1e-9)
        torch.testing.assert_close(p.detach(), expected)


def test_state_by_name_goes_on_exactly():
    whole, _ = trained(5)
    half, optimizer = trained(2)
    rest, _ = trained(3, optimizer, half)
    for name, tensor in whole.state_dict().items():
        assert torch.equal(tensor, rest.state_dict()[name])
