"""The chunked loss against torch's, and what a batch becomes."""

from __future__ import annotations

import numpy as np
import pytest
import torch
import torch.nn.functional as fn

from headrace.model import cross_entropy
from headrace.model.micro import Micro
from headrace.recipe.training import AttentionSection
from headrace.sequence.loader import Batch


@pytest.mark.parametrize("chunk", [1, 4 * 50 * 7, 1 << 20])
@pytest.mark.parametrize("bias", [False, True])
def test_linear_cross_entropy_is_torchs(monkeypatch, chunk, bias):
    monkeypatch.setattr(cross_entropy, "CHUNK_BYTES", chunk)
    g = torch.Generator().manual_seed(0)
    hidden = torch.randn(33, 12, generator=g, requires_grad=True)
    matrix = torch.randn(50, 12, generator=g, requires_grad=True)
    shift = torch.randn(50, generator=g, requires_grad=True) if bias else None
    targets = torch.randint(0, 50, (33,), generator=g)
    weights = torch.rand(33, generator=g)
    wanted = [t for t in (hidden, matrix, shift) if t is not None]
    each = fn.cross_entropy(fn.linear(hidden, matrix, shift), targets, reduction="none")
    expected = torch.autograd.grad(3 * (each * weights).sum(), wanted)
    loss, losses = cross_entropy.LinearCrossEntropy.apply(hidden, matrix, shift, targets, weights)
    torch.testing.assert_close(losses, each)
    torch.testing.assert_close(loss, (each * weights).sum())
    for mine, theirs in zip(torch.autograd.grad(3 * loss, wanted), expected, strict=True):
        torch.testing.assert_close(mine, theirs, rtol=1e-4, atol=1e-6)


def test_linear_cross_entropy_survives_large_logits_and_no_targets():
    hidden = torch.full((2, 4), 1e4, requires_grad=True)
    matrix = torch.tensor([[1.0] * 4, [-1.0] * 4])
    loss, losses = cross_entropy.LinearCrossEntropy.apply(hidden, matrix, None, torch.tensor([0, 1]), torch.ones(2))
    assert losses.tolist() == [0.0, 80_000.0]
    assert loss.isfinite()
    none = torch.zeros(0, dtype=torch.int64)
    loss, _ = cross_entropy.LinearCrossEntropy.apply(hidden[:0], matrix, None, none, torch.zeros(0))
    assert loss.item() == 0


def test_a_batch_becomes_inputs_and_the_targets_that_carry_loss():
    tokens = np.arange(10, dtype=np.uint16).reshape(2, 5)
    loss = np.array([[True, False, True, True], [False, False, False, True]])
    segments = np.array([[1, 1, 2, 2], [1, 1, 1, 1]], dtype=np.int32)
    positions = np.zeros((2, 4), dtype=np.int32)
    batch = Batch(tokens, loss, segments, positions)
    cpu = torch.device("cpu")
    micro = Micro.of(batch, AttentionSection(), cpu)
    assert micro.tokens.tolist() == [[0, 1, 2, 3], [5, 6, 7, 8]]
    assert micro.targets.tolist() == [1, 3, 4, 9]
    assert micro.segments is None
    assert micro.positions is None
    isolated = Micro.of(batch, AttentionSection(documents=True, positions="document"), cpu)
    assert isolated.segments is not None
    assert isolated.positions is not None
    # Rows of one document each need no mask.
    single = Batch(*(array[1:] for array in batch))
    assert Micro.of(single, AttentionSection(documents=True), cpu).segments is None
