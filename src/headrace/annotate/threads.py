"""torch in workers: its memory and its threads."""

from __future__ import annotations

from pathlib import Path

from headrace.errors import UserError
from headrace.model.machine import keep_memory, set_environment

TORCH = 800 << 20  # bytes of torch, transformers, and 8,192 tokens in 6 layers of 384, weights aside


def weights(folder: str) -> int:
    """Bytes of a folder's weights in float32, if they are stored in 16 bits, and of torch."""
    return TORCH + 2 * sum(file.stat().st_size for file in Path(folder).glob("*.safetensors"))


def one_thread() -> None:
    """Make this process ready to compute with torch on one core.

    Workers have a core each, and sums that are split over threads round differently: so it is always one, whatever the
    number of workers.

    Raises:
        UserError: torch is not installed.
    """
    set_environment()
    try:
        import torch
    except ModuleNotFoundError:
        raise UserError(
            "This kind of annotator needs torch, which is not installed.",
            "quality.annotators",
            "Install it: pip install 'headrace[train]'; for models of transformers 'headrace[annotators]'.",
        ) from None

    torch.set_num_threads(1)
    keep_memory()
