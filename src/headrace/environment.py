"""What a run is made with: the versions of its libraries and the machine. A run records both in its event log."""

from __future__ import annotations

import importlib.metadata
import os
import platform
from pathlib import Path
from typing import Any

# Those whose version can change what a run makes, or how fast.
LIBRARIES = ("numpy", "numba", "pyarrow", "tokenizers", "torch")
PROCESSOR = Path("/proc/cpuinfo")
# One folder a GPU (NVIDIA's driver, README, "The /proc interface"); asking torch would cost its import.
GPUS = Path("/proc/driver/nvidia/gpus")


def cores() -> int:
    """Cores this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def version(name: str) -> str | None:
    """The installed version of a package, None if it is not there. Nothing is imported."""
    try:
        return importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return None


def versions() -> dict[str, str]:
    """Python's version, and those of :data:`LIBRARIES` that are installed."""
    found = {name: version(name) for name in LIBRARIES}
    return {"python": platform.python_version()} | {name: value for name, value in found.items() if value is not None}


def hardware() -> dict[str, Any]:
    """The machine.

    Returns:
        ``{"processor": its model, "cores": those this process may use, "cores_in_all", "memory": bytes that this
        process can have, "gpus": [the model of each]}``; without NVIDIA's driver ``gpus`` is empty.
    """
    import psutil

    total = psutil.virtual_memory().total
    return {
        "processor": processor(),
        "cores": cores(),
        "cores_in_all": os.cpu_count(),
        "memory": min(total, memory_limit() or total),
        "gpus": gpus(),
    }


def processor(cpuinfo: Path = PROCESSOR) -> str:
    """The processor's model as the kernel names it, or its architecture."""
    return _named(cpuinfo, "model name") or platform.processor() or platform.machine()


def gpus(folder: Path = GPUS) -> list[str]:
    """The model of each GPU that NVIDIA's driver shows."""
    found = (_named(path, "Model") for path in sorted(folder.glob("*/information")))
    return [name for name in found if name]


def _named(path: Path, name: str) -> str | None:
    """The first value of a name in a file of lines ``name: value``."""
    try:
        lines = path.read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        return None
    pairs = (line.partition(":") for line in lines)
    return next((value.strip() for key, _, value in pairs if key.strip() == name and value.strip()), None)


def memory_limit() -> int | None:
    """The control group's memory limit in bytes (containers have one), or None."""
    for path in ("/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory/memory.limit_in_bytes"):
        try:
            text = Path(path).read_text().strip()
        except OSError:
            continue
        # Version 1 writes a number near 2^63 for no limit.
        if text.isdigit() and int(text) < 1 << 60:
            return int(text)
    return None
