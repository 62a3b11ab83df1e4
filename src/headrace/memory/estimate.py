"""The memory of a training step: bytes by term at each moment of it where a process may hold most.

Terms that do not live at the same time are never added: the peak is the largest moment. What torch really holds is
counted in ``tests/memory``, on shapes that fit there.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from headrace.memory.block import Half, attention, feed_forward, input_bytes
from headrace.memory.loss import loss_bytes
from headrace.memory.settings import Settings
from headrace.memory.shape import Shape

# What CUDA, cuBLAS and NCCL take beside torch's tensors (ALST, Bekman et al., 2025: about 1 GiB).
CUDA_CONTEXT = 1 << 30
# A process that has imported torch and headrace's trainer: 416 MB resident (torch 2.13 for CPUs, Linux).
CPU_CONTEXT = 420_000_000
# Tokens, targets, their places and sources are int64 each; positions and segments int32; losses float32, twice.
INPUT_BYTES = 48

TERMS = (
    "weights",
    "gradients",
    "optimizer",
    "checkpoints",
    "attention",
    "mlp",
    "logits",
    "communication",
    "inputs",
    "context",
)
"""Names of the terms, in the order in which they are shown."""


@dataclass(frozen=True)
class Moment:
    """A moment of a step.

    Attributes:
        name: which.
        terms: bytes of each of :data:`TERMS`.
    """

    name: str
    terms: Mapping[str, int]

    @property
    def total(self) -> int:
        """Bytes of all terms together."""
        return sum(self.terms.values())


@dataclass(frozen=True)
class Estimate:
    """The memory of a process.

    Attributes:
        moments: of a step, in their order; on the device.
        host: bytes by term in the host's memory besides; nothing where the device is the host.
    """

    moments: tuple[Moment, ...]
    host: Mapping[str, int]

    @property
    def peak(self) -> Moment:
        """The moment with most."""
        return max(self.moments, key=lambda moment: moment.total)

    @property
    def host_total(self) -> int:
        """Bytes in the host's memory."""
        return sum(self.host.values())


def estimate(shape: Shape, settings: Settings) -> Estimate:
    """The memory of a step once the optimizer has its state.

    Args:
        shape: the model.
        settings: how it is trained.
    """
    step = _Step(shape, settings)
    return Estimate(step.moments(), step.host())


class _Step:
    def __init__(self, shape: Shape, settings: Settings) -> None:
        self.shape, self.settings = shape, settings
        self.input = input_bytes(shape, settings)
        self.attention, self.mlp = attention(shape, settings), feed_forward(shape, settings)
        self.loss = loss_bytes(shape, settings)
        blocks = shape.inside // settings.tensor
        self.block, self.ends = blocks // shape.layers, shape.ends
        self.own = (blocks + self.ends) // settings.shares  # parameters that this process keeps
        self.away = settings.offload_parameters and settings.accelerator
        self.gathers = settings.shares > 1 or settings.offload_parameters
        self.here = 0 if self.away else self.own  # of these, on the device
        self.inner = 0 if self.away else blocks // settings.shares  # of these, in the blocks

    # What lives all the time.

    def _standing(self) -> dict[str, int]:
        s = self.settings
        state = 0 if self.away or (s.offload_optimizer and s.accelerator) else self._state()
        rotary = 4 * self.shape.rotated * s.stretch * (s.rows if s.positions else 1)
        return {
            "weights": 4 * self.here,
            "optimizer": state,
            "communication": self._buckets(),
            "inputs": INPUT_BYTES * s.tokens + rotary,
            "context": CUDA_CONTEXT if s.accelerator else CPU_CONTEXT,
        }

    def _state(self) -> int:
        """AdamW's two moments; Muon's one, of hidden matrices."""
        return 4 * self.own + 4 * self.ends // self.settings.shares if self.settings.muon else 8 * self.own

    def _buckets(self) -> int:
        """Copies of gradients that DDP exchanges, all of them."""
        s = self.settings
        replicas = s.data * s.sequence > 1 and not s.sharded
        return 4 * self.own if replicas else 0

    def _gathered(self, backward: bool) -> dict[str, int]:
        """Whole weights that FSDP2 gathers: the outer unit's in float32, and blocks' as they are multiplied, one in use
        (and the buffer that it came in) and the next one; and whole gradients on their way to their shards."""
        s = self.settings
        if not self.gathers:
            return {"weights": 0, "gradients": 0, "communication": 0}
        units = 3 * s.a * self.block
        going = (s.a + 2 * 4) * self.block if backward else 0
        return {"weights": 4 * self.ends, "gradients": 0, "communication": units + going}

    def _casts(self, blocks: int) -> int:
        """Weights of so many blocks in bfloat16, made where they are multiplied and kept for the backward pass. What
        FSDP2 gathers is in bfloat16 already."""
        s = self.settings
        return 2 * self.block * blocks if s.bits16 and not self.gathers else 0

    # Moments.

    def _at(self, name: str, *parts: Mapping[str, int]) -> Moment:
        standing = self._standing()
        return Moment(name, {term: sum(part.get(term, 0) for part in (standing, *parts)) for term in TERMS})

    def _held(self, blocks: int, whole: int, fed_back: bool = False) -> dict[str, int]:
        """What is kept of blocks: their inputs, all of some whole ones, of others the products.

        Args:
            blocks: how many have not had their backward pass.
            whole: of how many all is there.
            fed_back: whether the feed-forward network of the last has had its.
        """
        kept = {"checkpoints": self._checkpoints(blocks), "weights": self._casts(whole)}
        products = (blocks - whole) * (self.settings.recompute == "selective")
        kept["attention"] = whole * self.attention.kept + products * self.attention.products
        kept["mlp"] = (whole - fed_back) * self.mlp.kept + products * self.mlp.products
        return kept

    def _checkpoints(self, blocks: int) -> int:
        s = self.settings
        # One on its way to the host, one on its way back.
        on_device = min(blocks, 2) if s.offload_checkpoints and s.accelerator else blocks
        return on_device * self.input

    def _accumulated(self) -> int:
        return 4 * self.here if self.settings.passes > 1 else 0

    def _work(self, half: Half, name: str) -> dict[str, int]:
        return {name: half.work - half.moved, "communication": half.moved}

    def moments(self) -> tuple[Moment, ...]:
        shape, s = self.shape, self.settings
        L = shape.layers
        all_kept = s.recompute == "none"
        full = L if all_kept else 0
        before, gathered, going = {"gradients": self._accumulated()}, self._gathered(False), self._gathered(True)
        # Backward: the outer unit's gradient is whole until the last block is done.
        outer = 4 * (self.ends if self.gathers else shape.table)
        first = {"gradients": min(4 * self.here, self._accumulated() or (4 * self.block)) + outer}
        # The embedding's, and those of positions, come later.
        inner = self._accumulated() or 4 * self.inner
        last = {"gradients": inner + (outer if self.gathers or s.passes == 1 else 0)}
        ends = {"checkpoints": 0, "logits": self.loss.states}
        found = [
            self._at("end of the forward pass", before, gathered, self._held(L, full), ends),
            self._at("loss", before, gathered, self._held(L, full), {"logits": self.loss.peak, "gradients": outer}),
        ]
        for block, count, whose in (("last", L, first), ("first", 1, last)):
            kept = count if all_kept else 1
            found += [
                self._at(
                    f"backward of the {block} block, feed-forward",
                    whose,
                    going,
                    self._held(count, kept),
                    self._work(self.mlp, "mlp"),
                ),
                self._at(
                    f"backward of the {block} block, attention",
                    whose,
                    going,
                    self._held(count, kept, True),
                    self._work(self.attention, "attention"),
                ),
            ]
        again = 4 * shape.table * (2 if shape.tied and not self.gathers else 1)
        embedding = {"gradients": 4 * self.here + (again if shape.tied or s.passes > 1 or self.gathers else 0)}
        found.append(self._at("backward of the embedding", embedding, {"logits": 4 * s.tokens * shape.width}))
        update = {"gradients": 4 * self.here}
        copy = {"weights": 4 * self.here if s.norms else 0}
        found.append(self._at("update", update, copy))
        return tuple(found)

    def host(self) -> dict[str, int]:
        """The host's memory, if that is another: what is offloaded, and copies of weights and optimizer while a
        checkpoint is being written."""
        s = self.settings
        if not s.accelerator:
            return {}
        found = {"process": CPU_CONTEXT, "saving": 4 * self.own + self._state()}
        if s.offload_checkpoints:
            found["checkpoints"] = self.shape.layers * self.input
        if s.offload_parameters:
            found["weights"] = found["gradients"] = 4 * self.own
            found["optimizer"] = self._state()
        elif s.offload_optimizer:
            found["optimizer"] = self._state() + 8 * self.own  # with copies of weights and gradients
        return found
