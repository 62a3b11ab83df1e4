"""A stage in training that is stopped, edited, launched on two processes: as a user does it."""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from headrace import launched, pipeline
from headrace.errors import UserError
from headrace.ledger import ledger
from headrace.recipe.load import load_recipe
from headrace.train.interruption import Interrupted
from headrace.train.loop import Trainer

HEADRACE = [sys.executable, "-c", "from headrace.cli import main; main()"]
RECIPE = """\
name: tiny
sources:
  prose: {files: "prose.jsonl"}
  more: {files: "more.jsonl"}
split: {validation: 0.1}
tokenizer: {train: {vocab_size: 400}}
model: {layers: 1, width: 32, heads: 2, ffn: 48}
defaults:
  sequence_length: 32
  train: {batch: 4, precision: fp32, checkpoint_every: 2, samples: {tokens: 3}, held_out: {rows: 4}}
stages:
  - name: one
    sources: {prose: {epochs: 1}}
    train: {steps: 20}
  - name: two
    sources: {more: {epochs: 1}}
    train: {steps: 4}
"""


@pytest.fixture(scope="module")
def made(tmp_path_factory) -> Path:
    """A folder with a recipe, its corpus, and a run up to the sequences."""
    folder = tmp_path_factory.mktemp("staged")
    rng = random.Random(3)
    words = [f"{a}{b}" for a in ("mil", "ra", "whe", "slu", "le", "pen") for b in ("l", "ce", "el", "ice", "at")]
    for name, count in (("prose", 60), ("more", 20)):
        rows = [" ".join(rng.choice(words) for _ in range(90)) for _ in range(count)]
        (folder / f"{name}.jsonl").write_text("".join(json.dumps({"text": text}) + "\n" for text in rows))
    (folder / "recipe.yaml").write_text(RECIPE)
    # The tokenizer must not change with the corpus.
    run(folder, until="tokenizer")
    (folder / "tokenizer.json").write_bytes((artifact(folder, "tokenizer") / "tokenizer.json").read_bytes())
    (folder / "recipe.yaml").write_text(RECIPE.replace("train: {vocab_size: 400}", "file: tokenizer.json"))
    for stage in ("one", "two", "heldout"):
        run(folder, until=f"sequence-{stage}")
    return folder


@pytest.fixture
def folder(made, tmp_path) -> Path:
    subprocess.run(["cp", "-r", str(made), str(tmp_path / "copy")], check=True)
    return tmp_path / "copy"


def run(folder: Path, *changes: str, **options) -> list[str]:
    """Run the recipe in this process; returns what the user was told."""
    said: list[str] = []

    def listen(event: dict) -> None:
        if event["event"] == "notice":
            said.append(event["text"])
        elif event["event"] == "artifact":
            said.append(f"{event['artifact']} {event['state']}")
        elif event["event"] == "phase" and event.get("taken"):
            said.append(f"{event['artifact']} taken")

    recipe = load_recipe(folder / "recipe.yaml", list(changes))
    pipeline.run(recipe, folder / "run", workers=0, memory=1 << 28, listener=listen, **options)
    return said


def stopped_after(folder: Path, step: int, *changes: str) -> None:
    """Run, and send this process SIGTERM in a step of stage one."""
    update = Trainer.update

    def stopping(trainer, *args):
        if trainer.step + 1 == step:
            os.kill(os.getpid(), signal.SIGTERM)
        return update(trainer, *args)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Trainer, "update", stopping)
        with pytest.raises(Interrupted, match="checkpoint is written"):
            run(folder, *changes)
    assert checkpoints(folder)[-1] == step


def trajectory(folder: Path, stage: str = "one") -> Path:
    found = [path for path in (folder / "run" / "checkpoints" / stage).glob("*/") if (path / "metrics.jsonl").exists()]
    return max(found, key=lambda path: (path / "metrics.jsonl").stat().st_mtime_ns)


def logged(folder: Path, stage: str) -> list[dict]:
    try:
        lines = (trajectory(folder, stage) / "metrics.jsonl").read_bytes().split(b"\n")
    except ValueError:
        return []
    return [json.loads(line) for line in lines[:-1]]


def checkpoints(folder: Path) -> list[int]:
    return sorted(int(path.parent.name[5:]) for path in trajectory(folder).glob("step-*/state.json"))


def artifact(folder: Path, name: str) -> Path:
    found = [path for path in (folder / "run" / "artifacts").glob(f"{name}-*") if path.suffix != ".partial"]
    return max(found, key=lambda path: path.stat().st_mtime_ns)


@pytest.mark.parametrize("sign", [signal.SIGTERM, pytest.param(signal.SIGUSR1, marks=pytest.mark.slow)])
def test_a_run_that_is_asked_to_stop_saves_and_goes_on(folder, sign):
    many = ["--set", "stages.0.train.steps=150", "--set", "stages.0.train.batch=1"]
    command = [*HEADRACE, "run", str(folder / "recipe.yaml"), "--out", str(folder / "run"), "--workers", "1", *many]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
    while len(logged(folder, "one")) < 3:
        assert process.poll() is None, process.communicate()
    for _ in range(3):  # schedulers repeat themselves
        process.send_signal(sign)
        time.sleep(0.01)
    process.communicate(timeout=300)
    assert process.returncode == 130
    before = logged(folder, "one")
    assert checkpoints(folder)[-1] == len(before)
    run(folder, *many[1::2], until="model-one")
    lines = logged(folder, "one")
    assert [line["step"] for line in lines] == list(range(1, 151))
    assert lines[: len(before)] == before


def test_harmless_edits_go_on_where_it_was(folder):
    stopped_after(folder, 7)
    first = trajectory(folder)
    harmless = ("micro_batch=2", "keep=3", "held_out.rows=2", "samples.tokens=2", "recompute=full")
    changes = [f"defaults.train.{one}" for one in harmless]
    run(folder, *changes)
    assert trajectory(folder) == first
    lines = logged(folder, "one")
    assert [line["step"] for line in lines] == list(range(1, 21))
    training = json.loads((artifact(folder, "model-one") / "training.json").read_text())
    assert [(s["start"], s["until"], s["micro_batch"]) for s in training["spans"]] == [(0, 7, 4), (7, 20, 2)]
    # Neither a source that no stage uses nor a label changes a sequence, and so no model.
    other = folder / "other.jsonl"
    other.write_text(json.dumps({"text": "entirely different, used by nobody, but long enough to stay " * 9}) + "\n")
    said = run(folder, *changes, f'sources.other={{files: "{other}"}}', "sources.prose.license=MIT")
    assert [text for text in said if text.startswith("model-one") and text.endswith("taken")]
    assert [text for text in said if text.startswith("model-two") and text.endswith("taken")]
    assert logged(folder, "one") == lines


def test_another_optimizer_goes_on_with_a_state_of_its_own(folder):
    stopped_after(folder, 7)
    # The second stage carries on what Muon leaves, so both must have it.
    carried = ("stages.1.train.carry_optimizer=true", "defaults.train.optimizer.kind=muon")
    with pytest.raises(UserError, match="trained by adamw, whose state muon cannot take"):
        run(folder, *carried, "stages.0.train.optimizer.kind=adamw")
    said = run(folder, *carried)
    assert [text for text in said if "from row 28 so, with a new optimizer's state" in text]
    assert [line["step"] for line in logged(folder, "one")] == list(range(8, 21))
    assert len(logged(folder, "two")) == 4


def test_another_rate_is_a_new_stage_from_that_step(folder):
    stopped_after(folder, 7)
    first, before = trajectory(folder), logged(folder, "one")
    edited = ("defaults.train.optimizer.learning_rate=0.001", "defaults.train.batch=2")
    with pytest.raises(UserError, match="at step 7 of 20 when its recipe changed"):
        run(folder, *edited, on_change="stop")
    said = run(folder, *edited)
    assert [text for text in said if "at step 7 of 20 when its recipe changed" in text and "from row 28" in text]
    lines = logged(folder, "one")
    assert [line["step"] for line in lines] == list(range(8, 21))
    assert lines[0]["tokens"] == before[-1]["tokens"] + 2 * 32
    assert lines[0]["learning_rate"] != before[-1]["learning_rate"]
    assert (first / "step-00000007" / "state.json").exists(), "what was continued stays"
    model = artifact(folder, "model-one")
    after = json.loads((model / "training.json").read_text())["trajectory"]["after"]
    assert after == {"trajectory": first.name, "step": 7, "rows": 28}
    counts = json.loads((model / "manifest.json").read_text())["counts"]
    assert counts["rows"] == 28 + 2 * 13
    assert counts["loss_tokens"] == sum(line["loss_tokens"] for line in before + lines)
    assert f"{model.name} present" in run(folder, *edited)


def test_edits_one_after_another_lose_and_repeat_nothing(folder):
    slow, slower = (f"defaults.train.optimizer.learning_rate={rate}" for rate in (0.001, 0.0001))
    stopped_after(folder, 6)
    first = trajectory(folder)
    stopped_after(folder, 8, slow)
    second = trajectory(folder)

    def killed(*args: object) -> None:
        raise KeyboardInterrupt

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Trainer, "update", killed)
        with pytest.raises(KeyboardInterrupt):
            run(folder, slower)  # ends before its first checkpoint
    with pytest.raises(UserError, match="at step 8 of 20, and its recipe now asks for 7 steps"):
        run(folder, "stages.0.train.steps=7")
    # Back to the first rate: on from where the stage stands, not from where that rate was left.
    said = run(folder, until="model-one")
    assert [text for text in said if "at step 8 of 20 when its recipe changed" in text and "from row 32" in text]
    assert [line["step"] for line in logged(folder, "one")] == list(range(9, 21))
    [told, *_] = ledger(folder / "run")["stages"]
    assert (told["checked"], told["wrong"], told["rows"]["trained"]) == (True, [], 80)
    assert told["trajectories"] == [first.name, second.name, trajectory(folder).name]

    # A stage at its end begins anew, unless the user says otherwise.
    said = run(folder, "stages.0.train.steps=22", until="model-one")
    assert [text for text in said if "at step 20 of 20 as another training" in text and "--on-change accept" in text]
    assert [line["step"] for line in logged(folder, "one")] == list(range(1, 23))
    run(folder, "stages.0.train.steps=24", until="model-one", on_change="accept")
    assert [line["step"] for line in logged(folder, "one")] == [23, 24]


def test_a_launched_stage_goes_on_after_an_edit(folder):
    stopped_after(folder, 7)
    changed = "defaults.train.optimizer.learning_rate=0.001"
    run(folder, changed, until="sequence-one")
    with pytest.raises(UserError, match="at step 7 of 20 when its recipe changed"):
        launched.train(folder / "run", "one", 1 << 28, on_change="stop")
    launched.train(folder / "run", "one", 1 << 28)
    assert [line["step"] for line in logged(folder, "one")] == list(range(8, 21))
    assert f"{artifact(folder, 'model-one').name} present" in run(folder, changed)


def test_rows_that_do_not_exist_are_not_left_out(folder):
    with pytest.raises(UserError, match="Rows 3 to 99999999999 are to be left out, and the sequence has rows 0 to"):
        run(folder, "stages.0.train.leave_out=[[3, 99999999999]]")


def test_a_damaged_record_of_edits_says_what_to_do(folder):
    (folder / "run" / "edits.json").write_text("{")
    with pytest.raises(UserError, match=r"is damaged[\s\S]*Restore it; or delete it"):
        run(folder)


def test_a_changed_sequence_is_refused_and_the_user_decides(folder):
    stopped_after(folder, 7)
    first = trajectory(folder)
    changed = "stages.0.sources.prose.epochs=2"
    with pytest.raises(UserError, match="at step 7 of 20 when its sequence changed") as refused:
        run(folder, changed)
    assert "prose" in str(refused.value)
    assert "--on-change accept" in str(refused.value)
    run(folder, changed, on_change="accept", until="model-one")
    assert [line["step"] for line in logged(folder, "one")] == list(range(8, 21))
    run(folder, changed, "seed=7", until="model-one")  # another training altogether
    assert [line["step"] for line in logged(folder, "one")] == list(range(1, 21))
    assert (first / "step-00000007" / "state.json").exists()


def test_a_stage_is_trained_by_two_processes_and_published(folder):
    def train(*arguments: str, launch: tuple[str, ...] = ()) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, *launch, "-m", "headrace", "train", str(folder / "run"), "--stage", *arguments]
        environment = {**os.environ, "OMP_NUM_THREADS": "1"}
        return subprocess.run(command, env=environment, capture_output=True, text=True, check=False)

    missing = train("two")
    assert missing.returncode == 2
    assert "Stage 'two' needs model-one" in missing.stderr
    assert "Did you mean 'one'?" in train("ome").stderr
    done = train("one", launch=("-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2"))
    assert done.returncode == 0, done.stderr[-5000:]
    assert "Stage one is trained." in done.stdout
    [span] = json.loads((artifact(folder, "model-one") / "training.json").read_text())["spans"]
    assert (span["start"], span["until"], span["processes"]) == (0, 20, 2)
    for kind in ("evaluation", "samples"):
        assert (artifact(folder, f"{kind}-one") / f"{kind}.json").exists()
    assert f"{artifact(folder, 'model-one').name} present" in run(folder)
    assert [line["step"] for line in logged(folder, "two")] == [1, 2, 3, 4]
