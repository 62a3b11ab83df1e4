"""Long texts in the report: which results are taken, the curve, the heat maps."""

from __future__ import annotations

import itertools
import json
import math
import os
import xml.etree.ElementTree as ET
from dataclasses import replace

import pytest
from run_facts import facts

from headrace.errors import UserError
from headrace.evaluate.needle import DEPTHS
from headrace.evaluate.positions import edges
from headrace.report.charts.canvas import NARROW, WIDTH
from headrace.report.charts.positions import positions_chart
from headrace.report.long_facts import Bin, Cell, Curve, LongFacts, long_facts
from headrace.report.page import page

EVIL = "<script>&\"'"


def write(run, stage, name, settings, summary, at):
    folder = run / "evaluations" / stage / name
    folder.mkdir(parents=True)
    (folder / "settings.json").write_text(json.dumps(settings))
    (folder / "summary.json").write_text(json.dumps(summary))
    os.utime(folder / "summary.json", (at, at))


def by_position(length, loss):
    cuts = edges(length)
    bins = [{"first": a, "last": b - 1, "loss": loss, "error": 0.1} for a, b in itertools.pairwise(cuts)]
    return {"length": length, "documents": 3, "long_enough": 3, "read": 9, "positions": bins}


def settings(model, length, texts="t"):
    return {"model": model, "texts": texts, "length": length}


def test_results_on_the_same_texts_are_taken(tmp_path):
    rows = {"base": 64, "long": 512, "gone": 9}
    assert long_facts(tmp_path, rows) == LongFacts()
    write(tmp_path, "base", "loss-by-position-1", settings("a", 512), by_position(512, 5.0), 10)
    write(tmp_path, "base", "loss-by-position-0", settings("b", 512), by_position(512, 6.0), 20)  # trained again
    write(tmp_path, "base", "loss-by-position-2", settings("b", 2048), by_position(2048, 7.0), 30)
    write(tmp_path, "long", "loss-by-position-3", settings("c", 512), by_position(512, 4.0), 5)
    write(tmp_path, "removed", "loss-by-position-4", settings("d", 512), by_position(512, 3.0), 40)
    (tmp_path / "evaluations" / "long" / "loss-by-position-9").mkdir()  # not finished
    cell = {"length": 100, "depth": 0.5, "exact": 0.25, "first": None, "loss": 3.0, "without": 9.0}
    asked = {"model": "c", "texts": "t", "lengths": [100], "trials": 4, "seed": 1, "prompt": {}}
    write(tmp_path, "long", "needle-1", asked, {"trials": 4, "chance": 0.1, "cells": [cell]}, 1)
    found = long_facts(tmp_path, rows)
    assert {stage: curve.bins[0].loss for stage, curve in found.curves.items()} == {"base": 6.0, "long": 4.0}
    assert found.curves["long"].row == 512
    assert found.curves["long"].bins[-1].last == 512
    assert found.needles == {"long": [Cell(**cell)]}
    assert found.trials == 4


@pytest.mark.parametrize("summary", ["{", "[]", "{}", '{"positions": [{}], "documents": 1}'])
def test_damaged_results_are_told(tmp_path, summary):
    write(tmp_path, "base", "loss-by-position-1", settings("a", 512), {}, 10)
    (tmp_path / "evaluations" / "base" / "loss-by-position-1" / "summary.json").write_text(summary)
    with pytest.raises(UserError, match="damaged"):
        long_facts(tmp_path, {"base": 64})


def curve(row, length, loss=5.0, error: float | None = 0.1):
    cuts = edges(length)
    pairs = itertools.pairwise(cuts)
    return Curve(row, 7, [Bin(a, b - 1, loss / (1 + math.log2(a)), error) for a, b in pairs])


@pytest.mark.parametrize("width", [WIDTH, NARROW])
@pytest.mark.parametrize(
    "curves",
    [
        {"base": curve(256, 2048), EVIL: curve(2048, 2048, 4.0)},
        {"one": curve(4, 1)},
        {"far": curve(1 << 20, 1 << 20, error=None)},
        {"flat": Curve(8, 1, [Bin(1, 1, 2.0, None), Bin(2, 2, 2.0, 0.0)])},
    ],
)
def test_the_curve_is_drawn_within_its_frame(curves, width):
    root = ET.fromstring(positions_chart(curves, width).inline("chart"))
    _, _, wide, tall = map(float, root.get("viewBox").split())
    for node in root.iter():
        for name, most in (("x", wide), ("x1", wide), ("x2", wide), ("y", tall), ("y1", tall), ("y2", tall)):
            if node.get(name) is not None:
                assert 0 <= float(node.get(name)) <= most
    said = " ".join("".join(node.itertext()) for node in root.iter())
    for name in curves:
        assert f"after {name}" in said


def test_the_page_shows_curve_and_heat_maps():
    cells = [
        Cell(length, depth, depth, None if length > 100 else 0.5, 3.0, 3.0 + 10 * depth)
        for length in (100, 1000)
        for depth in DEPTHS
    ]
    told = LongFacts({"base": curve(256, 2048)}, {"base": cells, EVIL: cells}, 8)
    html = page(replace(facts(), long=told))
    assert 'id="long"' in html
    assert "After base: keys written" in html
    assert "h8" in html
    assert EVIL not in html
    assert 'id="long"' not in page(facts())
