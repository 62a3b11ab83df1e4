"""The command line as a user meets it: what it prints, where, and with which exit code."""

from __future__ import annotations

import io
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from headrace.cli.progress import Lines, Phase, follow, notice

ROOT = Path(__file__).parents[2]
CRYSTALCODER = ROOT / "recipes" / "crystalcoder.yaml"
# What takes long to import, and no help text needs.
HEAVY = ("numpy", "numba", "pyarrow", "torch", "tokenizers", "transformers", "yaml", "orjson", "fsspec", "rich")


def headrace(*arguments: object, **options) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-c", "from headrace.cli import main; main()", *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, timeout=300, **options)


@pytest.mark.parametrize("command", [["--help"], ["run", "--help"], ["--version"], ["no-such-command"]])
def test_help_imports_nothing_heavy(command):
    script = (
        "import sys\nfrom headrace.cli import main\nsys.argv[1:] = " + repr(command) + "\n"
        "try:\n    main()\nexcept SystemExit:\n    pass\n"
        "print('imported', *sorted({name.partition('.')[0] for name in sys.modules}), file=sys.stderr)"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    imported = done.stderr.splitlines()[-1].split()
    assert imported[0] == "imported"
    # typer itself imports pydantic once a command is chosen.
    assert not set(imported) & {*HEAVY, *(["pydantic"] if command[0].startswith("--") else [])}


def test_every_command_of_the_design_is_there():
    said = headrace("--help").stdout
    for command in ("init", "plan", "run", "status", "why", "replay", "digest", "doctor"):
        assert f"\n  {command} " in said
        assert headrace(command, "--help").returncode == 0


def test_plan_prints_the_published_stages():
    done = headrace("plan", CRYSTALCODER)
    assert (done.returncode, done.stderr) == (0, "")
    assert "344.8 B tokens, 79,721 steps of 2,112 x 2,048" in done.stdout


def test_plan_as_json():
    told = json.loads(headrace("plan", CRYSTALCODER, "--json", "--set", "stages.stage1.train.batch=1056").stdout)
    assert [stage["steps"] for stage in told["stages"]] == [159_442, 214_387, 27_728, 1600]
    assert told["sources"][0]["basis"] == "expected"


def test_plan_of_a_cluster():
    said = headrace("plan", CRYSTALCODER, "--nodes", "8", "--cores", "32", "--storage", "s3").stdout
    assert "on 8 nodes of 32 cores, storage s3" in said
    told = json.loads(headrace("plan", CRYSTALCODER, "--json", "--nodes", "8").stdout)
    assert (told["cluster"]["nodes"], told["cluster"]["cores"], told["cluster"]["storage"]) == (8, 64, "shared")
    assert headrace("plan", CRYSTALCODER, "--nodes", "0").returncode == 2


def test_plan_imports_no_torch_and_no_numba():
    script = (
        "import sys\nfrom headrace.cli import main\nsys.argv[1:] = ['plan', "
        + repr(str(CRYSTALCODER))
        + ", '--nodes', '8']\n"
        "try:\n    main()\nexcept SystemExit:\n    pass\n"
        "assert not {'torch', 'numba', 'tokenizers'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", script], capture_output=True, check=True)


def test_user_errors_are_one_message_and_exit_code_2(tmp_path):
    done = headrace("plan", tmp_path / "nowhere.yaml")
    assert done.returncode == 2
    assert done.stdout == ""
    assert "Traceback" not in done.stderr
    assert done.stderr.splitlines()[0] == "The recipe does not exist."


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["no-such"], "no-such"),
        (["run"], "RECIPE"),
        (["run", CRYSTALCODER, "--memory", "4XB"], "4XB"),
        (["run", CRYSTALCODER, "--memory", "1MB"], "64 MB"),
        (["run", CRYSTALCODER, "--workers", "-1"], "workers"),
        (["plan", CRYSTALCODER, "--set", "seed"], "KEY=VALUE"),
        (["status", "/nowhere"], "recipe.yaml"),
        (["digest", "/nowhere"], "recipe.yaml"),
        (["why", "/nowhere", "0" * 32], "recipe.yaml"),
        (["why", "/nowhere"], "--text-file"),
        (["why", "/nowhere", "--text-file", "/nowhere/x"], "cannot be read"),
        (["replay", "/nowhere", "--stage", "s", "--step", "1"], "no such file"),
    ],
)
def test_wrong_arguments_exit_with_2(arguments, words):
    done = headrace(*arguments)
    assert done.returncode == 2
    assert words in done.stderr
    assert "Traceback" not in done.stderr


def test_init_writes_a_recipe_that_can_be_planned_and_keeps_an_old_one(tmp_path):
    done = headrace("init", tmp_path / "new")
    assert done.returncode == 0
    path = tmp_path / "new" / "recipe.yaml"
    assert str(path) in done.stdout
    assert headrace("plan", path).returncode == 0
    path.write_text("mine")
    again = headrace("init", tmp_path / "new")
    assert again.returncode == 2
    assert path.read_text() == "mine"
    (tmp_path / "file").write_text("")
    assert headrace("init", tmp_path / "file").returncode == 2


def test_doctor_tells_what_it_found(tmp_path):
    done = headrace("doctor", "--json", "--out", tmp_path)
    findings = {finding["name"]: finding for finding in json.loads(done.stdout)}
    assert findings["python"]["state"] == "good"
    assert {"headrace", "libraries", "cores", "memory", "disk", "kernel cache", "torch"} <= set(findings)
    assert all(finding["fix"] for finding in findings.values() if finding["state"] != "good")
    assert "good" in headrace("doctor", "--out", tmp_path).stdout


def test_doctor_finds_threads_beyond_cores(tmp_path):
    env = {**os.environ, "OMP_NUM_THREADS": "4096"}
    found = json.loads(headrace("doctor", "--json", "--out", tmp_path, env=env).stdout)
    assert any(f["state"] == "warn" and "OMP_NUM_THREADS" in f["value"] for f in found)


def test_a_reader_that_leaves_early_is_no_error():
    command = [sys.executable, "-c", "from headrace.cli import main; main()", "plan", str(CRYSTALCODER), "--json"]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    assert process.stdout is not None
    assert process.stderr is not None
    process.stdout.close()
    said = process.stderr.read()
    assert process.wait(timeout=120) == 141
    assert said == b""
    process.stderr.close()


@pytest.mark.parametrize("how", [signal.SIGINT, signal.SIGTERM])
def test_ctrl_c_ends_with_130_and_one_line(tmp_path, how):
    # A named pipe that nobody writes to keeps the command waiting for its recipe.
    os.mkfifo(tmp_path / "recipe.yaml")
    command = [sys.executable, "-c", "from headrace.cli import main; main()", "run", str(tmp_path / "recipe.yaml")]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    time.sleep(3)
    process.send_signal(how)
    _, said = process.communicate(timeout=60)
    assert process.returncode == 130
    assert "Traceback" not in said
    assert "again" in said


EVENTS = [
    {"event": "run", "workers": 2, "memory": 1, "version": "0"},
    {"event": "artifact", "artifact": "documents-1", "state": "started"},
    {"event": "phase", "artifact": "documents-1", "phase": "read", "tasks": 3, "done": 1, "taken": 0},
    {"event": "progress", "artifact": "documents-1", "phase": "read", "rows": 5, "bytes": 100},
    {"event": "task", "artifact": "documents-1", "phase": "read", "task": 1, "seconds": 1, "rows": 5, "bytes": 100},
    {"event": "died", "artifact": "documents-1", "phase": "read", "task": 2, "reason": "signal 9", "at": "a:3"},
    {"event": "artifact", "artifact": "documents-1", "state": "published", "seconds": 61.2, "rows": 1500, "bytes": 2e6},
    {"event": "artifact", "artifact": "verdicts-2", "state": "present"},
    {"event": "finished", "seconds": 70},
]


def test_plain_progress_is_a_line_for_what_matters():
    stream = io.StringIO()
    with Lines(stream) as lines:
        for event in EVENTS:
            lines(event)
    said = stream.getvalue().splitlines()
    assert len(said) == 3
    assert "signal 9" in said[0]
    assert "a:3" in said[0]
    assert said[1].split() == ["documents-1", "1,500", "rows,", "2.00", "MB,", "1", "min", "01", "s"]
    assert said[2].split() == ["verdicts-2", "up", "to", "date"]


def test_what_was_taken_over_is_told():
    stream = io.StringIO()
    with Lines(stream) as lines:
        lines(EVENTS[2] | {"taken": 1})
    assert stream.getvalue().split() == ["documents-1", *["read:", "1", "of", "3", "tasks", "reused"]]


def test_long_phases_are_heard_of():
    stream, now = io.StringIO(), iter(range(0, 1000, 20))
    with Lines(stream, clock=lambda: float(next(now))) as lines:
        for event in EVENTS[:4]:
            lines(event)
    assert "documents-1" in stream.getvalue()
    assert "read 1/3" in stream.getvalue()


def test_the_phase_at_work_is_followed():
    phases: dict[str, Phase] = {}
    seen = []
    for event in EVENTS:
        follow(phases, event)
        phase = next(iter(phases.values()), None)
        seen.append(None if phase is None else (phase.name, phase.done, phase.bytes))
    work = [("read", 1, 0), ("read", 1, 100), ("read", 2, 100), ("read", 2, 100)]
    assert seen == [None, None, *work, None, None, None]


def test_phases_of_two_artifacts_at_once_are_told_apart():
    phases: dict[str, Phase] = {}
    for artifact in ("measures-1", "duplicates-1"):
        follow(phases, {"event": "phase", "artifact": artifact, "phase": "p", "tasks": 4, "done": 0})
    for artifact in ("duplicates-1", "measures-1", "duplicates-1"):
        follow(phases, {"event": "task", "artifact": artifact})
    assert {name: phase.done for name, phase in phases.items()} == {"measures-1": 1, "duplicates-1": 2}
    follow(phases, {"event": "artifact", "artifact": "measures-1", "state": "published"})
    assert list(phases) == ["duplicates-1"]


def test_live_progress_draws_and_leaves_the_notices():
    from headrace.cli.progress import Bars

    class Terminal(io.StringIO):
        def isatty(self) -> bool:
            return True

    stream = Terminal()
    with Bars(stream) as bars:
        for event in EVENTS:
            bars(event)
    assert "1,500 rows" in stream.getvalue()
    assert notice(EVENTS[0]) is None


TRAINING = [
    {"event": "phase", "artifact": "model-one-1", "phase": "train", "tasks": 1, "done": 0, "taken": 0},
    *(
        {"event": "progress", "artifact": "model-one-1", "phase": "train", "rows": 4, "bytes": 0}
        | {"step": step, "steps": 200, "loss": loss}
        for step, loss in ((1, 9.1), (2, 8.4), (3, None))
    ),
]


def test_training_is_followed_step_by_step():
    stream, now = io.StringIO(), iter(range(0, 1000, 20))
    with Lines(stream, clock=lambda: float(next(now))) as lines:
        for event in TRAINING:
            lines(event)
    said = stream.getvalue().splitlines()
    assert "train step 1/200, loss 9.10" in said[1]
    assert "train step 2/200, loss 8.40, " in said[2]
    assert said[2].endswith("left")
    assert "loss" not in said[3]
    phases: dict[str, Phase] = {}
    for event in TRAINING:
        follow(phases, event)
    assert phases["model-one-1"].far == (3, 200)


@pytest.mark.parametrize("closed", [">&-", "2>&-", "<&-", "<&- >&- 2>&-"])
def test_streams_that_the_shell_closed(tmp_path, closed):
    shell = f'"$0" -m headrace path "$1" documents {closed}'
    environment = {**os.environ, "PYTHONPATH": str(ROOT / "src")}
    done = subprocess.run(
        ["sh", "-c", shell, sys.executable, tmp_path], capture_output=True, text=True, timeout=300, env=environment
    )
    assert done.returncode == 2
    assert "Traceback" not in done.stderr
    assert ("not a run folder" in done.stderr) == ("2>" not in closed)
