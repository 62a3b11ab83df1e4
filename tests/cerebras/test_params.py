"""The command on CrystalCoder's own files: the three phases one after the other, and how runs are launched."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
from published import made, save, tiny, write_data
from safetensors.torch import load_file, save_file
from typer.testing import CliRunner

import headrace
from headrace.cerebras.checkpoints import checkpoints
from headrace.cli.app import app
from headrace.run_folder import artifact, stage_sequence
from headrace.sequence.loader import Loader
from headrace.train.metrics import read as read_metrics
from headrace.train.trajectory import latest
from quick import quick

pytestmark = pytest.mark.filterwarnings("ignore")


def command(folder: Path, phase: int, *options: str, mode: str = "train", out: str | None = None) -> Any:
    """Run the command on a phase's file; its run folder is ``p1`` and so on."""
    arguments = ["train", "--params", str(folder / f"params_phase{phase}.yaml"), "--mode", mode]
    arguments += ["--model_dir", str(folder / (out or f"p{phase}")), "--workers", "0", *options]
    return CliRunner().invoke(app, arguments)


def done(result: Any) -> Any:
    assert result.exit_code == 0, result.output
    return result


def losses(result: Any) -> list[dict[str, Any]]:
    return json.loads(done(result).stdout)["eval"]


def failed(result: Any, words: str) -> None:
    assert result.exit_code == 2, result.output
    assert words in result.output


def weights(run: Path, step: int) -> dict[str, np.ndarray]:
    [found] = [one for one in checkpoints(run) if one.step == step]
    [file] = found.files("model")
    return {name: tensor.numpy() for name, tensor in load_file(file).items()}


def equal(a: dict[str, np.ndarray], b: dict[str, np.ndarray]) -> bool:
    return a.keys() == b.keys() and all((a[name] == b[name]).all() for name in a)


def rates(run: Path) -> dict[int, float]:
    [*_, folder] = sorted((run / "checkpoints" / "train").iterdir(), key=lambda one: one.stat().st_mtime)
    return {line["step"]: line["learning_rate"] for line in read_metrics(folder / "metrics.jsonl")}


@pytest.fixture(scope="module")
def folder(shared, tmp_path_factory):
    """The three phases, one after the other, as CrystalCoder was trained."""
    base = tmp_path_factory.mktemp("phases")
    for phase in (1, 2, 3):
        params = tiny(shared, phase, base / "data")
        write_data(params)
        save(params, base / f"params_phase{phase}.yaml")
    said = done(command(base, 1)).stderr
    assert "runconfig.num_csx means nothing off Cerebras' hardware" in said
    done(command(base, 2, "--checkpoint_path", str(base / "p1/checkpoint_6.mdl"), "--is_pretrained_checkpoint"))
    often = ("--set", "runconfig.eval_frequency=4")
    done(command(base, 3, "--checkpoint_path", str(base / "p2"), *often, mode="train_and_eval"))
    return base


def test_each_phase_starts_from_the_weights_of_the_one_before(folder):
    for phase, peak, warm in ((1, 0.012, 86), (2, 0.0087825, 86), (3, 0.002, 276)):
        found = rates(folder / f"p{phase}")
        assert found == pytest.approx({step: peak * (step - 1) / warm for step in range(1, 7)}, rel=1e-9)
    recipe = headrace.load_recipe(folder / "p2" / "recipe.yaml")
    assert str(folder / "p1") in recipe.stages[0].start
    assert not recipe.stages[0].resume
    # The first step has a rate of 0: no update has been made, so the weights are those of the phase before.
    first = json.loads((folder / "p2/starts.json").read_text())["stages"]["train"]
    assert first["path"].endswith("step-00000006")
    assert not equal(weights(folder / "p1", 6), weights(folder / "p2", 6))
    assert [one.step for one in checkpoints(folder / "p3")] == [6, 4, 2]


def test_the_rows_are_those_of_the_mixture_whatever_the_number_of_processes(folder):
    sequence = stage_sequence(folder / "p1", "train")
    recipe = headrace.load_recipe(folder / "p1" / "recipe.yaml")
    weights = np.array([one.weight for one in recipe.stages[0].sequence])
    weights /= weights.sum()
    total = max(40 / w for w in weights if w > 0.05)
    counts = [int(total * w) for w in weights]
    labels = np.repeat(np.arange(len(counts)), counts)
    places = np.arange(len(labels))
    np.random.default_rng(1).shuffle(places)
    seen, expected = [0] * len(counts), []
    for which in labels[places]:
        expected.append(made(recipe.stages[0].sequence[which].path[0], 40)[seen[which] % 40])
        seen[which] += 1
    assert (sequence.rows(0, len(sequence)) == np.array(expected)).all()
    whole = [batch.tokens for batch in Loader(sequence, 4)]
    for size in (2, 4):
        parts = zip(*(Loader(sequence, 4, rank=rank, world_size=size) for rank in range(size)), strict=True)
        for batch, ranks in zip(whole, parts, strict=True):
            assert (np.concatenate([part.tokens for part in ranks]) == batch).all()


def test_evaluation_is_of_the_checkpoint_that_is_named(folder):
    told = {}
    for path in ("p1/checkpoint_2.mdl", "p1"):
        [one] = losses(command(folder, 1, "--checkpoint_path", str(folder / path), "--json", mode="eval", out="e"))
        told[one["step"]] = one
    assert sorted(told) == [2, 6]
    assert told[2]["loss"] != told[6]["loss"]
    assert (told[6]["rows"], told[6]["tokens"]) == (8, 2 * 8 + 6 * 16)
    assert told[6]["perplexity"] == pytest.approx(np.exp(told[6]["loss"]))
    every = losses(command(folder, 1, "--json", "--eval_steps", "1", mode="eval_all"))
    assert [(one["step"], one["rows"]) for one in every] == [(2, 4), (4, 4), (6, 4)]


def test_training_and_evaluation_alternate(folder):
    """Every eval_frequency steps and at the end, as eval_all measures their checkpoints; the weights are the same."""
    often = ("--set", "runconfig.eval_frequency=4", "--json")
    start = ("--checkpoint_path", str(folder / "p2"))
    told = losses(command(folder, 3, *often, *start, mode="train_and_eval", out="both"))
    assert [(one["step"], one["rows"]) for one in told] == [(4, 8), (6, 8)]
    assert set(told[0]["sources"]) == {"css"}
    assert equal(weights(folder / "p3", 6), weights(folder / "both", 6))
    done(command(folder, 3, *start, out="alone"))
    assert equal(weights(folder / "alone", 6), weights(folder / "both", 6))
    every = {one["step"]: one for one in losses(command(folder, 3, "--json", mode="eval_all", out="both"))}
    assert sorted(every) == [2, 4, 6]
    for one in told:
        assert one["loss"] == pytest.approx(every[one["step"]]["loss"], rel=1e-5)
        assert one["perplexity"] == pytest.approx(every[one["step"]]["perplexity"], rel=1e-5)
    # Trained without it, and then on with it.
    done(command(folder, 1, "--max_steps", "5", out="turns"))
    assert [one["step"] for one in losses(command(folder, 1, *often, mode="train_and_eval", out="turns"))] == [6]
    assert equal(weights(folder / "p1", 6), weights(folder / "turns", 6))


def test_evaluation_needs_rows_as_long_as_those_of_training(folder, tmp_path):
    other = tmp_path / "short"
    other.mkdir()
    with h5py.File(other / "a.h5", "w") as file:
        file.create_dataset("data", data=np.ones((8, 3, 8), dtype=np.int32))
    option = ("--set", f"eval_input.data_dir={other}")
    failed(command(folder, 3, *option, mode="train_and_eval", out="short"), "Rows of eval_input train on 8 tokens")
    [one] = losses(command(folder, 3, *option, "--json", "--checkpoint_path", str(folder / "p3"), mode="eval"))
    assert one["rows"] == 8


def test_checkpoints_that_cannot_be_evaluated_are_passed_over_unless_they_are_named(folder, tmp_path):
    shutil.copytree(folder / "p1", tmp_path / "p")
    [_, middle, _] = checkpoints(tmp_path / "p")
    [file] = middle.files("model")
    data = bytearray(file.read_bytes())
    data[-1] ^= 1
    file.write_bytes(data)
    result = command(folder, 1, "--json", "--model_dir", str(tmp_path / "p"), mode="eval_all")
    assert [one["step"] for one in losses(result)] == [2, 6]
    assert "step-00000004 is passed over: The checkpoint is damaged" in result.stderr
    for option in (
        ("--checkpoint_path", str(middle.path)),
        ("--checkpoint_path", str(tmp_path / "p/checkpoint_4.mdl")),
    ):
        failed(command(folder, 1, *option, mode="eval", out="e2"), "damaged")
    other = ("--model_dir", str(tmp_path / "p"), "--set", "model.num_hidden_layers=3")
    failed(command(folder, 1, *other, mode="eval_all"), "do not fit the model")


def test_a_checkpoint_is_gone_on_from_with_step_optimizer_and_data(folder):
    """From step 2 to 6 in another folder: the same weights as in one go."""
    done(command(folder, 1, "--checkpoint_path", str(folder / "p1/checkpoint_2.mdl"), out="on"))
    assert equal(weights(folder / "p1", 6), weights(folder / "on", 6))
    assert sorted(rates(folder / "on")) == [3, 4, 5, 6]


def test_raising_max_steps_goes_on_and_the_same_again_is_refused(folder):
    failed(command(folder, 1), "is at step 6 already, and the last one is 6")
    failed(command(folder, 1, "--max_steps", "3"), "is at step 6 already, and the last one is 3")
    done(command(folder, 1, "--max_steps", "5", out="more"))
    done(command(folder, 1, "--num_steps", "2", "--max_steps", "8", out="more"))
    assert [one.step for one in checkpoints(folder / "more")] == [7, 6, 5, 4, 2]
    assert equal(weights(folder / "p1", 6), weights(folder / "more", 6))
    failed(command(folder, 1, "--max_steps", "7", out="more"), "is at step 7 already")


def test_another_rhythm_of_checkpoints_is_the_same_training(folder):
    options = ("--set", "runconfig.save_initial_checkpoint=true")
    done(command(folder, 1, "--max_steps", "3", *options, "--set", "runconfig.checkpoint_steps=0", out="rhythm"))
    assert [one.step for one in checkpoints(folder / "rhythm")] == [3, 0]


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (("--set", "runconfig.is_pretrained_checkpoint=true", "--model_dir", "new"), "no checkpoint to take"),
        (("--set", "runconfig.autoload_last_checkpoint=false", "--max_steps", "9"), "holds checkpoints"),
        (("--checkpoint_path", "nowhere", "--model_dir", "new"), "There is no checkpoint nowhere"),
        (
            ("--set", "runconfig.hidden=3"),
            "Unknown key",
        ),
        (("--max_steps", "0"), "whole number of at least 1"),
        (("--set", "model.hidden_size=32", "--max_steps", "9"), "do not fit the model"),
    ],
)
def test_what_cannot_be_is_refused(folder, options, words, monkeypatch):
    monkeypatch.chdir(folder)
    failed(command(folder, 1, *options), words)


def test_beginning_anew_beside_a_training_that_is_there_is_said(folder):
    """The same command with more steps: the file takes the weights that it names, not those in model_dir."""
    start = ("--checkpoint_path", str(folder / "p2"))
    assert "begins" not in done(command(folder, 3, "--max_steps", "2", *start, out="anew")).stderr
    said = done(command(folder, 3, "--max_steps", "3", *start, out="anew")).stderr
    assert "Training begins at step 0 with" in said
    assert f"beside what is in {folder / 'anew'}, whose newest checkpoint is of step 2" in said
    assert [one.step for one in checkpoints(folder / "anew")] == [3, 2]


def test_weights_of_others_are_begun_with_and_pickles_are_not_read(folder, tmp_path):
    file = tmp_path / "model.safetensors"
    [one, *_] = checkpoints(folder / "p1")
    save_file(load_file(one.files("model")[0]), file)
    failed(command(folder, 2, "--checkpoint_path", str(file), out="w"), "Add --is_pretrained_checkpoint")
    done(command(folder, 2, "--checkpoint_path", str(file), "--is_pretrained_checkpoint", "--max_steps", "2", out="w"))
    assert equal(weights(folder / "w", 2), weights(folder / "p2", 2))
    (tmp_path / "checkpoint_9.mdl").write_bytes(b"\x80\x04")
    path = str(tmp_path / "checkpoint_9.mdl")
    failed(command(folder, 2, "--checkpoint_path", path, "--is_pretrained_checkpoint", out="x"), "pickle")


def test_the_loaders_state_is_where_the_file_wants_it_and_is_gone_on_from(folder, shared, tmp_path):
    """Two trainings of three steps on the rows of one of six: the second begins anew with the weights of the first."""
    state = tmp_path / "state"
    option = ("--set", f"cerebras.save_iter_state_path={state}")
    done(command(folder, 1, "--max_steps", "2", *option, out="s1"))
    assert sorted(file.name for file in state.iterdir()) == [
        "data_iter_checkpoint_state_file_global",
        "data_iter_state_file_worker_0_step_2.txt",
    ]
    assert (state / "data_iter_state_file_worker_0_step_2.txt").read_text().strip() == "8"
    start = ("--checkpoint_path", str(folder / "s1"), "--is_pretrained_checkpoint")
    said = done(command(folder, 1, "--max_steps", "2", *option, *start, out="s2"))
    assert "The data begin with row 8" in said.stderr
    [stage] = headrace.load_recipe(folder / "s2" / "recipe.yaml").stages
    assert (stage.first_row, stage.train.steps) == (8, 2)
    assert (state / "data_iter_state_file_worker_0_step_2.txt").read_text().strip() == "16"
    sequence = stage_sequence(folder / "s2", "train")
    [one, *_] = checkpoints(folder / "s2")
    sources = one.state["totals"]["sources"]
    expected = dict.fromkeys(sequence.sources, 0)
    for row in range(8, 16):
        expected[sequence.sources[sequence.segments(row)[0]["source"]]] += int(sequence.targets(row, row + 1).sum())
    assert sources == {name: tokens for name, tokens in expected.items() if tokens}
    # Two workers of another's run; nonsense; a step without files.
    (state / "data_iter_state_file_worker_1_step_2.txt").write_text("4")
    done(command(folder, 1, "--max_steps", "1", *option, out="s3"))
    assert headrace.load_recipe(folder / "s3" / "recipe.yaml").stages[0].first_row == 20
    (state / "data_iter_checkpoint_state_file_global").write_text("7")
    failed(command(folder, 1, *option, out="s4"), "no loader state of step 7")
    (state / "data_iter_checkpoint_state_file_global").write_text("seven")
    failed(command(folder, 1, *option, out="s4"), "no number")


def test_a_damaged_newest_checkpoint_is_passed_over_for_the_one_before(folder, tmp_path):
    """Whether the launch is the same, or goes on further."""
    for steps in ("6", "8"):
        run = tmp_path / f"to-{steps}"
        done(command(folder, 1, "--model_dir", str(run), "--max_steps", "6"))
        [newest, *_] = checkpoints(run)
        [file] = newest.files("model")
        file.write_bytes(file.read_bytes()[:-1] + b"x")
        if steps == "6":
            shutil.rmtree(artifact(run, "model", "train").path)
        done(command(folder, 1, "--model_dir", str(run), "--max_steps", steps))
        assert [one.name for one in (run / "damaged").iterdir()] == ["step-00000006-1"]
        assert equal(weights(folder / "p1", 6), weights(run, 6))


def test_a_loaders_state_that_cannot_be_written_is_told(folder, tmp_path):
    (tmp_path / "file").touch()
    option = ("--set", f"cerebras.save_iter_state_path={tmp_path / 'file'}", "--model_dir", str(tmp_path / "run"))
    failed(command(folder, 1, "--max_steps", "1", *option), "cerebras.save_iter_state_path")
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    "arguments",
    [
        ["--params", "p.yaml", "--stage", "train"],
        ["run", "--params", "p.yaml"],
        ["run", "--stage", "train", "--max_steps", "3"],
        ["run", "--stage", "train", "--set", "model.hidden_size=3"],
        ["run", "--stage", "train", "--is_pretrained_checkpoint"],
        ["run", "--stage", "train", "--prepare"],
        ["run"],
        [],
    ],
)
def test_options_that_would_have_no_effect_are_refused(arguments):
    failed(CliRunner().invoke(app, ["train", *arguments]), "headrace train RUN --stage NAME")


def test_a_params_file_is_for_one_process(folder, monkeypatch):
    monkeypatch.setenv("WORLD_SIZE", "2")
    failed(command(folder, 1, out="one-process"), "with --prepare")
    assert not (folder / "one-process").exists()


@pytest.mark.slow
def test_data_are_prepared_for_processes_that_are_started_together(folder):
    start = ("--checkpoint_path", str(folder / "p1"), "--is_pretrained_checkpoint")
    assert "--stage train" in done(command(folder, 2, "--prepare", *start, mode="train_and_eval", out="many")).stderr
    assert not list(checkpoints(folder / "many"))
    torchrun = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    arguments = ["-m", "headrace", "train", str(folder / "many"), "--stage", "train"]
    subprocess.run([*torchrun, *arguments], check=True, capture_output=True, env={**os.environ, "OMP_NUM_THREADS": "1"})
    [told] = read_metrics(latest(folder / "many", "train") / "evaluations.jsonl")
    assert (told["step"], told["rows"]) == (6, 8)
    one, two = weights(folder / "p2", 6), {}
    [newest, *_] = checkpoints(folder / "many")
    for file in newest.files("model"):
        two |= {name: tensor.numpy() for name, tensor in load_file(file).items()}
    assert one.keys() == two.keys()
    assert all(np.allclose(one[name], two[name], rtol=1e-3, atol=1e-5) for name in one)


KILLED = """
import os, signal, sys
from pathlib import Path

replace = os.replace

def dying(source, target):
    if Path(target).name.startswith(sys.argv[1]):
        os.kill(os.getpid(), signal.SIGKILL)
    replace(source, target)

os.replace = dying
from headrace.cli.app import app
app(sys.argv[2:])
"""


@pytest.mark.slow
@pytest.mark.parametrize("publishing", quick(["step-00000002", "step-00000004", "model-train-"], "step-00000004"))
def test_killed_and_started_again_it_ends_the_same(folder, publishing):
    """Before its first checkpoint, before the second, and after the last but before the model is published."""
    out, mode, options = f"killed-{publishing}", "train_and_eval", ("--set", "runconfig.eval_frequency=2")
    arguments = ["train", "--params", str(folder / "params_phase1.yaml"), "--mode", mode, "--workers", "0", *options]
    arguments += ["--model_dir", str(folder / out)]
    dead = subprocess.run([sys.executable, "-c", KILLED, publishing, *arguments], capture_output=True)
    assert dead.returncode == -signal.SIGKILL
    assert [one["step"] for one in losses(command(folder, 1, *options, "--json", mode=mode, out=out))] == [2, 4, 6]
    assert equal(weights(folder / "p1", 6), weights(folder / out, 6))
    artifact(folder / out, "model", "train")
    failed(command(folder, 1, out=out), "is at step 6 already")
