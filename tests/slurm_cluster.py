"""A Slurm cluster of several nodes on this machine, run by this user: munged, slurmctld and a slurmd for each node."""

from __future__ import annotations

import getpass
import os
import shutil
import socket
import subprocess
import tempfile
import time
from contextlib import suppress
from pathlib import Path

import pytest

DAEMONS = ("munged", "slurmctld", "slurmd", "sbatch")

CONFIGURATION = """\
ClusterName=test
SlurmctldHost={host}(127.0.0.1)
SlurmctldPort={ports[0]}
SlurmUser={user}
SlurmdUser={user}
AuthType=auth/munge
AuthInfo=socket={folder}/munge.socket
CredType=cred/munge
StateSaveLocation={folder}/state
SlurmctldPidFile={folder}/slurmctld.pid
SlurmctldLogFile={folder}/slurmctld.log
SlurmdSpoolDir={folder}/%n
SlurmdPidFile={folder}/%n.pid
SlurmdLogFile={folder}/%n.log
SlurmdParameters=config_overrides
ProctrackType=proctrack/pgid
TaskPlugin=task/none
MpiDefault=none
MailProg=/bin/true
SelectType=select/cons_tres
SelectTypeParameters=CR_CPU
SchedulerParameters=batch_sched_delay=0,sched_interval=1
ReturnToService=2
KillWait=5
{nodes}
PartitionName=all Nodes=ALL Default=YES MaxTime=INFINITE State=UP
"""


def missing() -> str:
    """Why there can be no cluster here; empty if there can."""
    path = f"{os.environ['PATH']}:/usr/sbin:/sbin"
    absent = [name for name in DAEMONS if shutil.which(name, path=path) is None]
    return f"no {', '.join(absent)} here (Debian: slurmctld slurmd slurm-client munge)" if absent else ""


def free_ports(number: int) -> list[int]:
    """Ports that nothing listens on."""
    sockets = [socket.socket() for _ in range(number)]
    for one in sockets:
        one.bind(("127.0.0.1", 0))
    ports = [one.getsockname()[1] for one in sockets]
    for one in sockets:
        one.close()
    return ports


class Cluster:
    """The daemons; a context manager that sets ``SLURM_CONF`` while they run.

    Args:
        nodes: how many, each with two cores.
    """

    def __init__(self, nodes: int = 2) -> None:
        # The address of a socket has at most 107 bytes: pytest's own folders are too deep.
        self.folder = Path(tempfile.mkdtemp(prefix="slurm-"))
        self.names = [f"n{i + 1}" for i in range(nodes)]
        self._daemons: list[subprocess.Popen[bytes]] = []
        self._patch = pytest.MonkeyPatch()

    def __enter__(self) -> Cluster:
        folder, host, ports = self.folder, socket.gethostname().partition(".")[0], free_ports(1 + len(self.names))
        for name in ("state", *self.names):
            (folder / name).mkdir()
        (folder / "munge.key").write_bytes(os.urandom(128))
        (folder / "munge.key").chmod(0o600)
        lines = [
            f"NodeName={name} NodeHostname={host} NodeAddr=127.0.0.1 Port={port} CPUs=2 RealMemory=100000"
            for name, port in zip(self.names, ports[1:], strict=True)
        ]
        told = {"folder": folder, "host": host, "ports": ports, "user": getpass.getuser(), "nodes": "\n".join(lines)}
        (folder / "slurm.conf").write_text(CONFIGURATION.format(**told))
        self._patch.setenv("PATH", "/usr/sbin:/sbin", prepend=os.pathsep)
        self._patch.setenv("SLURM_CONF", str(folder / "slurm.conf"))
        munge = [f"--{name}={folder}/munge.{name.removesuffix('-file')}" for name in ("key-file", "socket", "pid-file")]
        munge += [f"--log-file={folder}/munge.log", f"--seed-file={folder}/munge.seed"]
        self._start("munged", "--foreground", "--force", *munge)
        self._start("slurmctld", "-D")
        for name in self.names:
            self._start("slurmd", "-D", "-N", name)
        deadline = time.monotonic() + 30
        while self.call("sinfo", "-h", "-o", "%D %t").split() != [str(len(self.names)), "idle"]:
            assert time.monotonic() < deadline, self.call("sinfo", "-R")
            time.sleep(0.1)
        return self

    def __exit__(self, *_: object) -> None:
        self.call("scancel", f"--user={getpass.getuser()}")
        deadline = time.monotonic() + 20
        while self.call("squeue", "-h") and time.monotonic() < deadline:
            time.sleep(0.1)
        for daemon in reversed(self._daemons):
            daemon.terminate()
            try:
                daemon.wait(10)
            except subprocess.TimeoutExpired:
                daemon.kill()
                daemon.wait()
        self._patch.undo()
        shutil.rmtree(self.folder, ignore_errors=True)

    def _start(self, *command: str) -> None:
        with open(self.folder / f"{command[0]}.out", "ab") as out:
            self._daemons.append(subprocess.Popen(command, stdout=out, stderr=out, stdin=subprocess.DEVNULL))

    def call(self, *command: str) -> str:
        """What a command of Slurm prints."""
        with suppress(subprocess.TimeoutExpired):
            return subprocess.run(command, capture_output=True, text=True, timeout=20, check=False).stdout.strip()
        return ""

    def elements(self, state: str = "RUNNING") -> list[str]:
        """The jobs in a state, as ``JOB_INDEX``."""
        return self.call("squeue", "-h", "-r", f"--states={state}", "-o", "%F_%K").split()
