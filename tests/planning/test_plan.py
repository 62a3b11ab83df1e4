"""Plans: the published CrystalCoder stages, estimates from files, and what each part of a page rests on."""

from __future__ import annotations

import gzip
import json
import random
from pathlib import Path

import pytest
import yaml

from headrace.errors import UserError
from headrace.planning.forecast import plan
from headrace.planning.text import span, tokens_text
from headrace.recipe.load import load_recipe

ROOT = Path(__file__).parents[2]
# crystalcoder-train's parameter files: steps, tokens, and billions of tokens per source.
PUBLISHED = {
    "stage1": (79_721, 344_823_300_096, {
        "arxiv": 14.9, "book": 14.2, "c4": 91.9, "commoncrawl": 183.9, "github": 17.1, "stackexchange": 10.9,
        "wikipedia": 11.8}),
    "stage2": (214_387, 927_304_384_512, {
        "arxiv": 14.9, "book": 14.2, "c4": 91.9, "commoncrawl": 184.0, "github": 17.1, "stackexchange": 10.9,
        "wikipedia": 11.8, "starcoder": 582.5}),
    "stage3": (27_728, 119_934_025_728, {
        "css": 10.5, "javascript": 22.0, "html": 22.2, "python": 41.1, "arxiv": 2.0, "book": 1.0, "c4": 2.0,
        "commoncrawl": 7.0, "stackexchange": 1.0, "wikipedia": 7.0, "starcoder": 4.0}),
}  # fmt: skip


@pytest.fixture(scope="module")
def crystalcoder():
    return plan(load_recipe(ROOT / "recipes" / "crystalcoder.yaml"))


def test_crystalcoder_is_planned_as_published(crystalcoder):
    stages = {stage.name: stage for stage in crystalcoder.stages}
    for name, (steps, tokens, sources) in PUBLISHED.items():
        stage = stages[name]
        assert (stage.steps, stage.tokens, stage.trained) == (steps, tokens, tokens)
        assert (stage.batch, stage.sequence_length) == (2112, 2048)
        assert {share.source: round(share.tokens / 1e9, 1) for share in stage.sources} == sources
    assert stages["stage3a"].steps == 1600
    assert stages["stage3a"].start == "stage2"
    assert sum(stages[name].steps for name in PUBLISHED) == 321_836
    assert crystalcoder.parameters == 6_575_278_720


def test_crystalcoder_epochs_follow_from_its_weights(crystalcoder):
    epochs = {(stage.name, s.source): s.epochs for stage in crystalcoder.stages for s in stage.sources}
    assert epochs["stage1", "c4"] == pytest.approx(1, abs=1e-3)
    assert epochs["stage2", "commoncrawl"] == pytest.approx(1, abs=1e-3)
    assert epochs["stage2", "starcoder"] == pytest.approx(2, abs=1e-3)
    assert epochs["stage3", "python"] == pytest.approx(3, abs=1e-3)
    assert epochs["stage3", "wikipedia"] == pytest.approx(2.97, abs=1e-2)


def test_arctic_snowcoder_is_planned_as_published():
    """119.2 thousand steps, then 12.5 B tokens four times, then 5 B of what is written (arXiv 2409.02326)."""
    found = plan(load_recipe(ROOT / "recipes" / "snowcoder.yaml"))
    stages = [(stage.tokens, stage.steps, stage.sources[0].epochs) for stage in found.stages]
    assert stages == [
        (500_000_000_000, 119_209, pytest.approx(1.25, abs=0.01)),
        (50_000_000_000, 11_920, 4),
        (5_000_000_000, 1192, pytest.approx(2.5, abs=0.01)),
    ]
    assert {(stage.batch, stage.sequence_length) for stage in found.stages} == {(512, 8192)}
    assert found.parameters == 1_364_297_728


def test_crystalcoder_prints_the_published_numbers(crystalcoder):
    text = str(crystalcoder)
    for part in ("344.8 B tokens, 79,721 steps of 2,112 x 2,048", "927.3 B tokens, 214,387 steps of 2,112 x 2,048",
                 "119.9 B tokens, 27,728 steps of 2,112 x 2,048"):  # fmt: skip
        assert part in text
    assert max(map(len, text.splitlines())) <= 120
    assert json.loads(json.dumps(crystalcoder.to_json()))["stages"][0]["steps"] == 79_721


def test_slimpajama_needs_no_stages():
    made = plan(load_recipe(ROOT / "recipes" / "slimpajama.yaml"))
    assert sum(source.documents or 0 for source in made.sources) == 931_361_530
    assert [node.name for node in made.graph] == ["documents", "measures", "signatures", "duplicates", "verdicts"]
    assert "tokens" not in str(made)


def write_corpus(folder: Path) -> tuple[Path, int, int]:
    """Two JSONL files (one compressed) and a text file; the recipe, documents, bytes of text."""
    words = ["mill", "race", "wheel", "weir", "sluice", "leat", "penstock", "tail"]
    rows = [" ".join(words[(i * k) % 8] for k in range(1, 80)) for i in range(400)]
    lines = [json.dumps({"text": row, "stars": i}) + "\n" for i, row in enumerate(rows)]
    (folder / "a.jsonl").write_text("".join(lines[:200]))
    with gzip.open(folder / "b.jsonl.gz", "wt") as file:
        file.write("".join(lines[200:]))
    (folder / "c.txt").write_text(rows[0])
    recipe = {
        "name": "small",
        "sources": {"s": {"files": ["*.jsonl", "*.jsonl.gz", "c.txt"]}},
        "tokenizer": {"train": {"vocab_size": 500}},
        "defaults": {"sequence_length": 16, "train": {"batch": 4, "steps": 3}},
        "stages": [{"name": "one", "sources": {"s": {"epochs": 2}}}],
    }  # fmt: skip
    (folder / "recipe.yaml").write_text(yaml.safe_dump(recipe))
    return folder / "recipe.yaml", 401, sum(map(len, rows)) + len(rows[0])


def test_small_inputs_are_read_whole_and_scale_to_themselves(tmp_path):
    path, documents, size = write_corpus(tmp_path)
    made = plan(load_recipe(path))
    (source,) = made.sources
    assert (source.basis, source.files, source.documents, source.bytes) == ("estimated", 3, documents, size)
    (stage,) = made.stages
    assert stage.steps == 3
    assert stage.trained == 3 * 4 * 16
    assert stage.tokens == pytest.approx(2 * source.tokens, rel=1e-3)
    assert stage.start is None
    assert "~" in str(made)


def test_many_passes_are_noted(tmp_path):
    (tmp_path / "a.jsonl").write_text("".join(json.dumps({"text": f"words {i}"}) + "\n" for i in range(100)))
    recipe = {
        "name": "r",
        "sources": {"a": {"files": str(tmp_path / "a.jsonl")}},
        "tokenizer": {"train": {"vocab_size": 300}},
        "stages": [{"name": "one", "sources": {"a": {"weight": 1}}, "tokens": "1M"}],
    }
    made = plan(load_recipe(recipe))
    (note,) = made.notes
    assert note.startswith("Stage 'one' reads source 'a' ")
    assert "times by its weight" in note
    lines = str(made).splitlines()
    assert lines[1].startswith("Stage 'one' reads source 'a' ")
    assert max(map(len, lines[:4])) <= 120
    few = load_recipe({**recipe, "stages": [{"name": "one", "sources": {"a": {"epochs": 4}}}]})
    assert not any("times" in note for note in plan(few).notes)


def test_large_files_are_estimated_from_their_beginning(tmp_path):
    rng = random.Random(1)
    rows = [json.dumps({"text": " ".join(f"{rng.getrandbits(20):x}" for _ in range(100))}) for _ in range(20_000)]
    (tmp_path / "big.jsonl").write_text("\n".join(rows))
    with gzip.open(tmp_path / "big.jsonl.gz", "wt", compresslevel=1) as file:
        file.write("\n".join(rows))
    recipe = {"name": "big", "sources": {"a": {"files": "big.jsonl"}, "b": {"files": "big.jsonl.gz"}}}
    (tmp_path / "r.yaml").write_text(yaml.safe_dump(recipe))
    plain, packed = plan(load_recipe(tmp_path / "r.yaml")).sources
    assert plain.documents == pytest.approx(20_000, rel=0.02)
    # A compressed file is told from how well its beginning compresses.
    assert packed.documents == pytest.approx(20_000, rel=0.1)


def test_parquet_is_estimated_from_its_rows(tmp_path):
    import pyarrow as pa
    import pyarrow.parquet as pq

    texts = [f"{i} " + "word " * 2000 for i in range(500)]
    pq.write_table(pa.table({"content": texts}), tmp_path / "x.parquet", row_group_size=50)
    recipe = {"name": "p", "sources": {"p": {"files": "x.parquet", "text": "content"}}}
    (source,) = plan(
        load_recipe(recipe | {"sources": {"p": {"files": str(tmp_path / "x.parquet"), "text": "content"}}})
    ).sources
    assert source.documents == pytest.approx(500, rel=0.02)
    assert source.bytes == pytest.approx(sum(map(len, texts)), rel=0.02)


def test_missing_files_are_told():
    with pytest.raises(UserError, match="nowhere"):
        plan(load_recipe({"name": "x", "sources": {"a": {"files": "/nowhere/a.jsonl"}}}))


def test_expected_bytes_alone_give_estimated_tokens():
    data = {
        "name": "x", "sources": {"a": {"files": "a.jsonl", "expect": {"bytes": "372GB"}}},
        "tokenizer": {"train": {}}, "stages": [{"name": "s", "sources": {"a": {}}}],
    }  # fmt: skip
    (source,) = plan(load_recipe(data)).sources
    assert (source.basis, source.tokens, source.documents) == ("estimated", 100_000_000_000, None)


def test_a_folder_of_another_recipe_says_nothing(tmp_path):
    path, _, _ = write_corpus(tmp_path)
    run = tmp_path / "run"
    (run / "artifacts").mkdir(parents=True)
    assert plan(load_recipe(path), run).sources[0].basis == "estimated"


@pytest.mark.parametrize(
    ("n", "beside", "text"),
    [(344.8e9, 0, "344.8 B"), (997.2e6, 119e9, "1.0 B"), (5e6, 119e9, "5.0 M"), (999_960, 0, "1.0 M"), (12, 0, "12")],
)
def test_numbers_read_as_people_write_them(n, beside, text):
    assert tokens_text(n, beside) == text


def test_spans_of_any_length():
    assert [span(s) for s in (3, 3600, 5 * 86400, 1e11)] == ["3.0 s", "1 h 00 min", "5 days", "3,169 years"]


def test_rows_with_odd_side_fields_are_counted(tmp_path):
    deep = "[" * 500 + "]" * 500
    sides = [str(10**400), "NaN", "1e999", '"\\ud800"', deep]
    lines = [f'{{"text": "some words", "side": {side}}}\n' for side in sides]
    (tmp_path / "a.jsonl").write_text("".join(lines))
    (tmp_path / "recipe.yaml").write_text("name: odd\nsources: {s: {files: a.jsonl}}")
    (source,) = plan(load_recipe(tmp_path / "recipe.yaml")).sources
    assert source.documents == len(lines)


def test_one_process_looks_into_the_tables_of_all_sources(tmp_path):
    import pyarrow as pa
    import pyarrow.parquet as pq

    from headrace.planning import counts

    for name in "abc":
        pq.write_table(pa.table({"text": [f"{name} {i}" for i in range(9)]}), tmp_path / f"{name}.parquet")
    recipe = load_recipe({"name": "x", "sources": {name: {"files": f"{tmp_path}/{name}.parquet"} for name in "abc"}})

    def process():
        assert [source.documents for source in plan(recipe).sources] == [9, 9, 9]
        return counts._sampler

    first = process()
    assert process() is first
    first.close()  # as if a file had crashed it
    assert process() is not first
