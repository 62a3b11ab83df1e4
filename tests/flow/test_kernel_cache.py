"""Compiled kernels are kept under what they are compiled from, in a folder that is this user's alone."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from headrace.flow.kernel_cache import OneAtATime, objection, place, state
from headrace.flow.kernels import borrowing, inlined, kernel

WRITERS = 4
ENTRIES = 40

SAVE = """
import sys, time
from headrace.flow.kernel_cache import OneAtATime
folder, writer, entries, start = sys.argv[1], sys.argv[2], int(sys.argv[3]), float(sys.argv[4])
files = [OneAtATime(folder, f"kernel-{i}", "stamp") for i in range(entries)]
time.sleep(max(0, start - time.time()))
for file in files:
    file.save(f"types of {writer}", f"code of {writer}")
"""


def test_entries_saved_at_once_are_not_mixed_up(tmp_path: Path) -> None:
    """Numba's own saving loses or mixes up several of these 160 entries each time."""
    start = str(time.time() + 2.5)
    command = [sys.executable, "-c", SAVE, str(tmp_path)]
    running = [subprocess.Popen([*command, str(writer), str(ENTRIES), start]) for writer in range(WRITERS)]
    assert [process.wait() for process in running] == [0] * WRITERS
    for i in range(ENTRIES):
        file = OneAtATime(str(tmp_path), f"kernel-{i}", "stamp")
        kept = {writer: file.load(f"types of {writer}") for writer in range(WRITERS)}
        assert kept == {writer: f"code of {writer}" for writer in range(WRITERS)}


def test_kernels_of_every_kind_are_saved_so() -> None:
    for decorate in (kernel, inlined, borrowing):
        assert type(decorate(_double)._cache._cache_file) is OneAtATime


def _double(x: int) -> int:
    return 2 * x


MODULE = """
from headrace.flow.kernels import kernel, inlined
from numba import types
from numba.extending import intrinsic
import numpy as np

FACTOR = {factor}
TABLE = np.array({table})

def unused():
    return {unused}

@inlined
def helper(x):
    return x * {by}

@intrinsic
def generated(typing):
    return types.int64(), lambda context, builder, signature, arguments: context.get_constant(types.int64, {generated})

@kernel
def called(x):
    '''{doc}'''
    return helper(x) + FACTOR + TABLE[0] + later(x) + generated()

@kernel
def later(x):
    return x + {later}
"""
PLAIN = {"factor": 1, "table": [1, 2], "unused": 0, "by": 2, "doc": "one", "later": 1, "generated": 0}


def named(**changed: object) -> str:
    """The state of ``called`` in a module that differs from the plain one."""
    names: dict = {"__name__": "toy"}
    exec(MODULE.format(**PLAIN | changed), names)
    return state(names["called"])


@pytest.mark.parametrize(
    "changed", [{"factor": 2}, {"table": [3, 2]}, {"by": 3}, {"later": 2}, {"generated": 1}], ids=str
)
def test_an_entry_is_out_of_date_when_anything_compiled_into_it_changed(changed) -> None:
    assert named(**changed) != named()


@pytest.mark.parametrize("changed", [{"unused": 1}, {"doc": "another"}], ids=str)
def test_an_entry_stays_when_something_else_changed(changed) -> None:
    assert named(**changed) == named()


RUN = """
import sys
sys.path.insert(0, sys.argv[1])
import toy
from headrace.flow.compiling import CompileWatch
began = []
watch = CompileWatch(lambda: began.append(1))
print(toy.called(5), len(began))
"""


def ran(folder: Path, **changed: object) -> str:
    """What ``called(5)`` gives in a process of its own, and how many kernels it compiled."""
    (folder / "toy.py").write_text(MODULE.format(**PLAIN | changed))
    env = os.environ | {"NUMBA_CACHE_DIR": str(folder / "cache")}
    done = subprocess.run([sys.executable, "-c", RUN, str(folder)], env=env, capture_output=True, text=True, check=True)
    return done.stdout.strip()


def test_a_second_process_compiles_nothing_and_an_edit_only_what_it_touches(tmp_path: Path) -> None:
    value, compiled = ran(tmp_path).split()
    assert value == str(10 + 1 + 1 + 6)
    assert int(compiled) > 0
    assert ran(tmp_path) == f"{value} 0"
    assert ran(tmp_path, unused=7) == f"{value} 0"
    value, compiled = ran(tmp_path, later=100).split()
    assert value == str(10 + 1 + 1 + 105)
    assert int(compiled) > 0


def test_a_kernel_that_is_kept_is_compiled_into_one_that_is_not(tmp_path: Path) -> None:
    """``later`` is loaded, without what others compile in, and then that is asked for."""
    value = int(ran(tmp_path).split()[0])
    assert ran(tmp_path, factor=3).split()[0] == str(value + 2)


def test_loading_imports_nothing_that_only_compiling_needs(tmp_path: Path) -> None:
    assert ran(tmp_path).split()[1] != "0"
    code = RUN + "\nprint([name for name in sys.modules if name in ('numba.np.linalg', 'scipy.linalg')])"
    env = os.environ | {"NUMBA_CACHE_DIR": str(tmp_path / "cache")}
    command = [sys.executable, "-c", code, str(tmp_path)]
    done = subprocess.run(command, env=env, capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[1] == "[]"


def test_what_other_packages_add_to_numba_is_not_imported(tmp_path: Path) -> None:
    (tmp_path / "addition.py").write_text("def add(): pass\n")
    (tmp_path / "addition-1.dist-info").mkdir()
    (tmp_path / "addition-1.dist-info" / "METADATA").write_text("Name: addition\nVersion: 1\n")
    (tmp_path / "addition-1.dist-info" / "entry_points.txt").write_text("[numba_extensions]\ninit = addition:add\n")
    assert ran(tmp_path).split()[1] != "0"
    theirs = "import numba\nnumba.njit(lambda x: x + 1)(1)"
    for code, imported in ((RUN, False), (f"{RUN}\n{theirs}", True)):
        env = os.environ | {"NUMBA_CACHE_DIR": str(tmp_path / "cache")}
        command = [sys.executable, "-c", f"{code}\nprint('addition' in sys.modules)", str(tmp_path)]
        done = subprocess.run(command, env=env, capture_output=True, text=True, check=True)
        assert done.stdout.splitlines()[1] == str(imported)


def test_every_kernel_has_a_state() -> None:
    """A kernel that names something of a type without a rule would end the first call of it."""
    code = """
import sys
sys.path.insert(0, sys.argv[1])
import every_kernel
every_kernel.import_all()
from numba.core.dispatcher import Dispatcher
from headrace.flow.kernel_cache import state
kernels = {v for m in list(sys.modules.values()) if m.__name__.startswith("headrace") for v in vars(m).values()
           if isinstance(v, Dispatcher)}
print(len(kernels), len({state(k) for k in kernels}))
"""
    folder = Path(__file__).parents[1] / "kernels"
    done = subprocess.run([sys.executable, "-c", code, str(folder)], capture_output=True, text=True, check=True)
    kernels, states = map(int, done.stdout.split())
    assert kernels == states > 100


def test_the_folder_is_in_the_users_cache_unless_one_is_stated(monkeypatch, tmp_path) -> None:
    monkeypatch.delenv("NUMBA_CACHE_DIR", raising=False)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert place() == tmp_path / "headrace" / "kernels"
    monkeypatch.setenv("NUMBA_CACHE_DIR", str(tmp_path / "mine"))
    assert place() == tmp_path / "mine"


def test_a_folder_that_others_can_write_is_not_used(tmp_path) -> None:
    assert objection(tmp_path / "new") is None
    assert (tmp_path / "new").stat().st_mode & 0o777 == 0o700
    (tmp_path / "new").chmod(0o770)
    assert objection(tmp_path / "new") == f"{tmp_path / 'new'} is writable by others"
    (tmp_path / "file").touch()
    assert "cannot be created" in str(objection(tmp_path / "file"))


def test_a_folder_that_others_can_write_is_said_and_kernels_run(tmp_path) -> None:
    (tmp_path / "cache").mkdir()
    (tmp_path / "cache").chmod(0o777)
    (tmp_path / "toy.py").write_text(MODULE.format(**PLAIN))
    env = os.environ | {"NUMBA_CACHE_DIR": str(tmp_path / "cache")}
    done = subprocess.run([sys.executable, "-c", RUN, str(tmp_path)], env=env, capture_output=True, text=True)
    assert done.stdout.split()[0] == "18"
    assert "is writable by others" in done.stderr
    assert list((tmp_path / "cache").iterdir()) == []


def test_entries_long_out_of_use_are_removed(tmp_path) -> None:
    for name in ("old", "young"):
        OneAtATime(str(tmp_path), name, "").save("types", "code")
    for path in tmp_path.glob("old.*"):
        os.utime(path, (time.time() - 31 * 86_400,) * 2)
    os.utime(tmp_path / ".cleaned", (0, 0))
    OneAtATime(str(tmp_path), "young", "").save("other types", "code")
    assert OneAtATime(str(tmp_path), "old", "").load("types") is None
    assert OneAtATime(str(tmp_path), "young", "").load("types") == "code"
