"""Slurm's commands: job arrays of agents are submitted, looked at and cancelled."""

from __future__ import annotations

import getpass
import os
import re
import shlex
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import xxhash

from headrace.errors import UserError

TIMEOUT = 60  # seconds that a command of Slurm may take; a busy controller needs some
WARNED = 60  # seconds before its time limit at which an agent is told
# Set in a job; where a job submits others, they would be taken for options of those.
_OF_A_JOB = ("SLURM_", "SLURMD_")
_KEPT = ("SLURM_CONF",)
# squeue(1), JOB STATE CODES: what holds or will hold a node.
ALIVE = {"PENDING", "CONFIGURING", "RUNNING", "SUSPENDED", "STOPPED", "RESIZING", "SIGNALING", "REQUEUED"}


@dataclass(frozen=True)
class Element:
    """An element of a job array.

    Attributes:
        state: as squeue(1) names it.
        node: where it runs; empty if it waits.
        reason: why it waits.
    """

    state: str
    node: str
    reason: str


class JobArray:
    """The agents of a run as Slurm sees them: all jobs of this user with the run's own name.

    Args:
        run: the run folder, which all nodes must see under the same path.
        command: what an element runs.
        options: of sbatch; the last of a kind counts.
    """

    def __init__(self, run: Path, command: Sequence[str], options: Sequence[str]) -> None:
        self._run, self._command, self._options = run, command, options
        self._user = f"--user={getpass.getuser()}"
        self.name = (
            f"headrace-{re.sub(r'[^A-Za-z0-9._-]', '_', run.name)}-{xxhash.xxh3_64_hexdigest(os.fsencode(run))[:8]}"
        )

    def submit(self, elements: int) -> set[str]:
        """Submit an array; returns the names of its elements, ``JOB-INDEX``.

        Raises:
            UserError: Slurm does not take it.
        """
        logs = str(self._run / "logs").replace("%", "%%")
        options = [
            f"--job-name={self.name}",
            f"--array=0-{elements - 1}",
            "--nodes=1",
            "--ntasks=1",
            f"--output={logs}/slurm-%A-%a.log",
            "--open-mode=append",
            "--no-requeue",  # the coordinator submits again what is still needed
            f"--signal=B:TERM@{WARNED}",
            *self._options,
        ]
        inherited = os.environ if "SLURM_JOB_ID" in os.environ else {}
        of_a_job = {name for name in inherited if name.startswith(_OF_A_JOB) and name not in _KEPT}
        environment = {name: value for name, value in os.environ.items() if name not in of_a_job}
        script = f"#!/bin/bash\nexec {shlex.join(self._command)}\n"
        done = _called(["sbatch", "--parsable", *options], script, environment)
        if done.returncode:
            said = " ".join(done.stderr.split()) or f"exit code {done.returncode}"
            raise UserError(
                f"Slurm does not take the job: {said}",
                "sbatch",
                "Give what your cluster asks for, such as `--sbatch --partition=NAME --sbatch --time=4:00:00`; "
                "sinfo(1) lists partitions.",
            )
        job = done.stdout.strip().partition(";")[0]
        return {f"{job}-{index}" for index in range(elements)}

    def check(self) -> None:
        """Check that Slurm answers.

        Raises:
            UserError: it does not.
        """
        done = _called(["squeue", "--noheader", self._user, f"--name={self.name}"])
        if done.returncode:
            said = " ".join(done.stderr.split())
            fix = "Run headrace on a machine that submits jobs, such as the cluster's login node."
            raise UserError(f"Slurm does not answer: {said}", "squeue", fix)

    def elements(self) -> dict[str, Element] | None:
        """The elements that hold or wait for a node, by ``JOB-INDEX``; None if Slurm does not answer now."""
        form = "%F-%K|%T|%N|%r"
        done = _called(["squeue", "--noheader", "--array", self._user, f"--name={self.name}", f"--format={form}"])
        if done.returncode:
            return None
        found = {}
        for line in done.stdout.splitlines():
            name, state, node, reason = line.split("|", 3)
            if state in ALIVE:
                found[name] = Element(state, node, reason)
        return found

    def cancel(self, name: str | None = None, waiting: bool = False) -> None:
        """End elements.

        Args:
            name: one, ``JOB-INDEX``; by default all of the run.
            waiting: only those that have no node yet.
        """
        which = [self._user, f"--name={self.name}"] if name is None else [name.replace("-", "_")]
        _called(["scancel", *which, *(["--state=PENDING"] if waiting else [])])


def _called(
    command: list[str], script: str = "", environment: dict[str, str] | None = None
) -> subprocess.CompletedProcess[str]:
    try:
        return subprocess.run(
            command, input=script, capture_output=True, text=True, timeout=TIMEOUT, env=environment, check=False
        )
    except FileNotFoundError:
        raise UserError(
            f"There is no {command[0]} here.",
            "--executor slurm",
            "Run headrace on a machine that submits jobs, such as the cluster's login node.",
        ) from None
    except subprocess.TimeoutExpired:
        return subprocess.CompletedProcess(command, 1, "", f"{command[0]} did not answer within {TIMEOUT} s")


def agent_command(run: Path) -> list[str]:
    """What runs on a node."""
    return [sys.executable, "-m", "headrace.flow.executors.agent", str(run)]
