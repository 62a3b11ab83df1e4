"""JSON Lines of packed rows: the published sample, and lines that are something else."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

import headrace
from headrace.errors import UserError
from headrace.formats import packed_jsonl
from headrace.formats.opening import open_files
from headrace.run_folder import stage_sequence


def test_crystalchats_published_rows_are_a_sequence(shared, tmp_path):
    path = shared / "fixtures/crystalcoder/crystalchat_packed_sample.jsonl"
    lines = [json.loads(line) for line in path.read_text().splitlines()]
    sequence = open_files(path)
    assert (len(sequence), sequence.seq_len) == (100, 2048)
    assert sequence.rows(0, 100).tolist() == [line["token_ids"] + line["label_ids"][-1:] for line in lines]
    assert (sequence.targets(0, 100) == np.array([line["loss_mask"] for line in lines])).all()
    # A stage trains on them.
    stage = {"name": "chat", "sequence": str(path)}
    recipe = headrace.Recipe(name="chat", tokenizer={"ids": 32032}, stages=[stage])
    headrace.run(recipe, tmp_path / "run", workers=0)
    ours = stage_sequence(tmp_path / "run", "chat")
    assert (ours.targets(0, 100) == sequence.targets(0, 100)).all()
    assert (ours.rows(0, 100) == sequence.rows(0, 100)).all()


GOOD = {"token_ids": [1, 2, 3], "loss_mask": [0, 1, 1], "label_ids": [2, 3, 4]}


def save(path: Path, *lines: object) -> Path:
    path.write_text("\n".join(line if isinstance(line, str) else json.dumps(line) for line in lines))
    return path


def test_lines_end_in_any_way_and_blank_ones_do_not_count(tmp_path, monkeypatch):
    monkeypatch.setattr(packed_jsonl, "CHUNK", 7)
    good = json.dumps(GOOD)
    path = tmp_path / "rows.jsonl"
    path.write_bytes(f"\n{good}\r\n\r\n  \n{good}\n\n{good}".encode())
    sequence = open_files(path)
    assert sequence.rows(0, 3).tolist() == [[1, 2, 3, 4]] * 3
    assert sequence.targets(0, 3).tolist() == [[False, True, True]] * 3
    assert len(open_files(save(tmp_path / "empty.jsonl", ""))) == 0
    # A label without loss may be anything.
    masked = {**GOOD, "label_ids": [9, 3, 4]}
    assert open_files(save(tmp_path / "masked.jsonl", masked)).rows(0, 1).tolist() == [[1, 2, 3, 4]]


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ("{", "not JSON"),
        ("[1, 2]", "no object"),
        ({"text": "a document"}, "no list of integers token_ids"),
        ({**GOOD, "token_ids": [1.5, 2, 3]}, "no list of integers token_ids"),
        ({**GOOD, "token_ids": "123"}, "no list of integers token_ids"),
        ({**GOOD, "token_ids": [[1, 2], [3]]}, "no list of integers token_ids"),
        ({**GOOD, "token_ids": [None, 2, 3]}, "no list of integers token_ids"),
        ({**GOOD, "token_ids": [2**63, 2, 3]}, "no list of integers token_ids"),
        ({**GOOD, "label_ids": [2, 3]}, "2 label_ids, where 3"),
        ({"token_ids": [1, 2], "loss_mask": [1, 1], "label_ids": [2, 3]}, "2 token_ids, where 3"),
        ({**GOOD, "loss_mask": [0, 2, 1]}, "other values than 0 and 1"),
        ({**GOOD, "label_ids": [2, 9, 4]}, "position 1"),
        ({**GOOD, "token_ids": [-1, 2, 3]}, "is negative"),
        ({**GOOD, "label_ids": [2, 3, 2**40]}, "beyond the largest id"),
    ],
)
def test_a_line_that_is_something_else_is_named(tmp_path, line, words):
    sequence = open_files(save(tmp_path / "rows.jsonl", GOOD, line, GOOD))
    with pytest.raises(UserError) as error:
        sequence.rows(0, 3)
    assert words in str(error.value)
    assert "Row 1 " in str(error.value)
    assert sequence.rows(2, 3).tolist() == [[1, 2, 3, 4]]


def test_a_line_too_long_is_not_read(tmp_path, monkeypatch):
    monkeypatch.setattr(packed_jsonl, "MOST_LINE", 70)
    with pytest.raises(UserError, match="more than"):
        open_files(save(tmp_path / "rows.jsonl", GOOD, json.dumps(GOOD) + " " * 80)).rows(1, 2)
