"""Whether headrace can run well in this environment, and how to fix problems."""

from __future__ import annotations

import importlib.metadata
import importlib.util
import os
import re
import shutil
import sys
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

from headrace import __version__
from headrace.environment import cores, free_memory, memory_limit, version, versions
from headrace.report.numbers import size

# A worker with all libraries imported takes about 200 MB before its first task; allow two and the coordinator.
LEAST_MEMORY = 1 << 30
# The demo's run folder takes about a third of this.
LEAST_DISK = 2 << 30
# The exchange opens one file per partition.
LEAST_FILES = 1024
EXTRAS = {
    "torch": "training",
    "safetensors": "training",
    "ftfy": "SlimPajama's normalization (documents.normalise: ftfy)",
    "tensorboard": "metrics for TensorBoard",
}


@dataclass(frozen=True)
class Finding:
    """One thing that was checked.

    Attributes:
        name: what was checked.
        state: ``good``, ``warn`` (works, with a caveat) or ``broken``.
        value: what was found.
        fix: what to do about it; '' if it is good.
    """

    name: str
    state: Literal["good", "warn", "broken"]
    value: str
    fix: str = ""

    def to_json(self) -> dict[str, Any]:
        """The attributes as a dict."""
        return asdict(self)

    def __str__(self) -> str:
        line = f"{self.state:<7} {self.name:<14} {self.value}"
        return f"{line}\n{'':<23}{self.fix}" if self.fix else line


def examine(out: Path) -> list[Finding]:
    """Check everything that headrace needs.

    Args:
        out: the folder for runs; it may not exist.
    """
    return [*_python(), *_packages(), *_machine(), _disk(out), _kernel_cache(), *_threads(), *_torch()]


def _python() -> Iterator[Finding]:
    yield Finding("headrace", "good", __version__)
    yield Finding("python", "good", f"{versions()['python']}, {sys.executable}")


def _packages() -> Iterator[Finding]:
    """The libraries that headrace requires, and those of its extras."""
    wanted = importlib.metadata.requires("headrace") or []
    needed = [re.split(r"[^A-Za-z0-9_.-]", text, maxsplit=1)[0] for text in wanted if "extra ==" not in text]
    missing = [name for name in needed if version(name) is None]
    if missing:
        fix = f"{sys.executable} -m pip install {' '.join(missing)}"
        yield Finding("libraries", "broken", f"not installed: {', '.join(missing)}", fix)
    else:
        yield Finding("libraries", "good", ", ".join(f"{name} {version(name)}" for name in sorted(needed)))
    for name, use in EXTRAS.items():
        if name != "torch" and version(name) is None:
            extra = "faithful" if name == "ftfy" else "train"
            fix = f"Needed for {use}: {sys.executable} -m pip install 'headrace[{extra}]'"
            yield Finding(name, "warn", "not installed", fix)


def _machine() -> Iterator[Finding]:
    import psutil

    yield Finding("cores", "good", f"{cores()} of {os.cpu_count()} usable")
    limit = memory_limit()
    free = free_memory()
    value = f"{size(free)} free of {size(limit or psutil.virtual_memory().total)}"
    if free >= LEAST_MEMORY:
        yield Finding("memory", "good", value)
    else:
        yield Finding("memory", "warn", value, "Close other programs, or use --workers 1 and a small --memory.")


def _disk(out: Path) -> Finding:
    folder = out.absolute()
    while not folder.exists():
        folder = folder.parent
    if not folder.is_dir():
        return Finding("disk", "broken", f"{folder} is a file", "Choose another folder with --out.")
    if not os.access(folder, os.W_OK):
        return Finding(
            "disk", "broken", f"{folder} is not writable", "Choose a folder with --out, or fix its permissions."
        )
    free = shutil.disk_usage(folder).free
    if free < LEAST_DISK:
        return Finding(
            "disk", "warn", f"{size(free)} free at {folder}", "Free some space, or choose another disk with --out."
        )
    return Finding("disk", "good", f"{size(free)} free at {folder}")


def _kernel_cache() -> Finding:
    """Compiled kernels are cached in the user's cache folder; without it each worker recompiles them."""
    from headrace.flow.kernel_cache import objection, place

    against = objection(place())
    if against is None:
        return Finding("kernel cache", "good", str(place()))
    fix = "export NUMBA_CACHE_DIR=/a/folder/of/yours, or every worker recompiles its kernels at each start."
    return Finding("kernel cache", "warn", against, fix)


def _threads() -> Iterator[Finding]:
    """Limits of the operating system and the environment that slow a run down or stop it."""
    import resource

    files = resource.getrlimit(resource.RLIMIT_NOFILE)[0]
    if files != resource.RLIM_INFINITY and files < LEAST_FILES:
        yield Finding("open files", "warn", f"at most {files}", f"ulimit -n {LEAST_FILES}")
    for name in ("OMP_NUM_THREADS", "NUMBA_NUM_THREADS", "MKL_NUM_THREADS"):
        value = os.environ.get(name, "")
        if value.isdigit() and int(value) > cores():
            yield Finding("threads", "warn", f"{name}={value}, but {cores()} cores", f"unset {name}")


def _torch() -> Iterator[Finding]:
    if importlib.util.find_spec("torch") is None:
        fix = f"You can build sequences but not train on them: {sys.executable} -m pip install 'headrace[train]'"
        yield Finding("torch", "warn", "not installed", fix)
        return
    import torch

    value = f"{torch.__version__}, {torch.get_num_threads()} threads"
    if torch.cuda.is_available():
        value += f", {torch.cuda.device_count()} x {torch.cuda.get_device_name(0)}"
        value += " of compute capability {}.{}".format(*torch.cuda.get_device_capability(0))
    elif shutil.which("nvidia-smi"):
        fix = "This torch build sees no GPU: install one that matches your driver from https://pytorch.org/get-started."
        yield Finding("torch", "warn", f"{value}, no GPU, although nvidia-smi is installed", fix)
        return
    yield Finding("torch", "good", value)
