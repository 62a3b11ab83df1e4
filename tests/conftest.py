"""Fixtures that the whole suite shares."""

from __future__ import annotations

import fcntl
import os
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings

from quick import ALL

# Tests start hundreds of processes, each of which would compile every module of ours, 0.5 s.
os.environ.pop("PYTHONDONTWRITEBYTECODE", None)

# Tensors of tests are small: one thread is faster than two that spin while they wait for each other, 4 s instead of 47
# for test_guard.py beside other load.
os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

# The first example of a property pays for compiling the kernel, so there is no deadline. The same examples are tried
# each time, so that a change fails for what it changed; `make test-all` tries new ones, and more of them.
settings.register_profile(
    "headrace",
    max_examples=40,
    deadline=None,
    database=None,
    derandomize=True,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.function_scoped_fixture],
)
settings.register_profile(
    "headrace-new-examples", settings.get_profile("headrace"), derandomize=False, max_examples=ALL
)
settings.load_profile("headrace")

# Folders whose tests take longest, so that no worker is alone with one of their files at the end.
LONG = ("end_to_end", "kernels", "train", "view")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Long tests first."""
    items.sort(key=lambda item: item.path.parent.name not in LONG)


Once = Callable[[str, Callable[[Path], object]], Path]

SHARED = Path(os.environ.get("HEADRACE_SHARED", Path(__file__).resolve().parents[2] / "shared"))


@pytest.fixture(scope="session")
def shared() -> Path:
    """The folder of other people's data (tokenizers, benchmarks, texts) that stands beside a checkout, if it does."""
    if not (SHARED / "fixtures").is_dir():
        pytest.skip(f"no shared data at {SHARED}; set HEADRACE_SHARED to the folder that holds fixtures/ and corpus/")
    return SHARED


@pytest.fixture(scope="session")
def once(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Once:
    """``once(name, build)``: a folder that ``build`` made, one for all processes of the session.

    Only reading tests may have it: others copy what they change.
    """
    base = tmp_path_factory.getbasetemp()
    among = base.parent if hasattr(request.config, "workerinput") else base

    def made(name: str, build: Callable[[Path], object]) -> Path:
        folder, done = among / name, among / f"{name}.done"
        with open(among / f"{name}.lock", "w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            if not done.exists():
                shutil.rmtree(folder, ignore_errors=True)  # what a build left that failed
                folder.mkdir()
                build(folder)
                done.touch()
        return folder

    return made
