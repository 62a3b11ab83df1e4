"""``headrace eval`` on a run, its checkpoints and its export, and on a model of transformers."""

from __future__ import annotations

import gzip
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from headrace import evaluation
from headrace.errors import UserError

HEADRACE = str(Path(sys.executable).with_name("headrace"))
STDLIB = Path(json.__file__).parents[1]

RECIPE = f"""\
name: tiny
sources: {{code: {{files: "{STDLIB}/[a-b]*.py", license: PSF-2.0, language: python}}}}
split: {{validation: 0.1}}
deduplicate: null
tokenizer: {{train: {{vocab_size: 400}}}}
defaults: {{sequence_length: 64}}
decontaminate: {{benchmarks: {{HumanEval: {{files: "${{recipe}}/tasks.jsonl", fields: [prompt]}}}}}}
stages:
  - {{name: one, sources: {{code: {{}}}}, train: {{steps: 4, batch: 4, precision: fp32, samples: {{tokens: 0}}}}}}
model: {{layers: 1, width: 32, heads: 2, ffn: 64}}
"""


def headrace(folder, *words, code=0):
    done = subprocess.run([HEADRACE, *map(str, words)], capture_output=True, text=True, timeout=500, cwd=folder)
    assert done.returncode == code, done.stdout + done.stderr
    return done.stdout if code == 0 else done.stderr


@pytest.fixture(scope="module")
def folder(shared, tmp_path_factory):
    """A run, beside a file of three tasks."""
    folder = tmp_path_factory.mktemp("eval")
    with gzip.open(shared / "fixtures" / "benchmarks" / "HumanEval.jsonl.gz", "rt") as file:
        (folder / "tasks.jsonl").write_text("".join(file.readlines()[:3]))
    (folder / "recipe.yaml").write_text(RECIPE)
    headrace(folder, "run", "recipe.yaml", "--out", "run", "--workers", 1)
    return folder


def completions(path):
    [found] = path.glob("*/completions.jsonl")
    return found.read_text()


def test_a_run_its_checkpoint_and_its_export_write_the_same(folder):
    told = json.loads(headrace(folder, "eval", "run", "--tasks", "humaneval", "--tokens", 12, "--unsafe", "--json"))
    results = folder / "run" / "evaluations" / "one"
    assert told["humaneval"]["tasks"] == 3
    assert told["humaneval"]["pass@k"]["1"]["value"] == 0
    assert (folder / told["humaneval"]["path"]).parent == results
    written = completions(results)
    [checkpoint] = (folder / "run" / "checkpoints" / "one").glob("*/step-*")
    common = ["--tasks", "he=tasks.jsonl", "--tokens", 12, "--unsafe"]
    headrace(folder, "eval", checkpoint, *common, "--out", "from_checkpoint")
    assert completions(folder / "from_checkpoint") == written
    headrace(folder, "export", "run", "exported", "--to", "huggingface", "--model", "one")
    headrace(folder, "eval", "exported", *common, "--out", "from_export")
    assert completions(folder / "from_export") == written


@pytest.mark.slow
def test_long_texts_of_a_run_and_of_its_export(folder):
    told = json.loads(
        headrace(folder, "eval", "run", "--tasks", "needle,loss-by-position", "--length", 384, "--limit", 1, "--json")
    )
    assert told["loss-by-position"]["documents"] == 1 < told["loss-by-position"]["read"]
    assert {cell["length"] for cell in told["needle"]["cells"]} >= {384}
    assert (folder / told["needle"]["path"]).parent == folder / "run" / "evaluations" / "one"
    headrace(folder, "export", "run", "for_length", "--to", "huggingface", "--model", "one")
    text = max((path.read_text() for path in STDLIB.glob("[a-b]*.py")), key=len)
    (folder / "long.txt").write_text(text)
    common = ["--tasks", "loss-by-position=long.txt", "--length", 384]
    own, theirs = (
        headrace(folder, "eval", model, *common, "--out", f"{model}-long") for model in ("run", "for_length")
    )
    assert own.splitlines()[:-1] == theirs.splitlines()[:-1]
    assert "1 of 1 documents" in own
    assert max(map(len, own.splitlines()[:-1])) <= 80


def test_a_model_of_transformers(folder):
    transformers = pytest.importorskip("transformers")
    import torch
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers

    alphabet = {c: i for i, c in enumerate(sorted(pre_tokenizers.ByteLevel.alphabet()))}
    tokenizer = Tokenizer(models.BPE(alphabet, []))
    tokenizer.pre_tokenizer, tokenizer.decoder = pre_tokenizers.ByteLevel(add_prefix_space=False), decoders.ByteLevel()
    tokenizer.add_special_tokens(["<|end|>"])
    fast = transformers.PreTrainedTokenizerFast(tokenizer_object=tokenizer, eos_token="<|end|>")
    fast.save_pretrained(folder / "llama")
    torch.manual_seed(0)
    config = transformers.LlamaConfig(
        vocab_size=260, hidden_size=32, intermediate_size=48, num_hidden_layers=2, num_attention_heads=4,
        num_key_value_heads=2, max_position_embeddings=1024, eos_token_id=256, bos_token_id=256, initializer_range=0.5,
    )  # fmt: skip
    model = transformers.LlamaForCausalLM(config)
    model.save_pretrained(folder / "llama")
    headrace(folder, "eval", "llama", "--tasks", "tasks.jsonl", "--tokens", 8, "--unsafe")
    lines = [json.loads(line) for line in completions(folder / "evaluations" / "llama").splitlines()]
    prompts = {row["task_id"]: row["prompt"].strip() for row in map(json.loads, (folder / "tasks.jsonl").open())}
    for line in lines:  # what transformers itself generates
        given = torch.tensor([fast(prompts[line["task_id"]])["input_ids"]])
        new = model.generate(given, max_new_tokens=8, do_sample=False, pad_token_id=256)[0, given.shape[1] :]
        text = fast.decode(new, skip_special_tokens=True)
        assert text.startswith(line["completion"])


def test_mistakes_are_told(folder):
    for words, message in (
        (["run", "--tasks", "humanevil"], "humaneval"),
        (["run", "--tasks", "tasks.jsonl", "--k", "10"], "--samples 10"),
        (["run", "--tasks", "tasks.jsonl", "--samples", "2", "--temperature", "0"], "the same"),
        (["run", "--tasks", "tasks.jsonl", "--k", "0"], "at least 1"),
        (["run", "--tasks", "tasks.jsonl", "--prompts", "chat"], "none of bigcode, paper"),
        (["run", "--tasks", ","], "No tasks"),
        (["run", "--tasks", "loss-by-position", "--length", "500000"], "documents has 500,001 tokens"),
        (["run", "--tasks", "tasks.jsonl", "--length", "64"], "loss-by-position"),
    ):
        assert message in headrace(folder, "eval", *words, code=2), words


def test_wrong_tasks_are_told(folder, monkeypatch):
    monkeypatch.chdir(folder)
    packed = gzip.compress((folder / "tasks.jsonl").read_bytes())
    (folder / "short.jsonl.gz").write_bytes(packed[: len(packed) // 2])
    (folder / "damaged.parquet").write_bytes(b"PAR1" + bytes(100) + b"PAR1")
    (folder / "none.jsonl").write_bytes(b"")
    for wanted, message in (
        ("mbpp", "was not found"),
        ("mbpp=", "No file is given"),
        ("a=tasks.jsonl,a=tasks.jsonl", "cannot name"),
        ("recipe.yaml", "must be .jsonl"),
        ("short.jsonl.gz", "cannot be used: (?!the line is blank)"),
        ("damaged.parquet", "cannot be used: (?!the line is blank)"),
        ("none.jsonl", "has no tasks"),
    ):
        with pytest.raises(UserError, match=message):
            evaluation.find_tasks(wanted.split(","), folder / "run", "bigcode")


def test_wrong_models_are_told(folder, monkeypatch):
    monkeypatch.chdir(folder)
    headrace(folder, "export", "run", "whole", "--to", "huggingface", "--model", "one")
    for name, file, content in (
        ("no_json", "config.json", b"{"),
        ("no_weights", "model.safetensors", b"x" * 100),
        ("no_tokenizer", "tokenizer.json", None),
        ("huge", "other.safetensors", b""),
    ):
        shutil.copytree("whole", name)
        (folder / name / file).unlink() if content is None else (folder / name / file).write_bytes(content)
    os.truncate(folder / "huge" / "other.safetensors", 1 << 43)  # a hole, which takes no space
    for model, stage, tokenizer, message in (
        ("run", "two", None, "no model-two"),
        ("run", None, "absent.json", "no such tokenizer"),
        ("run/artifacts", None, None, "no model"),
        ("absent", None, None, "no model"),
        ("whole", "one", None, "Only a run has stages"),
        ("no_json", None, None, "no JSON"),
        ("no_weights", None, None, "cannot"),
        ("no_tokenizer", None, None, "tokenizer"),
        ("huge", None, None, "of memory are free"),
    ):
        with pytest.raises(UserError, match=message):
            evaluation.find_target(Path(model), stage, tokenizer and Path(tokenizer)).open()
