"""Trains tiny stages: ``launched.py JOBS.json [PROCESSES]``.

It does so on processes that were started together: so many that it forks, or those that torchrun or nobody started.
JOBS is a list of ``{"run", "sequence", "steps", "section", "model", "stop_after"}``; each is trained in turn, and rank
0 leaves ``RUN/whole.safetensors`` with the model's whole weights. ``stop_after`` sends SIGTERM to the last rank at that
step. With ``dies_at`` that rank is killed there. With ``fails``, each rank leaves what the error said in
``RUN/failed-RANK``.
"""

from __future__ import annotations

import json
import os
import signal
import sys
from pathlib import Path

import torch
from safetensors.torch import save_file
from tiny_training import SIZES, tiny_job

from headrace.errors import UserError
from headrace.recipe.training import TrainSection
from headrace.sequence.store import open_sequence
from headrace.train.interruption import Interrupted, Interruption
from headrace.train.loop import Trainer
from headrace.train.world import World, arranged, joined


def whole(tensor: torch.Tensor) -> torch.Tensor:
    return (tensor.full_tensor() if hasattr(tensor, "full_tensor") else tensor).detach().clone()


def one(world: World, told: dict) -> None:
    run = Path(told["run"])
    rows = open_sequence(told["sequence"])
    if told.get("fails"):
        job = tiny_job(run, rows, told["steps"], model=told.get("model"), **told["section"])
        try:
            Trainer(job, world).train(lambda step, loss: None)
        except UserError as error:
            (run / f"failed-{world.rank}").write_text(error.what)
        return
    job = tiny_job(run, rows, told["steps"], model=told.get("model"), measured_on=rows, sizes=SIZES, **told["section"])
    trainer = Trainer(job, world)
    seen: list[int] = []
    if told.get("dies_at") and world.rank == world.size - 1:
        whole_update = trainer.update

        def dying(*args):
            if trainer.step + 1 == told["dies_at"]:
                os.kill(os.getpid(), signal.SIGKILL)
            return whole_update(*args)

        trainer.update = dying

    def progress(step: int, loss: float) -> None:
        seen.append(step)

    with Interruption() as heard:
        if told.get("stop_after") and world.rank == world.size - 1:
            update = trainer.update

            def stopping(*args):
                if trainer.step + 1 == told["stop_after"]:
                    os.kill(os.getpid(), signal.SIGTERM)
                return update(*args)

            trainer.update = stopping
        try:
            trainer.train(progress, heard)
        except Interrupted:
            if world.chief:
                (run / "interrupted").write_text(str(trainer.step))
    weights = {name: whole(tensor) for name, tensor in trainer.model.state_dict().items()}
    if world.chief:
        save_file(weights, run / "whole.safetensors")
        (run / "seen.json").write_text(json.dumps(seen))


def fork_ranks(size: int) -> None:
    """Go on as each of so many ranks, so that torch is imported once; this process waits and prints how they ended."""
    forked = []
    for rank in map(str, range(size)):
        pid = os.fork()
        if pid == 0:
            os.environ.update(RANK=rank, LOCAL_RANK=rank, WORLD_SIZE=str(size))
            return
        forked.append(pid)
    print(json.dumps([os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) for pid in forked]))
    sys.exit()


if __name__ == "__main__":
    file, *processes = sys.argv[1:]
    if processes:
        fork_ranks(int(processes[0]))
    torch.set_num_threads(1)
    jobs = json.loads(Path(file).read_text())
    sections = [TrainSection.model_validate(told["section"]) for told in jobs]
    ways = [(section.tensor_parallel, section.long.sequence_parallel) for section in sections]
    with joined(*ways[0]) as world:
        for way, told in zip(ways, jobs, strict=True):
            same = way == ways[0] or world.size == 1
            one(world if same else arranged(world.rank, world.size, world.device, *way), told)
