"""Rotary frequencies that a stage changes: which ones result, and that they hold for the stages after it."""

from __future__ import annotations

import pytest
import torch

from headrace.errors import UserError
from headrace.model.config import ForeignConfig
from headrace.model.foreign.module import Foreign
from headrace.model.rescaled import rescaled
from headrace.model.rotary import frequencies
from headrace.recipe.model import ModelConfig, Rotary
from headrace.recipe.schema import Recipe

OURS = ModelConfig(vocab_size=64, layers=1, width=32, heads=2, ffn=48, rotary_base=20_000.0)
LLAMA = ForeignConfig(
    huggingface={
        "model_type": "llama",
        "vocab_size": 64,
        "hidden_size": 32,
        "num_hidden_layers": 1,
        "num_attention_heads": 2,
        "intermediate_size": 48,
        "max_position_embeddings": 128,
        "rope_theta": 20_000.0,
    },
    vocab_size=64,
)
SIZES = {"original_length": 128, "factor": 8.0}


def recipe(*stages, **model):
    return Recipe.model_validate(
        {
            "name": "long",
            "sources": {"code": {"files": "x"}},
            "tokenizer": {"file": "t.json"},
            "model": {"preset": "tiny", **model},
            "stages": [{"name": f"s{i}", "sources": {"code": {}}, **stage} for i, stage in enumerate(stages)],
        }
    )


def changes(*stages):
    found = recipe(*stages)
    return [found.rotary(stage) for stage in found.stages]


@pytest.mark.parametrize("kind", ["linear", "dynamic", "yarn", "llama3", "ntk"])
@pytest.mark.parametrize("base", [None, 500_000.0])
def test_our_model_and_that_of_transformers_turn_alike(kind, base):
    change = Rotary.model_validate({"base": base, "scaling": {"kind": kind, **SIZES}})
    ours, theirs = rescaled(OURS, change, "long"), rescaled(LLAMA, change, "long")
    embedding = Foreign(theirs).model.model.rotary_emb
    torch.testing.assert_close(embedding.inv_freq, frequencies(ours))
    scaling = ours.rotary_scaling
    assert embedding.attention_scaling == pytest.approx(1.0 if scaling is None else scaling.temperature)


def test_only_the_base_may_change():
    change = Rotary(base=1e6)
    assert rescaled(OURS, change, "long") == OURS.model_copy(update={"rotary_base": 1e6})
    assert rescaled(LLAMA, change, "long").huggingface["rope_parameters"]["rope_theta"] == 1e6


def test_ntk_slows_the_slowest_pair_and_leaves_the_fastest():
    change = Rotary.model_validate({"scaling": {"kind": "ntk", **SIZES}})
    before, after = frequencies(OURS), frequencies(rescaled(OURS, change, "long"))
    assert after[0] == before[0]
    torch.testing.assert_close(after[-1], before[-1] / 8)


def test_layers_with_a_window_turn_as_before():
    told = {
        "model_type": "gemma3_text",
        "vocab_size": 64,
        "hidden_size": 32,
        "num_hidden_layers": 2,
        "num_attention_heads": 2,
        "head_dim": 16,
    }
    change = Rotary.model_validate({"scaling": {"kind": "linear", **SIZES}})
    found = rescaled(ForeignConfig(huggingface=told, vocab_size=64), change, "long").huggingface["rope_parameters"]
    assert found["full_attention"] == {"rope_type": "linear", "factor": 8.0, "rope_theta": 1_000_000.0}
    assert found["sliding_attention"] == {"rope_type": "default", "rope_theta": 10_000.0}


def test_lengths_come_from_the_stages_and_hold_for_those_after():
    first, long, longer = changes(
        {"sequence_length": 512},
        {"sequence_length": 8192, "rotary": {"scaling": "yarn", "base": 1e6}},
        {"sequence_length": 8192},
    )
    assert first is None
    assert long == longer
    assert (long.base, long.scaling.kind, long.scaling.original_length, long.scaling.factor) == (1e6, "yarn", 512, 16)


def test_a_second_change_counts_from_the_first_length():
    _, _, longer = changes(
        {"sequence_length": 512},
        {"sequence_length": 2048, "rotary": {"scaling": "yarn", "base": 1e6}},
        {"sequence_length": 8192, "rotary": {"scaling": "linear"}},
    )
    assert (longer.base, longer.scaling.original_length, longer.scaling.factor) == (1e6, 512, 16)


def test_a_stage_that_starts_elsewhere_inherits_nothing():
    *_, other = changes(
        {"sequence_length": 512},
        {"sequence_length": 2048, "rotary": {"scaling": "yarn"}},
        {"sequence_length": 2048, "start": "s0"},
    )
    assert other is None


@pytest.mark.parametrize(
    ("rotary", "message"),
    [
        ({"scaling": "yarn"}, "no stage before tells the row length"),
        ({}, "nothing is changed"),
        ({"scaling": "spiral"}, "spiral"),
        ({"scaling": {"kind": "yarn", "factor": 0.5}}, "factor"),
        ({"base": -1}, "base"),
    ],
)
def test_mistakes_are_named(rotary, message):
    with pytest.raises(ValueError, match=message):
        recipe({"rotary": rotary})


@pytest.mark.parametrize(
    "config",
    [
        OURS.model_copy(update={"rotary_dim": 0, "learned_positions": 64}),
        ForeignConfig(huggingface={"model_type": "gpt2", "vocab_size": 64, "n_embd": 32, "n_head": 2}, vocab_size=64),
    ],
)
def test_a_model_without_rotary_embedding_is_refused(config):
    with pytest.raises(UserError, match="no rotary embedding"):
        rescaled(config, Rotary(base=1e6), "long")
