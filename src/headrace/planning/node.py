"""An artifact of a plan: what it is built from, how long that takes, and how much disk it needs."""

from __future__ import annotations

from dataclasses import dataclass

from headrace.planning.machine import START, Machine
from headrace.planning.rates import Work


@dataclass(frozen=True)
class Node:
    """An artifact of the graph.

    Attributes:
        name: its kind, with the stage.
        inputs: the artifacts it is built from.
        disk: its size in bytes.
        seconds: the time to build it.
        done: whether it exists, so that ``disk`` and ``seconds`` were measured.
        scratch: maximum bytes of intermediate files, which are deleted when it is published.
    """

    name: str
    inputs: tuple[str, ...]
    disk: int
    seconds: float
    done: bool = False
    scratch: int = 0


def seconds_of(name: str, works: list[Work], machine: Machine) -> float:
    """Seconds to build an artifact: its work, and starting the workers."""
    return START + sum(work.seconds(machine.cores) for work in works if work.artifact == name)
