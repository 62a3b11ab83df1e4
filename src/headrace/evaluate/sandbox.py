"""Run programs that a model wrote, and their tests, where a hostile one can do no harm and cannot claim to pass.

See :mod:`headrace.evaluate.jail` for what a program can reach, :mod:`headrace.evaluate.remote` for why its verdict
cannot be forged, and :mod:`headrace.evaluate.system_calls` for what the kernel refuses it.

The kernel must let this user make namespaces, or bubblewrap (``bwrap``) must be installed. Without either, programs are
only run if the user says that they may be: limits, the filter of system calls where there is one, a process group of
their own, an empty environment and a temporary working folder still hold, but they can read what the user can read.
"""

from __future__ import annotations

import importlib.util
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from contextlib import ExitStack, suppress
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Literal

import psutil

from headrace.errors import UserError
from headrace.evaluate import system_calls
from headrace.visible import one_line

Status = Literal["passed", "failed", "error", "timed out"]

_SOURCE = Path(__file__).parents[2]
_START = f"import sys; sys.path.insert(0, {str(_SOURCE)!r}); from headrace.evaluate.jail import main; main()"
# No site-packages, no user's modules, none of the environment; sets in the same order each time.
_FLAGS = ("-s", "-S", "-P")
_ENVIRONMENT = {"PYTHONHASHSEED": "0", "LANG": "C.UTF-8", "OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"}
_LIBRARIES = ("/lib", "/lib64", "/usr/lib", "/usr/lib64", "/etc/ld.so.cache")
_PACKAGES = "/packages"  # where a program finds numpy, which the tests of HumanEval+ and MBPP+ import
_THREADS = 64


@dataclass(frozen=True)
class Limits:
    """What a program and its tests may each use.

    Attributes:
        cpu: seconds of processor time. HumanEval's own harness gives 3 s of wall time, EvalPlus 4 s for each input; the
            slowest solution of MBPP (123) takes over 4 s on a busy core.
        wall: seconds from start to kill, for what sleeps. Larger than ``cpu``, so that the verdict does not depend on
            how busy the machine is.
        memory: bytes of address space.
        disk: bytes of the working folder, which is in memory.
    """

    cpu: int = 10
    wall: float = 60.0
    memory: int = 1 << 30
    disk: int = 16 << 20


@dataclass(frozen=True)
class Job:
    """A program and its tests.

    Attributes:
        program: source text.
        tests: source text, executed after the program in another process; what it raises is the verdict.
        before: source text of the tests' process, executed before ``tests``: imports and helpers.
        names: what the tests take from the program. Every other name they use is theirs: a program may define its own
            ``abs``, but the tests use Python's.
    """

    program: str
    tests: str
    before: str = ""
    names: tuple[str, ...] = ()


@dataclass(frozen=True)
class Verdict:
    """What came of a job.

    Attributes:
        status: "passed" only if every test was executed and held.
        detail: the error, in a line or so.
        seconds: of processor time that the program used; of what was ended after its wall time, that.
    """

    status: Status
    detail: str = ""
    seconds: float = 0.0


class Sandbox:
    """Runs jobs; a context manager. Safe to use from several threads.

    Args:
        limits: of each job.
        unsafe: run programs even where they cannot be isolated.
        how: the isolation to use; None: the first that this machine has.

    Raises:
        UserError: on entering: they cannot be isolated here, and ``unsafe`` is not given.
    """

    def __init__(
        self,
        limits: Limits | None = None,
        unsafe: bool = False,
        how: Literal["namespaces", "bubblewrap", "none"] | None = None,
    ) -> None:
        self.limits, self._unsafe, self._wanted = limits or Limits(), unsafe, how
        self.how: str = "none"

    def __enter__(self) -> Sandbox:
        self._root = tempfile.mkdtemp(prefix="headrace-sandbox-")
        try:
            self._choose()
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        shutil.rmtree(self._root, ignore_errors=True)

    def _choose(self) -> None:
        """Take the first kind of isolation that runs a program here."""
        reasons = []
        kinds = [self._wanted] if self._wanted else ["namespaces", "bubblewrap"]
        for how in kinds if sys.platform == "linux" and system_calls.available() else []:
            if how == "bubblewrap" and shutil.which("bwrap") is None:
                reasons.append("bubblewrap: not installed")
                continue
            self.how = how
            wrong = self._fault()
            if wrong is None:
                return
            reasons.append(f"{how}: {wrong}")
        self.how = "none"
        if not self._unsafe:
            raise UserError(
                "Programs that a model wrote cannot be isolated on this machine.",
                "; ".join(reasons)
                or f"{sys.platform} has no namespaces and filters of system calls that headrace knows",
                "Install bubblewrap (bwrap) or allow user namespaces; or run them unprotected with --unsafe, in a "
                "container or virtual machine that may be harmed.",
            )
        wrong = self._fault()
        if wrong is not None:
            raise RuntimeError(f"a program does not run even without isolation: {wrong}")

    def _fault(self) -> str | None:
        """Why a trivial program does not pass; None if it does."""
        verdict = self._attempt(Job("def one():\n    return 1\n", "assert one() == 1\n", names=("one",)))
        if isinstance(verdict, str):
            return verdict.strip().rpartition("\n")[2] or "the process ended"
        return None if verdict.status == "passed" else f"{verdict.status}: {verdict.detail}"

    def run(self, job: Job) -> Verdict:
        """Run a job to its verdict, within its limits."""
        verdict = self._attempt(job)
        return verdict if isinstance(verdict, Verdict) else Verdict("error", "the tests' process ended")

    def _attempt(self, job: Job) -> Verdict | str:
        """The verdict, or what the process wrote to standard error if there is none."""
        told = json.dumps(vars(job)).encode()
        with ExitStack() as stack:
            cwd = "/tmp"
            if self.how == "none":
                cwd = tempfile.mkdtemp(prefix="headrace-program-")
                stack.callback(subprocess.run, ["rm", "-rf", cwd], stderr=subprocess.DEVNULL)  # of any depth
            process = subprocess.Popen(
                self._command(cwd),
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                cwd="/",
                env=_ENVIRONMENT,
                start_new_session=True,
            )
            stack.enter_context(process)
            try:
                out, error = process.communicate(told, timeout=self.limits.wall)
            except subprocess.TimeoutExpired:
                return Verdict("timed out", "wall time", self.limits.wall)
            finally:
                with suppress(ProcessLookupError):
                    os.killpg(process.pid, signal.SIGKILL)
        if not out:
            return error.decode(errors="replace")
        verdict = json.loads(out)
        return Verdict(verdict["status"], one_line(verdict["detail"]), verdict["seconds"])

    def _command(self, cwd: str) -> list[str]:
        """The command line of a job."""
        config = {
            "namespaces": self.how == "namespaces",
            "parent": None if self.how == "bubblewrap" else os.getpid(),  # bubblewrap watches its own
            "filter": system_calls.available(),
            "root": self._root,
            "cwd": cwd,
            "mounts": self._mounts,
            "disk": self.limits.disk,
            "limits": self._resource_limits(),
            "hidden": [str(_SOURCE), ""],
            "packages": [_PACKAGES] if self.how != "none" else [str(path.parent) for path in _numpy()],
        }
        wrapper = self._bubblewrap() if self.how == "bubblewrap" else []
        return [*wrapper, self._python, *_FLAGS, "-c", _START, json.dumps(config)]

    def _resource_limits(self) -> dict[str, int]:
        limits = self.limits
        # Inside namespaces the kernel counts this program's threads, outside all of the user's.
        others = _threads(os.getuid()) if self.how == "none" else 0
        return {
            "RLIMIT_AS": limits.memory,
            "RLIMIT_CPU": limits.cpu,
            "RLIMIT_FSIZE": limits.disk,
            "RLIMIT_NPROC": others + _THREADS,
            "RLIMIT_NOFILE": 64,
            "RLIMIT_CORE": 0,
            "RLIMIT_MEMLOCK": 0,
            "RLIMIT_MSGQUEUE": 0,
            "RLIMIT_SIGPENDING": 64,
        }

    @cached_property
    def _python(self) -> str:
        """The interpreter behind a virtual environment, which needs nothing but its own folder."""
        return os.path.realpath(getattr(sys, "_base_executable", sys.executable))

    @cached_property
    def _mounts(self) -> list[tuple[str, str]]:
        """What is to be seen, and where: Python, the libraries it is linked with, numpy."""
        prefix = Path(self._python).parents[1]
        own = [self._python, str(prefix / "lib"), str(prefix / "lib64")]
        seen = [path for path in dict.fromkeys([*_LIBRARIES, *own]) if os.path.lexists(path)]
        inside = [path for path in seen if not any(path.startswith(f"{other}/") for other in seen)]
        return [(path, path) for path in inside] + [(str(path), f"{_PACKAGES}/{path.name}") for path in _numpy()]

    def _bubblewrap(self) -> list[str]:
        words = [
            str(shutil.which("bwrap")),
            "--unshare-all",
            "--die-with-parent",
            "--new-session",
            "--as-pid-1",
            "--cap-drop",
            "ALL",
        ]
        modules = ["__init__.py", *(f"evaluate/{name}.py" for name in ("__init__", "jail", "remote", "system_calls"))]
        ours = [str(_SOURCE / "headrace" / name) for name in modules]
        for source, target in [*self._mounts, *((path, path) for path in ours)]:
            if os.path.islink(source):
                words += ["--symlink", os.readlink(source), target]
            else:
                words += ["--ro-bind", source, target]
        for name in ("null", "zero", "random", "urandom"):
            words += ["--dev-bind", f"/dev/{name}", f"/dev/{name}"]
        return [*words, "--size", str(self.limits.disk), "--tmpfs", "/tmp", "--remount-ro", "/", "--chdir", "/tmp"]


def _numpy() -> Sequence[Path]:
    """The folders that numpy consists of."""
    spec = importlib.util.find_spec("numpy")
    if spec is None or spec.origin is None:
        return []
    folder = Path(spec.origin).parent
    return [path for path in (folder, folder.with_name("numpy.libs")) if path.is_dir()]


def _threads(user: int) -> int:
    """How many threads a user has."""
    infos = (process.info for process in psutil.process_iter(["uids", "num_threads"]))
    return sum(info["num_threads"] or 1 for info in infos if info["uids"] is not None and info["uids"].real == user)
