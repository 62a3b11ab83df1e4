"""Hostile programs: nothing outside changes or can be seen, no test passes that does not hold, and all of them end."""

from __future__ import annotations

import os
import signal
import socket
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import psutil
import pytest
from hostile import BOMBS, ESCAPES, FORGERIES

from headrace.errors import UserError
from headrace.evaluate import system_calls
from headrace.evaluate.sandbox import Job, Limits, Sandbox

LIMITS = Limits(cpu=1, wall=4)


def isolated() -> bool:
    try:
        with Sandbox():
            return True
    except UserError:
        return False


needs_isolation = pytest.mark.skipif(not isolated(), reason="this machine refuses namespaces and has no bubblewrap")
needs_filter = pytest.mark.skipif(not system_calls.available(), reason="no filter of system calls here")


@pytest.fixture(scope="module", params=[pytest.param("isolated", marks=needs_isolation), "unsafe"])
def sandbox(request):
    with Sandbox(LIMITS, unsafe=request.param == "unsafe", how="none" if request.param == "unsafe" else None) as made:
        yield made


@pytest.fixture(scope="module")
def isolation():
    with Sandbox(LIMITS) as made:
        yield made


def run(sandbox, program, tests="assert f() == 987654321\n", names=("f",), before=""):
    verdict = sandbox.run(Job(program, tests, before, names))
    assert not [
        child for child in psutil.Process().children(recursive=True) if "headrace.evaluate.jail" in cmdline(child)
    ]
    return verdict


def cmdline(process: psutil.Process) -> str:
    try:
        return " ".join(process.cmdline())
    except psutil.Error:
        return ""


@pytest.mark.parametrize("what", FORGERIES)
def test_no_verdict_is_forged(sandbox, what):
    if "parent" in what and sandbox.how == "none" and not system_calls.available():
        pytest.skip("without a filter it could end the session's processes")
    verdict = run(sandbox, FORGERIES[what])
    assert verdict.status != "passed", verdict


def test_tests_use_their_own_functions_whatever_the_program_defines(sandbox):
    program = "import math\nmath.isclose = lambda *a, **k: True\ndef abs(x): return 0\ndef f(): return 1.0"
    assert run(sandbox, program, "assert abs(f() - 2.0) < 1e-3").status == "failed"
    assert run(sandbox, program, "import math\nassert math.isclose(f(), 2.0)").status == "failed"
    assert run(sandbox, program, "assert helper(f())", before="def helper(x): return x == 2").status == "failed"


def test_the_end_of_an_iteration_is_none_of_the_tests(sandbox):
    assert run(sandbox, "def f(x): raise StopIteration", "assert all(map(f, [1, 2]))").status == "error"


def test_memory_is_not_read_where_an_object_says(sandbox):
    pytest.importorskip("numpy")
    program = """
class Everywhere:
    __array_interface__ = {"shape": (4,), "typestr": "<f8", "data": (0, False), "version": 3}
    def __eq__(self, other): return False
def f(): return Everywhere()
"""
    verdict = run(sandbox, program, "import numpy as np\nassert np.allclose(f(), [1.0, 2.0])")
    assert verdict.status in ("error", "failed")
    assert "ended" not in verdict.detail


@needs_filter
def test_bombs_end_and_do_not_pass(sandbox):
    def drop(what):
        tests = "assert list(f()) == [1]\n" if what == "generator without end" else "assert f() == 987654321\n"
        return sandbox.run(Job(BOMBS[what], tests, names=("f",)))

    with ThreadPoolExecutor(4) as pool:
        # Outside namespaces nothing limits how deep folders are, and a minute is needed to remove them.
        bombs = [what for what in BOMBS if what != "deep folders" or sandbox.how != "none"]
        verdicts = dict(zip(bombs, pool.map(drop, bombs), strict=True))
    assert {what: told for what, told in verdicts.items() if told.status == "passed"} == {}
    assert all(len(told.detail) < 5000 and told.detail.isprintable() for told in verdicts.values())
    run(sandbox, "def f(): return 987654321")  # and none of their processes is left


def test_a_full_disk_is_the_programs_own(sandbox):
    program = """
import os
def f():
    written = 0
    try:
        for n in range(1000):
            with open(f"file{n}", "wb") as out:
                for _ in range(100):
                    written += out.write(bytes(1_000_000))
                    out.flush()
            if written > 200_000_000: break
    except OSError:
        pass
    return written
"""
    limit = 2 * LIMITS.disk if sandbox.how != "none" else 10**9  # outside namespaces only each file is limited
    assert run(sandbox, program, f"assert 0 < f() < {limit}").status == "passed"


@needs_isolation
def test_nothing_of_the_user_is_to_be_seen(isolation, tmp_path):
    secret = tmp_path / "secret"
    secret.write_text("987654321")
    program = f"USER = {str(Path.home())!r}\n"
    program += """
import os
def f(paths):
    seen = []
    for path in paths:
        try:
            os.symlink(path, "link%d" % len(os.listdir(".")))
            if os.path.isdir(path): os.listdir(path)
            else: open(path).read(1)
            seen.append(path)
        except OSError: pass
    return seen
def home(): return os.path.exists(USER + "/.ssh"), os.listdir("/"), sorted(os.environ)
def links(): return [n for n in os.listdir(".") if os.path.exists(n)]
def processes(): return os.getpid(), os.path.exists("/proc"), os.getuid(), os.getgid(), os.getgroups()
"""
    hidden = [
        "/etc/passwd",
        "/etc/shadow",
        "/proc/1/environ",
        "/proc/self/mem",
        "/sys",
        "/home",
        "/var",
        "/run",
        "/mnt",
    ]
    hidden += [str(secret), str(tmp_path), str(Path.home() / ".ssh"), str(Path.home() / ".bashrc"), "/dev/mem", "/boot"]
    tests = f"assert f({hidden!r}) == [], f({hidden!r})\nassert links() == []\n"
    tests += "ssh, root, environment = home()\nassert not ssh\nassert set(root) <= "
    tests += "{'tmp', 'dev', 'lib', 'lib64', 'usr', 'etc', 'packages', 'root', 'home', 'opt', 'nix'}, root\n"
    tests += "assert 'HOME' not in environment and 'PATH' not in environment, environment\n"
    tests += (
        "pid, proc, user, group, groups = processes()\nassert pid < 10 and not proc and user and group, (pid, user)\n"
    )
    assert run(isolation, program, tests, ("f", "home", "links", "processes")).status == "passed"


@needs_isolation
def test_nothing_outside_is_written(isolation, tmp_path):
    program = """
import os, sys
def f(paths):
    done = []
    for path in paths:
        folder = os.path.dirname(path)
        for way in (lambda: open(path, "w"), lambda: os.mkdir(path + ".d"), lambda: os.chmod(folder, 0o777),
                    lambda: os.unlink(path), lambda: os.utime(folder), lambda: os.chown(path, 0, 0)):
            try: way(); done.append(path)
            except OSError: pass
    return done
def modules(): return os.path.dirname(os.__file__)
def chdir():
    os.chdir("/")
    for _ in range(9): os.chdir("..")
    return sorted(os.listdir("."))
"""
    tests = f"found = f([modules() + '/os.py', '/x', '/usr/x', '/lib/x', '/dev/x', {str(tmp_path / 'x')!r}])\n"
    tests += "assert found == [], found\nassert 'tmp' in chdir()\n"
    assert run(isolation, program, tests, ("f", "modules", "chdir")).status == "passed"
    assert list(tmp_path.iterdir()) == []


@needs_filter
def test_no_way_out(sandbox):
    with socket.create_server(("127.0.0.1", 0)) as server:
        tests = f"done = f({server.getsockname()[1]})\nassert done == [], done"
        verdict = run(sandbox, ESCAPES, tests)
    assert verdict.status == "passed", verdict


@needs_isolation
def test_namespaces_hold_without_the_filter_too(monkeypatch):
    """Two layers: what the filter refuses would lead nowhere."""
    with Sandbox(LIMITS) as sandbox, socket.create_server(("127.0.0.1", 0)) as server:
        if sandbox.how != "namespaces":
            pytest.skip("only with namespaces of our own")
        monkeypatch.setattr(system_calls, "available", lambda: False)
        ways = ["loopback", "datagram", "abstract", "ptrace", "mount", "devices", "setuid", "process"]
        tests = f"done = f({server.getsockname()[1]})\nassert not set(done) & set({ways!r}), done"
        verdict = run(sandbox, ESCAPES, tests)
    assert verdict.status == "passed", verdict


def test_without_isolation_nothing_runs_unless_the_user_says_so(monkeypatch):
    monkeypatch.setattr(Sandbox, "_fault", lambda self: "no" if self.how != "none" else None)
    with pytest.raises(UserError, match="cannot be isolated") as told, Sandbox():
        pass
    assert "--unsafe" in str(told.value)
    with Sandbox(unsafe=True) as sandbox:
        assert sandbox.how == "none"


@needs_filter
def test_programs_end_with_the_process_that_runs_them(sandbox):
    """Killed in the middle: the program sleeps, and nobody is left to end it."""
    read, write = os.pipe()
    child = os.fork()
    if child == 0:
        try:
            threading.Thread(target=sandbox.run, args=(Job("import time\ntime.sleep(1000)", "", names=()),)).start()
            while not (found := psutil.Process().children(recursive=True)):
                time.sleep(0.01)
            os.write(write, f"{found[0].pid}".encode())
            while True:
                time.sleep(1)
        finally:
            os._exit(1)
    program = psutil.Process(int(os.read(read, 20)))
    os.kill(child, signal.SIGKILL)
    os.waitpid(child, 0)
    os.close(read)
    os.close(write)
    program.wait(20)
