"""What the journals of finished tasks say, whatever became of them."""

from __future__ import annotations

import random

import orjson
import pytest
import toy_graph
from test_damaged_runs import attempt, contents, prepare

from headrace.flow.journal import read_journal
from headrace.flow.markers import mend, open_journal, read_markers
from headrace.flow.plans import write_plan
from headrace.flow.step import topological
from headrace.flow.storage import write_sealed
from headrace.flow.task import TaskContext


def marker(number: int) -> dict:
    return {"result": {"rows": number, "what": "é\u202e" * number}, "files": [{"name": f"shards/{number}"}]}


@pytest.fixture
def ctx(tmp_path):
    return TaskContext(tmp_path, toy_graph.Numbers(shards=5))


def test_the_last_word_on_a_task_counts(ctx):
    assert ctx.done("write") == set()
    ctx.mark_done("write", {task: marker(task) for task in (3, 0, 1)})
    ctx.mark_undone("write", 0)
    ctx.mark_undone("write", 1)
    ctx.mark_done("write", {1: marker(7)})
    assert ctx.done("write") == {1, 3}
    ctx.close()
    found = read_markers(ctx.journal("write"))
    assert list(found.read([3, 1])) == [marker(3), marker(7)]
    assert not found.damaged
    with pytest.raises(KeyError):
        list(found.read([0]))


def test_all_markers_are_read_in_the_order_of_the_tasks(ctx):
    write_plan(ctx.plan("write"), [{}] * 5)
    with pytest.raises(KeyError):
        ctx.markers("write")
    order = [3, 1, 4, 0, 2]
    for task in order[:4]:
        ctx.mark_done("write", {task: marker(task)})
    with pytest.raises(KeyError):
        ctx.results("write")
    ctx.mark_done("write", {2: marker(2)})
    assert ctx.markers("write") == [marker(task) for task in range(5)]
    assert [result["rows"] for result in ctx.results("write")] == [0, 1, 2, 3, 4]
    write_plan(ctx.plan("none"), [])
    assert ctx.markers("none") == []


def test_a_line_cut_short_anywhere_costs_that_task_only(ctx):
    path = ctx.journal("write")
    ctx.mark_done("write", {task: marker(task) for task in range(3)})
    ctx.close()
    whole = path.read_bytes()
    start = whole.rindex(b"\n", 0, -1) + 1
    for length in range(start, len(whole)):
        path.unlink()
        path.write_bytes(whole[:length])
        found = read_markers(path)
        missing = {2} if length < len(whole) - 1 else set()  # only the line feed is missing
        assert (found.tasks, found.damaged) == ({0, 1, 2} - missing, False)
        open_journal(path).close()
        assert path.read_bytes() == whole[: start if missing else None]
        ctx.mark_done("write", {task: marker(task) for task in missing})
        ctx.close()
        assert path.read_bytes() == whole


def test_any_changed_bit_costs_one_task_or_two_and_is_mended(ctx):
    path, rng = ctx.journal("write"), random.Random(0)
    ctx.mark_done("write", {task: marker(task) for task in range(4)})
    ctx.close()
    whole = path.read_bytes()
    for bit in rng.sample(range(8 * len(whole)), 200):
        data = bytearray(whole)
        data[bit // 8] ^= 1 << bit % 8
        path.write_bytes(data)
        found = read_markers(path)
        assert 2 <= len(found.tasks) < 4
        assert list(found.read(sorted(found.tasks))) == [marker(task) for task in sorted(found.tasks)]
        mend(path)
        assert sorted(entry["task"] for entry in read_journal(path)) == sorted(found.tasks)
        assert not read_markers(path).damaged


def test_what_an_earlier_version_left_unfinished_is_done_again(tmp_path):
    """It had a folder for each phase, with a file for each task."""
    attempt(prepare(tmp_path / "other"))
    run = prepare(tmp_path / "run")
    with pytest.raises(KeyboardInterrupt):
        attempt(run, phases=3)
    for partial in (run / "artifacts").glob("*.partial"):
        for journal in [*(partial / "done").iterdir()]:
            folder = journal.with_suffix("")
            folder.mkdir()
            for entry in read_journal(journal):
                write_sealed(folder / f"{entry.pop('task'):05d}.json", entry)
            write_sealed(folder / "taken.json", {"tasks": {}})
            journal.unlink()
    attempt(run)
    assert contents(run) == contents(tmp_path / "other")


def test_the_journal_of_a_phase_is_its_only_file_of_markers(tmp_path):
    run = prepare(tmp_path / "run")
    with pytest.raises(KeyboardInterrupt):
        attempt(run, phases=3)
    shuffled = topological(toy_graph.targets(run))[-1]
    ctx = TaskContext(run, shuffled)
    assert [path.name for path in (ctx.folder / "done").iterdir()] == ["partition.jsonl"]
    assert ctx.done("partition") == {0, 1, 2}
    first = orjson.loads(ctx.journal("partition").read_bytes().splitlines()[0])
    assert list(first) == ["task", "result", "files", "sum"]
