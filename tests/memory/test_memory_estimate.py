"""Arithmetic of the estimate, and of the paper on Arctic Long Sequence Training."""

from __future__ import annotations

from dataclasses import replace

import pytest

from headrace.errors import UserError
from headrace.memory import alst
from headrace.memory.choice import advice
from headrace.memory.estimate import estimate
from headrace.memory.fit import fits, longest
from headrace.memory.machines import GIB, GPUS, Machine
from headrace.memory.settings import Settings
from headrace.memory.shape import Shape
from headrace.memory.stage import settings_of
from headrace.model.config import ForeignConfig, ModelConfig
from headrace.model.presets import PRESETS
from headrace.recipe.training import TrainSection

LLAMA = Shape.of(PRESETS["llama-3-8b"])
LONG = Settings(length=32768, bits16=True, recompute="full", accelerator=True, data=8, sharded=True)
H100 = Machine.of("h100", 8)


def test_the_papers_arithmetic():
    """Its sections 2 and 3."""
    assert alst.model_states(8_000_000_000) == 144 * 10**9
    assert alst.logits(16_000, 128_256) / GIB == pytest.approx(7.65, abs=0.01)
    assert alst.checkpoints(125_000, 4096, 32) / GIB == pytest.approx(30.5, abs=0.05)
    # Llama-3-70B: 80 layers of 8,192; 3 M tokens on four nodes.
    assert alst.host_checkpoints(3_000_000, 8192, 80, 4) / GIB == pytest.approx(915, abs=1)


def test_the_papers_ablation():
    """In the same order, and no further from it than a step of its search: it doubles 32 k, and adds to the others."""
    found = [alst.longest(LLAMA, line, GPUS["h100"]) for line in alst.PUBLISHED]
    published = [line.published for line in alst.PUBLISHED]
    assert sorted(range(8), key=found.__getitem__) == sorted(range(8), key=published.__getitem__)
    for length, line in zip(found, alst.PUBLISHED, strict=True):
        assert 1 <= length / line.published < (2 if line.name == "baseline" else 1.35), line.name


def test_checkpoints_of_the_engine_are_the_papers():
    settings = replace(LONG, length=125_000)
    end = estimate(LLAMA, settings).moments[0]
    assert end.terms["checkpoints"] == alst.checkpoints(125_000, 4096, 32)


def test_every_preset_has_a_shape_with_all_its_parameters():
    for name, config in PRESETS.items():
        known = config if config.vocab_size else config.model_copy(update={"vocab_size": 1000})
        shape = Shape.of(known)
        assert shape.ends >= shape.table * (1 if shape.tied else 2), name
        assert shape.inside % shape.layers == 0, name


def test_a_model_of_transformers_is_estimated_as_ours_of_its_sizes():
    told = {
        "model_type": "llama",
        "hidden_size": 64,
        "num_hidden_layers": 3,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "intermediate_size": 160,
        "vocab_size": 512,
        "tie_word_embeddings": True,
    }
    about = {"vocab_size": 512, "layers": 3, "width": 64, "heads": 4, "kv_heads": 2, "ffn": 160, "norm": "rmsnorm"}
    theirs, ours = Shape.of(ForeignConfig(huggingface=told, vocab_size=512)), Shape.of(ModelConfig(**about))
    assert theirs.parameters == ours.parameters
    train = TrainSection(batch=4, recompute="full", long={"tile_mlp": 16, "tile_loss": 32, "sequence_parallel": 4})
    settings = [settings_of(train, 4096, shape, H100, "") for shape in (theirs, ours)]
    found = [estimate(shape, one).peak.total for shape, one in zip((theirs, ours), settings, strict=True)]
    assert found[0] == pytest.approx(found[1], rel=1e-4)


def test_terms_of_different_moments_are_not_added():
    found = estimate(LLAMA, LONG)
    most = {term: max(moment.terms[term] for moment in found.moments) for term in found.peak.terms}
    assert found.peak.total < sum(most.values())


@pytest.mark.parametrize(
    ("key", "value"),
    [("recompute", "none"), ("sharded", False), ("rows", 2), ("bits16", False), ("length", 65536), ("passes", 2)],
)
def test_less_of_it_is_never_more(key, value):
    more = estimate(LLAMA, replace(LONG, **{key: value}))
    assert more.peak.total > estimate(LLAMA, LONG).peak.total


@pytest.mark.parametrize("gpu", ["h100", "h200"])
def test_the_longest_row_fits_and_one_step_more_does_not(gpu):
    machine = Machine.of(gpu, 8)
    found = longest(LLAMA, LONG, machine)
    assert fits(estimate(LLAMA, replace(LONG, length=found)), machine)
    assert not fits(estimate(LLAMA, replace(LONG, length=found + 256)), machine)


def test_nothing_fits_where_the_weights_do_not():
    assert longest(LLAMA, replace(LONG, data=1, sharded=False), Machine.of("h100")) == 0


def test_advice_is_sorted_and_true():
    train = TrainSection(batch=16)
    now = longest(LLAMA, settings_of(train, 4096, LLAMA, H100, ""), H100)
    found = advice(train, 4096, LLAMA, H100)
    assert [one.longest for one in found] == sorted((one.longest for one in found), reverse=True)
    assert all(one.longest > now for one in found)
    [full] = [one for one in found if one.switch == "recompute: full"]
    settings = settings_of(TrainSection(batch=16, recompute="full"), full.longest, LLAMA, H100, "")
    assert fits(estimate(LLAMA, settings), H100)


def test_the_hosts_memory_counts():
    settings = replace(LONG, length=8192)
    assert fits(estimate(LLAMA, settings), replace(H100, host=10**12))
    assert not fits(estimate(LLAMA, settings), replace(H100, host=10**10))


@pytest.mark.parametrize(("gpu", "memory"), [("H100", GPUS["h100"]), ("80GB", 80 * 10**9), ("24GiB", 24 * GIB)])
def test_gpus_by_name_and_by_memory(gpu, memory):
    assert Machine.of(gpu).memory == memory


@pytest.mark.parametrize("gpu", ["h1000", "", "0", "12", "-80GB", "80QB"])
def test_an_unknown_gpu_is_refused(gpu):
    with pytest.raises(UserError, match="GPU"):
        Machine.of(gpu)
