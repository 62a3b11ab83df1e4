"""The process that runs a program and its tests where neither can do harm; started by :mod:`headrace.evaluate.sandbox`.

With namespaces it becomes two processes in a world of their own: process 1 runs the tests, its only child the program.
Their root is an empty folder with Python, the C libraries and numpy in it, read-only, and a small folder in memory as
the working folder. There is no /proc, no network, no other process, no user's file. Both have no capability and are
under a filter of system calls (:mod:`headrace.evaluate.system_calls`) and resource limits. The program's process is
forked before the tests are read, so they are in no memory of it; its descriptors are /dev/null and the channel to the
tests. When process 1 ends, the kernel ends all others.

Only the standard library is imported: this runs in the plain interpreter, without site-packages.
"""

from __future__ import annotations

import ctypes
import json
import os
import random
import resource
import signal
import sys
import time
from contextlib import suppress
from typing import Any

from headrace.evaluate.remote import SHOWN, Caller, Channel, Closed, Program
from headrace.evaluate.system_calls import refuse_system_calls

_NEW = 0x10000000 | 0x00020000 | 0x20000000 | 0x40000000 | 0x08000000 | 0x04000000  # CLONE_NEW: USER NS PID NET IPC UTS
_RDONLY, _NOSUID, _NODEV, _NOEXEC, _REMOUNT, _BIND, _REC, _PRIVATE = 1, 2, 4, 8, 32, 4096, 16384, 1 << 18
_DETACH, _AT_RECURSIVE, _AT_FDCWD = 2, 0x8000, -100
_MOUNT_SETATTR = 442
_PIVOT_ROOT = {"x86_64": 155, "aarch64": 41}
_PR_SET_PDEATHSIG, _PR_SET_DUMPABLE, _PR_CAPBSET_DROP = 1, 4, 24
_NOBODY = 65534
_DEVICES = ("null", "zero", "random", "urandom")

LIBC = ctypes.CDLL(None, use_errno=True)


def main() -> None:
    """Read the configuration in the first argument, then a job from standard input; write its verdict as JSON to
    standard output."""
    config = json.loads(sys.argv[1])
    _die_with_parent()
    if config["parent"] not in (None, os.getppid()):  # it has died before that
        os._exit(1)
    if config["namespaces"]:
        _enter_namespaces()
        if os.fork():
            os.close(0)
            os._exit(0 if os.wait()[1] == 0 else 1)
        _build_root(config)
        _drop_privileges()
    os.chdir(config["cwd"])
    sys.path[:] = [path for path in sys.path if path not in config["hidden"]] + config["packages"]
    _die_with_parent()
    _test(config)


def _test(config: dict[str, Any]) -> None:
    """Start the program's process, then read the job, run the tests and write the verdict."""
    to_program, to_tests = os.pipe(), os.pipe()
    child = os.fork()
    if child == 0:
        try:
            _become_program(config, to_program[0], to_tests[1])
        finally:
            os._exit(0)
    os.close(to_program[0])
    os.close(to_tests[1])
    job, verdicts = os.fdopen(os.dup(0), "rb"), os.dup(1)
    _silence()
    if sys.platform == "linux":
        LIBC.prctl(_PR_SET_DUMPABLE, 0, 0, 0, 0)
    _limit(config, child)
    verdict = _judge(json.loads(job.read()), Channel(to_tests[0], to_program[1]), child)
    with suppress(OSError):  # it has ended
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    verdict["seconds"] = round(used.ru_utime + used.ru_stime, 3)
    os.write(verdicts, json.dumps(verdict).encode())
    os._exit(0)


def _die_with_parent() -> None:
    if sys.platform == "linux":
        LIBC.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)


def _become_program(config: dict[str, Any], read: int, write: int) -> None:
    _die_with_parent()
    _silence()
    os.dup2(read, 3)
    os.dup2(write, 4)
    os.closerange(5, 1 << 12)
    _limit(config, os.getpid())
    Program(Channel(3, 4)).serve()


def _silence() -> None:
    null = os.open("/dev/null", os.O_RDWR)
    for number in range(3):
        os.dup2(null, number)


def _limit(config: dict[str, Any], program: int) -> None:
    """Put the limits on this process; the program's is the only one that it may signal."""
    for name, value in config["limits"].items():
        number = getattr(resource, name, None)
        if number is not None:
            most = resource.getrlimit(number)[1]
            least = value if most == resource.RLIM_INFINITY else min(value, most)
            try:
                resource.setrlimit(number, (least, least))
            except (OSError, ValueError):  # macOS has limits that it refuses to set
                if sys.platform == "linux":
                    raise
    if config["filter"]:
        refuse_system_calls([program])


def _judge(job: dict[str, Any], channel: Channel, child: int) -> dict[str, Any]:
    """Run a program and its tests: ``{"status", "detail"}``."""
    random.seed(0)
    scope: dict[str, Any] = {"__name__": "tests"}
    tests = Caller(channel)
    try:
        tests.run(job["program"])
        exec(compile(job["before"], "<before>", "exec"), scope)
        code = compile(job["tests"], "<tests>", "exec", dont_inherit=True)
        scope.update(tests.names(job["names"]))
        exec(code, scope)
        if channel.broken:
            raise Closed
        return {"status": "passed", "detail": ""}
    except Closed:
        return _ending(child)
    except AssertionError as error:
        return {"status": "failed", "detail": str(error)[:SHOWN]}
    except BaseException as error:
        if channel.broken:
            return _ending(child)
        return {"status": "error", "detail": f"{type(error).__name__}: {error}"[:SHOWN]}


def _ending(child: int) -> dict[str, Any]:
    """How the program's process ended before its tests did."""
    for _ in range(100):
        process, status, used = os.wait4(child, os.WNOHANG)
        if process:
            break
        time.sleep(0.01)
    else:
        return {"status": "error", "detail": "the program closed its channel to the tests"}
    code = os.waitstatus_to_exitcode(status)
    if code == -signal.SIGKILL and used.ru_utime + used.ru_stime > 0.9 * resource.getrlimit(resource.RLIMIT_CPU)[0]:
        return {"status": "timed out", "detail": "CPU time"}
    how = f"ended by {signal.Signals(-code).name}" if code < 0 else "left early"
    return {"status": "error", "detail": f"the program's process {how}"}


def _enter_namespaces() -> None:
    """Unshare everything. Outside, another process maps our user and, for root, nobody, whom the program will be."""
    user, group = os.geteuid(), os.getegid()
    unshared, told = os.pipe()
    helper = os.fork()
    if helper == 0:
        os.close(told)
        os.read(unshared, 1)
        ok = _map_ids(os.getppid(), user, group)
        os._exit(0 if ok else 1)
    _check(LIBC.unshare(_NEW), "namespaces")
    os.close(told)
    os.close(unshared)
    if os.waitstatus_to_exitcode(os.waitpid(helper, 0)[1]):
        raise OSError("the kernel refuses to map users")


def _map_ids(process: int, user: int, group: int) -> bool:
    try:
        if user != 0:
            _write(f"/proc/{process}/setgroups", "deny")
        for name, own in (("uid_map", user), ("gid_map", group)):
            lines = f"0 0 1\n{_NOBODY} {_NOBODY} 1\n" if user == 0 else f"{_NOBODY} {own} 1\n"
            _write(f"/proc/{process}/{name}", lines)
    except OSError:
        return False
    return True


def _write(path: str, text: str) -> None:
    descriptor = os.open(path, os.O_WRONLY)
    os.write(descriptor, text.encode())
    os.close(descriptor)


def _build_root(config: dict[str, Any]) -> None:
    """Make a root of what the program may read, and move into it."""
    root = config["root"]
    _mount("none", "/", None, _REC | _PRIVATE)
    _mount("tmpfs", root, "tmpfs", _NOSUID | _NODEV, "size=1m,mode=755")
    for source, target in config["mounts"]:
        place = root + target
        os.makedirs(os.path.dirname(place), exist_ok=True)
        if os.path.islink(source):
            os.symlink(os.readlink(source), place)
            continue
        os.makedirs(place, exist_ok=True) if os.path.isdir(source) else os.close(os.open(place, os.O_CREAT))
        _mount(source, place, None, _BIND | _REC)
        _read_only(place, _RDONLY | _NOSUID | _NODEV)
    os.mkdir(f"{root}/dev")
    for name in _DEVICES:
        os.close(os.open(f"{root}/dev/{name}", os.O_CREAT))
        _mount(f"/dev/{name}", f"{root}/dev/{name}", None, _BIND)
        _read_only(f"{root}/dev/{name}", _RDONLY | _NOSUID | _NOEXEC)
    os.mkdir(f"{root}/tmp")
    _mount("tmpfs", f"{root}/tmp", "tmpfs", _NOSUID | _NODEV, f"size={config['disk']},nr_inodes=4096,mode=1777")
    os.chdir(root)
    _check(LIBC.syscall(_PIVOT_ROOT[os.uname().machine], b".", b"."), "a root of its own")
    _check(LIBC.umount2(b".", _DETACH), "a root of its own")
    _mount("none", "/", None, _REMOUNT | _BIND | _RDONLY | _NOSUID | _NODEV)


def _mount(source: str, target: str, kind: str | None, flags: int, data: str | None = None) -> None:
    told = [None if text is None else text.encode() for text in (source, target, kind)]
    _check(LIBC.mount(*told, ctypes.c_ulong(flags), None if data is None else data.encode()), f"to mount {target}")


def _read_only(path: str, flags: int) -> None:
    # struct mount_attr: set, clear, propagation, user namespace. Its flags 1, 2, 4, 8 are those of mount.
    attributes = (ctypes.c_uint64 * 4)(flags, 0, 0, 0)
    told = LIBC.syscall(
        _MOUNT_SETATTR, _AT_FDCWD, path.encode(), ctypes.c_uint(_AT_RECURSIVE), attributes, ctypes.c_size_t(32)
    )
    _check(told, f"to make {path} read-only")


def _drop_privileges() -> None:
    """Become nobody, without any capability."""
    for capability in range(64):
        LIBC.prctl(_PR_CAPBSET_DROP, capability, 0, 0, 0)
    if os.geteuid() == 0:
        os.setgroups([])
        os.setresgid(_NOBODY, _NOBODY, _NOBODY)
        os.setresuid(_NOBODY, _NOBODY, _NOBODY)
    header = (ctypes.c_uint32 * 2)(0x20080522, 0)
    _check(LIBC.capset(header, (ctypes.c_uint32 * 6)()), "to drop capabilities")


def _check(result: int, what: str) -> None:
    if result != 0:
        number = ctypes.get_errno()
        raise OSError(number, f"the kernel refuses {what}: {os.strerror(number)}")
