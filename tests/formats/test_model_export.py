"""A stage's model exported: transformers computes, tokenizes and generates the same, and a server answers as we do."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from pathlib import Path

import jinja2
import numpy as np
import pytest
import yaml

from headrace.errors import UserError
from headrace.export import Wanted, export
from headrace.flow.artifact import Artifact
from headrace.formats.tokenizer_files import CHATML, CRYSTALCHAT
from headrace.model.huggingface.reading import load
from headrace.run_folder import artifact
from headrace.sequence.chat import transform
from headrace.sequence.chat_template import chat_template
from headrace.tokens.definition import byte_level_definition
from headrace.tokens.engine import Texts
from headrace.tokens.load import engine_from, open_engine
from headrace.tokens.vocabulary import byte_alphabet

pytest.importorskip("transformers")
SRC = Path(__file__).parents[2] / "src"
# Weights so large that what an untrained model says is not the same token again and again.
RECIPE = """\
name: small
sources:
  code: {files: "SRC/headrace/flow/*.py", license: Apache-2.0}
  talk: {files: talk.jsonl, format: chat, license: CC0-1.0}
tokenizer: {train: {vocab_size: 600}}
model:
  {preset: tiny, vocab_multiple: 1, tied: false, mup: {attention: d},
   init: {embedding_std: 1, hidden_std: 0.4, output_std: 0.4}}
defaults: {train: {batch: 4, steps: 2, precision: fp32, samples: {tokens: 0}}}
stages:
  - {name: one, sequence_length: 64, sources: {code: {}}}
  - {name: two, sequence_length: 96, chat: chatml, sources: {talk: {epochs: 8}}}
"""
TALK = [{"role": "user", "content": "What is 3 + 1?"}, {"role": "assistant", "content": "It is 4, of course."}]


@pytest.fixture(scope="module")
def run(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("model")
    (folder / "talk.jsonl").write_text("".join(json.dumps({"messages": TALK, "n": n}) + "\n" for n in range(60)))
    (folder / "recipe.yaml").write_text(RECIPE.replace("SRC", str(SRC)))
    program = str(Path(sys.executable).with_name("headrace"))
    environment = {**os.environ, "PYTHONPATH": str(SRC)}
    command = [program, "run", str(folder / "recipe.yaml"), "--out", str(folder / "run")]
    subprocess.run(command, check=True, capture_output=True, env=environment)
    return folder / "run"


@pytest.fixture(scope="module")
def exported(run) -> Path:
    return export(run, run.parent / "exported", "huggingface", Wanted(model="two"), workers=0)


def continued(run: Path, exported: Path, prompt: list[int], count: int) -> list[int]:
    """Our own greedy continuation, by the model of the run."""
    from headrace.evaluate.generation import Cached, generate

    ours = load(artifact(run, "model", "two").path)
    stop = set(json.loads((exported / "generation_config.json").read_text())["eos_token_id"])
    return generate(Cached(ours), [prompt], count, [1], stop=stop)[0]


def test_transformers_computes_tokenizes_and_generates_the_same(run, exported):
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    ours, theirs = load(artifact(run, "model", "two").path), AutoModelForCausalLM.from_pretrained(exported).eval()
    engine, tokenizer = open_engine(artifact(run, "tokenizer")), AutoTokenizer.from_pretrained(exported)
    text = "def f(x):\n    return 'é漢' + x  # 😀\n"
    ids = engine.encode([text]).tokens.astype(np.int64).tolist()
    assert tokenizer(text)["input_ids"] == ids
    with torch.no_grad():
        mine, other = ours(torch.tensor([ids])), theirs(torch.tensor([ids])).logits
    assert (mine - other).abs().max() < 1e-5 * mine.abs().max()
    new = theirs.generate(torch.tensor([ids]), max_new_tokens=24, do_sample=False)[0, len(ids) :].tolist()
    assert new == continued(run, exported, ids, 24)
    assert len(set(new)) > 5
    assert json.loads((exported / "config.json").read_text())["max_position_embeddings"] == 96


def test_weights_in_bfloat16_are_ours_rounded(run, exported):
    import torch
    from safetensors.torch import load_file
    from transformers import AutoModelForCausalLM

    out = export(run, run.parent / "half", "huggingface", Wanted(model="two", dtype="bfloat16"), workers=0)
    whole, half = load_file(exported / "model.safetensors"), load_file(out / "model.safetensors")
    assert whole.keys() == half.keys()
    assert all(torch.equal(half[name], tensor.bfloat16()) for name, tensor in whole.items())
    assert json.loads((out / "config.json").read_text())["torch_dtype"] == "bfloat16"
    theirs = AutoModelForCausalLM.from_pretrained(out).eval()
    assert theirs.dtype == torch.bfloat16
    ids = torch.arange(40).view(1, -1)
    with torch.no_grad():
        mine, other = load(out)(ids), theirs.float()(ids).logits
    assert (mine - other).abs().max() < 1e-5 * mine.abs().max()
    wrong = {"not written as int8": Wanted(model="two", dtype="int8"), "holds a model": Wanted(dtype="float32")}
    for message, wanted in wrong.items():
        with pytest.raises(UserError, match=message):
            export(run, run.parent / "none", "huggingface", wanted, workers=0)


def test_the_chat_template_and_the_ends_of_answers_are_the_stages(run, exported):
    from transformers import AutoTokenizer

    tokenizer, engine = AutoTokenizer.from_pretrained(exported), open_engine(artifact(run, "tokenizer"))
    turns, text = [], ""
    for said in TALK:
        turns.append({"role": said["role"], "start": len(text), "end": len(text) + len(said["content"])})
        text += said["content"]
    made = transform(Texts.of([text]), [turns], engine, chat_template("chatml"))
    assert tokenizer.apply_chat_template(TALK)["input_ids"] == made.tokens.tolist()
    ends = json.loads((exported / "generation_config.json").read_text())["eos_token_id"]
    assert ends == [engine.special["eod"], engine.special["im_end"]]


@pytest.mark.parametrize(("name", "source"), [("chatml", CHATML), ("crystalchat", CRYSTALCHAT)])
@pytest.mark.parametrize("roles", [("user", "assistant"), ("system", "user", "assistant", "user", "assistant")])
def test_own_templates_are_the_same_as_jinja(name, source, roles):
    spelled = {"eod": "</s>", "bos": "<s>", **{role: f"<|{role}|>" for role in ("im_start", "im_end", "sys_start")}}
    spelled["sys_end"] = "<|sys_end|>"
    definition = byte_level_definition(byte_alphabet(), [])
    flags = {"single_word": False, "lstrip": False, "rstrip": False, "normalized": False, "special": True}
    first = 256
    added = [{"id": first + i, "content": text, **flags} for i, text in enumerate(spelled.values())]
    definition["added_tokens"] = added
    special = {role: first + i for i, role in enumerate(spelled)}
    engine = engine_from(definition, special)
    said = [{"role": role, "content": f"{role} says {i}" if i != 2 else ""} for i, role in enumerate(roles)]
    turns, text = [], ""
    for one in said:
        turns.append({"role": one["role"], "start": len(text), "end": len(text) + len(one["content"])})
        text += one["content"]
    ids = transform(Texts.of([text]), [turns], engine, chat_template(name)).tokens
    texts = {special[role]: text for role, text in spelled.items()}
    rendered = "".join(texts.get(int(i)) or engine.decode(np.array([i], dtype=np.uint32)).decode() for i in ids)
    template = jinja2.Template(source)
    assert template.render(messages=said, bos_token="<s>") == rendered
    asked = template.render(messages=said[:-1], bos_token="<s>", add_generation_prompt=True)
    assert rendered.startswith(asked)


def test_the_card_holds_the_ledger(exported):
    card = (exported / "README.md").read_text()
    head = yaml.safe_load(card.split("---")[1])
    assert head["license"] == ["apache-2.0", "cc0-1.0"]
    assert head["library_name"] == "transformers"
    for line in ("| one | 2 | 512 | 512 |", "LlamaForCausalLM, ", "## Licenses", "pip install headrace"):
        assert line in card
    assert "| talk |" in card
    assert str(exported.parent) not in card
    assert str(SRC) not in card


def test_an_export_is_made_once_and_only_of_what_there_is(run, exported, tmp_path):
    before = {path: path.stat().st_mtime_ns for path in exported.iterdir()}
    assert export(run, exported, "huggingface", Wanted(model="two"), workers=0) == exported
    assert {path: path.stat().st_mtime_ns for path in exported.iterdir()} == before
    assert Artifact.open(exported).manifest.counts["two"]["parameters"] > 100_000
    for model, to, message in (
        ("three", "huggingface", "builds no model-three"),
        ("two", "hub", "holds a model"),
        (None, "huggingface", "--model STAGE"),
        ("one", "huggingface", "holds another export"),
    ):
        with pytest.raises(UserError, match=message):
            export(run, exported, to, Wanted(model=model), workers=0)
    with pytest.raises(UserError, match="exported alone"):
        export(run, tmp_path / "out", "huggingface", Wanted(model="two", documents=True), workers=0)


def asked(port: int, path: str, **body: object) -> dict:
    data = json.dumps({"max_tokens": 16, "temperature": 0, "stream": False, **body}).encode()
    request = urllib.request.Request(f"http://localhost:{port}{path}", data, {"Content-Type": "application/json"})
    with urllib.request.urlopen(request, timeout=120) as answer:
        return json.loads(answer.read())


def test_a_server_answers_as_we_do(run, exported, tmp_path):
    for needed in ("fastapi", "uvicorn", "openai"):
        pytest.importorskip(needed)
    with socket.socket() as free:
        free.bind(("localhost", 0))
        port = free.getsockname()[1]
    program = str(Path(sys.executable).with_name("transformers"))
    command = [program, "serve", "--host", "localhost", "--port", str(port), "--device", "cpu"]
    environment = {**os.environ, "HF_HUB_OFFLINE": "1"}
    with open(tmp_path / "log", "wb") as log:
        server = subprocess.Popen(command, stdout=log, stderr=log, env=environment)
    try:
        while True:
            assert server.poll() is None, (tmp_path / "log").read_text()
            try:
                urllib.request.urlopen(f"http://localhost:{port}/health", timeout=5).close()
                break
            except (urllib.error.URLError, OSError):
                time.sleep(0.5)
        engine = open_engine(artifact(run, "tokenizer"))

        def ours(prompt: list[int]) -> str:
            """What we say, without control tokens, as servers leave them out."""
            new = [token for token in continued(run, exported, prompt, 16) if token not in engine.special_ids]
            return engine.decode(np.array(new, dtype=np.uint32)).decode(errors="replace")

        ids = engine.encode(["def foo("]).tokens.astype(np.int64).tolist()
        answer = asked(port, "/v1/completions", model=str(exported), prompt="def foo(")
        assert answer["choices"][0]["text"] == ours(ids)
        parts = [("im_start", "user\nWhat is 3 + 1?"), ("im_end", "\n"), ("im_start", "assistant\n")]
        chat = [i for role, text in parts for i in (engine.special[role], *engine.encode([text]).tokens.tolist())]
        answer = asked(port, "/v1/chat/completions", model=str(exported), messages=TALK[:1])
        assert answer["choices"][0]["message"]["content"] == ours(chat)
    finally:
        server.terminate()
        server.wait()
