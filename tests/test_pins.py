"""The pins that make an installation the same everywhere."""

from __future__ import annotations

import re
from pathlib import Path

CONSTRAINTS = Path(__file__).parents[1] / "constraints.txt"


def test_every_line_pins_one_release():
    lines = CONSTRAINTS.read_text().split()
    assert all(re.fullmatch(r"[A-Za-z0-9._-]+==[0-9][A-Za-z0-9.]*", line) for line in lines), lines
    names = [line.split("==")[0].lower() for line in lines]
    assert len(set(names)) == len(names)
    assert "headrace" not in names
    assert "torch==2.13.0" in lines
