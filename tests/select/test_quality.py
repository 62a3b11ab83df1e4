"""Annotators from recipe to scores: what they learn from, what they score, and that nothing else decides the bytes."""

from __future__ import annotations

import json
import random
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from headrace.documents.store import fetch
from headrace.errors import UserError
from headrace.inquiry import ask
from headrace.pipeline import run
from headrace.recipe.load import load_recipe
from headrace.report.card.write import write_card
from headrace.report.gather import gather
from headrace.run_folder import artifact
from headrace.tokens.store import open_shard

GOOD = ["mill", "wheel", "race", "water", "sluice", "weir"]
BAD = ["buy", "cheap", "click", "offer", "casino", "bonus"]


def text(rng: random.Random, words: list[str], length: int = 60) -> str:
    return " ".join(rng.choice(words) for _ in range(length)) + f" {rng.random()}"


def corpus(folder: Path, documents: int = 400) -> None:
    """A corpus of good and bad texts, and a file of good ones."""
    rng = random.Random(7)
    lines = []
    for i in range(documents):
        words = GOOD if i % 4 == 0 else BAD
        lines.append({"text": text(rng, words), "language": "en" if i % 3 else "de", "good": i % 4 == 0})
    (folder / "corpus.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    (folder / "good.jsonl").write_text("".join(json.dumps({"text": text(rng, GOOD)}) + "\n" for _ in range(100)))


def recipe(folder: Path, **sections: Any) -> dict[str, Any]:
    return {
        "name": "q",
        "sources": {"web": {"files": str(folder / "corpus.jsonl"), "fields": {"language": "language"}}},
        "quality": {"annotators": {"good": {"positives": str(folder / "good.jsonl"), "curve": [0.5]}}},
        **sections,
    }


def built(folder: Path, data: dict[str, Any], out: str = "run", **options: Any) -> Path:
    run(load_recipe(data), folder / out, workers=0, memory=256 << 20, until="quality", **options)
    return folder / out


@pytest.fixture(scope="module")
def small(tmp_path_factory):
    folder = tmp_path_factory.mktemp("quality")
    corpus(folder)
    return folder, built(folder, recipe(folder))


def test_what_resembles_the_positives_scores_higher(small):
    _, out = small
    scores = fetch(artifact(out, "quality", "good"), np.arange(400), ["score"]).column("score").to_numpy()
    meta = fetch(artifact(out, "documents"), np.arange(400), ["meta"]).column("meta").to_pylist()
    good = np.array([json.loads(one)["good"] for one in meta])
    assert scores.dtype == np.float32
    assert scores[good].min() > scores[~good].max()


def test_figures_are_of_held_out_examples(small):
    _, out = small
    made = artifact(out, "annotator", "good")
    told = json.loads(made.file_path("figures.json").read_bytes())
    assert made.manifest.counts["positives"] == 100
    held = told["held_out"]
    assert 0 < held["positives"] < 100
    assert len(told["curve"]) == 2
    assert told["curve"][-1]["examples"] + sum(held.values()) == sum(made.manifest.counts.values())


def test_copies_of_positives_are_no_negatives(tmp_path):
    corpus(tmp_path)
    every = (tmp_path / "corpus.jsonl").read_text().splitlines()
    good = [line for line in every if json.loads(line)["good"]]
    (tmp_path / "good.jsonl").write_text("\n".join(good))
    out = built(tmp_path, recipe(tmp_path))
    assert artifact(out, "annotator", "good").manifest.counts == {
        "positives": 100,
        "negatives": pytest.approx(100, abs=30),
    }
    told = json.loads(artifact(out, "annotator", "good").file_path("figures.json").read_bytes())
    assert told["auc"] == 1.0


def test_too_few_examples_are_told(tmp_path):
    corpus(tmp_path)
    (tmp_path / "good.jsonl").write_text(json.dumps({"text": "one"}))
    with pytest.raises(UserError, match="1 positives"):
        built(tmp_path, recipe(tmp_path))


def test_too_few_examples_beside_those_held_out_are_told(tmp_path):
    corpus(tmp_path, 60)
    data = recipe(tmp_path)
    data["quality"]["annotators"]["good"]["held_out"] = 0.99
    with pytest.raises(UserError, match="left to learn from") as told:
        built(tmp_path, data)
    assert told.value.where == "quality.annotators.good.held_out"


def test_positives_without_documents_are_told_by_their_place(tmp_path):
    corpus(tmp_path)
    (tmp_path / "good.jsonl").write_text("")
    with pytest.raises(UserError, match="yields no documents: its file is empty") as told:
        built(tmp_path, recipe(tmp_path))
    assert told.value.where == "quality.annotators.good.positives.files.0"


def kept(out: Path) -> list[dict[str, Any]]:
    """Every document with its verdict."""
    documents, verdicts = artifact(out, "documents"), artifact(out, "verdicts")
    rows = np.arange(documents.rows)
    scores = fetch(artifact(out, "quality", "good"), rows, ["score"]).to_pylist()
    told = fetch(verdicts, rows, ["keep", "reason", "evidence"]).to_pylist()
    about = fetch(documents, rows, ["language", "bytes", "source", "text"]).to_pylist()
    return [{**a, **b, **c, "row": i} for i, (a, b, c) in enumerate(zip(about, scores, told, strict=True))]


def keeping(folder: Path, out: str, tokenizer: dict[str, Any] | None = None, **keep: Any) -> Path:
    data = recipe(folder, tokenizer=tokenizer)
    data["quality"] = {**data["quality"], "keep": keep}
    data["split"] = {"validation": 0.0}
    run(load_recipe(data), folder / out, workers=0, memory=256 << 20, until="verdicts")
    return folder / out


def test_the_best_share_of_each_language_is_kept(small):
    folder, _ = small
    out = keeping(folder, "share", share=0.2)
    documents = kept(out)
    told = {one["group"]: one for one in artifact(out, "verdicts").manifest.extra["quality"]}
    for language in ("de", "en"):
        mine = sorted((d for d in documents if d["language"] == language), key=lambda d: (-d["score"], d["row"]))
        total, reached, wanted = sum(d["bytes"] for d in mine), 0, True
        for place, d in enumerate(mine, 1):
            assert d["keep"] == wanted, place
            reached += d["bytes"]
            wanted = wanted and reached < 0.2 * total
            if not d["keep"]:
                evidence = json.loads(d["evidence"])
                assert d["reason"] == "quality"
                assert evidence == {
                    "annotator": "good", "score": pytest.approx(d["score"]), "rank": place, "of": len(mine),
                    "cut": told[language]["cut"], "kept": sum(d["keep"] for d in mine), "language": language,
                }  # fmt: skip
    counts = artifact(out, "verdicts").manifest.counts["web"]
    assert counts["kept"] + sum(counts["removed"].values()) == 400
    assert counts["removed"] == {"quality": sum(not d["keep"] for d in documents)}


def test_a_limit_of_the_score_keeps_all_above(small):
    folder, _ = small
    documents = kept(keeping(folder, "above", above=0.5, by=None))
    assert all(d["keep"] == (d["score"] >= 0.5) for d in documents)
    assert {json.loads(d["evidence"])["cut"] for d in documents if not d["keep"]} == {0.5}


def test_moving_the_budget_scores_nothing_again(small):
    folder, _ = small
    events: list[str] = []
    data = recipe(folder)
    for share in (0.3, 0.6):
        data["quality"] = {**data["quality"], "keep": {"share": share}}
        events.clear()
        listener = lambda event: events.append(event["artifact"]) if event.get("state") == "published" else None  # noqa: E731
        run(load_recipe(data), folder / "moved", workers=0, memory=256 << 20, until="verdicts", listener=listener)
    assert [name.split("-")[0] for name in events] == ["verdicts"]


def test_a_budget_of_tokens_is_met_to_a_document(small, shared):
    folder, _ = small
    tokenizer = {"file": str(shared / "fixtures" / "tokenizers" / "crystalcoder.json")}
    out = keeping(folder, "tokens", tokens=5000, tokenizer=tokenizer)
    documents = kept(out)
    lengths = fetch(artifact(out, "lengths"), np.arange(400), ["tokens"]).column("tokens").to_numpy() + 1
    for language in ("de", "en"):
        mine = [(d, int(lengths[d["row"]])) for d in documents if d["language"] == language]
        part = 5000 * sum(n for _, n in mine) / int(lengths.sum())
        taken = sum(n for d, n in mine if d["keep"])
        last = min((d for d, _ in mine if d["keep"]), key=lambda d: (d["score"], -d["row"]))
        assert part <= taken < part + 1 + int(lengths[last["row"]])


def test_other_removals_come_first(tmp_path):
    corpus(tmp_path)
    lines = (tmp_path / "corpus.jsonl").read_text().splitlines()
    (tmp_path / "corpus.jsonl").write_text("\n".join([*lines, *lines[:100]]))
    data = recipe(tmp_path, deduplicate={}, split={"validation": 0.0})
    data["quality"]["keep"] = {"share": 0.25, "by": "source"}
    run(load_recipe(data), tmp_path / "run", workers=0, memory=256 << 20, until="verdicts")
    documents = kept(tmp_path / "run")
    reasons = [d["reason"] for d in documents]
    assert reasons.count("duplicate") == 100
    left = [d for d in documents if d["reason"] != "duplicate"]
    assert sum(d["bytes"] for d in left if d["keep"]) == pytest.approx(0.25 * sum(d["bytes"] for d in left), rel=0.02)


def test_a_stage_takes_the_best_of_what_another_takes_whole(tmp_path):
    corpus(tmp_path)
    take = {"quality": {"top": 0.25}, "epochs": 4}
    stages = [{"name": "all", "sources": {"web": {}}}, {"name": "best", "sources": {"web": take}}]
    data = recipe(tmp_path, tokenizer={"train": {"vocab_size": 400}}, stages=stages)
    data["defaults"] = {"sequence_length": 64}
    run(load_recipe(data), tmp_path / "run", workers=0, memory=256 << 20, until="sequence-best")
    out = tmp_path / "run"
    run(load_recipe(data), out, workers=0, memory=256 << 20, until="sequence-all")
    tokens = artifact(out, "tokens")
    scores = fetch(artifact(out, "quality", "good"), np.arange(400), ["score"]).column("score").to_numpy()
    language = fetch(artifact(out, "documents"), np.arange(400), ["language"]).column("language").to_pylist()
    documents = []
    for number in range(len(tokens.shards)):
        shard = open_shard(tokens, number)
        for row, split, n in zip(shard.rows.tolist(), shard.split.tolist(), np.diff(shard.offsets), strict=True):
            if split == 0:
                documents.append((language[row], -float(scores[row]), row, int(n)))
    expected, many = 0, 0
    for name in ("de", "en"):
        mine = sorted(d for d in documents if d[0] == name)
        total, reached = sum(d[3] + 1 for d in mine), 0
        for _, _, _, n in mine:
            if reached >= 0.25 * total:
                break
            reached += n + 1
            expected, many = expected + n, many + 1
    made = artifact(out, "sequence", "best").manifest.extra
    ledger = made["ledger"]["sources"]["web"]
    assert ledger["copies_by_epoch"] == [many] * 4
    assert ledger["tokens_in"] == 4 * expected
    assert sum(group["taken"] for group in made["quality"]["web"]) == many
    whole = artifact(out, "sequence", "all").manifest
    assert whole.extra["ledger"]["sources"]["web"]["documents"] == len(documents)
    assert "quality" not in whole.extra
    assert "quality" not in whole.params["sources"]["web"]


def test_a_stage_for_which_nothing_is_good_enough_is_told(tmp_path):
    corpus(tmp_path)
    stages = [{"name": "best", "sources": {"web": {"quality": {"above": 2}}}, "sequence_length": 64}]
    data = recipe(tmp_path, tokenizer={"train": {"vocab_size": 400}}, stages=stages)
    with pytest.raises(UserError, match="No document of 'web' has a score of 2 or more"):
        run(load_recipe(data), tmp_path / "run", workers=0, memory=256 << 20, until="sequence-best")


def test_the_report_shows_annotators(tmp_path, shared):
    corpus(tmp_path)
    data = recipe(tmp_path, split={"validation": 0.0})
    data["quality"]["keep"] = {"share": 0.3}
    benchmarks = shared / "fixtures" / "benchmarks"
    data["quality"]["benchmarks"] = {
        "humaneval": {"files": str(benchmarks / "HumanEval.jsonl.gz")},
        "own": {"files": str(benchmarks / "mbpp.jsonl"), "fields": "code"},
    }
    run(load_recipe(data), tmp_path / "run", workers=0, memory=256 << 20)
    [told] = gather(tmp_path / "run").quality
    assert (told.name, told.kind, told.examples["positives"]) == ("good", "linear", 100)
    assert {name: one["items"] for name, one in told.spread["benchmarks"].items()} == {"humaneval": 164, "own": 974}
    assert told.spread["by_language"]["de"]["documents"] == 134
    assert len(told.tenths) == 10
    assert all(len(tenth.examples) == 2 for tenth in told.tenths)
    assert [tenth.low for tenth in told.tenths] == sorted(tenth.low for tenth in told.tenths)
    assert {cut["group"] for cut in told.cuts} == {"de", "en"}
    page = (tmp_path / "run" / "report" / "index.html").read_text()
    words = ("Quality", "ROC AUC", "Reliability", "Learning curve", "Tenth 10", "humaneval", "only where documents",
             "1.000 ±")  # fmt: skip
    assert [word for word in words if word not in page] == []
    card = write_card(tmp_path / "run", None)
    assert "not among the best 30.0 % of the text within each language by the annotator `good`" in card


def test_why_tells_the_score_and_the_rank(small):
    folder, _ = small
    out = keeping(folder, "share", share=0.2)
    documents = kept(out)
    for row in (next(d["row"] for d in documents if d["keep"]), next(d["row"] for d in documents if not d["keep"])):
        told = ask(out, fetch(artifact(out, "documents"), [row], ["id"]).column("id")[0].as_py())
        [decision] = [one for one in told["decisions"] if one["reason"] == "quality"]
        assert decision["measured"]["annotator"] == "good"
        assert decision["measured"]["score"] == pytest.approx(documents[row]["score"])
        assert decision["limit"] == {"share": 0.2, "by": "language"}
        assert decision["removes"] is not documents[row]["keep"]
        assert "good" in json.dumps(told["verdict"]["evidence"]) or documents[row]["keep"]


def test_a_corpus_of_positives_alone_is_told(tmp_path):
    corpus(tmp_path)
    shutil.copy(tmp_path / "corpus.jsonl", tmp_path / "good.jsonl")
    with pytest.raises(UserError, match="other documents are copies of positives"):
        built(tmp_path, recipe(tmp_path))


def test_awkward_texts_are_examples_and_have_scores(tmp_path):
    rng = random.Random(1)
    awkward = ["", "\0", " ", "x" * (1 << 20), "é" * 300_000, "\n" * 1000, "\u202e", "(" * 5000]
    for name, words in (("corpus", BAD), ("good", GOOD)):
        texts = [*awkward, *(text(rng, words) for _ in range(40))]
        (tmp_path / f"{name}.jsonl").write_text("".join(json.dumps({"text": t + name[:1]}) + "\n" for t in texts))
    out = built(tmp_path, recipe(tmp_path) | {"sources": {"web": {"files": str(tmp_path / "corpus.jsonl")}}})
    scores = fetch(artifact(out, "quality", "good"), np.arange(48), ["score"]).column("score").to_numpy()
    assert np.isfinite(scores).all()
    figures = json.loads(artifact(out, "quality", "good").file_path("spread.json").read_bytes())
    assert sum(tenth["documents"] for tenth in figures["tenths"]) == 48


def test_a_text_of_white_space_has_no_score_and_is_in_no_tenth(tmp_path):
    corpus(tmp_path)
    with (tmp_path / "corpus.jsonl").open("a") as f:
        f.writelines(
            json.dumps({"text": blank, "language": "de"}) + "\n" for blank in ("", " ", "\n\t", "\u2003\u00a0")
        )
    out = built(tmp_path, recipe(tmp_path))
    scores = fetch(artifact(out, "quality", "good"), np.arange(404), ["score"]).column("score").to_pylist()
    assert scores[400:] == [None] * 4
    assert None not in scores[:400]
    figures = json.loads(artifact(out, "quality", "good").file_path("spread.json").read_bytes())
    assert figures["without"] == 4
    assert sum(tenth["documents"] for tenth in figures["tenths"]) == 400
