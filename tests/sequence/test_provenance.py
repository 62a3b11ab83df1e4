"""Replay and its inverse: what was in a row, and where a document went."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from small_build import CHANGED, Sequence, build, engine_of, of_stage, stage

from headrace.documents.store import fetch
from headrace.recipe.stages import Stage
from headrace.sequence.provenance import beside, find_rows, replay_rows
from headrace.sequence.store import ArrowSequence


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> tuple[ArrowSequence, Sequence]:
    step = of_stage(Stage.model_validate(CHANGED[0]))
    return build(tmp_path_factory.mktemp("run"), step), step


def test_a_step_is_told_as_the_model_saw_it(built: tuple[ArrowSequence, Sequence]) -> None:
    sequence, step = built
    documents, engine = beside(sequence, "documents"), engine_of(sequence, step)
    loss = sequence.loss(0, len(sequence))
    kinds = set()
    for number in range(40):
        rows = replay_rows(sequence, documents, engine, number * 8, number * 8 + 8)
        assert [row.row for row in rows] == list(range(number * 8, number * 8 + 8))
        for row in rows:
            assert row.tokens == sequence.rows(row.row, row.row + 1)[0].tolist()
            assert sum(s.length for s in row.segments) == 65
            carried = {i for s in row.segments for a, b in s.loss for i in range(a, b)}
            assert carried == {i for i in range(1, 65) if loss[row.row, i]}
            for s in row.segments:
                kinds.add(s.kind)
                assert s.document is not None
                fact = fetch(documents, [s.document]).to_pylist()[0]
                assert (s.id, s.source, s.license) == (fact["id"], fact["source"], fact["license"])
                assert s.origin == f"{fact['origin_file']}:{fact['origin_row']}"
                if s.kind == "plain":
                    whole = (fact["text"] + "<|endoftext|>").encode()
                    text = whole[s.offset : s.offset + s.length]  # every byte is a token here
                    ends = s.offset + s.length > len(fact["text"].encode())
                    assert s.text == (whole[s.offset :] if ends else text).decode("utf-8", errors="replace")
        json.dumps([row.to_json() for row in rows])
    assert kinds == {"plain", "fim-psm", "fim-spm", "chat"}


def test_padding(tmp_path: Path) -> None:
    step = of_stage(stage(pack={"method": "best_fit"}))
    sequence = build(tmp_path, step)
    rows = replay_rows(sequence, beside(sequence, "documents"), engine_of(sequence, step), 0, len(sequence))
    assert len(rows) == len(sequence)
    padded = [row.segments[-1] for row in rows if row.segments[-1].kind == "padding"]
    assert padded
    assert all(s.source is None and s.loss == [] and s.text == "<|pad|>" * s.length for s in padded)


def test_where_a_document_went_is_where_replay_finds_it(built: tuple[ArrowSequence, Sequence]) -> None:
    sequence, _ = built
    wanted: dict[int, list[tuple[int, ...]]] = {}
    for row in range(len(sequence)):
        for s in sequence.segments(row):
            place = (row, int(s["start"]), int(s["length"]), int(s["offset"]), int(s["epoch"]))
            wanted.setdefault(int(s["row"]), []).append(place)
    for document in list(wanted)[:50]:
        found = find_rows(sequence, document)
        assert [(p.row, p.start, p.length, p.offset, p.epoch) for p in found] == wanted[document]
    dropped = next(row for row in range(10**6) if row not in wanted)
    assert find_rows(sequence, dropped) == []
