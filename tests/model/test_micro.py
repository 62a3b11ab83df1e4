"""What a batch becomes."""

from __future__ import annotations

import numpy as np
import torch

from headrace.model.micro import Micro
from headrace.recipe.training import AttentionSection
from headrace.sequence.loader import Batch


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
