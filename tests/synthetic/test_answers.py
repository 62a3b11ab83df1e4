"""Answers outlive kills, damage and other hands."""

from __future__ import annotations

import random

from model_server import completion

from headrace.synthetic import answers as module
from headrace.synthetic.answers import Answers


def key(number):
    return f"{number:016x}{number * 7:016x}"


def fill(path, numbers, text="answer"):
    with Answers(path) as answers:
        for number in numbers:
            answers.add({"key": key(number), "body": completion(f"{text} {number}").decode(), "seconds": 0.1})


def test_what_is_added_is_found_at_once_and_later(tmp_path):
    path = tmp_path / "a.jsonl"
    with Answers(path) as answers:
        answers.add({"key": key(5), "body": completion("five").decode(), "seconds": 1})
        assert answers.reply(key(5)).text == "five"
        assert answers.reply(key(6)) is None
    with Answers(path) as answers:
        assert answers.reply(key(5)).text == "five"


def test_a_torn_end_loses_that_line_only(tmp_path):
    path = tmp_path / "a.jsonl"
    fill(path, range(20))
    whole = path.read_bytes()
    for cut in random.Random(1).sample(range(1, len(whole)), 40):
        path.write_bytes(whole[:cut])
        complete = whole[:cut].count(b"\n")
        with Answers(path) as answers:
            assert [answers.reply(key(n)) is not None for n in range(20)] == [n < complete for n in range(20)]
            answers.add({"key": key(99), "body": completion("more").decode(), "seconds": 1})
        with Answers(path) as answers:
            assert answers.reply(key(99)).text == "more"


def test_damaged_lines_are_skipped(tmp_path):
    path = tmp_path / "a.jsonl"
    fill(path, range(20))
    rng = random.Random(2)
    lines = path.read_bytes().splitlines(keepends=True)
    hurt = set(rng.sample(range(20), 6))
    for number in hurt:
        data = bytearray(lines[number])
        at = rng.randrange(2, len(data) - 2)
        data[at] ^= 1 << rng.randrange(7)
        lines[number] = bytes(data).replace(b"\n", b"") + b"\n"
    path.write_bytes(b"".join(lines))
    with Answers(path) as answers:
        assert {n for n in range(20) if answers.reply(key(n)) is None} == hurt


def test_the_first_line_counts_and_recorded_files_come_before_the_journal(tmp_path):
    fill(tmp_path / "old.jsonl", [1, 2], "old")
    fill(tmp_path / "a.jsonl", [2, 3], "new")
    fill(tmp_path / "a.jsonl", [3], "again")
    with Answers(tmp_path / "a.jsonl", [tmp_path / "old.jsonl"]) as answers:
        assert [answers.reply(key(n)).text for n in (1, 2, 3)] == ["old 1", "old 2", "new 3"]


def test_places_move_into_arrays(tmp_path, monkeypatch):
    monkeypatch.setattr(module, "FOLD", 8)
    path = tmp_path / "a.jsonl"
    fill(path, range(100))
    with Answers(path) as answers:
        assert all(answers.reply(key(n)).text == f"answer {n}" for n in range(100))
        assert answers.reply(key(100)) is None


def test_foreign_lines_do_no_harm(tmp_path):
    from headrace.flow.journal import Journal

    path = tmp_path / "a.jsonl"
    journal = Journal(path)
    for entry in ({"key": "x" * 32}, {"key": 5}, {"key": "00"}, {"body": []}, {"key": key(1), "body": "<html>"},
                  {"key": key(2)}, {"trouble": {}}):  # fmt: skip
        journal.add(entry)
    journal.close()
    with Answers(path) as answers:
        assert "HTML" in answers.reply(key(1)).failed
        assert answers.reply(key(2)).failed == "None"
