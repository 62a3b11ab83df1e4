"""Where the tasks of a run are done: on this machine, or on a cluster."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from headrace.environment import cores, data_memory
from headrace.errors import UserError
from headrace.flow.events import EventLog
from headrace.flow.executors import Executor
from headrace.flow.step import Step

ENGINES = ("local", "ray", "slurm")


@dataclass(frozen=True)
class Engine:
    """Where tasks are done. Artifacts are the same everywhere.

    Attributes:
        kind: one of :data:`ENGINES`.
        address: of a Ray cluster's head node, ``HOST:PORT``; ``local`` starts Ray on this machine; None does what
            ``RAY_ADDRESS`` says, joins what runs on this machine, or else starts it.
        nodes: how many machines at most; None for those that are there, with Slurm for one.
        sbatch: options of sbatch(1), such as ``--partition=cpu``.
    """

    kind: str = "local"
    address: str | None = None
    nodes: int | None = None
    sbatch: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        fits = {"address": ("ray",), "nodes": ("ray", "slurm"), "sbatch": ("slurm",)}
        for name, kinds in fits.items():
            if getattr(self, name) and self.kind not in kinds:
                fix = f"Give --executor {' or '.join(kinds)} with it."
                raise UserError(f"--{name} is not for --executor {self.kind}.", f"--{name}", fix)

    @property
    def default_workers(self) -> int | None:
        """How many workers there are if nothing is said; None if the cluster decides."""
        return cores() if self.kind == "local" else None

    @contextmanager
    def start(
        self, run: Path, graph: str, workers: int | None, memory: int | None, log: EventLog
    ) -> Iterator[Callable[[list[Step]], Executor]]:
        """What the tasks of a run are done with.

        Args:
            run: the run folder.
            graph: ``module:function`` that rebuilds the graph from the run folder.
            workers: how many on a machine at most; 0 does everything in this process.
            memory: bytes for the data of all workers of a machine together; None for a share of what is free there.
            log: receives all events.

        Yields:
            A function from steps to an executor for their tasks, to be closed before the next one is made.

        Raises:
            UserError: the cluster cannot be used.
        """
        if workers == 0:
            from headrace.flow.executors.inline import InlineExecutor

            yield lambda steps: InlineExecutor(run, steps, memory or data_memory())
        elif self.kind == "local":
            from headrace.flow.executors.local import LocalExecutor

            yield lambda steps: LocalExecutor(run, graph, workers or cores(), memory or data_memory(), log)
        elif self.kind == "slurm":
            from headrace.flow.executors.slurm import SlurmCluster, SlurmExecutor

            with SlurmCluster(run, self.nodes or 1, workers, memory, self.sbatch) as agents:
                yield lambda steps: SlurmExecutor(agents, graph, log)
        else:
            from headrace.flow.executors.ray import RayCluster, RayExecutor

            with RayCluster(run, self.address, self.nodes, workers, memory) as cluster:
                yield lambda steps: RayExecutor(cluster, graph, log)


LOCAL = Engine()
