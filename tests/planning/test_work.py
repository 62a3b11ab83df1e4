"""The arithmetic of a plan: amounts by measured rates, disk at once, memory; and the page that tells it."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest
from typer.testing import CliRunner

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT))

from bench import rates as bench_rates  # noqa: E402
from headrace.cli.app import app  # noqa: E402
from headrace.planning.forecast import UNION_SHARE, plan  # noqa: E402
from headrace.planning.machine import EFFICIENCY, START  # noqa: E402
from headrace.planning.rates import figures  # noqa: E402
from headrace.planning.work import row_bytes  # noqa: E402
from headrace.recipe.load import load_recipe  # noqa: E402
from headrace.select.duplicates import components, labels  # noqa: E402

SLIMPAJAMA = ROOT / "recipes" / "slimpajama.yaml"
TEXT, DOCUMENTS = 5_151_690_000_000, 931_361_530


def slimpajama(*overrides: str, workers: int = 64, recipe: Path = SLIMPAJAMA):
    return plan(load_recipe(recipe, overrides), workers=workers)


def figures_of(made) -> list[str]:
    return [work.figure for work in made.work]


def test_the_page_holds_the_constants_and_what_follows_from_them():
    page = bench_rates.PLANNING.read_text(encoding="utf-8")
    assert bench_rates.page_of(page, figures()) == page, "run python -m bench.rates"
    lines = [line.split(" | ") for line in page.splitlines() if line.startswith("| `")]
    told = {cells[0].strip("| `"): cells[3].strip(" |") for cells in lines if len(cells) == 4}
    assert {name: told.get(name) for name in figures()} == {name: figure.source for name, figure in figures().items()}
    assert all(figure.value > 0 and figure.source for figure in figures().values())


def test_times_are_amounts_by_rates():
    made = slimpajama()
    by_figure = {work.figure: work for work in made.work}
    assert list(by_figure) == [
        "documents-ftfy", "measures", "signatures-datasketch", "candidates", "components", "verdicts",
    ]  # fmt: skip
    rates = {name: figure.value for name, figure in figures().items()}
    for name, amount in {"documents-ftfy": TEXT, "signatures-datasketch": TEXT, "candidates": DOCUMENTS}.items():
        assert by_figure[name].amount == amount
        assert by_figure[name].core_seconds == amount / rates[name]
        assert by_figure[name].seconds(64) == amount / rates[name] / (64 * EFFICIENCY)
        assert by_figure[name].seconds(1) == amount / rates[name]
    # The components are one task.
    assert by_figure["components"].seconds(64) == DOCUMENTS / rates["components"]
    for node in made.graph:
        works = [work for work in made.work if work.artifact == node.name]
        assert node.seconds == pytest.approx(START + sum(work.seconds(64) for work in works))


def test_settings_choose_the_work():
    nfc = slimpajama("documents.normalise=nfc", "deduplicate.near.signature=fast", "deduplicate.near.verify=true")
    assert figures_of(nfc) == ["documents", "measures", "signatures", "candidates", "components", "verdicts", "verify"]
    assert nfc.disk_peak - nfc.disk == pytest.approx(TEXT)  # the texts that are verified, at most
    exact = slimpajama("deduplicate.near=null", "filters.short=null")
    assert figures_of(exact) == ["documents-ftfy", "candidates", "components", "verdicts"]
    none = slimpajama("deduplicate=null", "split.check=null")
    assert figures_of(none) == ["documents-ftfy", "measures", "verdicts"]
    near = slimpajama("deduplicate=null", "split.check=near")
    assert "signatures" in figures_of(near)


def test_rearranged_tokens_are_encoded_again():
    path = ROOT / "recipes" / "slimpajama-tokens.yaml"
    plain = slimpajama(recipe=path)
    fim = slimpajama("stages=[{name: all, sources: {github: {fim: {rate: 0.5}}}}]", recipe=path)
    assert "rearranged" not in figures_of(plain)
    (again,) = [work for work in fim.work if work.figure == "rearranged"]
    assert (again.artifact, again.figure) == ("sequence-all", "rearranged")
    github = next(share.tokens for share in fim.stages[0].sources if share.source == "github")
    assert again.amount == github / 2
    assert round(sum(source.tokens for source in plain.sources) / 1e9) == 690
    encoded = next(work for work in plain.work if work.figure == "tokens")
    assert encoded.amount < TEXT  # only what is kept


def test_disk_and_memory():
    made = slimpajama()
    bands, near = 9, 32
    scratch = DOCUMENTS * (bands * near + 24 + 16 + 3 * 4)
    duplicates = next(node for node in made.graph if node.name == "duplicates")
    assert duplicates.scratch == scratch
    signatures = next(node for node in made.graph if node.name == "signatures")
    assert signatures.disk == DOCUMENTS * (24 + 8 * bands)
    before = sum(node.disk for node in made.graph if node.name in ("documents", "measures", "signatures"))
    assert made.disk_peak == before + duplicates.disk + scratch
    # Union-find's arrays are more than what 64 workers ask for; more workers than that ask for more.
    assert made.memory.data == round(2 * DOCUMENTS * 4 / 0.75)
    assert slimpajama(workers=128).memory.data == 128 * (112 << 20)
    assert made.memory.total == 65 * made.memory.base + made.memory.data


def test_constants_that_planning_may_not_import_are_those_of_the_kernels():
    assert UNION_SHARE == labels.UNION_SHARE
    for rows in (1, 1 << 32, (1 << 32) + 1):
        assert row_bytes(rows) == components.row_dtype(rows).itemsize


def test_the_command_prints_the_arithmetic():
    runner = CliRunner()
    said = runner.invoke(app, ["plan", str(SLIMPAJAMA), "--workers", "64"]).stdout
    for part in ("sign (datasketch)", "5.15 TB of text", "on 64 cores", "64 cores count as 57.6", "memory: ~"):
        assert part in said
    value = json.loads(runner.invoke(app, ["plan", str(SLIMPAJAMA), "--workers", "16", "--json"]).stdout)
    assert value["machine"]["cores"] == 16
    assert value["core_seconds"] == pytest.approx(sum(work["core_seconds"] for work in value["work"]))
    assert {work["figure"] for work in value["work"]} <= set(value["rates"])
    assert value["memory"]["workers"] == 16
    assert value["disk_peak"] > value["disk"]
    assert runner.invoke(app, ["plan", str(SLIMPAJAMA), "--workers", "0"]).exit_code == 2


def test_constants_come_from_rows_and_from_the_largest_run_of_the_index():
    row = {"name": "step, documents", "ours": 51.7654, "note": "processor time, 300 MB of text"}
    (found,) = bench_rates.from_results([row, {"name": "decode", "ours": 1.0, "note": ""}])
    assert found[0] == "documents"
    assert (found[1].value, found[1].unit) == (51_800_000, "bytes/s")
    assert "300 MB" in found[1].source
    phases = dict.fromkeys((phase for phases, _ in bench_rates.PHASES.values() for phase in phases), 1.0)
    points = [{"documents": 10, "workers": 1, "phases": phases}, {"documents": 600, "workers": 2, "phases": phases}]
    values = {name: figure.value for name, figure in bench_rates.from_scale(points)}
    assert values == {"candidates": 100, "components": 600, "verdicts": 100}
    assert list(bench_rates.from_scale([])) == []
