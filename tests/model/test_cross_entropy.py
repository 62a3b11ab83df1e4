"""The chunked loss and its gradients against torch's own."""

from __future__ import annotations

import shutil

import pytest
import torch
import torch.nn.functional as fn
from hypothesis import given, settings
from hypothesis import strategies as st

from bench.counted import Counted
from headrace.model import cross_entropy
from headrace.model.cross_entropy import linear_cross_entropy
from quick import examples

# Elements of a chunk, its least rows, elements of a tile: every count of chunks and tiles, down to one row and column.
SIZES = [(1, 1, 1), (60, 3, 40), (1, 7, 50), (1 << 20, 1, 200), (1 << 20, 512, 1 << 20)]
# Relative to what torch computes in float64, or where terms cancel, to a term.
CLOSE = {torch.float64: 1e-12, torch.float32: 2e-6, torch.bfloat16: 2e-2}


@pytest.fixture(autouse=True)
def _restored(monkeypatch):
    for name in ("CHUNK", "LEAST_ROWS", "TILE", "CACHED"):
        monkeypatch.setattr(cross_entropy, name, getattr(cross_entropy, name))


def sizes(chunk: int, rows: int, tile: int) -> None:
    cross_entropy.CHUNK, cross_entropy.LEAST_ROWS, cross_entropy.TILE = chunk, rows, tile
    cross_entropy.CACHED = tile


def plain(hidden, matrix, bias, targets, weights, z_loss, cap=None):
    logits = fn.linear(hidden, matrix, bias)
    if cap is not None:
        logits = cap * torch.tanh(logits / cap)
    each = fn.cross_entropy(logits, targets, reduction="none")
    return ((each + z_loss * logits.logsumexp(-1) ** 2) * weights).sum(), each


def drawn(seed, n, v, d, dtype, bias=True):
    g = torch.Generator().manual_seed(seed)
    weights = torch.rand(n, generator=g) * (torch.rand(n, generator=g) < 0.7)
    shift = torch.randn(v, generator=g) if bias else None
    hidden, matrix = torch.randn(n, d, generator=g).to(dtype), torch.randn(v, d, generator=g)
    return [hidden, matrix, shift, torch.randint(0, v, (n,), generator=g), weights]


def close(mine, theirs, within, term=0.0):
    assert mine.shape == theirs.shape
    assert (mine.double() - theirs.double()).norm() <= within * (theirs.double().norm() + term) + 1e-12


@settings(max_examples=examples(150))
@given(
    st.integers(0, 2**31), st.integers(0, 9), st.integers(1, 40), st.integers(1, 9), st.sampled_from(list(CLOSE)),
    st.sampled_from(SIZES), st.sampled_from([0.0, 1e-2]), st.booleans(),
    st.lists(st.booleans(), min_size=4, max_size=4), st.sampled_from([None, 1, 4, 100]),
    st.sampled_from([None, 1.5, 30.0]),
)  # fmt: skip
def test_any_shape_type_and_choice_of_gradients_is_torchs(seed, n, v, d, dtype, size, z_loss, bias, needed, tile, cap):
    sizes(*size)
    inputs = drawn(seed, n, v, d, dtype, bias)
    if dtype == torch.float64:
        inputs = [t if t is None or t.dtype == torch.int64 else t.double() for t in inputs]
    places = [i for i, need in zip((0, 1, 2, 4), needed, strict=True) if need and inputs[i] is not None]
    for i in places:
        inputs[i].requires_grad_()
    # The same numbers, as float64: what is lost is lost in the computation.
    exact = [t if t is None or t.dtype == torch.int64 else t.detach().double() for t in inputs]
    exact[1] = exact[1].to(dtype).double()
    for i in places:
        exact[i].requires_grad_()
    expected, each = plain(*exact, z_loss, cap)
    loss, losses = linear_cross_entropy(*inputs, z_loss, tile, cap)
    assert loss.dtype == losses.dtype == torch.promote_types(dtype, torch.float32)
    assert not losses.requires_grad
    assert loss.requires_grad == bool(places)
    close(losses, each, CLOSE[dtype])
    close(loss, expected, CLOSE[dtype])
    if not places:
        return
    wanted = [inputs[i] for i in places]
    term = 3 * inputs[4].detach().norm() * (1 + inputs[0].detach().norm() + exact[1].detach().norm(dim=1).max())
    theirs = torch.autograd.grad(3 * expected, [exact[i] for i in places])
    for again in (True, True, False):  # backward as often as one likes
        mine = torch.autograd.grad(3 * loss, wanted, retain_graph=again)
        for got, want, of in zip(mine, theirs, wanted, strict=True):
            assert got.dtype == of.dtype
            close(got, want, CLOSE[dtype], term)


@pytest.mark.parametrize("size", SIZES)
def test_gradcheck(size):
    sizes(*size)
    hidden, matrix, bias, targets, weights = (
        t.double().requires_grad_() if t.is_floating_point() else t for t in drawn(3, 6, 11, 4, torch.float64)
    )
    assert torch.autograd.gradcheck(
        lambda *inputs: linear_cross_entropy(*inputs[:3], targets, inputs[3], 1e-3, None, 2.0)[0],
        (hidden, matrix, bias, weights),
    )


def test_two_uses_in_one_graph_add_up():
    hidden, matrix, _, targets, weights = drawn(5, 8, 12, 6, torch.float32)
    matrix.requires_grad_()
    linear_cross_entropy(hidden, matrix, None, targets, weights)[0].backward()
    once = matrix.grad.clone()
    linear_cross_entropy(hidden, matrix, None, targets, weights)[0].backward()  # must not change what it gave away
    torch.testing.assert_close(matrix.grad, 2 * once)


@pytest.mark.parametrize("size", SIZES)
def test_large_logits_and_no_targets(size):
    sizes(*size)
    hidden = torch.full((2, 4), 1e4, requires_grad=True)
    matrix = torch.tensor([[1.0] * 4, [-1.0] * 4])
    loss, losses = linear_cross_entropy(hidden, matrix, None, torch.tensor([0, 1]), torch.ones(2))
    assert losses.tolist() == [0.0, 80_000.0]
    [gradient] = torch.autograd.grad(loss, hidden)
    assert gradient.tolist() == [[0.0] * 4, [2.0] * 4]
    none = torch.zeros(0, dtype=torch.int64)
    loss, losses = linear_cross_entropy(hidden[:0], matrix, None, none, torch.zeros(0))
    assert loss.item() == 0
    assert losses.shape == (0,)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_a_sure_model_still_has_a_gradient(dtype):
    # The target's probability is 1 - 4e-5 or less, which bfloat16 rounds to 1.
    hidden = torch.tensor([[1.0, 0.0]], dtype=dtype, requires_grad=True)
    matrix = torch.tensor([[10.0, 0.0], [0.0, 1.0]])
    loss, _ = linear_cross_entropy(hidden, matrix, None, torch.tensor([0]), torch.ones(1))
    [gradient] = torch.autograd.grad(loss, hidden)
    small = torch.tensor(-10.0).sigmoid()
    torch.testing.assert_close(gradient.float(), torch.stack((-10 * small, small))[None], rtol=1e-2, atol=0)


@pytest.mark.slow
@pytest.mark.skipif(shutil.which("g++") is None, reason="torch.compile needs a compiler")
def test_compiled_is_eager():
    sizes(1, 3, 30)
    hidden, matrix, bias, targets, weights = drawn(7, 8, 20, 6, torch.float32)
    results = []
    for function in (linear_cross_entropy, torch.compile(linear_cross_entropy, fullgraph=True)):
        wanted = [t.clone().requires_grad_() for t in (hidden, matrix, bias)]
        loss, losses = function(*wanted, targets, weights, 1e-3)
        first = torch.autograd.grad(2 * loss, wanted, retain_graph=True)
        second = torch.autograd.grad(2 * loss, wanted)
        results.append((loss, losses, *first, *second))
    for eager, compiled in zip(*results, strict=True):
        torch.testing.assert_close(compiled, eager)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_logits_of_more_than_a_tile_never_exist(dtype):
    V, D, tile = 1000, 4, 16
    peaks = []
    for n in (16, 256, 512):  # one tile, and many
        hidden, matrix, bias, targets, weights = drawn(11, n, V, D, dtype)
        for one in (hidden, matrix, bias):
            one.requires_grad_()
        with Counted() as seen:
            loss, _ = linear_cross_entropy(hidden, matrix, bias, targets, weights, 1e-3, tile)
            loss.backward()
        assert max(size[0] for size in seen.shapes if len(size) == 2 and size[1] == V) == tile
        peaks.append(seen.peak)
    assert peaks[1] - peaks[0] <= 240 * (3 * D + 10) * 4
    # Of the tokens only hidden states, their gradient and losses grow: some numbers of each token's, not its logits.
    assert peaks[2] - peaks[1] <= 256 * (3 * D + 10) * 4 < 256 * V * 4 / 10


def test_numbers_of_tokens_are_rounded_to_few(monkeypatch):
    rounded = [cross_entropy._rounded(n) for n in range(4097)]
    assert all(n <= r <= n * 9 / 8 for n, r in enumerate(rounded))
    assert len({r for r in rounded if 512 < r <= 4096}) == 24
    seen = []
    evaluate = cross_entropy._evaluate
    monkeypatch.setattr(cross_entropy, "_evaluate", lambda h, *rest: seen.append(len(h)) or evaluate(h, *rest))
    for n in (33, 34, 35, 36):
        hidden = torch.ones(n, 4, requires_grad=True)
        _, losses = linear_cross_entropy(hidden, torch.eye(4), None, torch.zeros(n, dtype=torch.int64), torch.ones(n))
        assert len(losses) == n
    assert seen == [36] * 4
