"""Hits: every item in a contaminated document, beside the item's text."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import measure_graph
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st
from measure_graph import documents_batch, recipe_of
from test_contamination import SOLUTION, words, write
from test_contamination_kernels import grams

from headrace.recipe.schema import Shapes
from headrace.select.contamination.benchmarks import Item
from headrace.select.contamination.hits import CONTEXT, SCHEMA, every_hit
from headrace.select.contamination.index import build
from headrace.select.contamination.step import search

RENAMED = "for n in sorted(values, key=lambda v: -v):\n  # even\n  if (n % 7 == 1):\n    result += n ** 3\n"


def hits(items: list[Item], *texts: str, n: int = 3, shapes: Shapes | None = None, overlap: float = 0.5) -> list[dict]:
    batch = documents_batch([{"text": text} for text in texts])
    return [{**hit, "at": d} for d, hit in every_hit(batch, build(items, n, False, True, shapes), overlap, 0.8)]


def test_all_items_are_listed_with_their_text() -> None:
    other = "the sum of the squares of all the even numbers among those that are given"
    items = [
        Item("b:1", {"solution": SOLUTION}),
        Item("b:2", {"question": other, "answer": "12"}),
        Item("c:1", {"solution": "nothing alike at all in here"}),
    ]
    text = "é" * 300 + "\n" + SOLUTION + "\n" + other.replace("squares", "cubes") + "tail " * 800
    first, second = hits(items, "clean", text)
    assert (first["item"], first["method"], first["field"], first["text"]) == ("b:1", "substring", "solution", SOLUTION)
    assert text[first["start"] : first["end"]] == SOLUTION.rstrip()
    assert first["context"] == text[first["context_start"] : first["context_start"] + CONTEXT]
    assert (second["item"], second["method"], second["at"]) == ("b:2", "ngram", 1)
    assert second["text"] == f"{other}\n12"
    assert text[second["start"] : second["end"]].startswith("the sum of the")


def test_a_program_under_other_names_is_listed_with_the_program() -> None:
    items = [Item(f"b:{i}", {"question": "?"}, programs={"program": SOLUTION}) for i in range(2)]
    found = hits(items, f"def f():\n{RENAMED}", shapes=Shapes(ngram=5, least=5))
    assert [(hit["item"], hit["method"], hit["text"]) for hit in found] == [
        ("b:0", "shape", SOLUTION),
        ("b:1", "shape", SOLUTION),
    ]
    assert found[0]["context"][found[0]["start"] : found[0]["end"]] in f"def f():\n{RENAMED}"


@given(st.lists(words, min_size=1, max_size=4), st.lists(words, max_size=4), st.sampled_from([0.3, 0.5, 1.0]))
def test_items_by_ngrams_equal_python(fields: list[str], texts: list[str], overlap: float) -> None:
    sets = [{gram for gram, _, _ in grams(field, 2, False)} for field in fields]
    found = hits([Item(f"b:{i}", {"f": field}) for i, field in enumerate(fields)], *texts, n=2, overlap=overlap)
    expected = [
        (d, f"b:{i}", len(common))
        for d, text in enumerate(texts)
        for i, of_item in enumerate(sets)
        if (common := {gram for gram, _, _ in grams(text, 2, False)} & of_item)
        and len(common) >= overlap * len(of_item)
    ]
    assert [(hit["at"], hit["item"], hit["matched"]) for hit in found] == expected
    index = build([Item(f"b:{i}", {"f": field}) for i, field in enumerate(fields)], 2, False, True)
    best = search(documents_batch([{"text": text} for text in texts]), index).to_pylist() if texts else []
    for d, row in enumerate(best):
        of_document = [hit for hit in found if hit["at"] == d and hit["item"] == row["item"]]
        assert [(hit["start"], hit["end"]) for hit in of_document] == (
            [(row["start"], row["end"])] if row["item"] and row["overlap"] >= overlap else []
        )


def test_the_step_lists_what_is_removed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PYTHONPATH", str(Path(__file__).parent), prepend=os.pathsep)
    write(
        tmp_path,
        "bench.jsonl",
        [{"task_id": 7, "prompt": SOLUTION}, {"task_id": 8, "prompt": "one two three four five"}],
    )
    benchmark: dict[str, Any] = {"files": f"{tmp_path}/bench.jsonl", "fields": "prompt", "code": "prompt"}
    config = {"benchmarks": {"b": benchmark}, "ngram": 3, "shapes": {"ngram": 5, "least": 5}}
    rows = [
        {"text": "nothing"},
        {"text": f"x {SOLUTION} two three four five"},
        {"text": RENAMED},
        {"text": "one two three"},
    ]
    runs = [measure_graph.coordinate(tmp_path / str(n), rows * 2, recipe_of(decontaminate=config), n) for n in (1, 2)]
    artifact = runs[0]["hits"]
    assert artifact.manifest.to_json() == runs[1]["hits"].manifest.to_json()
    table = pa.concat_tables(pq.read_table(artifact.shard_path(i)) for i in range(len(artifact.shards)))
    assert table.schema == SCHEMA
    told = list(zip(*(table[name].to_pylist() for name in ("row", "item", "method")), strict=True))
    assert told == [(r + base, *rest) for base in (0, 4) for r, *rest in
                    ((1, "b:7", "substring"), (1, "b:8", "ngram"), (2, "b:7", "shape"))]  # fmt: skip
    assert artifact.manifest.counts == {"documents": 4, "hits": 6}
    assert json.loads(json.dumps(table["text"].to_pylist()[0])) == SOLUTION
