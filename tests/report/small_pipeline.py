"""A real run of a tiny corpus with every kind of removal in it, made once for the tests that read run folders."""

from __future__ import annotations

import json
import random
import shutil
from collections.abc import Callable
from pathlib import Path

import orjson

from headrace.flow.artifact import MANIFEST, Artifact, Manifest
from headrace.flow.storage import write_sealed
from headrace.pipeline import run
from headrace.recipe.load import load_recipe

EVIL = "<script>alert('from the corpus')</script>"

RECIPE = """\
name: tiny
seed: 3
sources:
  prose: {files: "${recipe}/prose.jsonl", license: CC0-1.0}
  code: {files: "${recipe}/code.jsonl", fields: {license: licence}}
documents: {max_quarantined: 0.2}
filters: {short: {min_characters: 60}}
deduplicate: {near: {verify: true}, priority: [code]}
decontaminate: {benchmarks: {exam: {files: "${recipe}/exam.jsonl", fields: [question]}}}
split: {validation: 0.2}
tokenizer: {train: {vocab_size: 400}}
stages:
  - name: first
    sequence_length: 64
    sources: {prose: {}}
  - name: second
    sequence_length: 64
    sources: {prose: {epochs: 0.5}, code: {epochs: 2, fim: {rate: 0.8, spm: 0.5}}}
"""


def words(rng: random.Random, n: int) -> str:
    return " ".join("".join(rng.choice("aeioubcdfglmnprst") for _ in range(rng.randint(2, 9))) for _ in range(n))


def build(folder: Path) -> Path:
    """Make the corpus and the run; returns the run's folder."""
    rng = random.Random(5)
    prose = [words(rng, 60) for _ in range(60)]
    code = [f"def f{i}():\n    return '{words(rng, 50)}'\n" for i in range(40)]
    question = "how many roads must a man walk down before you call him a man in this town"
    prose += [
        code[0],  # a copy between sources
        prose[1],  # a copy within one
        prose[2].replace(prose[2].split()[30], "otherword", 1),  # nearly a copy
        f"short {EVIL}",
        f"{words(rng, 20)} {question} {words(rng, 20)}",
    ]
    prose[5] = f"{EVIL} {prose[5]}"
    folder.mkdir()
    with open(folder / "prose.jsonl", "w") as f:
        f.writelines(json.dumps({"text": text}) + "\n" for text in prose)
        f.write('{"text": "cut sho\n')
    with open(folder / "code.jsonl", "w") as f:
        f.writelines(
            json.dumps({"text": text} | ({"licence": "MIT & <b>"} if i % 2 else {})) + "\n"
            for i, text in enumerate(code)
        )
    (folder / "exam.jsonl").write_text(json.dumps({"task_id": "exam/<1>", "question": question}) + "\n")
    (folder / "recipe.yaml").write_text(RECIPE)
    run(load_recipe(folder / "recipe.yaml"), folder / "run", workers=1, memory=500_000_000)
    return folder / "run"


def copied(once: Callable[[str, Callable[[Path], object]], Path], folder: Path) -> Path:
    """A copy of the corpus and the run, which are made once in a session; returns the run's folder."""
    shutil.copytree(once("tiny", lambda made: build(made / "corpus")) / "corpus", folder)
    return folder / "run"


def add_model(run: Path, stage: str, steps: int = 6) -> Path:
    """Put a finished model of a stage into a run folder, without weights."""
    folder = run / "artifacts" / f"model-{stage}-00000000"
    folder.mkdir()
    losses = [5.0 - 0.25 * i for i in range(steps)]
    lines = [
        {"step": i + 1, "loss": None if i == 1 else loss, "tokens": 256 * (i + 1), "learning_rate": 0.001}
        for i, loss in enumerate(losses)
    ]
    start, end = (
        {"sources": {"prose": {"loss": x, "tokens": 10}, "code": {"loss": x + 1, "tokens": 9}}} for x in (6.0, 4.5)
    )
    samples = [
        {"prompt": f"a {EVIL}", "suffix": None, "text": "b", "truth": "c", "source": "prose"},
        {"prompt": "before ", "suffix": " after", "text": "between", "truth": None, "source": None},
    ]
    (folder / "metrics.jsonl").write_bytes(b"".join(orjson.dumps(line) + b"\n" for line in lines))
    [sequence] = (run / "artifacts").glob(f"sequence-{stage}-*")
    need = {"sequence": Artifact.open(sequence).manifest.identity}
    counts = {"steps": steps, "skipped": 0, "tokens": 256 * steps, "loss_tokens": 250 * steps}
    extra = {"parameters": 12345, "trajectory": "t"}
    manifest = Manifest("model", 1, f"m-{stage}", {}, need, [], [], counts, stage, extra)
    write_sealed(folder / MANIFEST, manifest.to_json())
    for kind, value in (("evaluation", {"initial": start, "held_out": end}), ("samples", samples)):
        beside = run / "artifacts" / f"{kind}-{stage}-00000000"
        beside.mkdir()
        (beside / f"{kind}.json").write_bytes(orjson.dumps(value))
        needs = {"model": f"m-{stage}"}
        about = Manifest(kind, 1, f"{kind}-{stage}", {}, needs, [], [], {}, stage, {})
        write_sealed(beside / MANIFEST, about.to_json())
    live = run / "checkpoints" / stage / "t"
    live.mkdir(parents=True, exist_ok=True)
    (live / "metrics.jsonl").write_bytes(b"".join(orjson.dumps(line | {"seconds": 0.5}) + b"\n" for line in lines))
    return folder
