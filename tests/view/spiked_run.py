"""A small run whose training meets a corrupted document: a real spike, with its rows and tokens recorded."""

from __future__ import annotations

import json
import random
from pathlib import Path

from small_run import prose

RECIPE = """\
name: spiked
seed: 3
sources:
  books: {files: "${recipe}/books.jsonl", license: CC0-1.0}
  forum: {files: "${recipe}/forum.jsonl", fields: {license: license, path: path}}
tokenizer: {train: {vocab_size: 600}}
model: {layers: 1, width: 64, heads: 2}
defaults:
  sequence_length: 128
  train:
    steps: 45
    batch: 4
    precision: fp32
    optimizer: {learning_rate: 0.01}
    guard: {deviations: 6, window: 16, action: ACTION}
    record: {tokens: 50}
stages:
  - name: only
    sources: {books: {}, forum: {}}
"""
CORRUPTED = "mail/corrupted.eml"


def build_spiked(root: Path, action: str = "skip") -> Path:
    """Write the corpus and the recipe; returns the recipe."""
    rng = random.Random(5)
    root.mkdir(parents=True, exist_ok=True)
    books = [{"text": prose(rng, 90)} for _ in range(150)]
    forum = [{"text": prose(rng, 60), "license": "MIT", "path": f"mail/{i}.eml"} for i in range(70)]
    noise = "".join(chr(rng.randrange(0x4E00, 0x9FA0)) for _ in range(40))
    forum.insert(33, {"text": noise, "license": "GPL-2.0-only", "path": CORRUPTED})
    for name, rows in (("books", books), ("forum", forum)):
        (root / f"{name}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    (root / "recipe.yaml").write_text(RECIPE.replace("ACTION", action))
    return root / "recipe.yaml"
