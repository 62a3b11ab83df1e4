"""The runs that the viewer's benchmarks open: one over the corpus with all that a run can have; a large one of it."""

from __future__ import annotations

import math
import os
import shutil
from pathlib import Path
from typing import Any

from bench import pipelines
from bench.harness import Setting
from bench.repeated import copied, linked, moved, repeat, sequence_shard
from headrace.flow.artifact import Artifact

TRAIN = {"steps": 120, "batch": 8, "log_every": 1}
SIDECARS = ("measures", "contamination", "verdicts", "licences", "duplicates")


def recipe(setting: Setting) -> dict[str, Any]:
    """Every step, two stages, a small model."""
    told = pipelines.recipe(setting, **pipelines.all_steps(setting))
    about = {"license": "meta.license", "repo": "meta.repo", "path": "meta.path"}
    names = list(told["sources"])
    for name in names:
        told["sources"][name] |= {"fields": about, "license": "MIT", "licenses": {}}
    code = pipelines.code_sources(setting)
    told["filters"] |= {"code": {"sources": code}}
    told["deduplicate"]["near"] = {"verify": True}
    return told | {
        "tokenizer": {"train": {"vocab_size": 8192}},
        "model": {"layers": 1, "width": 32, "heads": 2},
        "defaults": {"sequence_length": 512, "train": TRAIN},
        "stages": [
            {"name": "first", "sources": {name: {} for name in names}},
            {"name": "second", "sources": {name: {"epochs": 2, "fim": {"rate": 0.5, "spm": 0.5}} for name in code}},
        ],
    }


def run(setting: Setting) -> Path:
    """A finished run over the corpus; made once."""
    folder = setting.work / f"viewed-{setting.corpus.name}"
    if not (folder / "done").exists():
        pipelines.run(recipe(setting), folder / "run", None, setting.cores)
        (folder / "done").touch()
    return folder / "run"


def grown(small: Path, folder: Path, size: float) -> Path:
    """A run like another whose documents, and whose first sequence, take ``size`` bytes of the disk each.

    The rows of its tokens are in files that are one file; models and their checkpoints are left out.
    """
    shutil.rmtree(folder, ignore_errors=True)
    shutil.copytree(small, folder, copy_function=os.link, ignore=shutil.ignore_patterns("checkpoints", "model-*"))
    artifacts = {path.name.rsplit("-", 1)[0]: Artifact.open(path) for path in (folder / "artifacts").iterdir()}
    documents, sequence = artifacts["documents"], artifacts["sequence-first"]
    times = math.ceil(size / documents.bytes)
    for name in SIDECARS:
        if name in artifacts:
            repeat(artifacts[name], times, moved if name == "duplicates" else copied, documents.rows)
    repeat(artifacts["tokens"], times, linked, documents.rows)
    place = sequence_shard(int(sequence.manifest.extra["seq_len"]))
    repeat(sequence, math.ceil(size / sequence.bytes), place, documents.rows)
    repeat(documents, times, copied)
    return folder
