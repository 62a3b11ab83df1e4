"""Models in and out: logits equal transformers' and a re-written CrystalCoder's; what cannot be read is refused."""

from __future__ import annotations

import contextlib
import json
import math
from pathlib import Path

import pytest
import torch
import torch.nn.functional as fn
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import load_file, save_file

from headrace.errors import UserError
from headrace.model.config import Initialisation, ModelConfig, Mup
from headrace.model.huggingface.families import FAMILIES, HOMES, home, table
from headrace.model.huggingface.reading import INDEX, Stored, load
from headrace.model.huggingface.reparametrized import Reparametrized
from headrace.model.huggingface.writing import Written
from headrace.model.presets import PRESETS
from headrace.model.transformer import Transformer
from headrace.recipe.model import RotaryScaling
from quick import examples

transformers = pytest.importorskip("transformers")

SIZE = {"vocab_size": 97, "layers": 2, "width": 32, "heads": 4, "ffn": 40, "norm_eps": 1e-6}
LAYERNORM = {**SIZE, "norm": "layernorm", "norm_eps": 1e-4}
GELU = {**LAYERNORM, "activation": "gelu", "attention_bias": True, "ffn_bias": True, "tied": False}
LEARNED = {"learned_positions": 48, "rotary_dim": 0}
MUP = {"embedding_multiplier": 3.0, "logit_multiplier": 0.3, "attention": "d", "hidden_learning_rate": 0.25}
INTERLEAVED = {"rotary_pairs": "interleaved"}
YARN = RotaryScaling(kind="yarn", factor=4, original_length=16, high_turns=8)
CRYSTAL = {**LAYERNORM, "attention_bias": True, "ffn_bias": True, "rotary_dim": 4, **INTERLEAVED, "mup": MUP}

MODELS = {
    "llama": {**SIZE, "kv_heads": 2, "tied": False},
    "llama tied": {**SIZE, "kv_heads": 2, "mup": MUP, **INTERLEAVED, "rotary_base": 500.0},
    "llama all biases": {**SIZE, "attention_bias": True, "ffn_bias": True, "tied": False, "head_dim": 12, "mup": MUP},
    "llama some biases": {**SIZE, "attention_bias": "qkv", "ffn_bias": True},
    "llama linear": {**SIZE, "rotary_scaling": RotaryScaling(kind="linear", factor=3)},
    "llama llama3": {**SIZE, "rotary_scaling": RotaryScaling(kind="llama3", factor=8, original_length=24)},
    "llama yarn": {**SIZE, "rotary_scaling": YARN, "tied": False},
    "llama dynamic": {**SIZE, "rotary_scaling": RotaryScaling(kind="dynamic", factor=4, original_length=16)},
    "mistral": {**SIZE, "kv_heads": 2, "sliding_window": 7, "tied": False},
    "qwen2 window": {**SIZE, "attention_bias": "qkv", "sliding_window": 5},
    "qwen2 pattern": {**SIZE, "sliding_window": 5, "sliding_window_pattern": 2, "mup": MUP},
    "qwen3 pattern": {**SIZE, "qk_norm": True, "sliding_window": 1, "sliding_window_pattern": 2},
    "qwen2": {**SIZE, "kv_heads": 1, "attention_bias": "qkv", "mup": MUP},
    "qwen3": {**SIZE, "kv_heads": 2, "head_dim": 12, "qk_norm": True, "tied": False},
    "qwen3 mup": {**SIZE, "kv_heads": 2, "qk_norm": True, "mup": MUP, **INTERLEAVED},
    "stablelm": {**LAYERNORM, "kv_heads": 2, "attention_bias": "qkv", "rotary_dim": 4, **INTERLEAVED, "mup": MUP},
    "gpt_neox": {**GELU, "parallel_residual": True, "rotary_dim": 2},
    "gpt_neox mup": {**GELU, "activation": "gelu_tanh", "ffn_bias": False, "mup": MUP, "tied": True, **INTERLEAVED},
    "gpt2": {**GELU, **LEARNED, "activation": "gelu_tanh", "tied": True},
    "gpt2 mup": {**GELU, **LEARNED, "attention_bias": False, "mup": MUP},
    "starcoder2": {**GELU, "kv_heads": 2, "tied": True, "mup": MUP},
    "starcoder2 without biases": {**GELU, "kv_heads": 2, "attention_bias": False, "ffn_bias": False},
    "crystalcoder": CRYSTAL,
    "crystalcoder half": {**CRYSTAL, "rotary_pairs": "half"},
    "crystalcoder learned": {**CRYSTAL, **LEARNED, "tied": False, "attention_bias": "qkv"},
}  # fmt: skip
PLAIN = [name for name in MODELS if not name.startswith("crystalcoder")]


def made(values: dict) -> Transformer:
    init = Initialisation(embedding_std=0.5, hidden_std=0.2, output_std=0.2)
    model = Transformer(ModelConfig.model_validate({**values, "init": init}))
    model.initialise(1)
    with torch.no_grad():  # biases and gains that matter
        for i, (name, parameter) in enumerate(model.named_parameters()):
            if parameter.dim() == 1:
                noise = torch.randn(parameter.shape, generator=torch.Generator().manual_seed(i))
                parameter.copy_(noise * 0.3 + name.endswith("weight"))
    return model


def tokens() -> torch.Tensor:
    return torch.randint(0, 97, (2, 40), generator=torch.Generator().manual_seed(0))


def exported(model: Transformer, out, most: int = 5 * 10**9):
    out.mkdir()
    written = Written(model.config, model.state_dict().__getitem__)
    files = written.files(most)
    for file, names in files:
        save_file(dict(written.tensors(names)), out / file, metadata={"format": "pt"})
    if len(files) > 1:
        (out / INDEX).write_text(json.dumps(written.index(files)))
    (out / "config.json").write_text(json.dumps(written.describe(48)))
    return written.family


def same(mine: torch.Tensor, theirs: torch.Tensor) -> None:
    scale = max(1.0, mine.abs().max().item())
    assert (mine - theirs).abs().max().item() < 1e-5 * scale


@torch.no_grad()
@pytest.mark.parametrize("name", PLAIN)
def test_exported_models_compute_the_same_in_transformers_and_come_back(tmp_path, name):
    model = made(MODELS[name])
    family = exported(model, tmp_path / "out")
    assert family.name == name.split()[0]
    other, report = transformers.AutoModelForCausalLM.from_pretrained(
        tmp_path / "out", attn_implementation="eager", output_loading_info=True
    )
    assert not any(report.values())
    assert type(other).__name__ == family.architecture
    logits = model(tokens())
    same(logits, other.eval()(tokens()).logits)
    same(logits, load(tmp_path / "out")(tokens()))
    other.save_pretrained(tmp_path / "again")  # as this version of transformers writes it
    same(logits, load(tmp_path / "again")(tokens()))


@torch.no_grad()
@pytest.mark.parametrize("name", PLAIN)
def test_plain_models_compute_the_same(name):
    model = made(MODELS[name])
    plain = model.config.model_copy(update={"mup": Mup(), "rotary_pairs": "half"})
    other, change = Transformer(plain), Reparametrized(model.config, plain)
    other.load_state_dict({key: change(key, value) for key, value in model.state_dict().items()})
    same(model(tokens()), other(tokens()))
    back = Reparametrized(plain, model.config)
    for key, value in model.state_dict().items():
        torch.testing.assert_close(back(key, other.state_dict()[key]), value, rtol=1e-6, atol=0)


def crystalcoder(weights: dict[str, torch.Tensor], told: dict, x: torch.Tensor) -> torch.Tensor:
    """The released model's forward pass, from its names and its config.json alone."""
    heads, size = told["n_head"], told["n_embd"] // told["n_head"]
    T = x.shape[1]

    def conv(name: str, y: torch.Tensor) -> torch.Tensor:
        return y @ weights[f"{name}.weight"] + weights[f"{name}.bias"]

    def norm(name: str, y: torch.Tensor) -> torch.Tensor:
        eps = told["layer_norm_epsilon"]
        return fn.layer_norm(y, y.shape[-1:], weights[f"{name}.weight"], weights[f"{name}.bias"], eps)

    def turned(y: torch.Tensor) -> torch.Tensor:
        r = told["rotary_dim"]
        angle = torch.arange(T)[:, None] / 10000.0 ** (torch.arange(0, r, 2) / r)
        pairs = torch.view_as_complex(y[..., :r].unflatten(-1, (-1, 2)).contiguous())
        pairs = pairs * torch.polar(torch.ones_like(angle), angle)
        return torch.cat((torch.view_as_real(pairs).flatten(-2), y[..., r:]), -1)

    y = weights["transformer.wte.weight"][x]
    if told["position_embedding_type"] == "learned":
        y = y + weights["transformer.wpe.weight"][:T]
    y = y * told["mup_embeddings_scale"]
    for i in range(told["n_layer"]):
        h = f"transformer.h.{i}."
        q, k, v = conv(h + "attn.c_attn", norm(h + "ln_1", y)).unflatten(-1, (3, heads, size)).permute(2, 0, 3, 1, 4)
        if told["position_embedding_type"] == "rotary":
            q, k = turned(q), turned(k)
        scores = q @ k.transpose(-1, -2) / (size if told["mup_scale_qk_dot_by_d"] else math.sqrt(size))
        scores = scores.masked_fill(~torch.ones(T, T, dtype=torch.bool).tril(), -math.inf)
        y = y + conv(h + "attn.c_proj", (scores.softmax(-1) @ v).transpose(1, 2).flatten(2))
        z = norm(h + "ln_2", y)
        y = y + conv(h + "mlp.c_proj", conv(h + "mlp.c_fc", z) * fn.silu(conv(h + "mlp.c_fc2", z)))
    head = weights["transformer.wte.weight"] if told["tie_word_embeddings"] else weights["lm_head.weight"]
    return norm("transformer.ln_f", y) @ head.T * told["mup_output_alpha"] * told["mup_width_scale"]


@torch.no_grad()
@pytest.mark.parametrize("name", ["crystalcoder", "crystalcoder half", "crystalcoder learned"])
def test_crystalcoders_layout_is_that_of_its_forward_pass(tmp_path, name):
    model = made(MODELS[name])
    assert exported(model, tmp_path / "out").name == "crystalcoder"
    weights = load_file(tmp_path / "out" / "model.safetensors")
    told = json.loads((tmp_path / "out" / "config.json").read_text())
    same(model(tokens()), crystalcoder(weights, told, tokens()))
    # The released files have a copy of the head and tables of masks too.
    if model.config.tied:
        weights["lm_head.weight"] = weights["transformer.wte.weight"].clone()
    weights["transformer.h.0.attn.bias"] = torch.ones(1, 1, 4, 4, dtype=torch.bool)
    save_file(weights, tmp_path / "out" / "model.safetensors")
    again = load(tmp_path / "out")
    same(model(tokens()), again(tokens()))
    assert again.config.mup == model.config.mup


def test_the_released_configuration_is_the_presets(shared):
    told = json.loads((shared / "fixtures/crystalcoder/config.json").read_text())
    config, preset = FAMILIES["crystalcoder"].model(told), PRESETS["crystalcoder-7b"]
    assert config.mup.logit_multiplier == pytest.approx(0.13875)
    unlike = {"init", "mup", "vocab_multiple"}
    assert config.model_dump(exclude=unlike) == preset.model_dump(exclude=unlike)
    mine = FAMILIES["crystalcoder"].config(preset, 2048)
    assert {key: mine[key] for key in told if key in mine and key != "auto_map"} == {
        key: pytest.approx(value) if isinstance(value, float) else value
        for key, value in told.items()
        if key in mine and key != "auto_map"
    }


@pytest.mark.parametrize("name", PRESETS)
def test_presets_have_a_home(name):
    config = PRESETS[name]
    family = home(config if config.vocab_size else config.model_copy(update={"vocab_size": 8192}))
    expected = {"demo": "crystalcoder", "pythia": "gpt_neox", "gpt": "gpt_neox"}
    expected |= dict.fromkeys(("tiny", "snowcoder", "smollm2", "mistral"), "llama")
    assert family.name == expected.get(name.split("-")[0], name.split("-")[0])


@torch.no_grad()
def test_large_models_are_cut_into_files(tmp_path):
    model = made(MODELS["gpt_neox"])
    exported(model, tmp_path / "out", most=20_000)
    files = sorted(path.name for path in (tmp_path / "out").glob("*.safetensors"))
    assert len(files) > 2
    assert files[0] == f"model-00001-of-{len(files):05d}.safetensors"
    assert all((tmp_path / "out" / name).stat().st_size < 22_000 for name in files)
    other = transformers.AutoModelForCausalLM.from_pretrained(tmp_path / "out", attn_implementation="eager").eval()
    same(model(tokens()), other(tokens()).logits)
    same(model(tokens()), load(tmp_path / "out")(tokens()))


@torch.no_grad()
def test_half_precision_files_and_files_without_the_heads_prefix_are_read(tmp_path):
    model = made(MODELS["gpt2"])
    exported(model, tmp_path / "out")
    path = tmp_path / "out" / "model.safetensors"
    weights = {name.removeprefix("transformer."): t.bfloat16() for name, t in load_file(path).items()}
    weights["h.0.attn.bias"] = torch.ones(1, 1, 4, 4)
    save_file(weights, path)
    torch.testing.assert_close(load(tmp_path / "out")(tokens()), model(tokens()), rtol=0.1, atol=0.3)


def test_headraces_own_models_are_read(tmp_path):
    model = made(MODELS["qwen3 mup"])
    save_file(model.state_dict(), tmp_path / "model.safetensors")
    (tmp_path / "config.json").write_text(model.config.model_dump_json())
    again = load(tmp_path)
    assert again.config == model.config
    assert all(torch.equal(a, b) for a, b in zip(model.parameters(), again.parameters(), strict=True))


def test_values_that_are_not_finite_are_refused(tmp_path):
    exported(made(MODELS["llama"]), tmp_path / "out")
    damaged(tmp_path / "out", lambda weights: weights[NAME][3].fill_(math.inf))
    with pytest.raises(UserError, match=r"blocks.1.ffn.up.weight has 32 values that are not finite"):
        load(tmp_path / "out")


def damaged(out, change) -> None:
    weights = load_file(out / "model.safetensors")
    change(weights)
    save_file(weights, out / "model.safetensors")


def told(out, **changes) -> None:
    path = out / "config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **changes}))


NAME = "model.layers.1.mlp.up_proj.weight"


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda out: damaged(out, lambda w: w.pop(NAME)), rf"lacks {NAME}"),
        (lambda out: damaged(out, lambda w: w.update(a=torch.ones(1), b=torch.ones(1))), r"has also a, b"),
        (lambda out: damaged(out, lambda w: w.update({NAME: torch.ones(3, 4)})), rf"{NAME} is \[3, 4\]; .*\[40, 32\]"),
        (lambda out: damaged(out, lambda w: w.update({NAME: torch.ones(40, 32, dtype=torch.int8)})), "is I8, not a fl"),
        (lambda out: (out / "model.safetensors").write_bytes(b"\xff" * 100), "cannot be read"),
        (lambda out: (out / "model.safetensors").write_bytes(b""), "cannot be read"),
        (lambda out: (out / "model.safetensors").rename(out / "pytorch_model.bin"), "only pytorch_model.bin"),
        (lambda out: (out / "model.safetensors").unlink(), "There is no model.safetensors"),
        (lambda out: (out / "model.safetensors.index.json").write_text('{"weight_map": {"a": "../x.safetensors"}}'),
         "no file beside it"),
        (lambda out: (out / "model.safetensors.index.json").write_text('{"weight_map": ["a"]}'), "lists no files"),
        (lambda out: (out / "model.safetensors.index.json").write_text('{"weight_map": {"a": "b.safetensors"}}'),
         "cannot be read"),
        (lambda out: (out / "config.json").write_text("[" * 100_000), "cannot be read"),
        (lambda out: (out / "config.json").write_text("[]"), "holds no object"),
        (lambda out: (out / "config.json").unlink(), "no such file"),
        (lambda out: told(out, model_type="mamba"), r"type 'mamba'[\s\S]*huggingface: PATH"),
        (lambda out: told(out, model_type=["llama"]), "cannot be headrace's own"),
        (lambda out: told(out, hidden_act="relu"), "hidden_act: 'relu'"),
        (lambda out: told(out, rope_scaling={"rope_type": "longrope"}), "rope_type: 'longrope'"),
        (lambda out: told(out, rope_scaling={"rope_type": "yarn", "factor": "x"}), "rotary_scaling.factor"),
        (lambda out: told(out, hidden_size=-4), "width: Input should be greater than 0"),
        (lambda out: told(out, hidden_size=None), "width: "),
        (lambda out: told(out, num_attention_heads=5, head_dim=None), "not a multiple of"),
        (lambda out: told(out, num_hidden_layers=10**9), r"By its configuration the model has \d[\d,]* parameters"),
        (lambda out: told(out, vocab_size=10**15), "By its configuration"),
        (lambda out: told(out, vocab_size=None), "vocab_size: Input should be greater than 0"),
        (lambda out: told(out, num_hidden_layers=3), r"lacks model.layers.2[\s\S]* and 6 more"),
    ],
)  # fmt: skip
def test_what_is_no_such_model_is_refused(tmp_path, change, message):
    exported(made(MODELS["llama"]), tmp_path / "out")
    change(tmp_path / "out")
    with pytest.raises(UserError, match=message):
        Stored.open(tmp_path / "out")


def configs() -> st.SearchStrategy[ModelConfig]:
    """Models of any combination of switches."""
    mups = st.one_of(st.just(Mup()), st.just(Mup.model_validate(MUP)))
    scalings = st.sampled_from([None, None, YARN, RotaryScaling(kind="linear", factor=2)])
    keys = {
        "kv_heads": st.sampled_from([None, None, 2]),
        "head_dim": st.sampled_from([None, None, 12]),
        "norm": st.sampled_from(["rmsnorm", "layernorm"]),
        "activation": st.sampled_from(["swiglu", "gelu", "gelu_tanh"]),
        "attention_bias": st.sampled_from([False, "qkv", True]),
        "ffn_bias": st.booleans(),
        "output_bias": st.sampled_from([False, False, False, True]),
        "qk_norm": st.sampled_from([False, False, True]),
        "tied": st.booleans(),
        "parallel_residual": st.sampled_from([False, False, True]),
        "learned_positions": st.sampled_from([None, None, 48]),
        "rotary_dim": st.sampled_from([None, None, 4, 0]),
        "rotary_base": st.sampled_from([10000.0, 500.0]),
        "rotary_pairs": st.sampled_from(["half", "interleaved"]),
        "rotary_scaling": scalings,
        "sliding_window": st.sampled_from([None, None, 5]),
        "mup": mups,
    }
    models = st.fixed_dictionaries(keys).map(lambda told: ModelConfig.model_validate({**SIZE, **told}))
    patterns = st.sampled_from([None, 2])
    return st.builds(
        lambda model, every: model.model_copy(update={"sliding_window_pattern": model.sliding_window and every}),
        models, patterns,
    )  # fmt: skip


def changed(config: ModelConfig, lacks: dict) -> ModelConfig:
    """The model with each of these switches at the first value that an architecture holds."""
    values = config.model_dump()
    for key, held in lacks.items():
        if key == "positions":
            learned = held[0] == "learned"
            values |= {"learned_positions": 48 if learned else None, "rotary_dim": 0 if learned else None}
        elif key == "sliding_window":
            values |= {"sliding_window": 5 if held[0] == "N" else None, "sliding_window_pattern": None}
        elif key in ("kv_heads", "head_dim", "rotary_scaling"):
            values[key] = None
        else:
            values[key] = float(held[0]) if key == "rotary_base" else held[0]
    return ModelConfig.model_validate(values)


@settings(max_examples=examples(60))
@given(configs())
def test_every_model_has_a_home_or_is_told_the_switches_that_prevent_it(config):
    lacking = {family.name: family.lacks(config) for family in HOMES}
    least = min(map(len, lacking.values()))
    if least == 0:
        family = home(config)
        assert lacking[family.name] == {}
        assert family.exactly(config) or not any(one.exactly(config) for one in HOMES if not lacking[one.name])
        return
    with pytest.raises(UserError) as told:
        home(config)
    assert "for " in told.value.fix
    for name, lacks in lacking.items():
        assert FAMILIES[name].lacks(changed(config, lacks)) == {}
        assert len(lacks) == least or f"for {name}, " not in told.value.fix
        if f"for {name}, " in told.value.fix:
            assert all(f"{'rotary_dim' if key == 'positions' else key}: " in told.value.fix for key in lacks)


@torch.no_grad()
@settings(max_examples=examples(25))
@given(configs(), st.sampled_from(HOMES))
def test_any_model_that_has_a_home_computes_the_same_there(tmp_path_factory, config, near):
    config = changed(config, near.lacks(config))
    model, out = made(config.model_dump()), tmp_path_factory.mktemp("any") / "out"
    family = exported(model, out)
    logits = model(tokens())
    same(logits, load(out)(tokens()))
    if family.name == "crystalcoder":
        return
    other, report = transformers.AutoModelForCausalLM.from_pretrained(
        out, attn_implementation="eager", output_loading_info=True
    )
    assert not any(report.values())
    same(logits, other.eval()(tokens()).logits)


def test_the_table_of_architectures_is_in_the_documentation():
    assert table() in (Path(__file__).parents[2] / "docs" / "training.md").read_text()


@torch.no_grad()
@pytest.mark.parametrize("kind", ["mistral", "qwen2", "qwen3"])
def test_windows_are_read_as_transformers_has_them(tmp_path, kind):
    told = {"vocab_size": 97, "hidden_size": 32, "intermediate_size": 40, "num_hidden_layers": 4, "head_dim": 8}
    told |= {"num_attention_heads": 4, "num_key_value_heads": 2, "sliding_window": 6, "use_sliding_window": True}
    sliding, full = "sliding_attention", "full_attention"
    ways = {"mistral": [{}, {"sliding_window": None}]}.get(kind, [
        {"max_window_layers": 0}, {"max_window_layers": 4}, {"use_sliding_window": False},
        {"layer_types": [sliding, full] * 2}, {"layer_types": [sliding, sliding, full, sliding]},
    ])  # fmt: skip
    for i, way in enumerate(ways):
        config = transformers.AutoConfig.for_model(kind, **{**told, **way})
        theirs = transformers.AutoModelForCausalLM.from_config(config).eval()
        theirs.save_pretrained(tmp_path / str(i))
        same(load(tmp_path / str(i))(tokens()), theirs(tokens()).logits)
    if kind == "mistral":  # as its first configurations leave it out
        values = json.loads((tmp_path / "0" / "config.json").read_text())
        del values["sliding_window"]
        (tmp_path / "0" / "config.json").write_text(json.dumps(values))
        assert Stored.open(tmp_path / "0").config.sliding_window == 4096
        return
    values = json.loads((tmp_path / "0" / "config.json").read_text())
    for types in ([full, sliding] * 2, [sliding, full, full, sliding], 3):
        (tmp_path / "0" / "config.json").write_text(json.dumps({**values, "layer_types": types}))
        with pytest.raises(UserError, match=r"layer_types[\s\S]*huggingface: PATH"):
            Stored.open(tmp_path / "0")


@pytest.mark.parametrize(
    ("values", "message"),
    [
        (
            {**SIZE, "output_bias": True},
            r"llama, does without its output_bias\.[\s\S]*for llama, output_bias: false",
        ),
        ({**CRYSTAL, "kv_heads": 2}, r"for crystalcoder, kv_heads: null"),
        (
            {**SIZE, "rotary_dim": 4},
            r"llama, does without its positions\.[\s\S]*for llama, rotary_dim: null, learned_pos",
        ),
    ],
)
def test_models_without_a_home_say_what_prevents_it(values, message):
    with pytest.raises(UserError, match=message):
        home(ModelConfig.model_validate(values))


JUNK = st.one_of(
    st.none(), st.booleans(), st.integers(-3, 10**18), st.floats(), st.text(max_size=4), st.just({}), st.just([1])
)


@settings(max_examples=examples(150))
@given(data=st.data())
@pytest.mark.parametrize("name", ["llama llama3", "qwen3", "gpt_neox", "gpt2", "stablelm", "crystalcoder"])
def test_any_damaged_configuration_is_refused_or_read(tmp_path, name, data):
    out = tmp_path / "out"
    if not out.exists():
        exported(made(MODELS[name]), out)
        (tmp_path / "config.json").write_bytes((out / "config.json").read_bytes())
    values = json.loads((tmp_path / "config.json").read_text())
    for key in data.draw(st.lists(st.sampled_from(sorted(values)), max_size=3)):
        values.pop(key, None)
        if data.draw(st.booleans()):
            values[key] = data.draw(JUNK)
    (out / "config.json").write_text(json.dumps(values))
    with contextlib.suppress(UserError):
        Stored.open(out)
