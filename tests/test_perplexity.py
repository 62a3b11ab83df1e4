"""Bits per byte of documents under a model: beside a plain computation, and the same from a run and its export."""

from __future__ import annotations

import json
import math
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
import torch

from headrace.documents.store import fetch
from headrace.errors import UserError
from headrace.evaluation import find_target
from headrace.export import Wanted, export
from headrace.perplexity import PerplexityScorer
from headrace.pipeline import run
from headrace.recipe.load import load_recipe
from headrace.recipe.quality import Perplexity
from headrace.run_folder import artifact

STDLIB = Path(json.__file__).parents[1]


@pytest.fixture(scope="module")
def trained(tmp_path_factory) -> Path:
    """A run with a small model of code."""
    out = tmp_path_factory.mktemp("perplexity") / "run"
    recipe = {
        "name": "tiny",
        "sources": {"code": {"files": f"{STDLIB}/[a-b]*.py"}},
        "deduplicate": None,
        "tokenizer": {"train": {"vocab_size": 400}},
        "defaults": {"sequence_length": 64},
        "stages": [
            {"name": "one", "sources": {"code": {}}, "train": {"steps": 30, "batch": 8, "samples": {"tokens": 0}}}
        ],
        "model": {"layers": 1, "width": 32, "heads": 2, "ffn": 64},
    }
    run(load_recipe(recipe), out, workers=0)
    return out


def scorer(model: Path, **section) -> PerplexityScorer:
    return PerplexityScorer.open(Perplexity(model=str(model), **section), Path, 1 << 30)


def bits(scored: PerplexityScorer, texts: list[str]) -> np.ndarray:
    told = scored.annotate(pa.record_batch([pa.array(texts, pa.large_string())], names=["text"]))
    score, found = (told.column(name).to_numpy(zero_copy_only=False) for name in ("score", "bits_per_byte"))
    np.testing.assert_array_equal(score, -found)
    return found


TEXTS = ["import os\n", "def f(x):\n    return x\n", "größe 変数", "x", "zqj ~|~ €€ \x7f", "class A:\n    pass\n" * 9]


def test_bits_are_those_of_a_plain_computation(trained):
    language = find_target(trained).open()
    found = bits(scorer(trained, window=4096), [*TEXTS, ""])
    assert np.isnan(found).tolist() == [False] * len(TEXTS) + [True]
    for text, one in zip(TEXTS, found.tolist(), strict=False):
        ids = torch.tensor([language.encode(text)])
        with torch.inference_mode():
            shares = language.logits(ids)[0, :-1].float().log_softmax(-1)
        nats = -sum(float(shares[k, token]) for k, token in enumerate(ids[0, 1:].tolist()))
        assert one == pytest.approx(nats / math.log(2) / len(text.encode()), rel=1e-4)
    assert found[1] < found[4]


def test_windows_of_a_long_document_count_by_their_bytes(trained):
    scored = scorer(trained, window=16)
    long = "".join(f"value_{k} = {k * k}\n" for k in range(60))
    ids = scored.language.encode(long)[1:]
    middle = (len(ids) - 16) // 2
    parts = [ids[:16], ids[middle : middle + 16], ids[-16:]]
    start = scored.language.encode("")
    nats = size = 0.0
    for part in parts:
        with torch.inference_mode():
            shares = scored.language.logits(torch.tensor([start + part]))[0, :-1].float().log_softmax(-1)
        nats -= sum(float(shares[k, token]) for k, token in enumerate(part))
        size += len(scored.language.decode(start, part).encode())
    assert bits(scored, [long])[0] == pytest.approx(nats / math.log(2) / size, rel=1e-4)


def test_an_exported_model_says_the_same(trained, tmp_path):
    export(trained, tmp_path / "exported", "huggingface", Wanted(model="one"), workers=0)
    np.testing.assert_allclose(bits(scorer(tmp_path / "exported"), TEXTS), bits(scorer(trained), TEXTS), rtol=1e-3)


def test_documents_are_scored_in_a_run(trained, tmp_path):
    (tmp_path / "corpus.jsonl").write_text("".join(json.dumps({"text": text}) + "\n" for text in TEXTS))
    recipe = {
        "name": "q",
        "sources": {"web": {"files": str(tmp_path / "corpus.jsonl")}},
        "quality": {"annotators": {"fluent": {"kind": "perplexity", "model": str(trained)}}},
    }
    run(load_recipe(recipe), tmp_path / "run", workers=0, until="quality")
    rows = np.arange(len(TEXTS))
    texts = fetch(artifact(tmp_path / "run", "documents"), rows, ["text"]).column("text").to_pylist()
    found = fetch(artifact(tmp_path / "run", "quality", "fluent"), rows, ["score", "bits_per_byte"])
    np.testing.assert_allclose(found.column("bits_per_byte").to_numpy(), bits(scorer(trained), texts), rtol=1e-5)


def test_what_is_no_model_is_told(tmp_path):
    for folder in (tmp_path, tmp_path / "nowhere"):
        with pytest.raises(UserError, match="no model"):
            PerplexityScorer.find(Perplexity(model=str(folder)), lambda paths: [], "quality.annotators.x")
