"""How a stretch of a training was carried out: recorded in checkpoints and models, never part of their identity."""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch

from headrace.model.build import dtype_of
from headrace.recipe.training import TrainSection
from headrace.train.world import World


@dataclass
class Span:
    """Steps carried out in the same way.

    Attributes:
        start: steps done before.
        until: steps done after.
        processes: how many, and of these the ones that share each matrix (``tensor_parallel``).
        device: the kind of device.
        micro_batch: rows per forward pass of a process.
        compile, recompute, shard: as in the recipe.
        torch: its version.
        sequence_parallel: of the processes, the groups that share each row; 1 in spans of older versions.
        chosen: what `long: auto` has decided and why; None where it was not asked.
        dtype: of matrix products and activations; None in spans of older versions.
    """

    start: int
    until: int
    processes: int
    tensor_parallel: int
    device: str
    micro_batch: int
    compile: bool
    recompute: str
    shard: str
    torch: str
    sequence_parallel: int = 1
    chosen: str | None = None
    dtype: str | None = None

    @staticmethod
    def of(section: TrainSection, world: World, start: int, chosen: str | None = None) -> Span:
        """The span that begins now."""
        kind = torch.cuda.get_device_name(world.device) if world.device.type == "cuda" else world.device.type
        share = -(-section.batch // world.data_size)
        return Span(
            start,
            start,
            world.size,
            world.tensor_size,
            kind,
            min(section.micro_batch or share, share),
            section.compile,
            section.recompute,
            section.shard,
            torch.__version__,
            world.sequence_size,
            chosen,
            str(dtype_of(section.precision, world.device)).removeprefix("torch."),
        )


def extended(spans: list[Span], now: Span) -> list[Span]:
    """Spans with one that begins now; it continues the last if nothing has changed."""
    if spans and replace(now, start=spans[-1].start) == replace(spans[-1], until=now.until):
        return spans
    return [*spans, now]
