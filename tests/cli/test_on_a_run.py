"""Commands that look at a run, on a small real one."""

from __future__ import annotations

import json
import random
import re
import shutil
from pathlib import Path

import pytest

from commands import headrace

RECIPE = """\
name: tiny
documents: {max_quarantined: 0.1}
sources:
  prose: {files: "prose.jsonl", license: CC0-1.0}
  more: {files: "more.jsonl"}
filters: {short: {min_characters: 100}}
deduplicate: {priority: [prose]}
split: {validation: 0.1}
tokenizer: {train: {vocab_size: 400}}
defaults: {sequence_length: 32, train: {batch: 4}}
stages:
  - name: one
    sources: {prose: {slice: [0, 0.5]}, more: {epochs: 2, fim: {rate: 0.5}}}
  - name: two
    sources: {prose: {slice: [0.5, 1]}}
"""


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    """A folder with a recipe, its corpus, and a run up to the first stage's sequence."""
    folder = tmp_path_factory.mktemp("tiny")
    rng = random.Random(2)
    words = [
        f"{a}{b}" for a in ("mil", "ra", "whe", "slu", "le", "pen") for b in ("l", "ce", "el", "ice", "at", "stock")
    ]
    texts = [" ".join(rng.choice(words) for _ in range(120)) for _ in range(60)]
    prose = [*texts[:40], "too short"]
    more = [*texts[40:], texts[0], texts[1] + " and a few words more at the end"]
    for name, rows in (("prose", prose), ("more", more)):
        (folder / f"{name}.jsonl").write_text("".join(json.dumps({"text": text}) + "\n" for text in rows))
    with open(folder / "prose.jsonl", "a") as file:
        file.write('{"text": "cut off\n\n')
    (folder / "recipe.yaml").write_text(RECIPE)
    done = headrace("run", folder / "recipe.yaml", "--out", folder / "run", "--workers", 1, "--until", "Sequence-One")
    assert done.returncode == 0, done.stderr
    assert "sequence-one-" in done.stdout
    assert "without --until" in done.stdout
    return folder


def test_status(folder):
    told = json.loads(headrace("status", folder / "run", "--json").stdout)
    states = {f"{entry['kind']}-{entry['stage']}": entry["state"] for entry in told["artifacts"]}
    assert (states["sequence-one"], states["sequence-two"], told["running"]) == ("done", "missing", False)
    text = headrace("status", folder / "run").stdout
    assert "tiny: 8 of 9 artifacts done" in text
    assert text.rstrip().splitlines()[-1].startswith("not finished; resume")


def test_plan_tells_what_was_measured_and_what_is_left(folder):
    command = ["plan", folder / "recipe.yaml", "--out", folder / "run"]
    told = json.loads(headrace(*command, "--json").stdout)
    assert [source["basis"] for source in told["sources"]] == ["measured", "measured"]
    one, two = told["stages"]
    assert (one["basis"], two["basis"]) == ("measured", "estimated")
    rows = next((folder / "run" / "artifacts").glob("sequence-one-*")) / "manifest.json"
    assert one["rows"] == sum(shard["rows"] for shard in json.loads(rows.read_text())["shards"])
    done = {node["name"] for node in told["graph"] if node["done"]}
    assert done == {node["name"] for node in told["graph"]} - {"sequence-two"}
    assert "done" in headrace(*command).stdout
    # Another threshold is another corpus: what was measured no longer counts.
    other = json.loads(headrace(*command, "--json", "--set", "filters.short.min_characters=500").stdout)
    assert other["sources"][0]["basis"] == "estimated"
    assert {node["name"] for node in other["graph"] if node["done"]} == {
        "documents",
        "measures",
        "signatures",
        "duplicates",
    }


def test_digests_of_the_artifacts(folder):
    told = json.loads(headrace("digest", folder / "run", "--json").stdout)
    assert len(told["artifacts"]) == 8
    lines = headrace("digest", folder / "run").stdout.splitlines()
    assert lines[-1].split()[0] == told["total"]


def test_why_a_document_was_kept_and_where_it_went(folder):
    told = json.loads(headrace("why", folder / "run", "more:more.jsonl:3", "--json").stdout)
    assert told["verdict"]["keep"]
    assert told["document"]["origin_row"] == 3
    if told["verdict"]["split"] == "train":
        assert {place["epoch"] for place in told["stages"]["one"]} == {0, 1}
    by_id = json.loads(headrace("why", folder / "run", told["document"]["id"][:12].upper(), "--json").stdout)
    assert by_id["document"] == told["document"]
    assert told["document"]["id"] in headrace("why", folder / "run", "more:more.jsonl:3").stdout


def test_why_a_document_was_removed_shows_the_evidence(folder):
    short = headrace("why", folder / "run", "prose:prose.jsonl:40").stdout
    assert "removed: short" in short
    assert "limit 100" in short
    copy = headrace("why", folder / "run", "more:more.jsonl:20").stdout
    assert "removed: duplicate" in copy
    assert "prose.jsonl" in copy
    assert "Jaccard 1.000" in copy
    near = json.loads(headrace("why", folder / "run", "more:more.jsonl:21", "--json").stdout)
    assert near["pair"] is None or 0.8 < near["pair"]["jaccard"] < 1


def test_why_a_row_was_not_read(folder, command):
    told = json.loads(command("why", folder / "run", "prose:prose.jsonl:41", "--json").stdout)["quarantined"]
    assert (told["line"], told["excerpt"]) == (42, '{"text": "cut off')
    said = command("why", folder / "run", "prose:prose.jsonl:41").stdout
    assert "quarantined: not JSON" in said
    assert "cut off" in said
    blank = command("why", folder / "run", "prose:prose.jsonl:42")
    assert (blank.returncode, "empty rows are not documents" in blank.stderr) == (2, True)


def test_what_was_removed_is_said_after_a_part_of_a_run_and_by_status(folder, command):
    text = "Records: 65 read"
    done = headrace("run", folder / "recipe.yaml", "--out", folder / "run", "--workers", 0, "--until", "verdicts")
    assert text in done.stdout
    assert "kept (" in done.stdout
    assert text in command("status", folder / "run").stdout
    prose, more = json.loads(command("status", folder / "run", "--json").stdout)["sources"]
    assert (prose["read"], prose["quarantined"], prose["skipped"]) == (43, 1, 1)
    assert prose["removed"] == {"short": 1}
    assert more["removed"]["duplicate"] >= 1


def test_why_of_a_text_that_is_not_in_the_run(folder, tmp_path):
    first = json.loads((folder / "prose.jsonl").read_text().splitlines()[5])["text"]
    (tmp_path / "text.txt").write_text(first + " changed")
    told = json.loads(headrace("why", folder / "run", "--text-file", tmp_path / "text.txt", "--json").stdout)
    assert told["nearest"][0]["origin_row"] == 5
    assert told["nearest"][0]["jaccard"] > 0.9
    text = headrace("why", folder / "run", "--text-file", tmp_path / "text.txt", "--source", "prose").stdout
    assert "prose:prose.jsonl:5" in text


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["why", "zz"], "does not name a document"),
        (["why", "more:more.jsonl:99"], "no document"),
        (["why", "0" * 32], "no document"),
        (["replay", "--stage", "two", "--step", "1"], "has not built"),
        (["replay", "--stage", "none", "--step", "1"], "none"),
        (["replay", "--stage", "one", "--step", "100000"], "no step"),
        (["replay", "--stage", "one", "--step", "0"], "not a whole number of at least 1"),
        (["replay", "--stage", "one", "--step", "1", "--row", "7"], "no row"),
    ],
)
def test_wrong_questions(folder, command, arguments, words):
    done = command(arguments[0], folder / "run", *arguments[1:])
    assert done.returncode == 2
    assert words in done.stderr
    assert "Traceback" not in done.stderr


def test_replay_shows_rows_with_their_documents(folder):
    told = json.loads(headrace("replay", folder / "run", "--stage", "one", "--step", "2", "--json").stdout)
    assert [row["row"] for row in told["rows"]] == [4, 5, 6, 7]
    assert all(sum(s["length"] for s in row["segments"]) == 33 for row in told["rows"])
    text = headrace("replay", folder / "run", "--stage", "one", "--step", "2", "--row", "0", "--full").stdout
    segment = told["rows"][0]["segments"][0]
    assert f"{segment['source']}:{segment['origin']}" in text
    assert "loss on" in text


def test_a_second_run_does_nothing_and_says_so(folder):
    again = headrace("run", folder / "recipe.yaml", "--out", folder / "run", "--until", "verdicts", "--workers", 0)
    assert again.stdout.count("up to date") == 5


def test_the_examples_of_the_page_on_formats(folder, command, capsys):
    page = (Path(__file__).parents[2] / "docs" / "formats.md").read_text(encoding="utf-8")
    examples = re.findall(r"```python\n(.*?)```", page, re.DOTALL)
    assert examples
    for example in examples:
        exec(compile(example, "docs/formats.md", "exec"), {"run": folder / "run"})
    said = capsys.readouterr().out
    verdicts = json.loads(command("why", folder / "run", "prose:prose.jsonl:40", "--json").stdout)["verdict"]
    assert re.search(rf"prose\W+{verdicts['reason']}\W+1\b", said)
    assert "CC0-1.0" in said
    assert "tokens" in said


def test_the_path_of_an_artifact_is_the_one_that_the_recipe_describes(folder, command):
    said = command("path", folder / "run", "Sequence-One").stdout.strip()
    assert json.loads((Path(said) / "manifest.json").read_text())["stage"] == "one"
    listed = json.loads(command("status", folder / "run", "--json").stdout)["artifacts"]
    assert said in [entry["path"] for entry in listed]
    assert command("path", folder / "run", "sequence-two").returncode == 2
    assert "Did you mean 'verdicts'?" in command("path", folder / "run", "verdict").stderr


def test_what_the_recipe_does_not_need_is_removed_when_asked(folder, command, tmp_path):
    run = tmp_path / "run"
    shutil.copytree(folder / "run", run)
    changed = ["--set", "filters.short.min_characters=50", "--until", "verdicts"]
    again = ("run", folder / "recipe.yaml", "--out", run, "--workers", 0)
    assert headrace(*again, *changed).returncode == 0
    (run / "artifacts" / "tokens-00000000.partial").mkdir()
    (run / "artifacts" / "tokens-00000000.partial" / "x").write_bytes(b"12345")
    (run / "damaged" / "documents-1").mkdir(parents=True)
    names = {path.name for path in (run / "artifacts").iterdir()}
    told = json.loads(command("clean", run, "--dry-run", "--json").stdout)
    assert not told["removed"]
    kinds = {entry["path"]: entry["kind"] for entry in told["leftovers"]}
    assert kinds["damaged/documents-1"] == "damaged artifact"
    assert kinds["artifacts/tokens-00000000.partial"] == "unfinished artifact"
    # What followed from the other threshold, and nothing else.
    old = {Path(path).name for path, kind in kinds.items() if kind == "artifact"}
    assert {name.rsplit("-", 1)[0] for name in old} == {"verdicts", "tokenizer", "tokens", "sequence-one"}
    assert {path.name for path in (run / "artifacts").iterdir()} == names
    refused = command("clean", run)
    assert refused.returncode == 2
    assert "--yes" in refused.stderr
    done = command("clean", run, "--yes")
    assert done.returncode == 0, done.stderr
    assert "Deleted: " in done.stdout
    assert {path.name for path in (run / "artifacts").iterdir()} == names - old - {"tokens-00000000.partial"}
    assert not list((run / "damaged").iterdir())
    assert "0 folders" in command("clean", run).stdout
    assert "up to date" in headrace(*again, *changed).stdout


def test_checkpoints_of_other_training_go_when_asked_for(folder, command, tmp_path):
    run = tmp_path / "run"
    shutil.copytree(folder / "run", run)
    step = run / "checkpoints" / "one" / "other" / "step-00000020"
    step.mkdir(parents=True)
    (step / "state.json").write_text('{"step": 20}')
    events = run / "tensorboard" / "one" / "other"
    events.mkdir(parents=True)
    (events / "events").write_bytes(b"x")
    assert "checkpoints" not in command("clean", run, "--dry-run").stdout
    assert "checkpoints/one/other" in command("clean", run, "--checkpoints", "--dry-run").stdout
    assert command("clean", run, "--checkpoints", "--yes").returncode == 0
    assert not step.exists()
    assert not events.exists()
