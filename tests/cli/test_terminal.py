"""Nothing of a hostile corpus, its names or a hostile recipe is obeyed by a terminal, whichever command is asked."""

from __future__ import annotations

import ast
import json
import os
import pty
import subprocess
import sys
import unicodedata
from pathlib import Path

import pytest

from headrace.cli import progress

SOURCES = Path(__file__).parents[2] / "src" / "headrace"
HOSTILE = (
    "\x1b]0;OWNED\x07\x1b[31mred\x1b[2J \x9b31m \u202egnp.exe\u2066\u200b\ufeff\x7f [red]markup[/red]\r\n  fix:   x"
)
# Colours, moves of the cursor and lines that are cleared are what the live progress itself writes.
NAME = "h\x1b[31mos\u202etile [red]\n.jsonl"
RECIPE = {
    "name": "hostile",
    "sources": {"one": {"files": ["h*.jsonl"], "license": HOSTILE}, "two": {"files": ["two.jsonl"]}},
    "filters": {"short": {"min_characters": 100}},
    "deduplicate": {},
    "split": {"validation": 0.1},
    "documents": {"max_quarantined": 0.5},
    "tokenizer": {"train": {"vocab_size": 600}},
    "stages": [{"name": "s", "sequence_length": 64, "sources": {"one": {}, "two": {}}, "train": {"batch": 2}}],
}


def headrace(*arguments: object, cwd: Path) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "headrace", *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, timeout=300, cwd=cwd)


def unseen(text: str) -> set[str]:
    return {char for char in text if char != "\n" and unicodedata.category(char) in ("Cc", "Cf", "Cs", "Zl", "Zp")}


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("hostile")
    texts = [f"{HOSTILE} number {i} " + " ".join(f"word{i}x{k}" for k in range(60)) for i in range(20)]
    rows = [{"text": text, "license": HOSTILE, "repo": HOSTILE, "path": HOSTILE, HOSTILE: HOSTILE} for text in texts]
    rows += [{"text": f"short {HOSTILE}"}, {"text": texts[3]}, {"text": texts[4] + " and a little more"}]
    data = "".join(json.dumps(row) + "\n" for row in rows)
    (folder / NAME).write_text(data + f'{{"text": "{HOSTILE.strip()}\n', encoding="utf-8")
    more = [{"text": text.replace("word", f"noun{i}y")} for i, text in enumerate(texts)]
    (folder / "two.jsonl").write_text(data + "".join(json.dumps(row) + "\n" for row in more))
    (folder / "recipe.yaml").write_text(json.dumps(RECIPE))  # JSON is YAML
    return folder


@pytest.fixture(scope="module")
def run(folder) -> Path:
    done = headrace("run", "recipe.yaml", "--out", "run", "--workers", 1, cwd=folder)
    assert done.returncode == 0, done.stderr
    assert not unseen(done.stdout + done.stderr)
    return folder / "run"


@pytest.mark.parametrize(
    "arguments",
    [
        ["status", "run"],
        ["ledger", "run"],
        ["spikes", "run"],
        ["digest", "run"],
        ["plan", "recipe.yaml", "--out", "run"],
        *(["why", "run", f"row:{row}"] for row in (0, 1, 20, 21, 22, 23, 45)),
        *(["why", "run", f"row:{row}", "--full"] for row in (21, 22, 45)),
        ["why", "run", f"one:{NAME}:2"],
        ["why", "run", f"one:{NAME}:999"],
        ["why", "run", HOSTILE],
        ["why", "run", "--text-file", NAME],
        ["replay", "run", "--stage", "s", "--step", "1"],
        ["replay", "run", "--stage", "s", "--step", "1", "--full"],
    ],
)
@pytest.mark.parametrize("form", [[], ["--json"]])
def test_no_command_prints_what_a_terminal_obeys(folder, run, command, monkeypatch, arguments, form):
    monkeypatch.chdir(folder)
    done = command(*arguments, *form)
    assert not unseen(done.stdout + done.stderr)
    assert done.returncode in (0, 2)
    assert "Traceback" not in done.stderr
    if form and done.returncode == 0:
        json.loads(done.stdout)


@pytest.mark.parametrize(
    "arguments",
    [
        [HOSTILE],
        ["status", HOSTILE],
        ["plan", HOSTILE],
        ["run", "recipe.yaml", "--until", HOSTILE],
        ["run", "recipe.yaml", "--memory", HOSTILE],
        ["plan", "recipe.yaml", "--set", f"{HOSTILE}=1"],
        ["plan", "recipe.yaml", "--set", f"name={json.dumps(HOSTILE)}"],
        ["plan", "recipe.yaml", "--set", f"sources.one={json.dumps({HOSTILE: HOSTILE})}"],
        ["plan", "recipe.yaml", "--set", f"sources.one.files={json.dumps(HOSTILE)}"],
        ["plan", "recipe.yaml", "--set", f"sources.{HOSTILE}={json.dumps({'files': 'two.jsonl'})}"],
        ["replay", "run", "--stage", HOSTILE, "--step", "1"],
        ["replay", "run", "--stage", "s", "--step", HOSTILE],
        ["init", NAME],
        ["status", "run", HOSTILE],
    ],
)
def test_no_mistake_is_told_with_what_a_terminal_obeys(folder, run, command, monkeypatch, arguments):
    monkeypatch.chdir(folder)
    done = command(*arguments)
    assert not unseen(done.stdout + done.stderr)
    assert done.returncode == 2, done.stdout + done.stderr
    assert "\n  fix:   x" not in done.stderr


def test_fields_are_told_without_what_a_terminal_obeys(folder, run):
    text = f"sources.one.text={json.dumps(HOSTILE)}"
    done = headrace("run", "recipe.yaml", "--out", "other", "--workers", 1, "--set", text, cwd=folder)
    assert not unseen(done.stdout + done.stderr)
    assert done.returncode == 2


def test_names_that_are_no_utf8_are_shown_too(command):
    done = command("status", os.fsdecode(b"caf\xe9"))
    assert done.returncode == 2
    assert "caf<U+DCE9>" in done.stderr


def test_pages_and_logs_hold_nothing_unseen(run):
    paths = [run / "events.jsonl", *(run / "report").iterdir(), *(run / "logs").iterdir()]
    assert not any(unseen(path.read_text(encoding="utf-8")) - {"\t"} for path in paths)


def test_live_progress_obeys_nothing_of_the_corpus(folder, run):
    """On a terminal of its own, where bars are drawn and colours are used."""
    ours, theirs = pty.openpty()
    command = [sys.executable, "-m", "headrace", "run", "recipe.yaml", "--out", "live", "--workers", "1"]
    process = subprocess.Popen(command, stdout=theirs, stderr=theirs, cwd=folder, close_fds=True)
    os.close(theirs)
    said = b""
    while True:
        try:
            block = os.read(ours, 1 << 16)
        except OSError:  # the other end is closed
            break
        if not block:
            break
        said += block
    assert process.wait(timeout=300) == 0
    text = said.decode()
    assert "\x1b]" not in text  # titles and clipboards
    assert "\x1b[2J" not in text
    assert not unseen(text) - {"\x1b", "\r"}
    assert "hos" not in text or "\x1b[31m" not in text


def test_commands_print_through_one_door():
    for path in sorted(SOURCES.rglob("*.py")):
        if path.name in (
            "terminal.py",
            "document.py",
            "reference.py",
        ):  # the door; and programs that write pages of the docs
            continue
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            called = ast.unparse(node.func) if isinstance(node, ast.Call) else ""
            assert called not in ("typer.echo", "typer.secho", "sys.stdout.write", "sys.stderr.write"), path
            assert called != "print" or "visible(" in ast.unparse(node), path


def test_a_task_that_counts_its_own_steps_tells_rate_note_and_the_time_left(monkeypatch):
    clock = [100.0]
    monkeypatch.setattr(progress.time, "monotonic", lambda: clock[0])
    phases: progress.Phases = {}
    progress.follow(
        phases, {"event": "phase", "artifact": "synthetic-hq-1", "phase": "generate", "tasks": 1, "done": 0}
    )
    about = {"event": "progress", "artifact": "synthetic-hq-1", "rows": 1, "bytes": 0, "steps": 100}
    progress.follow(phases, {**about, "step": 20, "note": "3 at once"})  # resumed: these were there already
    clock[0] += 10
    progress.follow(phases, {**about, "step": 40, "note": "8 at once, 0.21 dollars"})
    said = phases["synthetic-hq-1"].reached()
    assert "40/100" in said
    assert "2/s, 8 at once, 0.21 dollars" in said
    assert "30 s left" in said
