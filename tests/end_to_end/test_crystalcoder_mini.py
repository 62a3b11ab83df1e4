"""CrystalCoder's recipe in miniature: training from its exported stages is training as in the run."""

from __future__ import annotations

import json
import os
import subprocess
from pathlib import Path

import h5py
import numpy as np
import pytest

from commands import HEADRACE
from headrace import open_sequence
from headrace.run_folder import artifact, stage_sequence
from headrace.sequence.loader import Loader

ROOT = Path(__file__).parents[2]
RECIPES = ROOT / "recipes"
STAGES = ("stage1", "stage2", "stage3", "stage3a")
# Enough text for a few steps of each stage.
SCALE = "0.1"


def headrace(*arguments: str | Path, **variables: str | Path) -> str:
    """Run the command with variables in its environment."""
    environment = {**os.environ, **{name: str(value) for name, value in variables.items()}}
    command = [HEADRACE, *map(str, arguments)]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, cwd=ROOT)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.fixture(scope="module")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Real files: this project's pages and code, in the place of each source."""
    folder = tmp_path_factory.mktemp("corpus")
    pages = sorted((ROOT / "docs").glob("*.md"))
    code = sorted((ROOT / "src" / "headrace").rglob("*.py"))
    for k, name in enumerate(("man", "docs", "prose", "python", "html", "javascript", "css")):
        (folder / name).mkdir()
        files = pages[k::3] if k < 3 else code[k::4]
        texts = [text for file in files for text in file.read_text(encoding="utf-8").split("\n\n")]
        lines = [json.dumps({"text": text}) for text in texts if len(text) > 100]
        (folder / name / "0.jsonl").write_text("\n".join(lines))
    return folder


@pytest.mark.slow
def test_training_from_the_published_layout_is_training_of_the_run(corpus: Path, tmp_path: Path) -> None:
    pytest.importorskip("torch")
    run, data, again = tmp_path / "run", tmp_path / "data", tmp_path / "again"
    mine = ["--set", f"sources.instructions.files={ROOT}/src/headrace/**/*.py"]
    mine += ["--set", f"scale={SCALE}"]
    fast = [option for stage in STAGES for option in ("--set", f"stages.{stage}.train.samples.tokens=0")]
    headrace("run", RECIPES / "crystalcoder-mini.yaml", "--out", run, *mine, *fast, CORPUS=corpus)
    layout = RECIPES / "layouts" / "crystalcoder-mini.yaml"
    headrace("export", run, data, "--all", "--to", "hdf5", "--layout", layout)
    with h5py.File(data / "phase2/SlimPajama/Docs_train_packed_part1of2/data-00001.h5") as file:
        assert file["data"].shape == (file.attrs["n_examples"], 3, 512)
    planned = json.loads(headrace("plan", RECIPES / "crystalcoder-mini-hdf5.yaml", "--json", DATA=data))
    headrace("run", RECIPES / "crystalcoder-mini-hdf5.yaml", "--out", again, DATA=data)
    for stage, plan in zip(STAGES, planned["stages"], strict=True):
        ours, theirs = stage_sequence(run, stage), stage_sequence(again, stage)
        files = open_sequence(data, stage)
        pairs = zip(*(Loader(rows, 8) for rows in (ours, theirs, files)), strict=True)
        batches = 0
        for one, two, three in pairs:
            for other in (two, three):
                assert np.array_equal(one.tokens, other.tokens), "ids and labels"
                assert np.array_equal(one.loss, other.loss)
            batches += 1
        assert batches == plan["steps"] > 0
        before, after = (metrics(folder, stage) for folder in (run, again))
        assert [line["loss"] for line in before] == [line["loss"] for line in after]
        assert len(before) == batches
        weights = [artifact(folder, "model", stage).path / "model.safetensors" for folder in (run, again)]
        assert weights[0].read_bytes() == weights[1].read_bytes()


def metrics(folder: Path, stage: str) -> list[dict[str, float]]:
    """What training recorded of each step."""
    path = artifact(folder, "model", stage).path / "metrics.jsonl"
    lines = [json.loads(line) for line in path.read_text().splitlines()]
    return [line for line in lines if line.get("loss") is not None]


def test_without_a_corpus_the_recipe_says_what_to_set() -> None:
    environment = {name: value for name, value in os.environ.items() if name not in ("CORPUS", "DATA")}
    for name, variable in (("crystalcoder-mini", "CORPUS"), ("crystalcoder-mini-hdf5", "DATA")):
        command = [HEADRACE, "plan", str(RECIPES / f"{name}.yaml")]
        done = subprocess.run(command, env=environment, capture_output=True, text=True)
        assert done.returncode == 2
        assert f"The variable ${{{variable}}} is not defined" in done.stderr
