"""The loss curve on a terminal."""

from __future__ import annotations

import io
import math
import re
from itertools import pairwise

import pytest

from headrace.cli.curve import COLUMNS, LINES, Curve
from headrace.cli.progress import Bars, Lines, drawing, follow, listener


def dots(lines: list[str]) -> list[list[int]]:
    """The rows of each dot column that are set, from the top."""
    found: list[list[int]] = [[] for _ in range(2 * COLUMNS)]
    for i, line in enumerate(lines):
        for j, char in enumerate(line.split("┤")[1]):
            for row, pair in enumerate(((1, 8), (2, 16), (4, 32), (64, 128))):
                for side, bit in enumerate(pair):
                    if ord(char) - 0x2800 & bit:
                        found[2 * j + side].append(4 * i + row)
    return found


@pytest.mark.parametrize("steps", [2, 7, 132, 100_000])
def test_a_falling_loss_falls_from_the_top_to_the_bottom_without_gaps(steps):
    curve = Curve(steps)
    for step in range(1, steps + 1):
        curve.add(step, 10 * math.exp(-4 * step / steps))
    lines = curve.lines()
    assert len(lines) == LINES
    assert max(map(len, lines)) <= 80
    columns = [column for column in dots(lines) if column]
    assert columns[0][0] == 0
    assert columns[-1][-1] == 4 * LINES - 1
    for left, right in pairwise(columns):
        assert left[-1] <= right[-1]
        assert right[0] <= left[-1] + 1, "no gap"
        assert right == list(range(right[0], right[-1] + 1))


@pytest.mark.parametrize("losses", [[], [3.0], [None, math.nan, math.inf], [2.0, 2.0, 2.0, 2.0]])
def test_there_may_be_little_to_draw(losses):
    curve = Curve(4)
    for step, loss in enumerate(losses, 1):
        curve.add(step, loss)
    assert bool(curve.lines()) == (len(losses) == 4)


def told(view, steps: int = 40) -> None:
    with view:
        view({"event": "phase", "artifact": "model-one-0", "phase": "train", "tasks": 1, "done": 0})
        for step in range(1, steps + 1):
            event = {"event": "progress", "artifact": "model-one-0", "rows": 4, "bytes": 0}
            view({**event, "step": step, "steps": steps, "loss": 5 - step / steps})
        if isinstance(view, Bars):
            view._live.refresh()
        view({"event": "finished"})


@pytest.mark.parametrize(
    ("columns", "lines", "drawn"), [(200, 60, True), (80, 24, True), (40, 12, True), (24, 24, False), (80, 8, False)]
)
def test_a_terminal_shows_the_curve_where_there_is_room(monkeypatch, columns, lines, drawn):
    monkeypatch.setenv("COLUMNS", str(columns))
    monkeypatch.setenv("LINES", str(lines))
    monkeypatch.setenv("TERM", "xterm")

    class Terminal(io.StringIO):
        encoding = "utf-8"

        def isatty(self) -> bool:
            return True

    stream = Terminal()
    told(Bars(stream))
    said = stream.getvalue()
    assert bool(re.search("[\u2801-\u28ff]{4}", said)) == drawn
    assert "40/40" in said


@pytest.mark.parametrize("utf", [True, False])
@pytest.mark.parametrize("width", [12, 20, 40, 60, 80, 100, 200])
@pytest.mark.parametrize("height", [5, 12, 24, 50])
def test_what_is_drawn_fits_any_terminal_and_says_how_far_it_is(width, height, utf):
    phases: dict = {}
    for name in ("documents-0123abcd", "model-stage1-0123abcd"):
        follow(phases, {"event": "phase", "artifact": name, "phase": "train", "tasks": 3, "done": 1})
    for step in range(300, 6001, 300):
        event = {"event": "progress", "artifact": "model-stage1-0123abcd", "rows": 4, "bytes": 0}
        follow(phases, {**event, "step": step, "steps": 12_000, "loss": 1e6 / step})
    lines = drawing(phases, width, height, utf)
    assert len(lines) <= max(2, height - 4)
    assert max(map(len, lines)) < width
    assert utf or all(line.isascii() for line in lines)
    assert "1/3" in lines[0]
    assert width < 20 or "6,000/12,000" in lines[1]
    assert width < 40 or "model-stage1" in lines[1]
    assert (len(lines) > 2) == (utf and width >= 40 and height >= 12)


def test_a_terminal_that_cannot_move_its_cursor_gets_lines(monkeypatch):
    class Terminal(io.StringIO):
        def isatty(self) -> bool:
            return True

    for term, kind in (("dumb", Lines), ("xterm", Bars)):
        monkeypatch.setenv("TERM", term)
        assert isinstance(listener(Terminal()), kind)
    assert isinstance(listener(io.StringIO()), Lines)


def test_a_log_has_plain_lines():
    stream, seconds = io.StringIO(), iter(range(0, 10_000, 10))
    told(Lines(stream, clock=lambda: float(next(seconds))))
    lines = stream.getvalue().splitlines()
    assert lines
    assert all(line.isascii() and "step" in line and "loss" in line for line in lines)
