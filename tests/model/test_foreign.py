"""Models of transformers behind our face, and weights that a run starts from."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch
import torch.nn.functional as fn
from safetensors.torch import load_file, save_file

from headrace.errors import UserError
from headrace.evaluate.generation import Cached, generate
from headrace.export import Wanted, export
from headrace.model.build import build
from headrace.model.config import parameter_count, read_any
from headrace.model.foreign.folder import read_foreign, read_weights
from headrace.model.huggingface.reading import load
from headrace.named_files import NamedFiles
from headrace.recipe.schema import Recipe
from headrace.run_folder import artifact
from headrace.sequence.store import open_sequence

transformers = pytest.importorskip("transformers")
SRC = Path(__file__).parents[2] / "src"
TORCHRUN = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2"]
SIZE = {"vocab_size": 600, "num_hidden_layers": 2, "num_attention_heads": 2, "hidden_size": 32, "intermediate_size": 48}
FAMILIES = {
    "gemma2": transformers.Gemma2Config(
        **SIZE, num_key_value_heads=1, head_dim=16, query_pre_attn_scalar=16, attention_dropout=0.3
    ),
    "gpt_neo": transformers.GPTNeoConfig(
        vocab_size=600, hidden_size=32, num_layers=2, num_heads=2, attention_types=[[["global", "local"], 1]]
    ),
    "olmo2": transformers.Olmo2Config(**SIZE, num_key_value_heads=2),
    "llama": transformers.LlamaConfig(**SIZE, num_key_value_heads=2, tie_word_embeddings=True),
    "mistral": transformers.MistralConfig(**SIZE, num_key_value_heads=2, sliding_window=3),
    "gemma3_text": transformers.Gemma3TextConfig(**SIZE, num_key_value_heads=2, head_dim=16, sliding_window=3),
    "llama4_text": transformers.Llama4TextConfig(
        **SIZE, num_key_value_heads=2, head_dim=16, attention_chunk_size=3, num_local_experts=2, pad_token_id=0
    ),
    "mixtral": transformers.MixtralConfig(**SIZE, num_key_value_heads=2, num_local_experts=4),
    "gpt2": transformers.GPT2Config(vocab_size=600, n_embd=32, n_layer=2, n_head=2, n_positions=64),
}
BERT = {"vocab_size": 600, "hidden_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2}


def saved(folder: Path, name: str, weights: bool = True) -> Path:
    torch.manual_seed(0)
    if weights:
        transformers.AutoModelForCausalLM.from_config(FAMILIES[name]).save_pretrained(folder)
    else:
        FAMILIES[name].save_pretrained(folder)
    return folder


def tokens(rows: int = 2, length: int = 12) -> torch.Tensor:
    return torch.randint(0, 600, (rows, length), generator=torch.Generator().manual_seed(1))


@pytest.mark.parametrize("name", FAMILIES)
def test_it_computes_what_transformers_computes_and_is_drawn_by_its_seed(tmp_path, name):
    config = read_foreign(saved(tmp_path / "in", name))
    theirs = transformers.AutoModelForCausalLM.from_pretrained(tmp_path / "in").eval()
    with torch.device("meta"):
        model = build(config)
    assert all(parameter.is_meta for parameter in model.parameters())
    assert parameter_count(config) == sum(p.numel() for p in theirs.parameters())
    model.to_empty(device="cpu")
    model.load_state_dict(read_weights(config, tmp_path / "in"))
    x, y = tokens(), tokens().flip(0)
    torch.testing.assert_close(model(x), theirs(x).logits, rtol=1e-5, atol=1e-5)
    picked = torch.tensor([1, 5, 20])
    loss, each = model(x, targets=y.flatten()[picked], weights=torch.full((3,), 0.5), picked=picked)
    expected = fn.cross_entropy(theirs(x).logits.flatten(0, 1)[picked], y.flatten()[picked], reduction="none")
    torch.testing.assert_close(each, expected, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(loss, expected.sum() / 2, rtol=1e-4, atol=1e-5)
    new = generate(Cached(model), [*tokens().numpy(), tokens()[0, :7].numpy()], 8, [1, 2, 3])
    for row, prompt in zip(new, (tokens()[:1], tokens()[1:], tokens()[:1, :7]), strict=True):
        alone = theirs.generate(prompt, max_new_tokens=8, do_sample=False, eos_token_id=None)
        assert row == alone[0, prompt.shape[1] :].tolist()
    again = build(config)
    model.initialise(3)
    again.initialise(3)
    drawn = dict(model.named_parameters())
    assert all(torch.equal(drawn[key], value) for key, value in again.named_parameters())
    again.initialise(4)
    assert not torch.equal(model.embedding.weight, again.embedding.weight)
    matrices = {key for key, _ in model.hidden_matrices()}
    assert matrices
    assert not any(word in key for key in matrices for word in ("embed", "wte", "wpe", "lm_head", "norm"))


@pytest.mark.parametrize("name", sorted(set(FAMILIES) - {"gpt_neo"}))
def test_documents_are_masked_apart(tmp_path, name):
    model = build(read_foreign(saved(tmp_path / "in", name)))
    model.initialise(1)
    with torch.no_grad():
        for _, matrix in model.hidden_matrices():  # so that what is seen matters
            matrix.mul_(10)
    x = tokens(1, 10)
    segments = torch.tensor([[0] * 4 + [1] * 6])
    positions = torch.tensor([[*range(4), *range(6)]])
    together = model(x, positions, segments)
    torch.testing.assert_close(together[:, :4], model(x[:, :4]), rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(together[:, 4:], model(x[:, 4:]), rtol=1e-4, atol=1e-5)


def test_tokens_are_spread_over_experts_as_in_transformers(tmp_path):
    FAMILIES["mixtral"].save_pretrained(tmp_path)
    told = json.loads((tmp_path / "config.json").read_text())
    (tmp_path / "config.json").write_text(json.dumps({**told, "output_router_logits": True}))
    model = build(read_foreign(tmp_path))
    model.initialise(1)
    x = tokens()
    theirs = model.model(input_ids=x, labels=x)
    assert theirs.aux_loss > 0
    picked = torch.arange(24).view(2, 12)[:, :-1].flatten()
    loss, each = model(x, targets=x[:, 1:].flatten(), weights=torch.full((22,), 1 / 22), picked=picked)
    torch.testing.assert_close(loss, theirs.loss, rtol=1e-5, atol=1e-5)
    assert each.mean() < loss


def test_architectures_without_such_masks_say_so(tmp_path):
    transformers.MambaConfig(vocab_size=600, hidden_size=16, num_hidden_layers=1, state_size=4).save_pretrained(
        tmp_path
    )
    model = build(read_foreign(tmp_path))
    model.initialise(1)
    assert model(tokens()).shape == (2, 12, 600)
    with pytest.raises(UserError, match=r"has no place for attention within documents[\s\S]*documents: false"):
        model(tokens(), None, torch.zeros(2, 12))


@pytest.mark.parametrize(
    ("told", "message"),
    [
        ({"model_type": "no-such", "vocab_size": 9}, "no model of type 'no-such'"),
        ({"vocab_size": 9}, "no model of type None"),
        ({"model_type": "t5", "vocab_size": 9}, "an encoder and a decoder"),
        ({"model_type": "bart", "vocab_size": 9}, "an encoder and a decoder"),
        ({"model_type": "gemma3", "text_config": {"vocab_size": 9}}, "more than text"),
        ({"model_type": "llava"}, "more than text"),
        ({"model_type": "vit"}, "no vocab_size"),
        ({"model_type": "llama", "vocab_size": 9, "num_hidden_layers": 10**9}, "1000000000 layers"),
        ({"model_type": "llama", "vocab_size": 10**15}, "no causal model|cannot be used"),
        ({"model_type": "llama", "vocab_size": 9, "quantization_config": {"quant_method": "gptq"}}, "quantized"),
        ({"model_type": "llama", "vocab_size": "x"}, "cannot be used"),
        ({"model_type": "bert", "vocab_size": 9, "hidden_size": "wide"}, "cannot be used"),
        (
            {"model_type": "own", "vocab_size": 9, "auto_map": {"AutoModelForCausalLM": "evil.Model"}},
            "trust_remote_code",
        ),
    ],
)
def test_what_transformers_has_not_is_refused_and_no_code_is_run(tmp_path, told, message):
    (tmp_path / "config.json").write_text(json.dumps(told))
    (tmp_path / "evil.py").write_text("raise SystemExit(7)")
    with pytest.raises(UserError, match=message):
        read_foreign(tmp_path)


def test_models_that_see_what_they_are_to_predict_are_refused(tmp_path):
    transformers.BertConfig(**BERT).save_pretrained(tmp_path)
    with pytest.raises(UserError, match="BertLMHeadModel is no causal model"):
        build(read_foreign(tmp_path)).initialise(1)
    transformers.BertConfig(**BERT, is_decoder=True).save_pretrained(tmp_path)
    build(read_foreign(tmp_path)).initialise(1)


def test_pickled_weights_and_values_that_are_not_finite_are_refused(tmp_path):
    folder = saved(tmp_path / "in", "gpt2")
    config, path = read_foreign(folder), folder / "model.safetensors"
    weights = load_file(path)
    weights["transformer.h.1.mlp.c_fc.weight"][3, 4] = float("nan")
    save_file(weights, path, metadata={"format": "pt"})
    with pytest.raises(UserError, match=r"h.1.mlp.c_fc.weight has 1 values that are not finite"):
        read_weights(config, folder)
    path.rename(folder / "pytorch_model.bin")
    about = {"name": "x", "sources": {"code": {"files": "x"}}, "model": {"huggingface": str(folder)}}
    recipe = Recipe.model_validate(about)
    with pytest.raises(UserError, match=r"only pytorch_model\.bin, which is not opened"):
        NamedFiles.of(recipe)


RECIPE = """\
name: start
sources: {{code: {{files: "{src}/headrace/flow/*.py"}}}}
split: {{validation: 0.1}}
tokenizer: {{train: {{vocab_size: 600}}}}
model: {{{model}}}
defaults: {{sequence_length: 32, train: {{batch: 2, steps: 3, precision: fp32, samples: {{tokens: 4}}}}}}
stages:
  - {{name: one, sources: {{code: {{}}}}, train: {{attention: {{documents: true}}}}}}
  - {{name: two, sources: {{code: {{}}}}, train: {{precision: bf16}}}}
"""


def started(*command: str) -> None:
    environment = {**os.environ, "PYTHONPATH": str(SRC), "OMP_NUM_THREADS": "1"}
    done = subprocess.run(command, capture_output=True, text=True, env=environment)
    assert done.returncode == 0, done.stderr


def run(folder: Path, model: str, *more: str) -> Path:
    (folder / "recipe.yaml").write_text(RECIPE.format(src=SRC, model=model))
    command = [str(Path(sys.executable).with_name("headrace")), "run", str(folder / "recipe.yaml")]
    started(*command, "--out", str(folder / "run"), *more)
    return folder / "run"


def first_loss(made: Path) -> float:
    return json.loads((artifact(made, "model", "one").file_path("metrics.jsonl")).read_text().splitlines()[0])["loss"]


def expected_loss(made: Path, model: torch.nn.Module) -> float:
    """The loss of the first batch, by transformers, document by document."""
    sequence = open_sequence(artifact(made, "sequence", "one").path)
    total, count = 0.0, 0
    for row in range(2):
        ids = torch.from_numpy(sequence.rows(row, row + 1)[0].astype("int64"))
        starts = [int(s["start"]) for s in sequence.segments(row)]
        for a, b in zip(starts, [*starts[1:], 33], strict=True):
            # The first token of a document is predicted from the one before, whose document is another.
            whole = ids[a : b + 1]
            logits = model(whole[None, :-1]).logits[0] if len(whole) > 1 else None
            if logits is not None:
                total += fn.cross_entropy(logits, whole[1:], reduction="sum").item()
                count += len(whole) - 1
    return total / count


@pytest.mark.slow
@torch.no_grad()
@pytest.mark.parametrize("key", ["weights", "huggingface"])
def test_a_run_starts_from_the_weights_of_a_folder(tmp_path, key):
    family = "llama" if key == "weights" else "gemma2"
    saved(tmp_path / "in", family)
    made = run(tmp_path, f"{key}: in")
    theirs = transformers.AutoModelForCausalLM.from_pretrained(tmp_path / "in").eval()
    assert first_loss(made) == pytest.approx(expected_loss(made, theirs), rel=1e-4)
    one = artifact(made, "model", "one")
    told = json.loads(one.file_path("config.json").read_text())
    assert one.manifest.extra["parameters"] == parameter_count(read_any(told))
    assert json.loads(artifact(made, "evaluation", "one").file_path("evaluation.json").read_text())["initial"] is None
    if key == "weights":
        assert torch.isfinite(load(one.path)(tokens())).all()
    out = export(made, tmp_path / "out", "huggingface", Wanted(model="two"), workers=0)
    again, report = transformers.AutoModelForCausalLM.from_pretrained(out, output_loading_info=True)
    assert not report["missing_keys"]
    assert type(again) is type(theirs)
    assert not torch.equal(again(tokens()).logits, theirs(tokens()).logits)
    shutil.rmtree(tmp_path / "in")  # which a finished run needs no more
    assert artifact(made, "model", "two").path.is_dir()


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "shard"),
    [
        ("llama", "full"),
        ("mixtral", "none"),
        ("mixtral", "full"),
    ],
)
@torch.no_grad()
def test_two_processes_train_as_one_does_and_what_they_trained_is_exported(tmp_path, name, shard):
    """Tied weights and experts, replicated and sharded, with activations computed again and gradients accumulated."""
    saved(tmp_path / "in", name)
    ways = {"shard": shard, "recompute": "full", "micro_batch": 1}
    more = [f"--set=defaults.train.{key}={value}" for key, value in ways.items()]
    made = run(tmp_path, "huggingface: in", "--until=model-one", *more)
    again = tmp_path / "again"
    shutil.copytree(made, again, ignore=shutil.ignore_patterns("model-one*", "checkpoints"))
    started(*TORCHRUN, "-m", "headrace", "train", str(again), "--stage=one")
    alone, both = (artifact(one, "model", "one") for one in (made, again))
    for a, b in zip(*(one.file_path("metrics.jsonl").read_text().splitlines() for one in (alone, both)), strict=True):
        assert json.loads(a)["loss"] == pytest.approx(json.loads(b)["loss"], rel=1e-5)
        assert json.loads(a)["grad_norm"] == pytest.approx(json.loads(b)["grad_norm"], rel=1e-4)
    weights, other = (load_file(one.file_path("model.safetensors")) for one in (alone, both))
    assert weights.keys() == other.keys()
    for key, tensor in weights.items():
        torch.testing.assert_close(tensor, other[key], rtol=1e-3, atol=1e-4)
    out = export(again, tmp_path / "out", "huggingface", Wanted(model="one"), workers=0)
    published, written = (load_file(one / "model.safetensors") for one in (tmp_path / "in", out))
    assert {key: tensor.shape for key, tensor in written.items()} == {k: t.shape for k, t in published.items()}
    theirs, report = transformers.AutoModelForCausalLM.from_pretrained(out, output_loading_info=True)
    assert not any(report.values())
    model = build(read_foreign(tmp_path / "in"))
    model.load_state_dict(other)
    torch.testing.assert_close(model(tokens()), theirs.eval()(tokens()).logits, rtol=1e-5, atol=1e-5)


@pytest.mark.slow
@torch.no_grad()
def test_a_configuration_alone_is_trained_from_drawn_weights(tmp_path):
    saved(tmp_path / "in", "olmo2", weights=False)
    made = run(tmp_path, "huggingface: in")
    assert first_loss(made) == pytest.approx(6.4, abs=0.3)
    assert artifact(made, "evaluation", "one").file_path("evaluation.json").read_text().count('"loss"') > 2
