"""Classifiers of transformers, beside its own pipeline, and folders that hold none."""

from __future__ import annotations

import json
import random
import sys
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from small_models import TEXT, bert

from headrace.annotate.classifier import ClassifierScorer
from headrace.errors import UserError
from headrace.recipe.quality import Classifier

TEXTS = [
    "the mill wheel", "buy cheap offer", "", " \n", "def class ( 0 ) : return 1", "größe 変数 naïve",
    *(" ".join(random.Random(k).choices(TEXT.split(), k=20 * k)) for k in range(1, 12)),
]  # fmt: skip


def batch(texts: list[str]) -> pa.RecordBatch:
    return pa.record_batch([pa.array(texts, pa.large_string())], names=["text"])


def scorer(folder: Path, **section) -> ClassifierScorer:
    return ClassifierScorer.open(Classifier(folder=str(folder), **section), Path, 1 << 30)


def pipeline(folder: Path, texts: list[str], label: str) -> list[float]:
    """What transformers says, for a text at a time."""
    from transformers import pipeline

    told = pipeline("text-classification", model=str(folder), device="cpu")
    found = told(texts, truncation=True, top_k=None)
    return [next(one["score"] for one in some if one["label"] == label) for some in found]


@pytest.mark.parametrize(
    ("config", "section", "label"),
    [
        ({"num_labels": 1, "problem_type": "regression"}, {}, "LABEL_0"),
        ({"num_labels": 1}, {}, "LABEL_0"),
        ({"id2label": {0: "bad", 1: "fair", 2: "good"}}, {"label": "good"}, "good"),
        ({"num_labels": 3, "problem_type": "multi_label_classification"}, {"label": "LABEL_1"}, "LABEL_1"),
    ],
)
def test_scores_are_those_of_the_pipeline(tmp_path, config, section, label):
    folder = bert(tmp_path, classifier=True, **config)
    found = scorer(folder, **section).score(batch(TEXTS))
    some = [row for row, text in enumerate(TEXTS) if text.strip()]
    assert np.isnan(np.delete(found, some)).all()
    expected = pipeline(folder, [TEXTS[row] for row in some], label)
    # A batch is padded and a single text is not, so products are summed in another order: 1e-5 apart for values of 4.
    np.testing.assert_allclose(found[some], expected, rtol=1e-4, atol=1e-4)
    assert np.std(expected) > 0.01


def test_windows_of_a_long_document_are_averaged(tmp_path):
    folder = bert(tmp_path, classifier=True, num_labels=1, problem_type="regression")
    words = random.Random(1).choices(TEXT.split(), k=62 * 3)
    parts = [" ".join(words[k : k + 62]) for k in (0, 62, 124)]
    every = scorer(folder, windows=["top", "middle", "bottom"])
    whole = every.score(batch([" ".join(words)]))
    assert whole[0] == pytest.approx(every.score(batch(parts)).mean(), abs=1e-4)
    top = scorer(folder).score(batch([" ".join(words)]))
    assert top[0] == pytest.approx(every.score(batch(parts[:1]))[0], abs=1e-4)
    assert top[0] != pytest.approx(whole[0], rel=1e-3)


def test_bf16_scores_nearly_alike(tmp_path):
    folder = bert(tmp_path, classifier=True, id2label={0: "bad", 1: "good"})
    exact, coarse = (scorer(folder, label="good", precision=p).score(batch(TEXTS[6:])) for p in ("fp32", "bf16"))
    assert np.abs(exact - coarse).max() < 0.1
    assert (exact != coarse).any()


@pytest.mark.parametrize(
    ("section", "told"),
    [
        ({}, "one of bad, good"),
        ({"label": "god"}, "Did you mean 'good'"),
        ({"label": "good", "window": 65}, "64 tokens at a time, not 65"),
    ],
)
def test_what_the_model_has_not_is_told(tmp_path, section, told):
    folder = bert(tmp_path, classifier=True, id2label={0: "bad", 1: "good"})
    with pytest.raises(UserError) as error:
        scorer(folder, **section)
    assert told in str(error.value)


def broken(folder: Path, how: str) -> None:
    path = folder / "config.json"
    told = json.loads(path.read_bytes())
    if how == "no head":
        bert(folder)
    elif how == "no weights":
        (folder / "model.safetensors").unlink()
    elif how == "pickle":
        (folder / "model.safetensors").rename(folder / "pytorch_model.bin")
    elif how == "cut off":
        raw = (folder / "model.safetensors").read_bytes()
        (folder / "model.safetensors").write_bytes(raw[: len(raw) // 2])
    elif how == "no tokenizer":
        for one in folder.glob("token*"):
            one.unlink()
    elif how == "code of its own":
        path.write_text(json.dumps({"auto_map": {"AutoConfig": "evil.Config"}, "model_type": "evil"}))
        (folder / "evil.py").write_text(f"open({str(folder / 'ran')!r}, 'w')\n")
    else:
        path.write_text(json.dumps({**told, **json.loads(how)}) if how.startswith('{"') else how)


@pytest.mark.parametrize(
    "how",
    [
        "no head", "no weights", "pickle", "cut off", "no tokenizer", "code of its own", "[]", "{", "null",
        '{"num_hidden_layers": 1000000000}', '{"hidden_size": 100000000}', '{"vocab_size": 2000000000}',
        '{"model_type": "nothing"}', '{"hidden_size": -1}', '{"max_position_embeddings": 32}',
    ],
)  # fmt: skip
def test_a_folder_without_such_a_model_is_refused(tmp_path, how):
    broken(bert(tmp_path, classifier=True, num_labels=1), how)
    with pytest.raises(UserError) as error:
        scorer(tmp_path)
    assert str(tmp_path) in str(error.value)
    assert not (tmp_path / "ran").exists()


def test_values_that_are_not_finite_are_refused(tmp_path):
    from safetensors.numpy import load_file, save_file

    bert(tmp_path, classifier=True, num_labels=1)
    held = load_file(tmp_path / "model.safetensors")
    held["classifier.weight"][0, 0] = np.nan
    save_file(held, tmp_path / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(UserError, match="not finite"):
        scorer(tmp_path)


@pytest.mark.parametrize(("package", "extra"), [("torch", "train"), ("transformers", "annotators")])
def test_a_package_that_is_missing_is_told(tmp_path, monkeypatch, package, extra):
    bert(tmp_path, classifier=True, num_labels=1)
    monkeypatch.setitem(sys.modules, package, None)
    with pytest.raises(UserError, match=rf"headrace\[{extra}\]"):
        scorer(tmp_path)


def test_a_model_of_more_than_text_is_refused(tmp_path):
    from transformers import T5Config, T5Model

    from headrace.annotate.encoder import EncoderScorer
    from headrace.recipe.quality import Encoder

    bert(tmp_path)
    T5Model(T5Config(vocab_size=200, d_model=16, d_kv=8, d_ff=16, num_layers=1, num_heads=2)).save_pretrained(tmp_path)
    with pytest.raises(UserError, match="cannot be given a text alone"):
        EncoderScorer.open(Encoder(folder=str(tmp_path), positives="none"), Path, 1 << 30)
