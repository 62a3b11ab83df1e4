"""lm-evaluation-harness on our models: likelihoods are plain torch's, a task on disk comes out as it must."""

from __future__ import annotations

import json

import pytest
import torch
from test_sampling import engine  # noqa: F401 - a fixture

from headrace.evaluate.harness import _pair, likelihoods, run_harness
from headrace.evaluate.language import Own
from headrace.model.config import ModelConfig
from headrace.model.transformer import Transformer


@pytest.fixture(scope="module")
def language(engine):  # noqa: F811
    torch.set_num_threads(1)
    model = Transformer(ModelConfig(vocab_size=264, layers=2, width=32, heads=2, ffn=40))
    model.initialise(1)
    with torch.no_grad():
        model.embedding.weight.mul_(10)
    return Own(model, engine)


PAIRS = [("The sky is", " blue"), ("", "Hello"), ("a b ", "c"), ("x" * 50, "yz"), ("one", "")]


def test_likelihoods_are_those_of_the_whole_row(language):
    pairs = [_pair(language, *pair) for pair in PAIRS]
    assert [len(continuation) for _, continuation in pairs] == [5, 5, 2, 2, 0]
    for (context, continuation), (value, greedy) in zip(pairs, likelihoods(language, pairs), strict=True):
        with torch.no_grad():
            scores = language.model(torch.tensor([context + continuation]))[0].log_softmax(-1)
        places = range(len(context) - 1, len(context) + len(continuation) - 1)
        each = [float(scores[at, token]) for at, token in zip(places, continuation, strict=True)]
        assert value == pytest.approx(sum(each), abs=1e-4)
        assert greedy == all(int(scores[at].argmax()) == t for at, t in zip(places, continuation, strict=True))


def test_a_text_that_is_too_long_loses_its_beginning(language, monkeypatch):
    monkeypatch.setattr(language, "longest", 8)
    end = [7, 8, 9, 10, 11, 12, 13]
    [(short, _), (long, _)] = likelihoods(language, [(end, [1, 2]), ([5] * 20 + end, [1, 2])])
    assert long == pytest.approx(short, abs=1e-5)


def test_a_task_on_disk(language, tmp_path, monkeypatch):
    pytest.importorskip("lm_eval", reason="the extra `eval` is not installed")
    monkeypatch.setenv("HF_HOME", str(tmp_path / "cache"))
    monkeypatch.setenv("HF_DATASETS_OFFLINE", "1")
    choices = ["abc", "xyz", "  q"]
    asked = [[_pair(language, f"Question {i}\nAnswer:", f" {choice}") for choice in choices] for i in range(4)]
    scores = [[value for value, _ in likelihoods(language, pairs)] for pairs in asked]
    gold = [row.index(max(row)) for row in scores]
    gold[0] = (gold[0] + 1) % 3  # it will be wrong here
    docs = [{"question": f"Question {i}", "choices": choices, "gold": gold[i]} for i in range(4)]
    (tmp_path / "data.jsonl").write_text("".join(json.dumps(doc) + "\n" for doc in docs))
    (tmp_path / "mine.yaml").write_text(
        f"""task: mine
dataset_path: json
dataset_kwargs: {{data_files: {{test: {tmp_path / "data.jsonl"}}}}}
test_split: test
output_type: multiple_choice
doc_to_text: "{{{{question}}}}\\nAnswer:"
doc_to_choice: "{{{{choices}}}}"
doc_to_target: gold
metric_list: [{{metric: acc}}]
"""
    )
    assert run_harness(language, [str(tmp_path / "mine.yaml")], None)["mine"]["acc"] == 0.75
