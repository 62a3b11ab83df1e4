"""What surrounds the steps of a training: waiting for rows, saving, and coming back in the middle of 10^9 rows."""

from __future__ import annotations

import os
import shutil
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

from bench.built import sequence
from bench.harness import Result, Setting, result
from bench.seek import billion
from headrace.flow.artifact import Artifact
from headrace.model.machine import prepare
from headrace.model.presets import resolve
from headrace.recipe.model import ModelSection
from headrace.recipe.training import TrainSection
from headrace.sequence.store import ArrowSequence
from headrace.train.job import Job, Start
from headrace.train.metrics import FILE, read
from headrace.train.trajectory import Trajectory, decisive, sequence_content

MIDDLING = {"layers": 6, "width": 384, "heads": 6, "ffn": 1024}
TINY = {"layers": 1, "width": 64, "heads": 1, "ffn": 128}  # whose weights take no time to load
WINDOW = 8  # steps from one save to the next; long before the next it is written
BETWEEN = 100  # steps between saves that the stall is told for
LAST = 1000  # steps before the end of the rows that the resumed training begins


def job(run: Path, rows: Path, shape: dict[str, int], first: int, **section: int) -> Job:
    """A stage over a sequence from a row on, two rows a step."""
    opened = ArrowSequence(Artifact.open(rows, verify=True))
    train = TrainSection.model_validate({"batch": 2, **section})
    config = resolve(ModelSection.model_validate({"preset": None, **shape}), opened.vocab_size)
    content = sequence_content(opened.fingerprint, len(opened), opened.seq_len, first)
    trajectory = Trajectory(config.model_dump(mode="json"), decisive(train), 1, LAST // 2, content, {})
    return Job(run, "bench", train, config, opened, trajectory, Start())


def train(job: Job, progress: Callable[[int, float], None]) -> None:
    """Train on this machine's processors until ``progress`` raises something."""
    prepare()
    from headrace.train.loop import Trainer
    from headrace.train.world import World

    Trainer(job, World()).train(progress)


class _EnoughError(Exception):
    pass


def run(setting: Setting) -> Iterator[Result]:
    """Shares of a training's time, and seconds until a resumed one has done its first step."""
    small = sequence(setting)
    yield from shares(setting, small)
    if setting.cores == 1:
        yield resumption(setting, small)


def shares(setting: Setting, small: Artifact) -> Iterator[Result]:
    """Percent of the time that steps wait for rows, and that a save each 100 steps takes."""
    folder = setting.work / "training-loop"
    shutil.rmtree(folder, ignore_errors=True)
    trained = job(folder, small.path, MIDDLING, 0, checkpoint_every=WINDOW, keep=1)
    ends: list[float] = []

    def progress(step: int, loss: float) -> None:
        ends.append(time.perf_counter())
        if step == WINDOW * (setting.rounds + 1):
            raise _EnoughError

    try:
        train(trained, progress)
    except _EnoughError:
        lines = read(trained.folder / FILE)
    waits, stalls = [], []
    for first in range(WINDOW, WINDOW * (setting.rounds + 1), WINDOW):
        window = lines[first : first + WINDOW]
        waits.append(100 * sum(line["data_wait"] for line in window) / sum(line["seconds"] for line in window))
        # A save follows upon the end of the step before the window, and is written during the first of its steps.
        steps = [ends[i] - ends[i - 1] for i in range(first, first + WINDOW)]
        quiet = statistics.median(steps[WINDOW // 2 :])
        stalls.append(100 * (sum(steps) - WINDOW * quiet) / (BETWEEN * quiet))
    shutil.rmtree(folder)
    note = f"2 rows of {trained.sequence.seq_len}, {MIDDLING}"
    for what, taken, target in (("wait for rows", waits, 1.0), (f"a save each {BETWEEN} steps", stalls, 5.0)):
        yield result(setting, f"training loop, {what}", None, "% of the time", taken, None, target, "ours", note)


def resumption(setting: Setting, small: Artifact) -> Result:
    """Seconds from a process's start to its first step after a checkpoint near the end of 10^9 rows."""
    rows, run = setting.work / "billion", setting.work / "resumed"
    shutil.rmtree(run, ignore_errors=True)
    count, make = billion(small, rows)
    make(count - LAST, count)
    command = [sys.executable, "-m", "bench.training_loop", str(run), str(rows), str(count - LAST)]
    # A save waits for the one before: by the end of the third step, that of the first is there.
    subprocess.run([*command, "3"], check=True)
    taken = []
    for _ in range(setting.rounds):
        begun = time.perf_counter()
        subprocess.run([*command, "1"], check=True)
        whole = time.perf_counter() - begun
        [log] = run.glob(f"checkpoints/bench/*/{FILE}")
        step = read(log)[-1]
        taken.append(whole - (step["seconds"] - step["data_wait"]))
    shutil.rmtree(rows)
    shutil.rmtree(run)
    name, note = "training loop, resumed in 10^9 rows", "from the start of the process, with all imports"
    return result(setting, name, None, "s", taken, None, 5, "ours", note)


def resume(run: Path, rows: Path, first: int, steps: int) -> None:
    """Go on from the newest checkpoint, or begin; die after so many steps."""
    done = 0

    def progress(step: int, loss: float) -> None:
        nonlocal done
        done += 1
        if done == steps:
            os._exit(0)

    train(job(run, rows, TINY, first, checkpoint_every=1), progress)


if __name__ == "__main__":
    resume(Path(sys.argv[1]), Path(sys.argv[2]), int(sys.argv[3]), int(sys.argv[4]))
