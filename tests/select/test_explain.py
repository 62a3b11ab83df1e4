"""Explanations: single documents, texts outside a run, nearest documents, and two texts side by side."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import measure_graph
import pytest
from hypothesis import given
from hypothesis import strategies as st
from measure_graph import recipe_of

from headrace.recipe.schema import Near, Recipe
from headrace.select.duplicates.jaccard import text_jaccard
from headrace.select.why.explain import compare_texts, explain_pair, explain_row, explain_text
from headrace.select.why.nearest import nearest
from headrace.select.why.side_by_side import MOST_LINES, compare, render

PROSE = "The channel carries the water of the river to the wheel of the mill, and the wheel turns the stone.\n"
ITEM = "Write a function that opens every second gate of the channel and closes all the others again."
ROWS = [
    {"text": PROSE * 5, "source": "s"},
    {"text": (PROSE * 5).replace("river", "brook"), "source": "s"},
    {"text": "short", "source": "s"},
    {
        "text": f"# solution to an exercise\n# {ITEM}\n" + "x = 1\n" * 40,
        "source": "s",
        "path": "a.py",
        "meta": '{"a": 1}',
    },
]


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> tuple[Recipe, dict[str, Any]]:
    folder = tmp_path_factory.mktemp("explain")
    (folder / "bench.jsonl").write_text(json.dumps({"task_id": 1, "text": ITEM}) + "\n")
    recipe = recipe_of(
        filters={"short": {}, "code": {}},
        deduplicate={"near": {"threshold": 0.5, "verify": True}},
        decontaminate={"benchmarks": {"b": {"files": f"{folder}/bench.jsonl", "fields": "text"}}},
        split={"validation": 0, "check": None},
    )
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PYTHONPATH", str(Path(__file__).parent), prepend=os.pathsep)
        return recipe, measure_graph.coordinate(folder / "run", ROWS, recipe)


def test_a_row_is_explained_rule_by_rule(made: tuple[Recipe, dict[str, Any]]) -> None:
    recipe, artifacts = made
    told = explain_row(recipe, artifacts, 2)
    assert told["document"]["source"] == "s"
    assert told["document"]["characters"] == 5
    assert told["verdict"] == {
        "keep": False,
        "reason": "short",
        "evidence": {"clean_length": 5, "limit": 200},
        "split": "train",
    }
    assert told["pair"] is None
    assert told["decisions"][0] == {
        "reason": "short",
        "measured": {"clean_length": 5},
        "limit": 200,
        "removes": True,
    }
    assert {d["reason"] for d in told["decisions"]} >= {"filter:max_line", "contaminated"}
    json.dumps(told)


def test_a_duplicate_is_shown_beside_the_kept_document(made: tuple[Recipe, dict[str, Any]]) -> None:
    recipe, artifacts = made
    told = [explain_row(recipe, artifacts, row) for row in (0, 1)]
    (lost,) = [t for t in told if t["verdict"]["reason"] == "duplicate"]
    assert lost["pair"] == explain_pair(
        artifacts["documents"], lost["document"]["row"], lost["verdict"]["evidence"]["kept_row"], Near(threshold=0.5)
    )
    assert lost["pair"]["jaccard"] == pytest.approx(lost["verdict"]["evidence"]["jaccard"], abs=1e-6)
    assert lost["decisions"][-1]["removes"]
    assert lost["decisions"][-1]["measured"]["size"] == 2


def test_contamination_shows_the_place(made: tuple[Recipe, dict[str, Any]]) -> None:
    recipe, artifacts = made
    told = explain_row(recipe, artifacts, 3)
    decision = told["decisions"][-2]
    assert (decision["reason"], decision["removes"], decision["measured"]["item"]) == ("contaminated", True, "b:1")
    assert decision["excerpt"] == ITEM
    assert told["document"]["meta"] == {"a": 1}


def test_a_text_is_judged_as_its_row_was(made: tuple[Recipe, dict[str, Any]]) -> None:
    recipe, artifacts = made
    for row in (2, 3):
        within = explain_row(recipe, artifacts, row)["decisions"]
        outside = explain_text(recipe, ROWS[row]["text"], "s", ROWS[row].get("path"))
        assert outside["decisions"] == within[:-1]
        assert outside["nearest"] is None
    unnamed = explain_text(recipe, "short")
    assert {d["reason"] for d in unnamed["decisions"]} >= {"short", "filter:max_line"}


def test_a_text_is_changed_by_maps_as_it_would_be_when_it_is_read(tmp_path: Path) -> None:
    code = """
def shorter(document):
    if "bad" in document.text:
        raise ValueError("no such text")
    return document.text.removeprefix("HEADER ")
"""
    own = {"python": "shorter", "code": code}
    recipe = recipe_of(filters={"short": {}}, documents={"map": [{**own, "sources": ["s"]}]})
    assert explain_text(recipe, "HEADER text", "s", run=tmp_path)["document"]["characters"] == 4
    assert explain_text(recipe, "HEADER text", run=tmp_path)["document"]["characters"] == 11
    everywhere = recipe_of(documents={"map": [own]})
    assert explain_text(everywhere, "HEADER text", run=tmp_path)["document"]["characters"] == 4
    told = explain_text(recipe, "a bad text", "s", "a.txt", run=tmp_path)["quarantined"]
    assert "no such text" in told["error"]
    assert (told["file"], told["line"], told["excerpt"]) == ("a.txt", 1, "a bad text")


def test_a_text_finds_its_nearest_documents(made: tuple[Recipe, dict[str, Any]]) -> None:
    recipe, artifacts = made
    told = explain_text(recipe, ROWS[1]["text"], documents=artifacts["documents"])
    first, second = told["nearest"]
    assert (first["row"], first["exact"], first["jaccard"], first["agrees"]) == (1, True, 1.0, True)
    assert (second["row"], second["exact"]) == (0, False)
    assert second["jaccard"] == text_jaccard(ROWS[0]["text"], ROWS[1]["text"], 13, "characters")
    assert told["document"]["id"] == first["id"]
    documents = artifacts["documents"]
    assert [n.row for n in nearest(ROWS[1]["text"], documents, Near(), not_row=1)] == [0]
    assert nearest("", documents, Near()) == []
    assert nearest("\u4e00" * 40, documents, Near()) == []


def test_a_pair_side_by_side(made: tuple[Recipe, dict[str, Any]]) -> None:
    pair = explain_pair(made[1]["documents"], 0, 1, Near())
    assert pair["jaccard"] == text_jaccard(ROWS[0]["text"], ROWS[1]["text"], 13, "characters")
    assert not pair["same_cleaned"]
    assert [row["mark"] for row in pair["rows"]] == ["|"] * 5
    assert compare_texts("A b!", "a  B", Near()) | {"rows": []} == {"jaccard": 1.0, "same_cleaned": True, "rows": []}


lines = st.lists(st.sampled_from(["a", "b", "", "c d"]), max_size=12)


@given(lines, lines)
def test_comparison_holds_both_texts(left: list[str], right: list[str]) -> None:
    rows = compare("\n".join(left), "\n".join(right), None)
    assert [row.left for row in rows if row.left_line is not None] == "\n".join(left).splitlines()
    assert [row.right for row in rows if row.right_line is not None] == "\n".join(right).splitlines()
    for row in rows:
        assert (row.mark == "=") == (row.left_line is not None and row.right_line is not None and row.left == row.right)
    shown = compare("\n".join(left), "\n".join(right), 1)
    left_out = sum(int(row.left) for row in shown if row.mark == "…")
    assert len([row for row in shown if row.mark != "…"]) + left_out == len(rows)
    assert [row for row in shown if row.mark not in "=…"] == [row for row in rows if row.mark != "="]


def test_rendering() -> None:
    left = "\n".join(["same"] * 9 + ["old line", "only left"])
    right = "\n".join(["same"] * 9 + ["new\tline that is much longer than the column"])
    assert render(compare(left, right, 1), 40).splitlines() == [
        "… 8 equal lines",
        " 9 same               9 same",
        "10 old line        | 10 new line that i",
        "                   |    s much longer t",
        "                   |    han the column",
        "11 only left       <",
    ]
    assert render([], 80) == ""


def test_long_texts_are_compared_in_time() -> None:
    left = "\n".join(str(i % 7) for i in range(3 * MOST_LINES))
    right = "\n".join(str(i % 5) for i in range(3 * MOST_LINES))
    assert len(compare(left, right, None)) == 3 * MOST_LINES
