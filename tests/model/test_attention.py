"""Attention by blocks, by documents and by flex attention, against its definition."""

from __future__ import annotations

import shutil

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.nn.attention.flex_attention import create_block_mask, flex_attention

from headrace.model import blockwise
from headrace.model.attention import Documents, attend, flex_mask, flexible
from quick import examples

CLOSE = {torch.float64: 1e-12, torch.float32: 1e-5, torch.bfloat16: 2e-2}


def dense(q, k, v, sinks, scale, segments, window=None, cap=None):
    """The definition, in float64 and with a mask [B, 1, T, T]."""
    q, k, v = q.double(), k.double(), v.double()
    k, v = (x.repeat_interleave(q.shape[1] // k.shape[1], dim=1) for x in (k, v))
    length = q.shape[2]
    seen = torch.ones(length, length, dtype=torch.bool).tril()
    if window is not None:
        seen = seen.triu(1 - window)
    if segments is not None:
        document = torch.cat((torch.zeros(len(segments), 1), (segments.diff(dim=1) != 0).cumsum(1)), dim=1)
        seen = seen & (document[:, None, :, None] == document[:, None, None, :])
    scores = q @ k.mT * scale
    if cap is not None:
        scores = cap * torch.tanh(scores / cap)
    scores = scores.masked_fill(~seen, float("-inf"))
    if sinks is None:
        return scores.softmax(-1) @ v
    sunk = sinks.double().view(1, -1, 1, 1).expand(*scores.shape[:-1], 1)
    return torch.cat((scores, sunk), -1).softmax(-1)[..., :-1] @ v


def drawn(seed, rows, heads, shared, length, size, dtype):
    g = torch.Generator().manual_seed(seed)
    shapes = ((rows, heads, length, size), *[(rows, heads // shared, length, size)] * 2)
    return [torch.randn(shape, generator=g).to(dtype).requires_grad_() for shape in shapes]


def documents_of(seed, rows, length, mean):
    """Runs of about ``mean``; numbers that come again later in a row are other documents."""
    g = torch.Generator().manual_seed(seed)
    return ((torch.rand(rows, length, generator=g) < 1 / mean).int().cumsum(1) % 3).int()


def check(inputs, scale, segments, attended, window=None, cap=None):
    """Inputs: queries, keys, values, and sinks if there are any."""
    expected = dense(*inputs, *[None] * (4 - len(inputs)), scale, segments, window, cap)
    dtype = inputs[0].dtype
    assert attended.shape == expected.shape
    assert attended.dtype == dtype

    def close(mine, theirs, term=0.0):
        assert (mine.double() - theirs.double()).norm() <= CLOSE[dtype] * (theirs.double().norm() + term) + 1e-12

    close(attended, expected)
    if attended.requires_grad:
        upstream = torch.linspace(-1, 1, expected.numel()).view(expected.shape)
        term = upstream.norm() * max(1.0, scale)  # where only one key is seen, what is left of terms that cancel
        theirs = torch.autograd.grad((expected * upstream).sum(), inputs)
        for mine, other in zip(torch.autograd.grad(attended, inputs, upstream.to(dtype)), theirs, strict=True):
            assert mine.dtype == dtype
            close(mine, other, term)


@settings(max_examples=examples(100))
@given(
    st.integers(0, 2**31), st.integers(1, 3), st.sampled_from([(1, 1), (4, 1), (4, 2), (6, 6)]), st.integers(1, 90),
    st.sampled_from([4, 6, 16]), st.sampled_from(list(CLOSE)), st.sampled_from([0.1, 0.25, 1.0]),
    st.sampled_from([None, 1, 3, 20, 1000]), st.sampled_from([(8, 2048), (8, 20), (8, 1), (256, 2048), (1, 0)]),
    st.sampled_from([None, None, 1, 2, 7, 30, 90]), st.sampled_from([None, None, 0.5, 20.0]), st.booleans(),
)  # fmt: skip
def test_any_shape_and_documents_are_the_definition(
    seed, rows, heads, length, size, dtype, scale, mean, constants, window, cap, sunk
):
    kept = blockwise.BLOCK, blockwise.KEPT
    blockwise.BLOCK, blockwise.KEPT = constants
    try:
        inputs = drawn(seed, rows, *heads, length, size, dtype)
        sinks = [torch.linspace(-2, 3, heads[0]).to(dtype).requires_grad_()] if sunk else []
        segments = None if mean is None else documents_of(seed, rows, length, mean)
        documents = None if segments is None else Documents.of(segments)
        found = attend(*inputs, scale, documents, window, cap, *sinks)
        check([*inputs, *sinks], scale, segments, found, window, cap)
    finally:
        blockwise.BLOCK, blockwise.KEPT = kept


@pytest.mark.parametrize("length", [255, 256, 257, 2049])
@pytest.mark.parametrize("mean", [None, 100, 2000])
@pytest.mark.parametrize("window", [None, 300])
def test_at_its_own_block_size(length, mean, window):
    inputs = drawn(1, 1, 2, 2, length, 8, torch.bfloat16)
    segments = None if mean is None else documents_of(1, 1, length, mean)
    documents = None if segments is None else Documents.of(segments)
    check(inputs, 0.3, segments, attend(*inputs, 0.3, documents, window), window)


def test_inputs_that_are_views():
    q, k, v = (x.detach().transpose(1, 2).contiguous().transpose(1, 2) for x in drawn(2, 2, 4, 1, 30, 8, torch.float32))
    inputs = [x.requires_grad_() for x in (q, k, v)]
    check(inputs, 0.5, None, attend(*inputs, 0.5))


@pytest.mark.parametrize("shared", [1, 4])
def test_one_query_sees_every_key(shared):
    q, k, v = drawn(3, 2, 4, shared, 9, 8, torch.float32)
    for window in (None, 1, 4, 20):
        newest = attend(q, k, v, 0.4, None, window)[:, :, -1:]
        torch.testing.assert_close(attend(q[:, :, -1:], k, v, 0.4, None, window), newest)


@pytest.mark.parametrize("mean", [1, 50, 200, 5000])
def test_memory_of_masks_and_weights_grows_with_the_length(mean):
    def elements(length):
        blocks = Documents.of(documents_of(4, 1, length, mean)).blocks
        masks = sum(block.unseen.numel() for block in blocks if block.unseen is not None)
        seen = [(block.end - block.start) * (block.end - block.first) for block in blocks]
        kept = sum(weights for weights, block in zip(seen, blocks, strict=True) if block.end - block.first <= 2048)
        assert sum(block.end - block.start for block in blocks) == length
        return masks + kept

    assert elements(1 << 17) <= 4096 * (1 << 17)
    assert elements(1 << 17) <= 20 * elements(1 << 14)


@pytest.mark.parametrize("window", [None, 20])
@pytest.mark.parametrize("heads", [(2, 1), (4, 2)])
def test_flex_attention_means_the_same(heads, window):
    inputs = [x.detach() for x in drawn(5, 2, *heads, 150, 16, torch.float32)]
    segments = documents_of(5, 2, 150, 30)
    mask = flex_mask(segments, create_block_mask, window)
    for cap, sinks in ((None, None), (1.5, None), (None, torch.linspace(-2, 3, heads[0]))):
        attended = flexible(flex_attention, *inputs, mask, 0.3, cap, sinks)
        check(inputs if sinks is None else [*inputs, sinks], 0.3, segments, attended, window, cap)


@pytest.mark.skipif(shutil.which("g++") is None, reason="torch.compile needs a compiler")
@pytest.mark.parametrize("mean", [pytest.param(None, marks=pytest.mark.slow), 20])
def test_compiled_is_eager(monkeypatch, mean):
    monkeypatch.setattr(blockwise, "BLOCK", 32)
    inputs = drawn(6, 2, 4, 2, 40, 8, torch.float32)
    segments = None if mean is None else documents_of(6, 2, 40, mean)

    @torch.compile(fullgraph=mean is None)
    def compiled(q, k, v, segments):
        return attend(q * 1, k, v, 0.3, None if segments is None else Documents.of(segments)) * 1

    check(inputs, 0.3, segments, compiled(*inputs, segments))


@pytest.mark.skipif(shutil.which("g++") is None, reason="torch.compile needs a compiler")
def test_other_documents_are_not_compiled_anew():
    compiled = torch.compile(lambda q, k, v, documents: attend(q * 1, k, v, 0.3, documents) * 1)
    inputs = drawn(7, 2, 4, 2, 40, 8, torch.float32)
    few, many = (documents_of(7, 2, 40, mean) for mean in (30, 3))
    check(inputs, 0.3, few, compiled(*inputs, Documents.of(few)))
    with torch.compiler.set_stance("fail_on_recompile"):
        check(inputs, 0.3, many, compiled(*inputs, Documents.of(many)))
