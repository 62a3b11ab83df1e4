"""``headrace compare``: variants and seeds, what they share, and the estimates."""

from __future__ import annotations

import json
import math
import random
import statistics
import sys
from pathlib import Path

import pytest
import yaml

sys.path.insert(0, str(Path(__file__).parents[1] / "synthetic"))

from model_server import ModelServer, code_answer

from headrace import ablations
from headrace.ablations import Settings, planned, settings
from headrace.errors import UserError
from headrace.flow.artifact import Artifact
from headrace.recipe.load import dump, load_recipe, without_sources
from headrace.report.comparison import Comparison, T, Variant, comparison_lines, comparison_page, estimate
from headrace.run_folder import artifact

RECIPE = """\
name: tiny
sources: {docs: {files: "docs.jsonl", license: MIT}}
filters: {short: {min_characters: 20}}
deduplicate: null
split: {validation: 0.2}
tokenizer: {train: {vocab_size: 300}}
defaults: {sequence_length: 32}
stages:
  - {name: one, sources: {docs: {epochs: 0.5}}, train: {steps: 3, batch: 4, precision: fp32, samples: {tokens: 0}}}
  - {name: two, sources: {docs: {}}, train: {steps: 3, batch: 4, precision: fp32, samples: {tokens: 0}}}
model: {layers: 1, width: 32, heads: 2, ffn: 64}
"""


@pytest.fixture(scope="module")
def recipe(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("recipe")
    rng = random.Random(1)
    texts = (" ".join(rng.choices(["water", "turns", "the", "wheel", "of", "a", "mill"], k=40)) for _ in range(200))
    (folder / "docs.jsonl").write_text("".join(json.dumps({"text": text}) + "\n" for text in texts))
    (folder / "recipe.yaml").write_text(RECIPE)
    return folder / "recipe.yaml"


@pytest.fixture(scope="module")
def compared(recipe, tmp_path_factory) -> tuple[Path, list[ablations.Run], Comparison]:
    out = tmp_path_factory.mktemp("compared") / "out"
    chosen = settings(["stages.two.train.optimizer.learning_rate=0.001,0.1"], ["short one: stages.one.train.steps=1"])
    runs = planned(recipe, chosen, 2, out)
    return out, runs, ablations.compare(runs, out, workers=0)


def names(run: ablations.Run, kind: str, stage: str | None = None) -> Path:
    return artifact(run.folder, kind, stage).path


def test_runs_differ_in_what_is_varied_and_share_the_rest(compared):
    _, runs, _ = compared
    assert [(run.seed, run.settings.name) for run in runs] == [
        (seed, name) for seed in (1, 2) for name in ("learning_rate=0.001", "learning_rate=0.1", "short one")
    ]
    for kind, stage in [("tokens", None), ("sequence", "heldout")]:
        assert len({names(run, kind, stage).name for run in runs}) == 1
    files = {f.stat().st_ino for run in runs for f in names(run, "tokens").iterdir() if f.name.endswith(".arrow")}
    assert len(files) <= len([*names(runs[0], "tokens").glob("*.arrow")])
    for seed in (1, 2):
        own = [run for run in runs if run.seed == seed]
        assert len({names(run, "sequence", "two").name for run in own}) == 1
        assert len({names(run, "model", "one").name for run in own}) == 2  # the short one is another
        assert len({names(run, "model", "two").name for run in own}) == 3
    for kind in ("sequence", "model"):
        assert len({names(run, kind, "one").name.rpartition("-")[2] for run in runs}) > 1


def test_a_seed_orders_the_same_documents_otherwise(compared):
    _, runs, _ = compared
    first, second = (Artifact.open(names(run, "sequence", "two")) for run in (runs[0], runs[3]))
    assert first.manifest.counts["docs"]["documents"] == second.manifest.counts["docs"]["documents"]
    assert first.manifest.shards != second.manifest.shards


def test_the_values_are_those_of_the_runs(compared):
    out, runs, found = compared
    told = json.loads((out / "comparison.json").read_text())
    assert told == json.loads(json.dumps(found.to_json()))
    measure = "held-out loss, nats per token"
    for variant in told["variants"]:
        of_runs = [
            json.loads((names(run, "evaluation", "two") / "evaluation.json").read_text())["held_out"]["loss"]
            for run in runs
            if run.settings.name == variant["name"]
        ]
        assert variant["measures"][measure]["values"] == of_runs
        assert variant["measures"][measure]["mean"] == pytest.approx(statistics.fmean(of_runs))
    assert "bits per byte, docs" in found.measures
    assert found.notes == []
    assert {name for variant in found.variants for name in variant.held_out} == {found.variants[0].held_out[0]}
    assert found.variants[0].held_out[0]


def test_again_it_does_nothing_and_says_the_same(compared, recipe):
    out, runs, found = compared
    before = {path: path.stat().st_mtime_ns for run in runs for path in (run.folder / "artifacts").glob("*/*")}
    assert ablations.compare(runs, out, workers=0) == found
    assert before == {path: path.stat().st_mtime_ns for run in runs for path in (run.folder / "artifacts").glob("*/*")}


def test_stages_after_the_one_that_is_compared_are_not_built(recipe, tmp_path):
    broken = ["stages.one.train.steps=1,2", "stages.two.sources.docs.slice=[0.998, 0.999]"]  # holds no document
    runs = planned(recipe, settings(broken[:1], []), 1, tmp_path, broken[1:])
    found = ablations.compare(runs, tmp_path, "one", workers=0)
    assert found.stage == "one"
    assert [variant.name for variant in found.variants] == ["steps=1", "steps=2"]
    for run in runs:
        assert not [*(run.folder / "artifacts").glob("*-two-*")]


WRITTEN = """
synthetic:
  hq: {{method: files, count: 3, server: {{url: "{url}", model: m, options: {{max_tokens: 50}}}}}}
"""


def test_no_server_is_asked_for_what_later_stages_train_on(recipe, tmp_path):
    with ModelServer(code_answer) as server:
        path = tmp_path / "recipe.yaml"
        last = "  - {name: last, sources: {hq: {epochs: 4}}, train: {steps: 1, batch: 1, samples: {tokens: 0}}}\nmodel:"
        path.write_text(RECIPE.replace("model:", last) + WRITTEN.format(url=server.url))
        (tmp_path / "docs.jsonl").write_bytes((recipe.parent / "docs.jsonl").read_bytes())
        chosen = settings(["stages.one.train.steps=1,2"], [])
        found = ablations.compare(planned(path, chosen, 1, tmp_path / "out"), tmp_path / "out", "one", workers=0)
        assert server.bodies == []
        assert found.left_out == ("hq",)
        assert "hq" in found.notes[0]
        ablations.compare(planned(path, chosen, 1, tmp_path / "all"), tmp_path / "all", workers=0)
        assert server.bodies != []


def test_what_is_needed_stays_in_all_variants(tmp_path):
    (tmp_path / "docs.jsonl").write_text('{"text": "water"}')

    def left(stage: str, *overrides: str, vary: str = "seed=1,2"):
        last = "  - {name: last, sources: {hq: {}}}\nmodel:"
        path = tmp_path / "recipe.yaml"
        path.write_text(RECIPE.replace("model:", last) + WRITTEN.format(url="http://localhost:1/v1"))
        return ablations.unneeded(planned(path, settings([vary], []), 1, tmp_path, overrides), stage)

    assert left("one") == left("two") == ("hq",)
    assert left("last") == ()
    assert left("two", vary="stages.two.sources={docs: {}},{hq: {}}") == ()  # one of them samples it
    assert left("one", "deduplicate={}") == ("hq",)
    assert left("one", "deduplicate={keep: none}") == ()
    assert left("one", "deduplicate={priority: [hq]}") == ()  # copies in docs are removed for it
    assert left("one", "deduplicate={priority: [docs, hq]}") == ("hq",)
    assert left("one", "quality.annotators.good={positives: {sources: hq}}") == ()


def test_a_recipe_without_a_source_names_it_nowhere(tmp_path):
    (tmp_path / "docs.jsonl").write_text('{"text": "water"}')
    path = tmp_path / "recipe.yaml"
    last = "  - {name: last, sources: {hq: {}}}\n  - {name: more, sources: {docs: {}}}\nmodel:"
    path.write_text(RECIPE.replace("model:", last) + WRITTEN.format(url="http://localhost:1/v1"))
    overrides = [
        "deduplicate={priority: [docs, hq]}",
        "filters={short: {sources: {hq: {}}}, code: {sources: [hq, docs]}}",
    ]
    left = without_sources(load_recipe(path, overrides), {"hq"})
    assert ([stage.name for stage in left.stages], list(left.sources), left.synthetic) == (["one", "two"], ["docs"], {})
    assert load_recipe(yaml.safe_load(dump(left))) == left


def test_the_page_and_the_lines(compared):
    _, _, found = compared
    page = comparison_page(found)
    assert page.count("<svg") >= 2
    assert "learning_rate=0.1" in page
    lines = "\n".join(comparison_lines(found))
    assert "tiny, two, 2 seeds; differences are from learning_rate=0.001" in lines
    assert lines.count("short one") == len(found.measures)


def test_other_held_out_documents_are_told():
    first = Variant("a", (), {"loss": [1.0, 2.0]}, ("x", "x"))
    other = Variant("b", (), {"loss": [1.5, 2.5]}, ("y", "y"))
    found = Comparison("r", "s", (1, 2), (first, other))
    assert "other held-out documents" in found.notes[0]
    apart = found.difference(other, "loss")
    assert (apart.mean, apart.half) == (0.5, 0.0)
    assert apart.clear
    one = Comparison("r", "s", (1,), (Variant("a", (), {"loss": [1.0]}, ("x",)),))
    assert "With one seed" in one.notes[0]
    assert estimate([1.0]).half is None


def test_intervals_are_those_of_students_t():
    scipy = pytest.importorskip("scipy.stats")
    assert [round(float(scipy.t.ppf(0.975, n)), 3) for n in range(1, len(T) + 1)] == list(T)
    rng = random.Random(0)
    for count in (2, 3, 10, 40):
        values = [rng.gauss(3, 1) for _ in range(count)]
        half = scipy.t.ppf(0.975, count - 1) * statistics.stdev(values) / math.sqrt(count)
        assert estimate(values).half == pytest.approx(half, rel=0.05 if count > 31 else 1e-3)


def test_what_is_varied_is_read_as_yaml():
    found = settings(["stages.two.sources.docs.slice=[0, 0.5],[0.5, 1]", "split.validation=0.1"], ["as it is"])
    assert [one.name for one in found] == [
        "slice=[0, 0.5], validation=0.1", "slice=[0.5, 1], validation=0.1", "as it is"
    ]  # fmt: skip
    assert found[1].overrides == ("stages.two.sources.docs.slice=[0.5, 1]", "split.validation=0.1")
    assert found[2] == Settings("as it is", ())
    twice = settings(["stages.one.train.steps=1,2", "stages.two.train.steps=3"], [])
    assert [one.name for one in twice] == [
        "one.train.steps=1, two.train.steps=3",
        "one.train.steps=2, two.train.steps=3",
    ]


@pytest.mark.parametrize(
    ("vary", "variants", "told"),
    [
        ([], [], "nothing to compare"),
        (["seed=1"], [], "nothing to compare"),
        (["seed"], ["a"], "KEY=VALUE"),
        (["seed="], ["a"], "KEY=VALUE"),
        (["seed=[1"], ["a"], "KEY=VALUE"),
        ([], ["a", ": seed=1"], "needs a name"),
        ([], ["a", "a: seed=2"], "called 'a'"),
        ([], ["a", "b: seed"], "KEY=VALUE"),
        (["seed=1,1"], [], "called 'seed=1'"),
    ],
)
def test_mistakes_are_told(vary, variants, told):
    with pytest.raises(UserError, match=told):
        settings(vary, variants)


def test_wrong_recipes_are_told_before_any_work(recipe, tmp_path):
    out = tmp_path / "out"
    for overrides, told in (
        (["model=null"], "trains no model"),
        (["split.validation=0"], "Nothing is held out"),
        (["stages.two.train.stepz=3"], "stepz"),
    ):
        with pytest.raises(UserError, match=told):
            planned(recipe, settings(["seed=1,2"], []), 2, out, overrides)
    with pytest.raises(UserError, match="2,000 runs"):
        planned(recipe, settings(["seed=1,2"], []), 1000, out)
    with pytest.raises(UserError, match="no stage 'three'"):
        ablations.compare(planned(recipe, settings(["seed=1,2"], []), 1, out), out, "three")
    assert not out.exists()
