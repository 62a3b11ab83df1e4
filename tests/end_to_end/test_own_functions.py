"""Functions of the user's own, written outside the package and named in a recipe, as a stranger would."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
from small_run import published

from commands import headrace
from quick import quick

MEASURES = """\
from words import RARE

def fertility(document, level=1) -> float:
    '''Characters a word.'''
    return level * len(document.text) / len(document.text.split())

def rare(document) -> bool:
    if "17" in document.text:
        raise ValueError(f"row {document.meta['n']} is not counted")
    return any(word in RARE for word in document.text.split())
"""
RECIPE = {
    "name": "own",
    "sources": {"docs": {"files": "docs.jsonl"}},
    "documents": {"max_quarantined": 0.2},
    "measures": {
        "fertility": {"python": "code/measures.py:fertility", "with": {"level": 2}},
        "rare": {"python": "code/measures.py:rare"},
    },
    "filters": {"rules": [{"keep": "fertility < 12 and language == 'en' or rare", "name": "plain"}]},
}


def write(folder: Path, code: str = MEASURES, **changes: Any) -> Path:
    """A corpus, code and a recipe."""
    (folder / "code").mkdir(parents=True, exist_ok=True)
    (folder / "code" / "measures.py").write_text(code)
    (folder / "code" / "words.py").write_text("RARE = {'word9'}\n")
    rows = [
        {"text": f"a{'b' * (n % 9)} word{n} number {n}", "language": "en" if n % 4 else None, "n": n} for n in range(60)
    ]
    (folder / "docs.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    (folder / "recipe.yaml").write_text(json.dumps({**RECIPE, **changes}))
    return folder / "recipe.yaml"


def artifacts(run: Path) -> dict[str, str]:
    return {path.name.rpartition("-")[0]: path.name for path in (run / "artifacts").iterdir()}


def reasons(run: Path) -> dict[int, str | None]:
    """Row of the file -> reason."""
    folder = run / "artifacts"
    verdicts = pq.read_table(folder / artifacts(run)["verdicts"] / "00000.parquet")
    rows = pq.read_table(folder / artifacts(run)["documents"] / "00000.parquet").column("origin_row")
    return dict(zip(rows.to_pylist(), verdicts.column("reason").to_pylist(), strict=True))


def expected() -> dict[int, str | None]:
    told: dict[int, str | None] = {}
    for n in range(60):
        text = f"a{'b' * (n % 9)} word{n} number {n}"
        plain = 2 * len(text) / 4 < 12 and n % 4 != 0
        told[n] = "failed:rare" if "17" in text else None if plain or n == 9 else "filter:plain"
    return told


@pytest.fixture(scope="module")
def done(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("own")
    headrace("run", write(folder), "--out", folder / "run", "--workers", 1)
    return folder


def test_documents_are_kept_by_rules_over_own_measures(done: Path) -> None:
    run = done / "run"
    assert reasons(run) == expected()
    assert {"measure-fertility", "measure-rare"} <= set(artifacts(run))
    assert "measures" not in artifacts(run)  # no rule asks for headrace's own
    told = headrace("why", run, "docs:docs.jsonl:17").stdout
    assert "failed:rare" in told
    assert "ValueError: row 17 is not counted (measures.py, line 9, in rare: raise ValueError" in told
    assert str(done) not in told
    told = headrace("why", run, "docs:docs.jsonl:34").stdout
    assert "removes  filter:plain: fertility 12.5, language en, rare False, limit fertility < 12" in told
    plan = headrace("plan", done / "recipe.yaml", "--out", run).stdout
    assert f"measures.fertility: measures.py:fertility, {done}/code/measures.py" in plan


def test_the_same_bytes_elsewhere_and_with_more_workers(done: Path, tmp_path: Path) -> None:
    headrace("run", write(tmp_path / "moved"), "--out", tmp_path / "run", "--workers", 3)
    assert published(tmp_path / "run") == published(done / "run")


def test_only_what_changed_is_redone(done: Path) -> None:
    run = done / "run"
    before = artifacts(run)

    def made(recipe: Path) -> set[str]:
        headrace("run", recipe, "--out", run, "--workers", 1, "--until", "verdicts")
        events = [json.loads(line) for line in (run / "events.jsonl").read_text().splitlines()]
        last = max(i for i, event in enumerate(events) if event["event"] == "run")
        return {e["artifact"].rpartition("-")[0] for e in events[last:] if e.get("state") == "published"}

    assert made(write(done, filters={"rules": [{"keep": "fertility < 14 or rare", "name": "plain"}]})) == {"verdicts"}
    fewer = {"fertility": {**RECIPE["measures"]["fertility"], "with": {"level": 3}}, "rare": RECIPE["measures"]["rare"]}
    assert made(write(done, measures=fewer)) == {
        "measure-fertility",
        "verdicts",
    }
    (done / "code" / "words.py").write_text("RARE = {'word10'}\n")
    assert made(done / "recipe.yaml") == {"measure-fertility", "measure-rare", "verdicts"}
    write(done)
    assert made(done / "recipe.yaml") == set()
    assert artifacts(run)["documents"] == before["documents"]
    headrace("status", run)


WRONG = {
    "import": ("import nowhere_at_all\n" + MEASURES, "No module named 'nowhere_at_all'", True),
    "exit at import": ("import os\nos._exit(5)\n" + MEASURES, "exited with code 5", True),
    "parameter": (MEASURES.replace("level=1", "depth=1"), "unexpected keyword argument 'level'", True),
    "name": (MEASURES.replace("def rare", "def rarer"), "Did you mean 'rarer'?", True),
    "annotation": (MEASURES.replace("-> bool", ""), "does not declare the type", True),
    "too many": (MEASURES.replace('"17"', '"1"'), "failed on 15 of the 60 documents", False),
    "type": (MEASURES.replace("return any", "return 1 + any"), "gives int where its type is bool", False),
    "killed": (
        MEASURES.replace("raise ValueError", "import os; os._exit(7); raise ValueError"),
        "docs.jsonl:17",
        False,
    ),
}


@pytest.mark.parametrize("name", quick(WRONG, "parameter", "type", "killed"))
def test_what_is_wrong_is_told_clearly(tmp_path: Path, name: str) -> None:
    measures, what, before_work = WRONG[name]
    done = headrace("run", write(tmp_path, measures), "--out", tmp_path / "run", "--workers", 1, check=False)
    assert done.returncode == 2, done.stderr
    assert what in done.stderr
    assert "Traceback" not in done.stderr
    assert (tmp_path / "run" / "artifacts").exists() != before_work


def test_the_run_stops_at_a_document_where_that_is_asked_for(tmp_path: Path) -> None:
    rare = {**RECIPE["measures"]["rare"], "on_error": "stop"}
    recipe = write(tmp_path, measures={**RECIPE["measures"], "rare": rare})
    done = headrace("run", recipe, "--out", tmp_path / "run", "--workers", 1, check=False)
    assert done.returncode == 2
    assert f"{tmp_path}/code/measures.py, line 9, in rare" in done.stderr
    assert "document docs:docs.jsonl:17" in done.stderr


def test_a_file_that_changes_while_it_runs_changes_nothing(done: Path, tmp_path: Path) -> None:
    rewrite = f"open({str(tmp_path / 'code' / 'measures.py')!r}, 'w').write('def fertility(d) -> float: return 0.0')\n"
    run = tmp_path / "run"
    headrace("run", write(tmp_path, MEASURES + rewrite), "--out", run, "--workers", 1)
    assert reasons(run) == expected()
    assert (tmp_path / "code" / "measures.py").read_text().startswith("def fertility(d)")
