"""RMSNorm on a CPU against torch's own operations."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as fn
from hypothesis import given, settings
from hypothesis import strategies as st

from headrace.model import rms_norm as module
from headrace.model.rms_norm import rms_norm
from quick import examples

# Relative to float64.
CLOSE = {torch.float64: 1e-12, torch.float32: 2e-6, torch.bfloat16: 1e-2}


@settings(max_examples=examples(100))
@given(
    st.integers(0, 2**31), st.lists(st.integers(0, 5), max_size=3), st.integers(1, 17), st.sampled_from(list(CLOSE)),
    st.integers(1, 60), st.booleans(), st.sampled_from([1e-6, 1e3]),
)  # fmt: skip
def test_any_shape_type_and_slices_is_torchs(seed, shape, width, dtype, cached, turned, size):
    generator = torch.Generator().manual_seed(seed)
    x = (torch.randn(*shape, width, generator=generator) * size).to(dtype)
    weight, upstream = torch.randn(width, generator=generator).to(dtype), torch.randn(x.shape, generator=generator)
    x, upstream = (x.movedim(0, -2), upstream.movedim(0, -2)) if turned and shape else (x, upstream)  # not contiguous
    results = []
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(module, "CACHED", cached)
        for function, to in ((rms_norm, dtype), (lambda x, w, eps: fn.rms_norm(x, (width,), w, eps), torch.float64)):
            inputs = [tensor.to(to).requires_grad_() for tensor in (x, weight)]
            y = function(*inputs, 1e-5)
            results.append((y, *torch.autograd.grad(y, inputs, upstream.to(to))))
    for mine, theirs, scale in zip(*results, (size, 1, size), strict=True):
        assert mine.dtype == dtype
        assert mine.shape == theirs.shape
        assert (mine.double() - theirs).norm() <= CLOSE[dtype] * (theirs.norm() + 10 / scale) + 1e-12


def test_gradcheck():
    inputs = [torch.randn(*shape, dtype=torch.float64, requires_grad=True) for shape in ((3, 4, 5), (5,))]
    assert torch.autograd.gradcheck(lambda x, weight: rms_norm(x, weight, 1e-5), inputs)
