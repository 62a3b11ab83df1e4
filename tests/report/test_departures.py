"""What a recipe expects, and where a run departs from it: while it goes, at its end, in status and report."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from typer.testing import CliRunner

from headrace import pipeline
from headrace.cli.app import app
from headrace.errors import UserError
from headrace.flow.events import read_events
from headrace.recipe.load import load_recipe
from headrace.recipe.schema import Recipe
from headrace.report.departures import departures, expects
from headrace.report.facts import SourceFacts
from headrace.report.found_counts import found_counts
from headrace.report.gather import gather
from headrace.report.page import page
from headrace.report.summary import summary
from quick import examples


def recipe_of(expect: dict[str, Any], **sources: dict[str, Any]) -> Recipe:
    files = {name: {"files": "x", "expect": rates} for name, rates in sources.items()} or {"a": {"files": "x"}}
    return load_recipe({"name": "r", "sources": files, "expect": expect})


def facts(name: str, documents: int, quarantined: int = 0, **more: Any) -> SourceFacts:
    return SourceFacts(name, 1, documents, 10 * documents, 10 * documents, quarantined, **more)


RANGE = st.tuples(st.floats(0, 1), st.floats(0, 1)).map(sorted)


@settings(max_examples=examples(100))
@given(
    amounts=st.lists(st.tuples(*[st.integers(0, 20)] * 5), min_size=2, max_size=2),
    quarantined=RANGE,
    kept=RANGE,
    short=RANGE,
    everything=RANGE,
    density=RANGE,
)
def test_every_rate_is_compared(
    amounts: list[tuple[int, ...]], quarantined: Any, kept: Any, short: Any, everything: Any, density: Any
) -> None:
    rates = {
        "quarantined": quarantined,
        "kept": kept,
        "removed": {"short": short, "all": everything},
        "tokens_per_byte": density,
    }
    sources, sums = [], [0] * 6
    for name, (k, s, d, bad, tokens) in zip("ab", amounts, strict=True):
        removed = {reason: n for reason, n in (("short", s), ("duplicate", d)) if n}
        sources.append(facts(name, k + s + d, bad, kept=k, removed=removed, tokens=tokens, stored_bytes=20))
        sums = [a + b for a, b in zip(sums, (k + s + d, bad, k, s, s + d, tokens), strict=True)]

    def expected(place: str, total: list[int], text: int) -> list[str]:
        documents, bad, k, s, gone, tokens = total
        parts = [
            ("quarantined", bad, documents + bad, quarantined),
            ("kept", k, documents, kept),
            ("removed.short", s, documents, short),
            ("removed.all", gone, documents, everything),
            ("tokens_per_byte", tokens, text, density),
        ]
        return [f"{place}.{key}:" for key, n, of, (low, high) in parts if of and not low <= n / of <= high]

    k, s, d, bad, tokens = amounts[1]
    recipe = recipe_of(rates, a={}, b=rates)
    said = departures(recipe, sources)
    assert [text.split(" ")[0] for text in said] == [
        *expected("expect", sums, 40),
        *expected("sources.b.expect", [k + s + d, bad, k, s, s + d, tokens], 20),
    ]


def test_the_sentences() -> None:
    recipe = recipe_of({"removed": {"duplicate": [0.05, 0.2]}, "tokens_per_byte": [0.2, 0.25]})
    source = facts("a", 1000, kept=688, removed={"duplicate": 312}, tokens=30, stored_bytes=100)
    assert departures(recipe, [source]) == [
        "expect.removed.duplicate: 31.2 % of the documents are removed as duplicate, expected 5 % to 20 %.",
        "expect.tokens_per_byte: 0.3 tokens per byte of text, expected 0.2 to 0.25.",
    ]


def test_what_is_not_known_yet_departs_from_nothing() -> None:
    recipe = recipe_of({"kept": [1, 1], "removed": {"all": [0.9, 1]}, "tokens_per_byte": [9, 9]})
    assert departures(recipe, []) == []
    assert departures(recipe, [facts("a", 10)]) == []
    assert departures(recipe, [facts("a", 10, kept=9, removed={"short": 1})]) != []
    assert not expects(recipe_of({"stop": True}, a={"tolerance": 0.5}))


AMOUNT = st.none() | st.integers(0, 30)


@settings(max_examples=examples(200))
@given(
    found=st.tuples(*[st.integers(0, 20)] * 3),
    expected=st.tuples(*[AMOUNT] * 9),
    tolerance=st.sampled_from([0.0, 0.1, 1.0]),
)
def test_every_count_is_compared(found: tuple[int, ...], expected: tuple[int | None, ...], tolerance: float) -> None:
    kept, short, copies = found
    removed = {reason: n for reason, n in (("short", short), ("duplicate", copies)) if n}
    source = facts(
        "a",
        sum(found),
        kept=kept,
        removed=removed,
        removed_bytes={reason: 10 * n for reason, n in removed.items()},
        lengths=[sum(found)],
        tokens=2 * kept,
    )
    there = {
        "documents": sum(found),
        "bytes": 10 * sum(found),
        "cleaned.kept.documents": kept,
        "cleaned.kept.bytes": 10 * kept,
        "cleaned.duplicate.documents": copies,
        "cleaned.duplicate.bytes": 10 * copies,
        "cleaned.short.documents": short,
        "cleaned.short.bytes": 10 * short,
        "tokens": 3 * kept,
    }
    asked = {key: n for key, n in zip(there, expected, strict=True) if n is not None}
    expect: dict[str, Any] = {"tolerance": tolerance}
    for key, n in asked.items():
        section = expect
        *above, last = key.split(".")
        for name in above:
            section = section.setdefault(name, {})
        section[last] = n
    recipe = recipe_of({}, a=expect)
    assert expects(recipe) == bool(asked)
    assert {(c.key, c.found, c.expected) for c in found_counts(recipe, [source])} == {
        (key, there[key], n) for key, n in asked.items()
    }
    departed = {key for key, n in asked.items() if abs(there[key] - n) > tolerance * n}
    said = departures(recipe, [source])
    assert {text.split(":")[0] for text in said} == {f"sources.a.expect.{key}" for key in departed}
    for text in said:
        key = text.split(":")[0].removeprefix("sources.a.expect.")
        assert f": {there[key]} " in text
        assert f"expected {asked[key]} (" in text


def test_counts_that_are_not_known_yet_are_not_compared() -> None:
    recipe = recipe_of({}, a={"tokens": 9, "bytes": 9, "cleaned": {"kept": {"documents": 1, "bytes": 1}}})
    keys = [count.key for count in found_counts(recipe, [facts("a", 10)])]
    assert keys == ["bytes"]
    later = [count.key for count in found_counts(recipe, [facts("a", 10, kept=3)])]
    assert later == ["bytes", "cleaned.kept.documents"]


@pytest.mark.parametrize(
    ("expect", "message"),
    [
        ({"kept": [0.5, 0.2]}, "is not a range"),
        ({"kept": [-0.5, 0.2]}, "is not a range"),
        ({"quarantined": [0, 5]}, "is not a share"),
        ({"removed": {"duplicates": [0, 1]}}, "never removed as 'duplicates'"),
        ({"removed": {"filter:max_lin": [0, 1]}}, "Did you mean 'filter:max_line'"),
    ],
)
def test_expectations_that_make_no_sense_are_told(expect: dict[str, Any], message: str) -> None:
    for write in (lambda: recipe_of(expect), lambda: recipe_of({}, a=expect)):
        with pytest.raises(UserError) as caught:
            write()
        assert message in f"{caught.value.what} {caught.value.fix}"


@pytest.fixture
def write(tmp_path: Path) -> Callable[..., Path]:
    """Writes a recipe over ten documents of which four are short and one is a copy, and two bad rows."""
    texts = [f"{i} " + "the mill race carries water " * 20 for i in range(5)]
    rows = [json.dumps({"text": text}) for text in [*texts, texts[0], *"abcd"]] + ["oops", "{"]
    (tmp_path / "a.jsonl").write_text("\n".join(rows))

    def recipe(expect: dict[str, Any], counts: dict[str, Any] | None = None) -> Path:
        data = {
            "name": "r",
            "sources": {"a": {"files": "a.jsonl", "expect": counts}},
            "documents": {"max_quarantined": 0.5},
            "filters": {"short": {}},
            "deduplicate": {"near": None},
            "split": {"validation": 0},
            "expect": expect,
        }
        path = tmp_path / "recipe.yaml"
        path.write_text(json.dumps(data))
        return path

    return recipe


EXPECT = {"quarantined": [0, 0.01], "removed": {"short": [0.3, 0.5], "duplicate": [0.2, 0.3]}}
SAID = [
    "expect.quarantined: 16.7 % of the records cannot be read, expected 0 % to 1 %.",
    "expect.removed.duplicate: 10 % of the documents are removed as duplicate, expected 20 % to 30 %.",
]


def test_a_run_says_where_it_departs(write: Callable[..., Path], tmp_path: Path) -> None:
    out = tmp_path / "run"
    report = pipeline.run(load_recipe(write(EXPECT)), out, workers=0)
    events = list(read_events(out))
    assert [event["text"] for event in events if event["event"] == "notice"] == SAID
    published = [i for i, e in enumerate(events) if e["event"] == "artifact" and e["state"] == "published"]
    assert events[published[0] + 1]["text"] == SAID[0], "as soon as it is known"
    assert report is not None
    known = gather(out)
    assert known.departures == SAID
    assert all(text in " ".join(summary(known).split()) for text in SAID)
    assert "expected 20 % to 30 %" in page(known)
    told = CliRunner().invoke(app, ["status", str(out), "--json"])
    assert json.loads(told.stdout)["departures"] == SAID
    assert "Departures from the recipe's expectations" in CliRunner().invoke(app, ["status", str(out)]).stdout


def test_a_run_stops_where_it_departs_if_it_is_to(write: Callable[..., Path], tmp_path: Path) -> None:
    out = tmp_path / "run"
    with pytest.raises(UserError, match=r"cannot be read, expected 0 % to 1 %") as caught:
        pipeline.run(load_recipe(write({**EXPECT, "stop": True})), out, workers=0)
    assert "expect.stop" in caught.value.fix
    assert all(line.startswith("  ") for line in str(caught.value).splitlines()[1:]), "a line each"
    names = {path.name.partition("-")[0] for path in (out / "artifacts").iterdir()}
    assert names == {"documents"}, "nothing is made after what departs"
    # What was made stays, and a wider range goes on with it.
    wider = {"quarantined": [0, 0.2], "removed": {"duplicate": [0, 0.3]}, "stop": True}
    assert pipeline.run(load_recipe(write(wider)), out, workers=0) is not None
    assert gather(out).departures == []
    made = [e for e in read_events(out) if e["event"] == "artifact" and e["artifact"].startswith("documents-")]
    assert made[-1]["state"] == "present"


COUNTS = {
    "documents": 10,
    "cleaned": {"kept": {"documents": 5, "bytes": 2_000}, "short": {"documents": 6}, "duplicate": {"bytes": 0}},
}


def test_a_run_compares_the_counts_of_each_source(write: Callable[..., Path], tmp_path: Path) -> None:
    out, size = tmp_path / "run", len("0 " + "the mill race carries water " * 20)
    text = size - 1  # a document's last space is not part of it
    report = pipeline.run(load_recipe(write({}, COUNTS)), out, workers=0)
    assert report is not None
    known = gather(out)
    kept = next(count.found for count in known.counts if count.key == "cleaned.kept.bytes")
    assert 5 * text <= kept <= 5 * size
    said = [
        f"sources.a.expect.cleaned.kept.bytes: {kept:,} bytes kept, expected 2,000 ({kept / 20 - 100:+.3g} %).",
        "sources.a.expect.cleaned.short.documents: 4 documents removed as short, expected 6 (-33.3 %).",
        f"sources.a.expect.cleaned.duplicate.bytes: {kept // 5} bytes removed as duplicate, expected 0 (none "
        "expected).",
    ]
    assert known.departures == said
    assert [event["text"] for event in read_events(out) if event["event"] == "notice"] == said
    lines = [" ".join(line.split()) for line in summary(known).splitlines()]
    assert "a documents 10 10 +0 %" in lines
    assert "a documents kept 5 5 +0 %" in lines
    assert "a documents removed as short 4 6 -33.3 %" in lines
    assert "Expected counts" in page(known)
    told = json.loads(CliRunner().invoke(app, ["status", str(out), "--json"]).stdout)
    assert told["departures"] == said, "status reads the lengths too"
    with pytest.raises(UserError, match="expected 6"):
        pipeline.run(load_recipe(write({"stop": True}, COUNTS)), tmp_path / "again", workers=0)


def test_counts_of_parts_that_do_not_exist_are_told() -> None:
    with pytest.raises(UserError, match="Cleaning has no part 'keep'") as caught:
        recipe_of({}, a={"cleaned": {"keep": {"documents": 1}}})
    assert "Did you mean 'kept'" in caught.value.fix
