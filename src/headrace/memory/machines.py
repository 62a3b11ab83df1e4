"""What there is to train on: accelerators or this machine's CPUs, how many, and the memory of each."""

from __future__ import annotations

from dataclasses import dataclass

from headrace.environment import free_memory, gpus, memory_limit
from headrace.errors import UserError
from headrace.recipe.base import parse_size

GIB = 1 << 30

# What torch finds of each ("has a total capacity of" in its messages): H100 80GB HBM3 79.1 GiB (vLLM issue 27508), H200
# 139.8 GiB, A100 80GB 79.2 GiB, A100 40GB 39.4 GiB; MI300X: 192 GiB by AMD's data sheet.
GPUS = {
    "h100": round(79.1 * GIB),
    "h200": round(139.8 * GIB),
    "a100": round(79.2 * GIB),
    "a100-40": round(39.4 * GIB),
    "mi300x": 192 * GIB,
}
# The name of each in the driver's words; the first that fits counts.
_NAMES = (
    ("H200", "h200"),
    ("H100", "h100"),
    ("A100-SXM4-40", "a100-40"),
    ("A100-PCIE-40", "a100-40"),
    ("A100", "a100"),
)

# Left free on a device, as a share of it: what the allocator holds and cannot use, and what an estimate misses. Reports
# of exhausted memory tell of 0.4 % (vLLM issue 27508) to 5.5 % (VACE issue 56) reserved and unused.
MARGIN = 0.06


@dataclass(frozen=True)
class Machine:
    """What a training runs on.

    Attributes:
        name: of a device.
        memory: bytes of each.
        accelerator: whether it has memory of its own; otherwise it is the host.
        devices: of each node.
        nodes: how many.
        host: bytes of each node's memory; None: not known.
    """

    name: str
    memory: int
    accelerator: bool
    devices: int = 1
    nodes: int = 1
    host: int | None = None

    @property
    def processes(self) -> int:
        """One for each device."""
        return self.devices * self.nodes

    @property
    def usable(self) -> int:
        """Bytes of a process, less a margin."""
        each = self.memory if self.accelerator else self.memory // self.devices
        return int(each * (1 - MARGIN))

    @staticmethod
    def of(gpu: str | None, devices: int = 1, nodes: int = 1, host: int | None = None) -> Machine:
        """A kind of machine.

        Args:
            gpu: a key of :data:`GPUS`, or the memory of a device, such as ``80GB``; None: what this machine has.
            devices: of each node.
            nodes: how many.
            host: bytes of each node's memory; None: this machine's, if it is the one.

        Raises:
            UserError: nobody knows such a GPU, or this machine's.
        """
        if gpu is None:
            return _here(devices, nodes, host)
        key = gpu.lower().replace(" ", "-").replace("_", "-")
        if key in GPUS:
            return Machine(key.upper(), GPUS[key], True, devices, nodes, host)
        try:
            size = parse_size(gpu)
        except Exception:
            size = None
        if not isinstance(size, int) or size < GIB:
            raise UserError(
                f"{gpu!r} is no GPU that is known, nor its memory.",
                "--gpu",
                f"Use {', '.join(GPUS)}, or a size from 1 GiB on, such as 80GB.",
            )
        return Machine(f"GPU with {gpu}", size, True, devices, nodes, host)


def _here(devices: int, nodes: int, host: int | None) -> Machine:
    import psutil

    total = min(psutil.virtual_memory().total, memory_limit() or 1 << 62)
    found = gpus()
    if not found:
        free = min(total, free_memory()) if host is None else host
        return Machine("CPU", free, False, devices, nodes, free)
    key = next((key for name, key in _NAMES if name in found[0]), None)
    if key is None:
        raise UserError(
            f"The memory of this machine's {found[0]} is not known.", "--gpu", "Give it, such as `--gpu 24GB`."
        )
    return Machine(key.upper(), GPUS[key], True, devices, nodes, total if host is None else host)
