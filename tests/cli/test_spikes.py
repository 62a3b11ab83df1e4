"""What `headrace spikes` and `headrace ledger` print."""

from __future__ import annotations

import unicodedata

from headrace.cli.ledger import render as ledger
from headrace.cli.spikes import ROWS, SHOWN, render
from headrace.train.consumption import FATES

HOSTILE = "\x1b]0;OWNED\x07\x1b[2J\u202egnp\u200b\n  leave_out: [[0, 9]]"


def unseen(text: str) -> set[str]:
    return {c for c in text if c != "\n" and unicodedata.category(c) in ("Cc", "Cf", "Cs", "Zl", "Zp")}


def test_hostile_text_stays_within_its_line_and_long_text_is_shortened():
    segment = {"source": HOSTILE, "origin": HOSTILE, "text": HOSTILE + "x" * 500, "loss": None}
    about = {"loss": None, "targets": None, "sources": [HOSTILE], "segments": [segment]}
    seen = [{"row": row, **about} for row in range(40, 40 + ROWS + 3)]
    spike = {"step": 9, "rows": [40, 50], "reason": "loss", "action": "skip", "loss": 9.5, "grad_norm": None}
    said = render(
        {"stage": "one", "spikes": [{**spike, "sources": {HOSTILE: 9.5}, "seen": seen}], "leave_out": [[40, 50]]}
    )
    assert not unseen(said)
    assert [line for line in said.splitlines() if "leave_out" in line and "\u2410" not in line][
        -1
    ] == "  leave_out: [[40, 50]]"
    assert sum(line.strip().startswith("leave_out") for line in said.splitlines()) == 1
    assert "gradient norm not finite" in said
    assert "x" * (SHOWN + 1) not in said
    assert "and 3 more rows" in said


def test_a_sequence_that_was_replaced_has_no_text():
    spike = {"step": 0, "rows": [0, 3], "reason": "not finite", "action": "rollback", "loss": None, "grad_norm": 1.0}
    said = render({"stage": "one", "spikes": [{**spike, "sources": {}, "seen": None}], "leave_out": [[0, 3]]})
    assert "replaced" in said
    assert "rolled back" in said


def test_a_ledger_shows_only_fates_that_there_are():
    entry = {"sequence": 10, **dict.fromkeys(FATES, 0), "trained": 7, "skipped": 3, "epochs": 1.0, "repeated": None}
    stage = {
        "stage": HOSTILE,
        "state": "underway",
        "step": 1,
        "steps": 2,
        "trajectories": ["a"],
        "rows": dict.fromkeys(FATES, 0),
        "replaced": None,
        "recorded": 2,
        "sources": {HOSTILE: entry},
    }
    told = {
        "stages": [{**stage, "checked": True, "wrong": []}, {"stage": "two", "state": "missing"}],
        "sources": {HOSTILE: entry},
        "total": {key: entry[key] for key in ("sequence", *FATES)},
    }
    said = ledger(told)
    assert not unseen(said)
    assert "skipped" in said.splitlines()[0]
    assert "left out" not in said.splitlines()[0]
    assert "two: its sequence is not built yet" in said
