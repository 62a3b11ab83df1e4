"""Contamination: the best item, its share and place, benchmark files, limits, and the step through the real runner."""

from __future__ import annotations

import gzip
import json
import os
import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import measure_graph
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st
from measure_graph import Written, documents_batch, recipe_of
from test_contamination_kernels import grams

from headrace.documents.ids import content_id
from headrace.errors import UserError
from headrace.recipe.schema import Decontaminate
from headrace.select.contamination.benchmarks import Item, list_benchmarks, read_items
from headrace.select.contamination.index import build
from headrace.select.contamination.step import SCHEMA, Contamination, search
from headrace.select.verdicts.document_filters import contaminated

SOLUTION = "for number in sorted(numbers, key=lambda n: -n):\n    if number % 2 == 0:\n        total += number ** 2\n"


def found(items: dict[str, str], *texts: str, n: int = 3, code: bool = False, substring: bool = True) -> list[dict]:
    index = build([Item(name, {"solution": text}) for name, text in items.items()], n, code, substring)
    return search(documents_batch([{"text": text} for text in texts]), index).to_pylist()


def test_a_whole_field_is_found_with_its_place() -> None:
    document = "é header\n" + SOLUTION.upper().replace("\n", "\r\n\t") + "tail"
    (row,) = found({"b:1": SOLUTION, "b:2": "something else entirely"}, document)
    assert row["item"] == "b:1"
    assert (row["method"], row["field"]) == ("substring", "solution")
    assert document[row["start"] : row["end"]] == SOLUTION.upper().replace("\n", "\r\n\t").rstrip()
    assert (row["overlap"], row["matched"], row["ngrams"]) == (1.0, row["ngrams"], row["ngrams"])


def test_ngrams_are_found_when_the_text_is_reflowed() -> None:
    document = "before " + SOLUTION.replace(" % 2", " % two").replace("(", " (") + " after"
    (row,) = found({"b:1": SOLUTION}, document, code=True)
    units = {gram for gram, _, _ in grams(SOLUTION, 3, True)}
    held = {gram for gram, _, _ in grams(document, 3, True)} & units
    assert (row["method"], row["field"], row["matched"], row["ngrams"]) == ("ngram", None, len(held), len(units))
    assert row["overlap"] == len(held) / len(units)


def test_nothing_found_is_null() -> None:
    assert found({"b:1": SOLUTION}, "", "entirely different words here") == [dict.fromkeys(SCHEMA.names)] * 2


def test_the_larger_share_wins_then_the_first() -> None:
    items = {"b:long": "one two three four five six", "b:short": "one two three four", "b:same": "one two three four"}
    (row,) = found(items, "zero one two three four")
    assert (row["item"], row["overlap"]) == ("b:short", 1.0)


def test_the_place_is_the_tightest_one() -> None:
    text = "one two three four"
    (row,) = found({"b:1": text}, f"one two three x {text} y two three four")
    assert (row["start"], row["end"]) == (len("one two three x "), len("one two three x ") + len(text))


def test_short_items_are_found_by_no_substring() -> None:
    (row,) = found({"b:1": "return x + y"}, "def f(x, y):\n    return x + y\n", n=10)
    assert row["item"] is None


words = st.lists(st.sampled_from(["a", "b", "c", "d"]), max_size=12).map(" ".join)


@given(st.lists(words, min_size=1, max_size=4), st.lists(words, max_size=4))
def test_best_item_equals_python(fields: list[str], texts: list[str]) -> None:
    n = 2
    sets = [{gram for gram, _, _ in grams(field, n, False)} for field in fields]
    rows = found({f"b:{i}": field for i, field in enumerate(fields)}, *texts, n=n, substring=False)
    assert len(rows) == len(texts)
    for text, row in zip(texts, rows, strict=True):
        held = grams(text, n, False)
        common = [{gram for gram, _, _ in held} & of_item for of_item in sets]
        ranked = [(-len(c) / len(s), -len(c), i) for i, (c, s) in enumerate(zip(common, sets, strict=True)) if c]
        if not ranked:
            assert row["item"] is None
            continue
        _, matched, best = min(ranked)
        assert (row["item"], row["matched"], row["ngrams"]) == (f"b:{best}", -matched, len(sets[best]))
        edges = [(a, b) for g, a, _ in held if g in sets[best] for h, _, b in held if h in sets[best] and b > a]
        enough = [
            (b - a, a, b)
            for a, b in edges
            if {g for g, start, stop in held if start >= a and stop <= b} & sets[best] == common[best]
        ]
        assert row["end"] - row["start"] == min(enough)[0]
        assert (row["end"] - row["start"], row["start"], row["end"]) in enough


CONFIG: dict[str, Any] = {"benchmarks": {"b": {"files": ["*.jsonl"], "fields": ["prompt", "tests"]}}, "ngram": 3}


def write(folder: Path, name: str, rows: list[Any]) -> None:
    text = "".join(json.dumps(row) + "\n" for row in rows).encode()
    (folder / name).write_bytes(gzip.compress(text, mtime=0) if name.endswith(".gz") else text)


def items_of(**benchmark: Any) -> list[Item]:
    config = Decontaminate.model_validate({"benchmarks": {"b": {"fields": ["prompt"], **benchmark}}})
    return read_items(list_benchmarks(config), "nfc")


def test_items_are_read_from_every_format(tmp_path: Path) -> None:
    rows = [{"task_id": "T/1", "prompt": "p", "tests": ["x", "y"]}, {"prompt": "q", "tests": []}]
    write(tmp_path, "a.jsonl", rows)
    write(tmp_path, "b.jsonl.gz", rows)
    (tmp_path / "c.json").write_text(json.dumps(rows))
    pq.write_table(pa.Table.from_pylist(rows), tmp_path / "d.parquet")
    for name in ("a.jsonl", "b.jsonl.gz", "c.json", "d.parquet"):
        items = items_of(files=f"{tmp_path}/{name}", fields=["prompt", "tests"])
        assert items == [
            Item("b:T/1", {"prompt": "p", "tests": "x\ny"}),
            Item(f"b:{name}:2", {"prompt": "q", "tests": ""}),
        ]


def test_bad_benchmark_files_are_told(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"decontaminate\.benchmarks\.b\.files"):
        items_of(files=str(tmp_path / "none.jsonl"))
    write(tmp_path, "a.jsonl", [{"prompt": "p"}, {"prompt": 3}])
    with pytest.raises(UserError, match=r"(?s)no text in the field 'prompt'.*row 2"):
        items_of(files=str(tmp_path / "a.jsonl"))
    (tmp_path / "a.jsonl").write_text("{]\n")
    with pytest.raises(UserError, match="not JSON"):
        items_of(files=str(tmp_path / "a.jsonl"))
    (tmp_path / "a.jsonl").write_text("")
    with pytest.raises(UserError, match="has no items"):
        items_of(files=str(tmp_path / "a.jsonl"))
    (tmp_path / "a.txt").write_text("text")
    with pytest.raises(UserError, match="jsonl"):
        items_of(files=str(tmp_path / "a.txt"))


def test_a_changed_benchmark_is_another_artifact_and_never_mixed(tmp_path: Path) -> None:
    write(tmp_path, "a.jsonl", [{"prompt": "p", "tests": "t"}])
    section = {**CONFIG, "benchmarks": {"b": {"files": f"{tmp_path}/*.jsonl", "fields": ["prompt"]}}}
    recipe = recipe_of(decontaminate=section)
    before = Contamination.of(recipe, Written(1))
    relaxed = recipe_of(decontaminate={**section, "overlap": 0.9})
    assert Contamination.of(relaxed, Written(1)).identity == before.identity
    write(tmp_path, "a.jsonl", [{"prompt": "other", "tests": "t"}])
    assert Contamination.of(recipe, Written(1)).identity != before.identity
    assert replace(before, substring=False).identity != before.identity
    with pytest.raises(UserError, match="changed since"):
        _ = before.index


def test_limits_are_applied_to_rows() -> None:
    config = Decontaminate.model_validate({**CONFIG, "overlap": 0.5})
    base = {"item": "b:1", "matched": 5, "ngrams": 10, "start": 0, "end": 9}
    rows = [
        {**base, "method": "ngram", "overlap": 0.5},
        {**base, "method": "ngram", "overlap": 0.49},
        {**base, "method": "substring", "field": "prompt", "overlap": 0.0},
        {},
    ]
    verdicts = contaminated(pa.Table.from_pylist(rows, schema=SCHEMA), config)
    assert verdicts.reason.to_pylist() == ["contaminated", None, "contaminated", None]
    assert json.loads(verdicts.evidence[0].as_py()) == {**rows[0], "limit": 0.5}
    assert verdicts.evidence[1].as_py() is None


def test_the_step_is_aligned_and_the_same_for_any_workers(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PYTHONPATH", str(Path(__file__).parent), prepend=os.pathsep)
    write(tmp_path, "bench.jsonl", [{"task_id": 7, "prompt": SOLUTION, "tests": "assert nothing at all of it"}])
    config = {**CONFIG, "benchmarks": {"b": {"files": f"{tmp_path}/bench.jsonl", "fields": ["prompt", "tests"]}}}
    rows = [{"text": "nothing"}, {"text": ""}, {"text": f"x {SOLUTION}"}, {"text": "assert nothing at all"}] * 3
    runs = [measure_graph.coordinate(tmp_path / str(n), rows, recipe_of(decontaminate=config), n) for n in (1, 2)]
    artifact = runs[0]["contamination"]
    assert artifact.manifest.to_json() == runs[1]["contamination"].manifest.to_json()
    assert [s["rows"] for s in artifact.shards] == [s["rows"] for s in runs[0]["documents"].shards]
    table = pa.concat_tables(pq.read_table(artifact.shard_path(i)) for i in range(len(artifact.shards)))
    assert table["item"].to_pylist() == [None, None, "b:7", "b:7"] * 3
    assert table["method"].to_pylist() == [None, None, "substring", "ngram"] * 3


def test_humaneval_and_mbpp_find_themselves(shared: Path) -> None:
    folder = shared / "fixtures" / "benchmarks"
    benchmarks = {
        "humaneval": {"files": str(folder / "HumanEval.jsonl.gz"), "fields": ["prompt", "canonical_solution"]},
        "mbpp": {"files": str(folder / "mbpp.jsonl"), "fields": ["text", "code"]},
    }
    config = Decontaminate.model_validate({"benchmarks": benchmarks})
    items = read_items(list_benchmarks(config), "nfc")
    assert [items[0].name, items[163].name, items[164].name, len(items)] == [
        "humaneval:HumanEval/0",
        "humaneval:HumanEval/163",
        "mbpp:1",
        164 + 974,
    ]
    for code in (False, True):
        index = build(items, 10, code, False)
        texts = ["\n".join(item.fields.values()) for item in items]
        rows = search(documents_batch([{"text": f"# a file\n{text}\n"} for text in texts]), index).to_pylist()
        own = np.array([row["item"] == item.name for row, item in zip(rows, items, strict=True)])
        shares = np.array([row["overlap"] or 0.0 for row in rows])
        # Some items are the same text under two numbers, and some have fewer than ten words in all.
        assert own.mean() > 0.9
        assert (shares[index.sizes > 0] == 1.0).all()
    prose = [{"text": path.read_text()} for path in sorted((shared / "fixtures" / "text").glob("*.txt"))]
    clean = contaminated(search(documents_batch(prose), build(items, 10, False, True)), config)
    assert set(clean.reason.to_pylist()) == {None}
    renamed = re.sub(r"\bnumbers\b", "values", "\n".join(items[0].fields.values()))
    verdict = contaminated(search(documents_batch([{"text": renamed}]), build(items, 10, True, True)), config)
    assert json.loads(verdict.evidence[0].as_py())["item"] == "humaneval:HumanEval/0"


def test_golden_contamination() -> None:
    """If this fails and the change is meant, raise ``Contamination.VERSION`` and take the new digest over."""
    items = {"b:1": SOLUTION, "b:2": "the total of the numbers that are even, each times itself"}
    texts = [f"# {SOLUTION}", SOLUTION[10:], "the total of the numbers, each times itself", ""]
    values = [found(items, *texts, n=n, code=code) for n, code in ((3, False), (4, True))]
    assert (Contamination.VERSION, content_id(json.dumps(values).encode())) == (1, "39e3e57f3f3656ba3f8dbd1e9ca7a50e")
