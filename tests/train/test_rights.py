"""Who may read what training writes: whoever the user's umask lets."""

from __future__ import annotations

import os

import pytest
import torch

from headrace.train.checkpoint import write_tensors


@pytest.mark.parametrize("umask", [0o022, 0o077, 0o002])
def test_weights_follow_the_umask(tmp_path, umask):
    before = os.umask(umask)
    try:
        write_tensors(tmp_path / "model.safetensors", {"a": torch.zeros(3)})
    finally:
        os.umask(before)
    assert (tmp_path / "model.safetensors").stat().st_mode & 0o777 == 0o666 & ~umask
