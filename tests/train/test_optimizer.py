"""The optimizers' groups, their rates and their state by name."""

from __future__ import annotations

import copy

import pytest
import torch
from pydantic import ValidationError

from headrace.model.config import ModelConfig, Mup
from headrace.model.transformer import Transformer
from headrace.recipe.overlay import merge
from headrace.recipe.training import OptimizerSection
from headrace.train.optimizer import Optimizer

CONFIG = ModelConfig(
    vocab_size=40, layers=1, width=16, heads=2, ffn=24, norm="layernorm", attention_bias=True, tied=False,
    mup=Mup(hidden_learning_rate=0.0625),
)  # fmt: skip


ADAMW = OptimizerSection(learning_rate=0.01)
MUON = OptimizerSection(kind="muon", learning_rate=0.01, momentum=0.9, other_learning_rate=0.5, eps=1e-8)


def trained(
    steps: int,
    optimizer_from: Optimizer | None = None,
    model_from: Transformer | None = None,
    section: OptimizerSection = ADAMW,
):
    model = Transformer(CONFIG)
    model.initialise(1)
    optimizer = Optimizer(model, section)
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
    optimizer = Optimizer(model, OptimizerSection(weight_decay=0.1))
    optimizer.set_learning_rate(0.012)
    rates = {name: (g["lr"], g["weight_decay"]) for g in optimizer.groups for p in g["params"]
             for name in [optimizer.names[p]]}  # fmt: skip
    assert rates.keys() == dict(model.named_parameters()).keys()
    assert rates["blocks.0.attention.qkv.weight"] == pytest.approx((7.5e-4, 0.1))
    assert rates["blocks.0.ffn.down.weight"] == pytest.approx((7.5e-4, 0.1))
    assert rates["embedding.weight"] == pytest.approx((0.012, 0.1))
    assert rates["head.weight"] == pytest.approx((0.012, 0.1))
    assert rates["blocks.0.attention.qkv.bias"] == pytest.approx((0.012, 0.0))
    assert rates["norm.weight"] == pytest.approx((0.012, 0.0))
    bare = Optimizer(model, OptimizerSection(decay_embedding=False))
    decays = {bare.names[p]: g["weight_decay"] for g in bare.groups for p in g["params"]}
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


def test_muon_is_torchs_beside_its_adamw():
    """Hidden matrices by Muon at muP's rate, the rest by AdamW at its own; the schedule drives both."""
    ours, optimizer = trained(0, section=MUON)
    theirs = copy.deepcopy(ours)
    hidden = dict(theirs.hidden_matrices())
    rest = {name: p for name, p in theirs.named_parameters() if name not in hidden}
    # muP's sixteenth of the rate is for AdamW: for Muon it is the root, a quarter.
    muon = torch.optim.Muon(hidden.values(), momentum=0.9, weight_decay=0.1, adjust_lr_fn="match_rms_adamw")
    matrices = {"params": [p for p in rest.values() if p.dim() == 2], "weight_decay": 0.1}
    vectors = {"params": [p for p in rest.values() if p.dim() == 1], "weight_decay": 0.0}
    adamw = torch.optim.AdamW([matrices, vectors], betas=(0.9, 0.95), eps=1e-8, fused=True)
    for step, rate in enumerate([0.01, 0.02, 0.005, 0.001]):
        optimizer.set_learning_rate(rate)
        muon.param_groups[0]["lr"] = rate / 4
        for group in adamw.param_groups:
            group["lr"] = rate / 2
        for model, parts in ((ours, [optimizer]), (theirs, [muon, adamw])):
            for part in parts:
                part.zero_grad()
            tokens = torch.arange(step, step + 12).view(2, 6)
            model(tokens, targets=tokens + 1)[0].backward()
            for part in parts:
                part.step()
        for (name, a), b in zip(ours.named_parameters(), theirs.parameters(), strict=True):
            assert torch.equal(a, b), (step, name)
    told = {name.rpartition("/")[2] for name in optimizer.named_state() if name.startswith("blocks.0.ffn.up.weight/")}
    assert told == {"momentum_buffer"}


def test_muons_own_keys_are_refused_for_adamw_and_displaced_by_it():
    with pytest.raises(ValidationError, match="AdamW has no `momentum`"):
        OptimizerSection(momentum=0.9)
    muon = {"kind": "muon", "momentum": 0.9, "learning_rate": 0.02}
    assert merge(muon, {"kind": "adamw"}, OptimizerSection) == {"kind": "adamw", "learning_rate": 0.02}


@pytest.mark.parametrize("section", [ADAMW, MUON])
def test_state_by_name_goes_on_exactly(section):
    whole, _ = trained(5, section=section)
    half, optimizer = trained(2, section=section)
    rest, _ = trained(3, optimizer, half, section)
    for name, tensor in whole.state_dict().items():
        assert torch.equal(tensor, rest.state_dict()[name])
