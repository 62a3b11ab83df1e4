"""Every kernel as the plain Python that it is, with every index checked, and for other processors: all the same."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

PROGRAM = Path(__file__).with_name("every_kernel.py")
WAYS = {
    "compiled": {"NUMBA_NUM_THREADS": "2"},
    "plain": {"NUMBA_DISABLE_JIT": "1"},
    "checked": {"NUMBA_BOUNDSCHECK": "1", "NUMBA_OPT": "0"},  # compiled in two thirds of the time
    # The least that a processor of this kind has: vectors of 128 bits on x86-64, where the machine may have 512.
    "narrow": {"NUMBA_CPU_NAME": "generic", "NUMBA_CPU_FEATURES": "", "NUMBA_NUM_THREADS": "1"},
}


def run(folder: Path, ways: dict[str, dict[str, str]]) -> dict[str, dict[str, Any]]:
    """What the program says in each way. All run at once, as compiling takes most of the time."""
    running = {}
    for way, switches in ways.items():
        (folder / way).mkdir()
        env = {**os.environ, **switches}
        if way != "compiled":  # kernels compiled otherwise are others, which Numba's cache does not tell apart
            env["NUMBA_CACHE_DIR"] = str(folder / way / "cache")
        command = [sys.executable, str(PROGRAM), str(folder / way)]
        running[way] = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=env)
    said = {way: process.communicate() for way, process in running.items()}
    for way, process in running.items():
        assert process.returncode == 0, f"{way}: {said[way][1]}"
    return {way: json.loads(out) for way, (out, _) in said.items()}


@pytest.fixture(scope="module")
def results(tmp_path_factory) -> dict[str, dict[str, Any]]:
    return run(tmp_path_factory.mktemp("kernels"), {way: WAYS[way] for way in ("compiled", "plain")})


def differing(a: dict[str, Any], b: dict[str, Any]) -> list[str]:
    assert list(a["digests"]) == list(b["digests"])
    return [case for case, digest in a["digests"].items() if digest != b["digests"][case]]


def test_compiled_kernels_give_what_plain_python_gives(results):
    assert differing(results["compiled"], results["plain"]) == []


def test_every_kernel_was_called(results):
    assert results["plain"]["unused"] == []


@pytest.mark.slow
def test_checks_narrow_vectors_and_one_thread_change_nothing(results, tmp_path):
    found = run(tmp_path, {way: WAYS[way] for way in ("checked", "narrow")})
    assert found["narrow"]["widest"] == 128 <= results["compiled"]["widest"]
    assert differing(results["compiled"], found["checked"]) == []
    assert differing(results["compiled"], found["narrow"]) == []
