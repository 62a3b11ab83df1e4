"""The processes that train a model together: who they are, and the few things that they tell each other.

One process needs no launcher and no process group. Several are started by ``torchrun`` (``RANK``, ``WORLD_SIZE``,
``LOCAL_RANK``, ``MASTER_ADDR``, ``MASTER_PORT``) or by ``srun``, one process a device. CPUs talk through gloo, GPUs
through NCCL; nothing else differs.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor
from torch.distributed.device_mesh import DeviceMesh, init_device_mesh

from headrace.errors import UserError
from headrace.model.machine import device

# Rank 0 may still publish or check digests of hundreds of gigabytes while the others wait.
PATIENCE = timedelta(hours=2)


@dataclass(frozen=True)
class World:
    """The processes of a training.

    Attributes:
        rank: this process, from 0.
        size: the number of processes.
        device: this process's device.
        mesh: ``shares`` x ``tensor`` processes; None for one process. Each share of a batch's tokens is computed by one
            ``tensor`` group.
        sequence: the processes that share this one's rows, neighbours in ``shares``; None if it has them alone.
        sequence_size: how many these are.
        files: a process group of its own, on CPUs, for checkpoints being written in the background.
    """

    rank: int = 0
    size: int = 1
    device: torch.device = field(default_factory=lambda: torch.device("cpu"))
    mesh: DeviceMesh | None = None
    sequence: dist.ProcessGroup | None = None
    sequence_size: int = 1
    files: dist.ProcessGroup | None = None

    @property
    def chief(self) -> bool:
        """Whether this process alone writes events, metrics and markers."""
        return self.rank == 0

    @property
    def share(self) -> int:
        """Which share of each batch's tokens this process computes."""
        return 0 if self.mesh is None else int(self.mesh["shares"].get_local_rank())

    @property
    def shares(self) -> int:
        """The number of shares of each batch's tokens: so many gradients are summed."""
        return 1 if self.mesh is None else self.mesh["shares"].size()

    @property
    def data_rank(self) -> int:
        """Which of each batch's rows this process reads."""
        return self.share // self.sequence_size

    @property
    def data_size(self) -> int:
        """Among how many the rows of each batch are divided."""
        return self.shares // self.sequence_size

    @property
    def tensor_size(self) -> int:
        """The number of processes that hold a share of each matrix."""
        return 1 if self.mesh is None else self.mesh["tensor"].size()

    def sum(self, values: Tensor) -> Tensor:
        """Sum over the shares of the batch, in place; every process gets the same bits."""
        if self.mesh is not None:
            dist.all_reduce(values, group=self.mesh["shares"].get_group())
        return values

    def shared(self, flag: bool) -> bool:
        """Whether any process that computes the same share says so."""
        if self.mesh is None or self.tensor_size == 1:
            return flag
        told = torch.tensor(float(flag), device=self.device)
        dist.all_reduce(told, op=dist.ReduceOp.MAX, group=self.mesh["tensor"].get_group())
        return bool(told.item())

    def told(self, value: Any = None) -> Any:
        """What rank 0 gives, in every process. The others' values do not count."""
        if self.size == 1:
            return value
        box = [value]
        dist.broadcast_object_list(box, src=0, device=self.device)
        return box[0]

    def wait(self) -> None:
        """Wait until all processes are here."""
        if self.size > 1:
            dist.barrier(group=self.files)

    @contextmanager
    def first(self) -> Iterator[bool]:
        """Rank 0 runs the block for all; the others wait, and fail if it failed.

        Yields:
            Whether this process is rank 0.
        """
        failure: Exception | None = None
        try:
            yield self.chief
        except Exception as error:
            failure = error
        said = self.told(None if failure is None else _words(failure))
        if failure is not None:
            raise failure
        if said is not None:
            raise UserError(*said)


def _words(error: Exception) -> tuple[str, str, str]:
    if isinstance(error, UserError):
        return error.what, error.where, error.fix
    return f"The first process failed: {type(error).__name__}: {error}.", "rank 0", "See its message."


def _launched(environment: Mapping[str, str]) -> tuple[int, int, int] | None:
    """Rank, size and rank within the machine, from torchrun's or Slurm's variables."""
    for names in (("RANK", "WORLD_SIZE", "LOCAL_RANK"), ("SLURM_PROCID", "SLURM_NTASKS", "SLURM_LOCALID")):
        if all(environment.get(name, "").isdigit() for name in names):
            rank, size, local = (int(environment[name]) for name in names)
            return rank, size, local
    return None


def launched_size() -> tuple[int, int]:
    """How many processes were started together, and how many of them on this machine."""
    launched = _launched(os.environ)
    if launched is None:
        return 1, 1
    size = launched[1]
    local = next((os.environ[name] for name in ("LOCAL_WORLD_SIZE", "SLURM_NTASKS_PER_NODE") if name in os.environ), "")
    return size, min(int(local), size) if local.isdigit() and int(local) else size


@contextmanager
def joined(tensor_parallel: int = 1, sequence_parallel: int = 1) -> Iterator[World]:
    """Join the processes that were started together; alone if this one was started by hand.

    Args:
        tensor_parallel: the number of processes that share each matrix.
        sequence_parallel: the number of such groups that share each row.

    Raises:
        UserError: the number of processes is no multiple of both; or, from the body, another process has ended.
    """
    launched = _launched(os.environ)
    cuda = torch.cuda.is_available()
    if launched is None or launched[1] == 1:
        _check_number(1, tensor_parallel, sequence_parallel)
        yield World(device=device())
        return
    rank, size, local = launched
    _check_number(size, tensor_parallel, sequence_parallel)  # before waiting for the others
    own = torch.device("cuda", local) if cuda else torch.device("cpu")
    if cuda:
        torch.cuda.set_device(own)
    dist.init_process_group("cpu:gloo,cuda:nccl" if cuda else "gloo", rank=rank, world_size=size, timeout=PATIENCE)
    try:
        yield arranged(rank, size, own, tensor_parallel, sequence_parallel)
    except RuntimeError as error:
        if not isinstance(error, dist.DistError) and "gloo" not in str(error):
            raise
        raise UserError(
            f"Another process of this training has ended, or cannot be reached: {error}.",
            f"rank {rank} of {size}",
            "See the messages of the others; the same command goes on from the newest checkpoint.",
        ) from error
    finally:
        dist.destroy_process_group()


def arranged(rank: int, size: int, own: torch.device, tensor_parallel: int, sequence_parallel: int) -> World:
    """The processes of torch's process group as a world; all of them call it. Arguments as for :class:`World` and
    :func:`joined`."""
    shape = (size // tensor_parallel, tensor_parallel)
    mesh = init_device_mesh(own.type, shape, mesh_dim_names=("shares", "tensor"))
    sequence = None
    if sequence_parallel > 1:
        neighbours = mesh.mesh.T.reshape(-1, sequence_parallel).tolist()
        sequence, _ = dist.new_subgroups_by_enumeration(neighbours, timeout=PATIENCE)
    files = dist.new_group(backend="gloo", timeout=PATIENCE)
    return World(rank, size, own, mesh, sequence, sequence_parallel, files)


def _check_number(size: int, tensor_parallel: int, sequence_parallel: int) -> None:
    together = tensor_parallel * sequence_parallel
    if size % together == 0:
        return
    ways = [f"share each matrix {tensor_parallel} ways"] if tensor_parallel > 1 else []
    ways += [f"share each row {sequence_parallel} ways"] if sequence_parallel > 1 else []
    raise UserError(
        f"{size} process{'es' * (size > 1)} cannot {' and '.join(ways)}.",
        "train.long.sequence_parallel" if sequence_parallel > 1 else "train.tensor_parallel",
        f"Start a multiple of {together} processes, such as `torchrun --nproc-per-node {together}`.",
    )
