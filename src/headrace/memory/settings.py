"""How a training is carried out, as far as its memory depends on it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

Recompute = Literal["none", "selective", "full"]


@dataclass(frozen=True)
class Settings:
    """How a stage is trained in each of its processes.

    Attributes:
        length: tokens of a row.
        rows: rows of a forward pass.
        passes: forward passes of a step, whose gradients accumulate.
        bits16: whether activations are bfloat16, not float32.
        recompute: activations to compute again in the backward pass.
        accelerator: whether tensors are in an accelerator's memory, not the host's.
        data: processes that share the batch.
        sequence: processes that share each row.
        ring: whether these attend each for its own tokens, not each for some of the heads.
        tensor: processes that share each matrix product.
        sharded: whether each process keeps a share of every tensor (FSDP2), not all of them (DDP).
        muon: whether hidden matrices are updated by Muon, with one moment, not two.
        documents: whether attention keeps within documents.
        positions: whether each row has positions of its own.
        norms: whether a copy of the weights is made to measure their update.
        tile_loss: tokens whose logits exist at a time; None: as the loss has them.
        tile_mlp: tokens of each row in a feed-forward layer at a time; None: all.
        offload_checkpoints: whether block inputs are kept in host memory.
        offload_optimizer: whether the optimizer's state is kept, and weights are updated, in host memory.
        offload_parameters: whether weights and gradients are kept there too, but for the block that is computed.
    """

    length: int
    rows: int = 1
    passes: int = 1
    bits16: bool = True
    recompute: Recompute = "none"
    accelerator: bool = False
    data: int = 1
    sequence: int = 1
    ring: bool = False
    tensor: int = 1
    sharded: bool = False
    muon: bool = False
    documents: bool = False
    positions: bool = False
    norms: bool = False
    tile_loss: int | None = None
    tile_mlp: int | None = None
    offload_checkpoints: bool = False
    offload_optimizer: bool = False
    offload_parameters: bool = False

    @property
    def a(self) -> int:
        """Bytes of an activation."""
        return 2 if self.bits16 else 4

    @property
    def stretch(self) -> int:
        """Tokens of each row that this process has, but for attention."""
        return -(-self.length // self.sequence)

    @property
    def tokens(self) -> int:
        """Tokens of a forward pass that this process has, but for attention."""
        return self.rows * self.stretch

    @property
    def shares(self) -> int:
        """Processes among which each tensor is divided."""
        return self.data * self.sequence if self.sharded else 1
