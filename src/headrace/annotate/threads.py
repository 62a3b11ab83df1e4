"""Threads of torch in workers."""

from __future__ import annotations

from headrace.model.machine import keep_memory, set_environment


def one_thread() -> None:
    """Make this process ready to compute with torch on one core.

    Workers have a core each, and sums that are split over threads round differently: so it is always one, whatever the
    number of workers.
    """
    set_environment()
    import torch

    torch.set_num_threads(1)
    keep_memory()
