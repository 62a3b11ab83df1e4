"""The estimate against what torch holds, counted storage by storage."""

from __future__ import annotations

import pytest
from counted_step import Counted

from headrace.memory.estimate import estimate
from headrace.memory.settings import Settings
from headrace.memory.shape import Shape
from headrace.recipe.model import ModelConfig
from quick import quick

SMALL = {"vocab_size": 512, "layers": 3, "width": 64, "heads": 4, "ffn": 176}
GELU = {"norm": "layernorm", "activation": "gelu", "attention_bias": True, "ffn_bias": True, "ffn": 256}
MODELS = {
    "llama": ModelConfig(**{**SMALL, "kv_heads": 2}),
    "gpt2": ModelConfig(**{**SMALL, **GELU, "learned_positions": 4096, "rotary_dim": 0}),
    "neox": ModelConfig(**{**SMALL, **GELU, "heads": 2, "tied": False, "parallel_residual": True, "rotary_dim": 16}),
    "qwen": ModelConfig(**{**SMALL, "kv_heads": 1, "qk_norm": True, "head_dim": 32, "tied": False}),
    "mistral": ModelConfig(**{**SMALL, "kv_heads": 2, "sliding_window": 128, "tied": False}),
    "vocabulary": ModelConfig(**{**SMALL, "vocab_size": 30_000, "width": 96, "layers": 2}),
}
CASES = [
    (model, shape, bits16, recompute)
    for model in MODELS
    for shape in ((2, 200), (1, 900), (1, 2500))
    for bits16 in (False, True)
    for recompute in ("none", "selective", "full")
]
QUICK = [
    ("llama", (2, 200), False, "none"),
    ("llama", (1, 900), False, "full"),
    ("llama", (2, 200), True, "selective"),
    ("gpt2", (2, 200), False, "selective"),
    ("neox", (2, 200), False, "full"),
    ("qwen", (2, 200), True, "none"),
    ("mistral", (1, 900), False, "none"),
    ("vocabulary", (2, 200), False, "full"),
]
# What is kept between forward and backward pass, and the most at once in each phase of a step.
KEPT, PEAK = 0.05, 0.15


@pytest.mark.parametrize(("model", "shape", "bits16", "recompute"), quick(CASES, *QUICK))
def test_a_step_holds_what_is_estimated(model, shape, bits16, recompute):
    rows, length = shape
    config = MODELS[model]
    counted = Counted(config, rows, length, bits16, recompute)
    settings = Settings(length, rows, bits16=bits16, recompute=recompute)
    found = estimate(Shape.of(config), settings)
    weights = 4 * Shape.of(config).parameters

    def held(moment) -> int:
        """What the count sees: not the weights, nor what was there before."""
        of = moment.terms
        return sum(of[t] for t in ("gradients", "checkpoints", "attention", "mlp", "logits", "weights")) - weights

    moments = {moment.name: moment for moment in found.moments}
    end = moments["end of the forward pass"]
    small = 200 * rows * length  # rotary tables, targets
    assert held(end) == pytest.approx(counted.forward_end.total(), rel=KEPT, abs=small)
    backward = max(held(moment) for name, moment in moments.items() if name.startswith("backward"))
    estimated = {"loss": held(moments["loss"]), "backward": backward}
    for phase, size in estimated.items():
        assert size == pytest.approx(counted.peaks[phase], rel=PEAK), phase
    assert max(estimated.values()) == pytest.approx(max(counted.peaks.values()), rel=PEAK)
    if recompute == "none" and not bits16:
        # What the norm of the feed-forward network reads is made between the two halves.
        between = 0 if config.parallel_residual else config.layers * 4 * rows * length * config.width
        halves = {"attention": end.terms["attention"], "mlp": end.terms["mlp"] - between}
        for half, size in halves.items():
            assert size == pytest.approx(counted.forward_end[half], rel=KEPT), half
