"""Whole runs of headrace as benchmarks time them: over the corpus, from .jsonl.zst, with the start-up told apart."""

from __future__ import annotations

import shutil
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import orjson

from bench.corpus import SHARED
from bench.harness import Setting
from headrace import pipeline
from headrace.flow.artifact import Artifact
from headrace.recipe.load import load_recipe

CODE = ("python", "javascript", "html", "css")
CONTROL = ("<|endoftext|>", "<|fim_prefix|>", "<|fim_middle|>", "<|fim_suffix|>")
SEQUENCE_LENGTH = 2048
MEMORY = 2 << 30


@dataclass(frozen=True)
class Run:
    """A finished run.

    Attributes:
        folder: the run folder.
        seconds: wall time, without ``startup``.
        startup: from the first worker's birth until it was ready: Python and its imports, paid once a run of any size.
        artifacts: artifact name -> wall seconds, ``startup`` taken from the first.
    """

    folder: Path
    seconds: float
    startup: float
    artifacts: dict[str, float]

    def artifact(self, prefix: str) -> Artifact:
        """The artifact whose name begins so."""
        [path] = (self.folder / "artifacts").glob(f"{prefix}-????????")
        return Artifact.open(path)

    def took(self, prefix: str) -> float:
        """The seconds of the artifact whose name begins so."""
        [seconds] = [value for name, value in self.artifacts.items() if name[:-9] == prefix]
        return seconds


def run(recipe: dict[str, Any], folder: Path, until: str | None, workers: int) -> Run:
    """Run a recipe in an empty folder, to the end if ``until`` is None."""
    shutil.rmtree(folder, ignore_errors=True)
    seconds: dict[str, float] = {}
    first: dict[str, float] = {}

    def listen(event: dict[str, Any]) -> None:
        kind = event["event"]
        if kind in ("phase", "worker"):
            first.setdefault(kind, time.perf_counter())
        elif kind == "artifact" and event["state"] == "published":
            seconds[event["artifact"]] = event["seconds"]

    loaded = load_recipe(recipe)
    start = time.perf_counter()
    pipeline.run(loaded, folder, workers=workers, memory=MEMORY, until=until, listener=listen)
    startup = first["worker"] - first["phase"]
    made = [*seconds]
    seconds[made[0]] -= startup
    return Run(folder, time.perf_counter() - start - startup, startup, seconds)


def recipe(setting: Setting, **sections: Any) -> dict[str, Any]:
    """A recipe over the corpus, its sources by folder."""
    names = sorted(path.name for path in setting.corpus.iterdir() if path.is_dir())
    sources = {name: {"files": str(setting.corpus / name / "*.jsonl.zst")} for name in names}
    return {"name": "bench", "seed": 1, "sources": sources, **sections}


def all_steps(setting: Setting) -> dict[str, Any]:
    """Every step that leads to verdicts: short filter, exact and near duplicates, contamination, a checked split."""
    humaneval = SHARED / "fixtures/benchmarks/HumanEval.jsonl.gz"
    if humaneval.is_file():
        exam = {"files": str(humaneval), "fields": ["prompt", "canonical_solution"]}
    else:
        path = setting.work / "exam.jsonl"
        question = "Write a function that returns the sum of the squares of all even numbers in a list of integers."
        path.write_bytes(orjson.dumps({"prompt": question}) + b"\n")
        exam = {"files": str(path), "fields": ["prompt"]}
    return {
        "filters": {"short": {"min_characters": 200}},
        "deduplicate": {"exact": True, "near": {}},
        "decontaminate": {"benchmarks": {"exam": exam}},
        "split": {"validation": 0.01, "check": "exact"},
    }


def tokenizer_file(setting: Setting, definition: dict[str, Any]) -> dict[str, Any]:
    """The ``tokenizer`` section for a definition, with the control tokens that a sequence may need."""
    path = setting.work / "tokenizer.json"
    path.write_bytes(orjson.dumps(definition))
    has = {token["content"] for token in definition["added_tokens"]}
    return {"file": str(path), "special": {"add": [token for token in CONTROL if token not in has]}}


def code_sources(setting: Setting) -> list[str]:
    """The sources that hold code; all if none is named so."""
    names = [path.name for path in setting.corpus.iterdir() if path.is_dir()]
    return sorted(name for name in names if name in CODE) or sorted(names)


def sequence_tokens(artifact: Artifact) -> int:
    """Tokens of a sequence: rows times targets."""
    return int(artifact.rows * artifact.manifest.extra["seq_len"])
