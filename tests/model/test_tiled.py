"""A map over tokens computed a tile at a time: its values, gradients, and what exists meanwhile."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as fn
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError
from torch import nn

from bench.counted import Counted
from headrace.model.config import ModelConfig
from headrace.model.tiled import tile_module, tiled
from headrace.model.transformer import Transformer
from headrace.recipe.training import TrainSection
from headrace.train.parallel import recomputed

CLOSE = {torch.float64: 1e-12, torch.float32: 2e-6, torch.bfloat16: 2e-2}


def close(mine, theirs, within):
    assert (mine is None) == (theirs is None)
    if mine is not None:
        assert (mine.shape, mine.dtype) == (theirs.shape, theirs.dtype)
        assert (mine.double() - theirs.double()).norm() <= within * theirs.double().norm() + 1e-12


def gated(x, gate, up, down, bias, unused):
    return fn.silu(x @ gate) * (x @ up) @ down + bias


def drawn(seed, b, t, d, inner, out, dtype):
    g = torch.Generator().manual_seed(seed)
    shapes = (b, t, d), (d, inner), (d, inner), (inner, out), (out,), (2,)
    return [torch.randn(shape, generator=g, dtype=torch.float64).to(dtype) for shape in shapes]


@settings(max_examples=60)
@given(
    st.integers(0, 2**31), st.integers(1, 3), st.integers(1, 20), st.integers(1, 6), st.integers(1, 6),
    st.integers(1, 25), st.sampled_from([torch.float64, torch.float32]),
    st.lists(st.booleans(), min_size=6, max_size=6),
)  # fmt: skip
def test_any_shape_tile_type_and_choice_of_gradients_is_the_wholes(seed, b, t, d, out, tile, dtype, wanted):
    x, *parameters = inputs = [
        one.requires_grad_(want) for one, want in zip(drawn(seed, b, t, d, 5, out, dtype), wanted, strict=True)
    ]
    expected, made = gated(*inputs), tiled(gated, x, parameters, tile)
    close(made, expected, CLOSE[dtype])
    if not any(wanted[:5]):
        return
    assert made.requires_grad
    upstream = torch.randn(expected.shape, generator=torch.Generator().manual_seed(seed)).to(dtype)
    learning = [one for one in inputs if one.requires_grad]
    theirs = torch.autograd.grad(expected, learning, upstream, allow_unused=True)
    for again in (True, False):
        mine = torch.autograd.grad(made, learning, upstream, allow_unused=True, retain_graph=again)
        for one, other in zip(mine, theirs, strict=True):
            close(one, other, CLOSE[dtype])


def test_gradcheck():
    inputs = [one.requires_grad_() for one in drawn(3, 2, 7, 3, 4, 2, torch.float64)]
    assert torch.autograd.gradcheck(lambda x, *rest: tiled(gated, x, rest, 3), [*inputs[:5], inputs[5].detach()])


def test_sums_over_tiles_are_float32():
    """64 gradients of 1 and then one of 2 ** -6 each: bfloat16 would lose every one of the small ones."""
    x = torch.full((1, 128, 1), 2.0**-7, dtype=torch.bfloat16)
    x[:, 0] = 1.0
    weight = torch.ones(1, dtype=torch.bfloat16, requires_grad=True)
    tiled(lambda x, weight: x * weight, x, [weight], 1).float().sum().backward()
    assert weight.grad.item() == pytest.approx(1 + 127 / 128, abs=2**-7)


CONFIGS = {
    "gated": {},
    "biased": {"attention_bias": True, "ffn_bias": True, "norm": "layernorm"},
    "gelu": {"activation": "gelu_tanh", "ffn_bias": True, "parallel_residual": True},
    "mup": {"tied": True, "mup": {"embedding_multiplier": 2.0, "logit_multiplier": 0.5, "attention": "d"}},
}


def model(kind, dtype=torch.float32, **more) -> Transformer:
    config = ModelConfig(**{"vocab_size": 37, "layers": 2, "width": 8, "heads": 2, "ffn": 24, **CONFIGS[kind], **more})
    made = Transformer(config, dtype)
    made.initialise(3)
    return made


def losses(of: nn.Module) -> torch.Tensor:
    tokens = torch.arange(46).view(2, 23) % 37
    return of(tokens[:, :-1], targets=tokens[:, 1:].flatten())[0]


@pytest.mark.parametrize("how", ["none", "full", "selective"])
@pytest.mark.parametrize("kind", CONFIGS)
def test_a_models_gradients_are_the_wholes(kind, how):
    for dtype, frozen in ((torch.float32, ()), (torch.bfloat16, ("embedding", "attention.qkv", "norm", "ffn.up"))):
        plain, other = model(kind, dtype), model(kind, dtype)
        other.tile_mlp(5, dtype, compiled=False)
        calls, writes = [], []
        for one in (plain, other):
            for name, parameter in one.named_parameters():
                parameter.requires_grad_(not any(part in name for part in frozen))
        for block in other.blocks:
            block.ffn.down.register_forward_hook(lambda module, given, out, calls=calls: calls.append(out.shape[1]))
            if how != "none":
                block.forward = recomputed(block.forward, how)
        for name, parameter in other.named_parameters():
            if parameter.requires_grad:
                parameter.register_post_accumulate_grad_hook(lambda _, name=name, writes=writes: writes.append(name))
        expected, loss = losses(plain), losses(other)
        close(loss, expected, CLOSE[torch.float32])
        expected.backward()
        loss.backward()
        for (name, mine), theirs in zip(other.named_parameters(), plain.parameters(), strict=True):
            if name.endswith("qkv.bias"):  # a key's bias has no gradient but rounding
                continue
            close(mine.grad, theirs.grad, CLOSE[dtype] if dtype == torch.float32 else 1e-2)
        # 2 layers x 5 tiles, forward and backward: a block that is computed again stops before its feed-forward.
        assert sorted(calls) == sorted([5, 5, 5, 5, 2] * 4)
        assert sorted(writes) == sorted(name for name, one in other.named_parameters() if one.requires_grad)


def test_names_stay_and_without_a_gradient_nothing_is_kept():
    plain, other = model("gated"), model("gated")
    other.tile_mlp(None, torch.float32, compiled=False)
    assert list(other.state_dict()) == list(plain.state_dict())
    with torch.no_grad():
        assert torch.equal(losses(other), losses(plain))
    x = torch.randn(1, 9, 8)
    with torch.inference_mode():
        close(other.blocks[0].ffn(x), plain.blocks[0].ffn(x), 1e-6)


@pytest.mark.parametrize("how", ["none", "full", "selective"])
def test_a_feed_forward_layer_holds_the_activations_of_one_tile(how):
    peaks = []
    for tokens in (256, 512):
        made = model("gated", ffn=512, layers=1).blocks[0].ffn
        tile_module(made, 32)
        forward = made.__call__ if how == "none" else recomputed(made.__call__, how)
        x = torch.randn(1, tokens, 8, requires_grad=True)
        with Counted() as seen:
            forward(x).sum().backward()
        assert max(size[1] for size in seen.shapes if len(size) == 3 and size[2] == 512) == 32
        peaks.append(seen.peak)
    # Twice the tokens: what grows is as wide as the model, a sixty-fourth of the layer.
    assert peaks[1] - peaks[0] <= 256 * 8 * 4 * 6
    whole = model("gated", ffn=512, layers=1).blocks[0].ffn
    with Counted() as seen:
        whole(x).sum().backward()
    assert seen.peak > 5 * peaks[1]


def test_under_autocast():
    torch.manual_seed(0)
    layers = nn.Sequential(nn.Linear(6, 9), nn.GELU(), nn.Linear(9, 6))
    x = torch.randn(2, 10, 6, requires_grad=True)

    def gradients():
        with torch.autocast("cpu", torch.bfloat16):
            made = layers(x)
            made = layers(made.float())  # twice: what autocast remembers of the first must not be the second's
        assert made.dtype == torch.bfloat16
        return [made, *torch.autograd.grad(made.float().square().sum(), [x, *layers.parameters()])]

    expected = gradients()
    tile_module(layers, 3)
    for one, other in zip(gradients(), expected, strict=True):
        close(one, other, 2e-2)


def test_in_8_bits_it_rounds_as_the_whole():
    """Each tile has scales of its own: as far from bfloat16 as the whole is."""
    pytest.importorskip("torchao")
    from headrace.train.float8 import convert

    def gradients(eight, tile):
        made = model("biased", torch.bfloat16, width=32, ffn=64)
        if eight:
            convert(made, torch.device("cpu"))
        if tile:
            made.tile_mlp(5, None, compiled=False)
        losses(made).backward()
        return [one.grad for one in made.parameters()]

    plain, whole, tiles = gradients(False, False), gradients(True, False), gradients(True, True)
    for name, a, b, c in zip(dict(model("biased").named_parameters()), plain, whole, tiles, strict=True):
        if "qkv.bias" not in name:
            assert (c - a).norm() <= 1.2 * (b - a).norm() + 0.05 * a.norm(), name


def test_what_cannot_be_is_refused_in_the_recipe():
    about = {"compile": True, "recompute": "selective", "long": {"tile_mlp": 8}}
    with pytest.raises(ValidationError, match="not kept selectively"):
        TrainSection.model_validate(about)
    TrainSection.model_validate({**about, "recompute": "full"})


@pytest.mark.slow
def test_compiled_is_eager():
    plain, other = model("gated"), model("gated")
    other.tile_mlp(6, torch.float32, compiled=True)
    for block in other.blocks:
        block.forward = recomputed(torch.compile(block.forward), "full")
    for one in (plain, other):
        losses(one).backward()
    for mine, theirs in zip(other.parameters(), plain.parameters(), strict=True):
        close(mine.grad, theirs.grad, 1e-5)
