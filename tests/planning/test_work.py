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
from headrace import run_folder  # noqa: E402
from headrace.cli.app import app  # noqa: E402
from headrace.documents.fingerprint import fingerprinted  # noqa: E402
from headrace.documents.inventory import SourceFiles, list_sources  # noqa: E402
from headrace.graph import build_graph  # noqa: E402
from headrace.planning.benchmarks import TYPICAL  # noqa: E402
from headrace.planning.forecast import UNION_SHARE, plan  # noqa: E402
from headrace.planning.machine import EFFICIENCY, START  # noqa: E402
from headrace.planning.rates import figures  # noqa: E402
from headrace.planning.work import row_bytes  # noqa: E402
from headrace.recipe import quality  # noqa: E402
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


ANNOTATORS = {
    "linear": ({"positives": "a.jsonl"}, 2 * 1000 * 4 * 5 * (1 + 0.875), 2000 * 4),
    "pooled": ({"positives": "a.jsonl", "passes": 2}, 2 * 1000 * 4 * 2 * (1 + 0.875), 2000 * 4),
    "encoder": ({"positives": "a.jsonl", "folder": "m"}, 2 * 1000, 2000),
    "fasttext": ({"file": "m.bin", "label": "good"}, None, 2000 * 4),
    "classifier": ({"folder": "m"}, None, 2000),
    "language": ({}, None, 2000 * 4),
    "perplexity": ({"model": "m"}, None, 2000),
}


@pytest.mark.parametrize("kind", quality._KINDS)
def test_every_kind_of_annotator_has_an_estimate(tmp_path, kind):
    section, trained, scored = ANNOTATORS[kind]
    more = {"examples": 1000} if trained else {}
    made = plan_of(tmp_path, {"quality": {"annotators": {"good": {"kind": kind, **section, **more}}}})
    by_artifact = {work.artifact: work for work in made.work}
    assert by_artifact["quality-good"].amount == pytest.approx(scored)
    assert ("annotator-good" in by_artifact) == (trained is not None)
    if trained:
        assert by_artifact["annotator-good"].amount == pytest.approx(trained)


def test_an_encoder_that_is_trained_too_takes_all_its_passes(tmp_path):
    tuned = {"kind": "encoder", "positives": "a.jsonl", "folder": "m", "examples": 1000, "fine_tune": {"passes": 2}}
    made = plan_of(tmp_path, {"quality": {"annotators": {"good": tuned}}})
    [train] = [work for work in made.work if work.artifact == "annotator-good"]
    assert train.amount == pytest.approx(2 * 1000 * (1 + 3 * 2 * 1.875))


def test_servers_and_shapes_take_their_time(tmp_path):
    def hq(**server):
        config = {"method": "files", "count": 300, "server": {"model": "m", "options": {"max_tokens": 30}, **server}}
        return {"synthetic": {"hq": config}}

    url, rate = {"url": "http://localhost:1/v1"}, figures()["answers"].value
    for at_once in (1, 8, 4096):
        [write] = [w for w in plan_of(tmp_path, hq(**url, concurrency=at_once)).work if w.artifact == "synthetic-hq"]
        assert write.amount == 300 * 10
        assert write.serial
        assert write.core_seconds == pytest.approx(3000 / (rate * min(at_once, 300)))
    searched = plan_of(tmp_path, {"decontaminate": {"benchmarks": {"x": {"files": "b.jsonl", "fields": ["a"]}}}})
    assert "contamination-shapes" not in figures_of(searched)
    shapes = {"benchmarks": {"x": {"files": "b.jsonl", "fields": ["a"], "code": ["a"]}}, "shapes": {}}
    assert "contamination-shapes" in figures_of(plan_of(tmp_path, {"decontaminate": shapes}))


def test_snowcoder_lists_the_artifacts_that_a_run_builds():
    made = plan(load_recipe(ROOT / "recipes" / "snowcoder.yaml"), workers=2)
    nodes = {node.name: node for node in made.graph}
    for name in ("annotator-hqins", "quality-hqins", "synthetic-written"):
        assert nodes[name].seconds > 1000, name
    assert {"quality-seeds-hqins", "positive-documents-hqins-2", "documents-seeds"} <= set(nodes)
    assert all(need in nodes for node in made.graph for need in node.inputs)


def benchmark(folder: Path, name: str, items: int) -> dict:
    rows = [{"q": f"{name} {i} " + "sluice weir leat " * 20} for i in range(items)]
    (folder / f"{name}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return {"files": str(folder / f"{name}.jsonl"), "fields": ["q"]}


def test_more_benchmarks_take_longer(tmp_path):
    seconds, indexed = [], []
    for count in (1, 5, 20):
        benchmarks = {f"b{k}": benchmark(tmp_path, f"b{k}", 200) for k in range(count)}
        made = plan_of(tmp_path, {"decontaminate": {"benchmarks": benchmarks}})
        index, search = (work for work in made.work if work.artifact == "contamination")
        lines = [line for k in range(count) for line in (tmp_path / f"b{k}.jsonl").read_text().splitlines()]
        assert index.amount == sum(len(json.loads(line)["q"]) for line in lines)
        assert search.amount == 8000
        seconds.append(search.core_seconds)
        indexed.append(index.core_seconds)
    assert seconds[0] < seconds[1] < seconds[2] < 4 * seconds[0]
    assert indexed[2] == pytest.approx(20 * indexed[0], rel=0.05)
    unread = plan_of(tmp_path, {"decontaminate": {"benchmarks": {"x": {"files": "no.jsonl", "fields": ["q"]}}}})
    assert [work.amount for work in unread.work if work.figure == "contamination-index"] == [TYPICAL]
    humaneval = ROOT.parent / "shared/fixtures/benchmarks/HumanEval.jsonl.gz"
    if humaneval.is_file():  # which set the rate
        timed = plan_of(tmp_path, {"decontaminate": {"benchmarks": {"humaneval": {"files": str(humaneval)}}}})
        [search] = [work for work in timed.work if work.figure == "contamination"]
        assert search.rate == pytest.approx(figures()["contamination"].value, rel=0.15)


def test_what_dominates_a_step_is_counted(tmp_path):
    def of(figure: str, near: dict | None):
        made = plan_of(tmp_path, {"deduplicate": {"near": near}})
        return next(work.core_seconds for work in made.work if work.figure == figure)

    nine, exact = of("candidates", {}), of("candidates", None)
    assert nine == pytest.approx(2000 / figures()["candidates"].value)
    assert exact == pytest.approx(nine * 0.33)
    assert of("candidates", {"bands": 25, "rows": 5}) == pytest.approx(nine * (0.33 + 0.67 * 25 / 9))
    slow = {"signature": "datasketch"}
    assert of("signatures-datasketch", {**slow, "values": 256}) == pytest.approx(2 * of("signatures-datasketch", slow))


def test_a_model_takes_as_long_as_its_shape_says(tmp_path):
    def scored(layers: int, width: int, **more):
        (tmp_path / "config.json").write_text(json.dumps({"num_hidden_layers": layers, "hidden_size": width}))
        section = {"kind": "classifier", "folder": str(tmp_path), **more}
        made = plan_of(tmp_path, {"quality": {"annotators": {"good": section}}}, {"documents": 2000, "bytes": "20MB"})
        assert made.notes == ()
        return next(work.core_seconds for work in made.work if work.artifact == "quality-good")

    small = scored(6, 384)
    assert small == pytest.approx(2000 / figures()["quality-classifier"].value)
    assert scored(12, 768) == pytest.approx(8 * small)
    assert scored(6, 384, windows=["top", "middle", "bottom"]) == pytest.approx(3 * small)
    (tmp_path / "config.json").write_text("[]")
    section = {"quality": {"annotators": {"good": {"kind": "classifier", "folder": str(tmp_path)}}}}
    assert "12 layers of 768" in plan_of(tmp_path, section).notes[0]


def test_the_documents_that_inspire_have_their_own_work(tmp_path):
    made = {"method": "files", "count": 300, "server": {"url": "http://localhost:1/v1", "model": "m"}}
    sections = {
        "synthetic": {"hq": {**made, "seeds": {"quality": {"top": 0.5}}}},
        "quality": {"annotators": {"good": {"positives": "a.jsonl"}}},
        "deduplicate": {"near": {"verify": True}, "against": ["b.jsonl"]},
        "decontaminate": {"benchmarks": {"x": benchmark(tmp_path, "x", 10)}},
        "filters": {"short": {}},
    }
    (tmp_path / "b.jsonl").write_text('{"text": "water turns the wheel"}\n')
    found = plan_of(tmp_path, sections)
    nodes = {node.name: node for node in found.graph}
    assert len(nodes) == len(found.graph)
    amounts = {(work.artifact, work.figure): work.amount for work in found.work}
    assert len(amounts) == len(found.work)  # nothing is done twice
    written = next(source for source in found.sources if source.name == "hq")
    for kind in ("documents", "measures", "signatures", "contamination", "quality-good"):
        first = kind.replace("-", "-seeds-") if "-" in kind else f"{kind}-seeds"
        figure = {"quality-good": "quality-linear"}.get(kind, kind)
        assert amounts[first, figure] == 8000, kind
        assert amounts[kind, figure] == written.bytes, kind
        assert nodes[first].disk > 0
    assert (amounts["duplicates-seeds", "candidates"], amounts["duplicates", "candidates"]) == (2001, 2301)
    assert amounts["verdicts", "verify"] == 8000 + written.bytes
    assert nodes["annotator-good"].inputs[0] == "documents-seeds"
    known = list(nodes)
    assert all(known.index(need) < known.index(node.name) for node in found.graph for need in node.inputs)


def test_a_plan_names_what_a_run_would_build(tmp_path):
    texts = "".join(json.dumps({"text": f"{i} " + "mill race " * 40}) + "\n" for i in range(50))
    (tmp_path / "a.jsonl").write_text(texts)
    made = {"method": "files", "count": 3, "server": {"url": "http://localhost:1/v1", "model": "m"}}
    recipe = load_recipe(
        {
            "name": "x",
            "sources": {"a": {"files": str(tmp_path / "a.jsonl"), "licenses": {}, "group": {"by": "repo"}}},
            "synthetic": {"hq": {**made, "seeds": {"quality": {"top": 0.5}}}},
            "quality": {
                "annotators": {"good": {"positives": str(tmp_path / "a.jsonl")}},
                "keep": {"share": 0.5},
            },
            "deduplicate": {"against": [str(tmp_path / "a.jsonl")]},
            "decontaminate": {"benchmarks": {"x": benchmark(tmp_path, "x", 10)}},
            "filters": {"short": {}},
            "tokenizer": {"train": {"vocab_size": 300}},
            "stages": [{"name": "s", "sequence_length": 32, "sources": {"a": {}}, "train": {"batch": 4}}],
            "model": {"preset": "demo"},
        }
    )
    there = list_sources(run_folder.listed(recipe, {}), 1, tmp_path).items()
    taken = tuple(
        SourceFiles(name, run_folder.listed(recipe, {})[name], tuple(map(fingerprinted, files)))
        for name, files in there
    )
    found = run_folder.with_references(recipe, {}, taken)
    steps = build_graph(recipe, *found, positives=run_folder.with_positives(recipe, taken)).all()
    built = {f"{step.kind}-{step.stage}" if step.stage else step.kind for step in steps}
    planned = {node.name for node in plan(recipe).graph}
    assert {name for name in built - planned if not name.startswith(("evaluation", "samples"))} == set()
    assert planned - built == set()


def plan_of(folder: Path, sections: dict, expect: dict | None = None):
    """The plan of a recipe of 2,000 documents of four bytes, without its files."""
    path = folder / "recipe.json"
    path.write_text(
        json.dumps({"name": "x", "sources": {"a": {"expect": expect or EXPECT, "files": "a.jsonl"}}, **sections})
    )
    return plan(load_recipe(path, ()), workers=2)


EXPECT = {"documents": 2000, "bytes": 8000}


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
