"""A run's environment: library versions and the machine. A run records both in its event log."""

from __future__ import annotations

import importlib.metadata
import os
import platform
import sys
from pathlib import Path
from typing import Any

# Libraries whose version can affect a run's output or speed.
LIBRARIES = ("numpy", "numba", "pyarrow", "tokenizers", "torch")
# Share of the memory that is free at the start; the rest is for libraries, the page cache and other programs.
DATA_SHARE = 0.5
PROCESSOR = Path("/proc/cpuinfo")
# One folder per GPU (NVIDIA's driver README, "The /proc interface"); asking torch would require importing it.
GPUS = Path("/proc/driver/nvidia/gpus")


def cores() -> int:
    """Cores available to this process."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def version(name: str) -> str | None:
    """The installed version of a package, None if it is not installed. Nothing is imported."""
    try:
        return importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return None


def versions() -> dict[str, str]:
    """Python's version, and those of the installed :data:`LIBRARIES`."""
    found = {name: version(name) for name in LIBRARIES}
    return {"python": platform.python_version()} | {name: value for name, value in found.items() if value is not None}


def hardware() -> dict[str, Any]:
    """The machine.

    Returns:
        ``{"processor": its model, "cores": those available to this process, "cores_in_all", "memory": bytes available
        to this process, "gpus": [the model of each]}``; without NVIDIA's driver, ``gpus`` is empty.
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
    """The processor's model as named by the kernel, or its architecture."""
    return _named(cpuinfo, "model name") or platform.processor() or platform.machine()


def gpus(folder: Path = GPUS) -> list[str]:
    """The model of each GPU listed by NVIDIA's driver."""
    found = (_named(path, "Model") for path in sorted(folder.glob("*/information")))
    return [name for name in found if name]


def _named(path: Path, name: str) -> str | None:
    """The first value of a name in a file with lines ``name: value``."""
    try:
        lines = path.read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        return None
    pairs = (line.partition(":") for line in lines)
    return next((value.strip() for key, _, value in pairs if key.strip() == name and value.strip()), None)


def free_memory() -> int:
    """Bytes of memory that this process can still take."""
    import psutil

    return min(psutil.virtual_memory().available, memory_limit() or sys.maxsize)


def data_memory() -> int:
    """Bytes for the data of all workers of this machine, if nothing else is said."""
    return int(free_memory() * DATA_SHARE)


def memory_limit() -> int | None:
    """The control group's memory limit in bytes (set in containers), or None."""
    for path in ("/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory/memory.limit_in_bytes"):
        try:
            text = Path(path).read_text().strip()
        except OSError:
            continue
        # Version 1 writes a number near 2^63 for no limit.
        if text.isdigit() and int(text) < 1 << 60:
            return int(text)
    return None


def multiplies_bfloat16(cpuinfo: Path = PROCESSOR) -> bool:
    """Whether oneDNN, which torch uses on CPUs, has products in bfloat16 for this one: on x86 with AVX-512 BW, DQ and
    VL, on Arm with BF16; also where it is not known."""
    try:
        told = cpuinfo.read_text(errors="replace")
    except OSError:
        return True
    line = next((line for line in told.splitlines() if line.lower().startswith(("flags", "features"))), "")
    flags = set(line.partition(":")[2].split())
    return not flags or {"avx512bw", "avx512dq", "avx512vl"} <= flags or "bf16" in flags
