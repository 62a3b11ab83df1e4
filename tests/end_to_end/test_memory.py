"""Peak memory follows the budget, not the corpus."""

from __future__ import annotations

import json
import os
import random
import subprocess
import sysconfig
import time
from pathlib import Path

import psutil
import pytest

from commands import HEADRACE

BUDGET = 500_000_000

RECIPE = """\
name: memory
sources:
  shuffled: {files: "${recipe}/shuffled-*.jsonl"}
  rotated: {files: "${recipe}/rotated-*.jsonl"}
filters: {short: {}, code: {sources: [rotated]}}
deduplicate: {near: {verify: true}}
split: {validation: 0.01, check: near}
tokenizer: {train: {vocab_size: 4000, sample: 5MB}}
stages:
  - name: all
    sources: {shuffled: {epochs: 1.5}, rotated: {fim: {rate: 0.5}}}
"""


def build(root: Path, size: int) -> Path:
    """About ``size`` bytes of text: modules with their words shuffled (all different) or lines rotated (all alike)."""
    root.mkdir()
    rng = random.Random(0)
    stdlib = Path(sysconfig.get_paths()["stdlib"])
    modules = [p.read_text("utf-8") for p in sorted(stdlib.glob("*.py")) if p.stat().st_size < 60_000]
    written = number = 0
    while written < size:
        for kind in ("shuffled", "rotated"):
            with open(root / f"{kind}-{number:03d}.jsonl", "w", encoding="utf-8") as f:
                for text in modules:
                    if kind == "shuffled":
                        words = text.split(" ")
                        rng.shuffle(words)
                        text = " ".join(words)
                    else:
                        lines = text.splitlines(keepends=True)
                        at = rng.randrange(len(lines) + 1)
                        text = "".join(lines[at:] + lines[:at])
                    f.write(json.dumps({"text": text}) + "\n")
                    written += len(text)
                    if written >= size:
                        break
        number += 1
    (root / "recipe.yaml").write_text(RECIPE)
    return root / "recipe.yaml"


def peak_of(recipe: Path, run: Path) -> int:
    """The largest sum of the resident sets of all processes of a run, sampled 20 times a second."""
    command = [HEADRACE, "run", str(recipe), "--out", str(run), "--workers", "2", "--memory", str(BUDGET)]
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, env={**os.environ})
    tree, peak = psutil.Process(process.pid), 0
    while process.poll() is None:
        total = 0
        for each in (tree, *tree.children(recursive=True)):
            try:
                total += each.memory_info().rss
            except psutil.Error:
                continue  # it has just ended
        peak = max(peak, total)
        time.sleep(0.05)
    assert process.returncode == 0, process.stderr.read().decode()
    return peak


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_a_gigabyte_stays_within_the_budget(tmp_path):
    """The base is the peak of the same run over 2 MB: interpreters, libraries and compiled kernels."""
    base = peak_of(build(tmp_path / "tiny", 2_000_000), tmp_path / "tiny-run")
    peak = peak_of(build(tmp_path / "big", 1_050_000_000), tmp_path / "big-run")
    print(f"base {base / 1e6:.0f} MB, peak {peak / 1e6:.0f} MB, so {(peak - base) / 1e6:.0f} MB for data")
    assert peak - base < BUDGET
