"""Prove that training resumes exactly: stop and go on at every step, each time with other processes and micro-batches.

As in grain's test helper, a whole run is compared with one that is stopped after each step. What is compared are the
batches, bit by bit: which rows each step read, and their tokens, loss, segments and positions. Losses of steps and
rows are compared within rounding, since sums are split differently; and each row's is recorded once.

Run as a program, ``python -m headrace.train.proof PLAN.json``, it does one stretch on the processes that torchrun
started.
"""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import orjson
import xxhash

from headrace.errors import UserError
from headrace.flow.artifact import Artifact
from headrace.flow.storage import read_json, write_json
from headrace.recipe.model import ModelConfig
from headrace.recipe.training import RecordSection, TrainSection
from headrace.sequence.batch import Batch
from headrace.sequence.store import ArrowSequence
from headrace.train import losses
from headrace.train.trajectory import latest

if TYPE_CHECKING:
    from headrace.train.job import Job

# Batches do not depend on the model; a tiny one makes a step cost milliseconds.
TINY: dict[str, Any] = {"layers": 1, "width": 32, "heads": 2, "ffn": 64}
TOLERANCE = 1e-3  # of losses, relative: fp32 sums in another order, through a few updates


@dataclass(frozen=True)
class Way:
    """How a stretch is carried out.

    Attributes:
        processes: how many.
        micro_batch: rows per forward pass of a process; None for its whole share.
        shard: ``none`` or ``full``.
    """

    processes: int
    micro_batch: int | None
    shard: str


@dataclass(frozen=True)
class Proved:
    """A step of the interrupted run, compared with the whole one.

    Attributes:
        step: from 1.
        way: how it was carried out.
        rows: the first and the last row.
        digest: of the step's rows, in order.
        equal: whether these are the whole run's rows, bit by bit.
        loss, whole_loss: the step's loss in both.
        recorded: whether each row's loss was recorded, once, and is the whole run's within rounding.
    """

    step: int
    way: Way
    rows: tuple[int, int]
    digest: str
    equal: bool
    loss: float
    whole_loss: float
    recorded: bool

    @property
    def close(self) -> bool:
        """Whether the losses agree within rounding, those of each row too."""
        return self.recorded and abs(self.loss - self.whole_loss) <= TOLERANCE * abs(self.whole_loss)


def ways(processes: list[int], batch: int) -> list[Way]:
    """Ways to cycle through: numbers of processes, each sharded and not, with several micro-batches."""
    found = []
    for i, count in enumerate(processes):
        share = -(-batch // count)
        sizes = [None, 1, max(1, share // 2)]
        for k, shard in enumerate(("none", "full") if count > 1 else ("none",)):
            found.append(Way(count, sizes[(i + k) % 3], shard))
    return [*found, *(replace(way, micro_batch=1 if way.micro_batch is None else None) for way in found)]


def prove(
    sequence: Path, train: TrainSection, seed: int, folder: Path, steps: int, cycle: list[Way]
) -> Iterator[Proved]:
    """Train a stage's first steps as a whole, then again, stopping after each.

    Args:
        sequence: the folder of the stage's sequence.
        train: the stage's training section.
        seed: the recipe's seed.
        folder: where to put both runs.
        steps: how many.
        cycle: the ways to carry out one step after another.

    Raises:
        UserError: the sequence has fewer steps, or a process failed.
    """
    batches = len(ArrowSequence(Artifact.open(sequence))) // train.batch
    if batches < steps:
        raise UserError(
            f"The sequence has only {batches} batches.", str(sequence), f"Ask for at most {batches} with --steps."
        )
    told = {"precision": "fp32", "checkpoint_every": steps, "record": RecordSection()}
    plan = {
        "sequence": str(sequence),
        "train": train.model_copy(update=told).model_dump(mode="json", exclude_unset=True),
        "seed": seed,
        "steps": steps,
    }
    whole = stretch(folder / "whole", {**plan, "one": False}, Way(1, None, "none"))
    for step in range(1, steps + 1):
        way = cycle[(step - 1) % len(cycle)]
        [part] = stretch(folder / "parts", {**plan, "one": True}, way)
        expected = whole[step - 1]
        rows = (int(part["rows"][0][0]), int(part["rows"][-1][0]))
        digest = xxhash.xxh3_64_hexdigest(orjson.dumps(part["rows"]))
        equal = part["rows"] == expected["rows"] and part["step"] == expected["step"]
        recorded = _same(*(_recorded(folder / name, train.batch, step) for name in ("whole", "parts")))
        yield Proved(step, way, rows, digest, equal, part["loss"], expected["loss"], recorded)


def _recorded(run: Path, batch: int, step: int) -> np.ndarray:
    """The record of the rows of a run's first steps, as :func:`headrace.train.losses.row_entry` has it."""
    folder = latest(run, "proof")
    assert folder is not None
    return np.concatenate([np.empty(0, losses.row_entry(batch)), *losses.blocks(folder, batch, 1, step)])


def _same(whole: np.ndarray, parts: np.ndarray) -> bool:
    same = [np.array_equal(whole[name], parts[name]) for name in ("step", "targets")]
    return all(same) and np.allclose(whole["loss"], parts["loss"], rtol=TOLERANCE, atol=0, equal_nan=True)


def stretch(run: Path, plan: dict[str, Any], way: Way) -> list[dict[str, Any]]:
    """Carry out steps in processes of their own; returns ``{"step", "rows": [[row, digest]], "loss"}`` of each."""
    run.mkdir(parents=True, exist_ok=True)
    write_json(run / "plan.json", {**plan, "run": str(run), "way": vars(way)})
    launch = ["-m", "torch.distributed.run", "--standalone", f"--nproc-per-node={way.processes}"]
    command = [sys.executable, *(launch if way.processes > 1 else []), "-m", __name__, str(run / "plan.json")]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    if done.returncode:
        raise UserError("Training failed in a process of the proof.", str(run), done.stderr[-2000:])
    told: list[list[dict[str, Any]]] = [read_json(run / f"seen-{rank}.json") for rank in range(way.processes)]  # type: ignore[misc]
    return [
        {"step": at[0]["step"], "loss": at[0]["loss"], "rows": sorted(row for one in at for row in one["rows"])}
        for at in zip(*told, strict=True)
    ]


def rows_of(first: int, batch: Batch) -> list[list[Any]]:
    """``[row, digest]`` of each row of a process's share."""
    arrays = [np.ascontiguousarray(array) for array in batch]
    return [
        [first + i, xxhash.xxh3_64_hexdigest(b"".join(array[i].tobytes() for array in arrays))]
        for i in range(len(batch.tokens))
    ]


def _job(plan: dict[str, Any]) -> Job:
    from headrace.train.job import Job, Start
    from headrace.train.trajectory import Trajectory, decisive, sequence_content

    sequence = ArrowSequence(Artifact.open(Path(plan["sequence"])))
    config = ModelConfig(vocab_size=sequence.manifest["vocab_size"], **TINY)
    way = {key: value for key, value in plan["way"].items() if key != "processes"}
    section = TrainSection.model_validate({**plan["train"], **way})
    content = sequence_content(sequence.fingerprint, len(sequence), sequence.seq_len)
    told = config.model_dump(mode="json")
    trajectory = Trajectory(told, decisive(section), plan["seed"], plan["steps"], content, {})
    return Job(Path(plan["run"]), "proof", section, config, sequence, trajectory, Start())


def _main(path: Path) -> None:
    from headrace.train.interruption import Interrupted, Interruption
    from headrace.train.loop import Trainer
    from headrace.train.world import joined

    plan: dict[str, Any] = read_json(path)  # type: ignore[assignment]
    seen: list[dict[str, Any]] = []
    with joined() as world:
        trainer = Trainer(_job(plan), world)
        update: Callable[..., Any] = trainer.update

        def watched(batch: Batch, rows: int, *rest: Any) -> Any:
            first = rows + world.data_rank * trainer.section.batch // world.data_size
            outcome = update(batch, rows, *rest)
            seen.append({"step": trainer.step + 1, "rows": rows_of(first, batch), "loss": outcome.loss})
            return outcome

        trainer.update = watched  # type: ignore[method-assign, assignment]
        heard = Interruption()
        heard.asked = bool(plan["one"])  # as if a signal had come
        with suppress(Interrupted):
            trainer.train(lambda step, loss: None, heard)
        write_json(path.parent / f"seen-{world.rank}.json", seen)


if __name__ == "__main__":
    _main(Path(sys.argv[1]))
