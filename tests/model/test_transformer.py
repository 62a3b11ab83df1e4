"""The decoder against other implementations, against itself in pieces, and against the published size."""

from __future__ import annotations

import json
import math

import pytest
import torch

from headrace.errors import UserError
from headrace.model.config import Initialisation, ModelConfig, Mup, flops_per_token, parameter_count
from headrace.model.presets import CRYSTALCODER_7B, PRESETS, resolve
from headrace.model.transformer import Rotary, Transformer
from headrace.recipe.model import ModelSection

TINY = ModelConfig(vocab_size=97, layers=2, width=32, heads=4, ffn=40)


def made(config: ModelConfig, dtype: torch.dtype = torch.float32, seed: int = 3) -> Transformer:
    model = Transformer(config, dtype)
    model.initialise(seed)
    with torch.no_grad():  # biases and gains that matter
        for i, (name, parameter) in enumerate(model.named_parameters()):
            if parameter.dim() == 1:
                generator = torch.Generator().manual_seed(i)
                parameter.copy_(torch.randn(parameter.shape, generator=generator) * 0.1 + (name.endswith("weight")))
    return model


def tokens(rows: int, length: int, vocab: int = 97) -> torch.Tensor:
    return torch.randint(0, vocab, (rows, length), generator=torch.Generator().manual_seed(1))


# Parameters, each once, as their organizations' files have them.
PUBLISHED = {
    "crystalcoder-7b": 6_575_278_720,
    "llama-7b": 6_738_415_616,
    "llama-3-8b": 8_030_261_248,
    "llama-3.2-1b": 1_235_814_400,
    "llama-3.2-3b": 3_212_749_824,
    "mistral-7b": 7_248_023_552,
    "smollm2-135m": 134_515_008,
    "smollm2-360m": 361_821_120,
    "smollm2-1.7b": 1_711_376_384,
    "qwen2-0.5b": 494_032_768,
    "qwen2-1.5b": 1_543_714_304,
    "qwen2-7b": 7_615_616_512,
    "qwen3-0.6b": 596_049_920,
    "qwen3-1.7b": 1_720_574_976,
    "qwen3-4b": 4_022_468_096,
    "qwen3-8b": 8_190_735_360,
    "gpt2": 124_439_808,
    "gpt2-medium": 354_823_168,
    "gpt2-large": 774_030_080,
    "gpt2-xl": 1_557_611_200,
    "pythia-14m": 14_067_712,
    "pythia-70m": 70_426_624,
    "pythia-160m": 162_322_944,
    "pythia-410m": 405_334_016,
    "pythia-1b": 1_011_781_632,
    "pythia-1.4b": 1_414_647_808,
    "pythia-2.8b": 2_775_208_960,
    "pythia-6.9b": 6_857_302_016,
    "gpt-neox-20b": 20_554_567_680,
}


@pytest.mark.parametrize("name", PUBLISHED)
def test_presets_have_their_published_size(name):
    with torch.device("meta"):
        model = Transformer(PRESETS[name])
    assert sum(p.numel() for p in model.parameters()) == PUBLISHED[name]


def test_snowcoder_has_about_the_size_of_its_name():
    assert parameter_count(PRESETS["snowcoder-1.3b"]) == 1_364_297_728


def test_crystalcoder_preset_is_the_released_configuration(shared):
    released = json.loads((shared / "fixtures/crystalcoder/config.json").read_text())
    assert released["n_embd"] == CRYSTALCODER_7B.width
    assert released["n_layer"] == CRYSTALCODER_7B.layers
    assert released["n_inner"] == CRYSTALCODER_7B.ffn
    assert released["vocab_size"] == CRYSTALCODER_7B.vocab_size
    assert released["rotary_dim"] == CRYSTALCODER_7B.rotary_dim


@pytest.mark.parametrize(
    "config",
    [
        *PRESETS.values(),
        TINY,
        ModelConfig(vocab_size=50, heads=8, kv_heads=2, tied=False, output_bias=True, ffn_bias=True, activation="gelu"),
        ModelConfig(vocab_size=50, norm="layernorm", attention_bias=True, rotary_dim=0, parallel_residual=True),
        ModelConfig(vocab_size=50, heads=3, head_dim=24, attention_bias="qkv", qk_norm=True, learned_positions=9),
    ],
)
def test_size_in_closed_form_is_the_size(config):
    config = config if config.vocab_size else config.model_copy(update={"vocab_size": 8192})
    with torch.device("meta"):
        model = Transformer(config)
    assert parameter_count(config) == sum(p.numel() for p in model.parameters())
    ends = {"embedding.weight", "head.weight", "positions.weight"}
    inner = sum(p.numel() for name, p in model.named_parameters() if name not in ends)
    assert parameter_count(config, embedding=False) == inner
    matrices = model.output_weight.numel() + sum(p.numel() for _, p in model.hidden_matrices())
    attended = config.layers * 2048 * model.blocks[0].attention.out.weight.shape[1]
    assert flops_per_token(config, 2048) == 6 * (matrices + attended)


def test_llama_of_transformers_computes_the_same():
    transformers = pytest.importorskip("transformers")
    config = ModelConfig(vocab_size=97, layers=2, width=64, heads=4, kv_heads=2, ffn=80, norm_eps=1e-6, tied=False)
    other = transformers.LlamaForCausalLM(
        transformers.LlamaConfig(
            vocab_size=97, hidden_size=64, intermediate_size=80, num_hidden_layers=2, num_attention_heads=4,
            num_key_value_heads=2, rms_norm_eps=1e-6, tie_word_embeddings=False, attn_implementation="eager",
        )
    ).eval()  # fmt: skip
    model = made(config)
    theirs = {"model.embed_tokens.weight": "embedding.weight", "model.norm.weight": "norm.weight"}
    weights = dict(model.state_dict())
    state = {name: weights[mine] for name, mine in theirs.items()} | {"lm_head.weight": weights["head.weight"]}
    for i in range(2):
        block, prefix = f"blocks.{i}.", f"model.layers.{i}."
        # For each of two key-value heads: two queries, the key, the value.
        q, k, v = (
            x.flatten(0, 2) for x in weights[block + "attention.qkv.weight"].view(2, 4, 16, 64).split((2, 1, 1), 1)
        )
        state |= {
            prefix + "self_attn.q_proj.weight": q, prefix + "self_attn.k_proj.weight": k,
            prefix + "self_attn.v_proj.weight": v,
            prefix + "self_attn.o_proj.weight": weights[block + "attention.out.weight"],
            prefix + "mlp.gate_proj.weight": weights[block + "ffn.gate.weight"],
            prefix + "mlp.up_proj.weight": weights[block + "ffn.up.weight"],
            prefix + "mlp.down_proj.weight": weights[block + "ffn.down.weight"],
            prefix + "input_layernorm.weight": weights[block + "attention_norm.weight"],
            prefix + "post_attention_layernorm.weight": weights[block + "ffn_norm.weight"],
        }  # fmt: skip
    other.load_state_dict(state)
    x = tokens(2, 19)
    with torch.no_grad():
        torch.testing.assert_close(model(x), other(x).logits, rtol=1e-4, atol=1e-5)


def test_gpt_neox_of_transformers_computes_the_same():
    transformers = pytest.importorskip("transformers")
    config = ModelConfig(
        vocab_size=97, layers=2, width=64, heads=4, ffn=80, norm="layernorm", activation="gelu", attention_bias=True,
        ffn_bias=True, tied=False, parallel_residual=True, rotary_dim=4,
    )  # fmt: skip
    other = transformers.GPTNeoXForCausalLM(
        transformers.GPTNeoXConfig(
            vocab_size=97, hidden_size=64, intermediate_size=80, num_hidden_layers=2, num_attention_heads=4,
            rotary_pct=0.25, use_parallel_residual=True, layer_norm_eps=1e-5, attn_implementation="eager",
        )
    ).eval()  # fmt: skip
    model = made(config)
    weights = dict(model.state_dict())
    head = next(name for name in ("embed_out.weight", "lm_head.weight") if name in other.state_dict())  # renamed in 5.x
    state = {
        "gpt_neox.embed_in.weight": weights["embedding.weight"], head: weights["head.weight"],
        "gpt_neox.final_layer_norm.weight": weights["norm.weight"],
        "gpt_neox.final_layer_norm.bias": weights["norm.bias"],
    }  # fmt: skip
    for i in range(2):
        block, prefix = f"blocks.{i}.", f"gpt_neox.layers.{i}."
        for kind in ("weight", "bias"):
            state |= {
                f"{prefix}attention.query_key_value.{kind}": weights[f"{block}attention.qkv.{kind}"],
                f"{prefix}attention.dense.{kind}": weights[f"{block}attention.out.{kind}"],
                f"{prefix}mlp.dense_h_to_4h.{kind}": weights[f"{block}ffn.up.{kind}"],
                f"{prefix}mlp.dense_4h_to_h.{kind}": weights[f"{block}ffn.down.{kind}"],
                f"{prefix}input_layernorm.{kind}": weights[f"{block}attention_norm.{kind}"],
                f"{prefix}post_attention_layernorm.{kind}": weights[f"{block}ffn_norm.{kind}"],
            }
    other.load_state_dict(state)
    x = tokens(2, 19)
    with torch.no_grad():
        torch.testing.assert_close(model(x), other(x).logits, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("positions", ["row", "document"])
def test_document_mask_equals_running_documents_apart(positions):
    model = made(TINY)
    x = tokens(2, 13)
    segments = torch.tensor([[1] * 5 + [2] * 8, [1] * 9 + [2] * 4])
    counted = torch.arange(13).expand(2, -1)
    again = torch.stack([torch.cat((torch.arange(a), torch.arange(13 - a))) for a in (5, 9)])
    where = again if positions == "document" else None
    together = model(x, where, segments)
    for row, cut in ((0, 5), (1, 9)):
        for part in (slice(0, cut), slice(cut, 13)):
            own = (again if where is not None else counted)[row, part]
            alone = model(x[row : row + 1, part], own)
            torch.testing.assert_close(together[row : row + 1, part], alone, rtol=1e-4, atol=1e-5)


def test_without_segments_a_row_is_one_document():
    model = made(TINY)
    x = tokens(2, 13)
    torch.testing.assert_close(model(x), model(x, None, torch.ones(2, 13)), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("pairs", ["half", "interleaved"])
def test_partial_rotary_turns_pairs_by_their_angle(pairs):
    config = ModelConfig(vocab_size=9, width=16, heads=2, rotary_dim=4, rotary_pairs=pairs, rotary_base=100.0)
    x = torch.randn(1, 2, 6, 8, generator=torch.Generator().manual_seed(0))
    turned = Rotary(config, torch.arange(6))(x)
    assert torch.equal(turned[..., 4:], x[..., 4:])
    first, second = ([0, 1], [2, 3]) if pairs == "half" else ([0, 2], [1, 3])
    for pair, frequency in ((0, 1.0), (1, 0.1)):
        a, b = first[pair], second[pair]
        before = torch.complex(x[..., a], x[..., b])
        angle = torch.arange(6) * frequency
        after = before * torch.polar(torch.ones(6), angle)
        torch.testing.assert_close(torch.complex(turned[..., a], turned[..., b]), after)


def test_mup_multipliers_act_where_they_should():
    plain = made(TINY)
    x = tokens(1, 7)

    def variant(**mup):
        other = Transformer(TINY.model_copy(update={"mup": Mup(**mup)}))
        other.load_state_dict(plain.state_dict())
        return other

    torch.testing.assert_close(variant(logit_multiplier=0.25)(x), plain(x) * 0.25)
    embedded = variant(embedding_multiplier=2.0)
    scaled = made(TINY)
    with torch.no_grad():
        scaled.embedding.weight.mul_(2.0)
    torch.testing.assert_close(embedded.hidden(x), scaled.hidden(x))
    by_d = variant(attention="d")
    assert by_d.blocks[0].attention.scale == 1 / 8
    assert plain.blocks[0].attention.scale == 1 / math.sqrt(8)
    assert not torch.allclose(by_d(x), plain(x))


@pytest.mark.parametrize("distribution", ["normal", "truncated_normal"])
def test_weights_are_drawn_as_stated(distribution):
    init = Initialisation(distribution=distribution, embedding_std=0.3, hidden_std=0.1)
    config = ModelConfig(
        vocab_size=500, layers=8, width=64, heads=4, ffn=128, tied=False, attention_bias=True, init=init
    )
    model = Transformer(config)
    model.initialise(1)
    # A normal cut at two standard deviations has 0.8796 of its spread.
    spread = 1.0 if distribution == "normal" else 0.8796
    block = model.blocks[3]
    for weight, std in (
        (model.embedding.weight, 0.3),
        (block.attention.qkv.weight, 0.1),
        (block.ffn.gate.weight, 0.1),
        (block.ffn.up.weight, 0.1),
        (block.attention.out.weight, 0.1 / 4),
        (block.ffn.down.weight, 0.1 / 4),
        (model.head.weight, 0.1),
    ):
        assert weight.std().item() == pytest.approx(std * spread, rel=0.05)
        assert (weight.abs().max().item() <= 2 * std) == (distribution == "truncated_normal")
    assert not block.attention.qkv.bias.any()
    assert (block.ffn_norm.weight == 1).all()


def test_weights_are_cut_off_where_the_configuration_says():
    config = TINY.model_copy(update={"init": Initialisation(hidden_std=0.1, cut=1.0)})
    model = made(config)
    weight = model.blocks[0].ffn.up.weight
    assert 0.09 < weight.abs().max().item() <= 0.1
    assert weight.std().item() == pytest.approx(0.1 * 0.5396, rel=0.05)  # of a normal cut at one


def test_a_seed_of_the_weights_alone_goes_before_the_recipes():
    own = made(TINY.model_copy(update={"init": TINY.init.model_copy(update={"seed": 7})}), seed=1)
    recipes = made(TINY, seed=7)
    assert all(torch.equal(a, b) for a, b in zip(own.parameters(), recipes.parameters(), strict=True))


def test_with_targets_forward_is_the_weighted_loss():
    model = made(TINY.model_copy(update={"output_bias": True}))
    x, y = tokens(2, 9), tokens(2, 9).flip(0)
    each = torch.nn.functional.cross_entropy(model(x).flatten(0, 1), y.flatten(), reduction="none")
    weights = torch.rand(18, generator=torch.Generator().manual_seed(0))
    total, losses = model(x, targets=y, weights=weights.view(2, 9))
    torch.testing.assert_close(losses, each)
    torch.testing.assert_close(total, (each * weights).sum())
    wanted = torch.autograd.grad((each * weights).sum(), list(model.parameters()))
    for mine, theirs in zip(torch.autograd.grad(total, list(model.parameters())), wanted, strict=True):
        torch.testing.assert_close(mine, theirs, rtol=1e-4, atol=1e-6)
    picked = torch.tensor([3, 4, 17])
    total, losses = model(x, targets=y.flatten()[picked], picked=picked)
    torch.testing.assert_close(losses, each[picked])
    torch.testing.assert_close(total, each[picked].sum())


@pytest.mark.parametrize("shares", [1, 2])
def test_key_value_heads_and_columns_can_be_cut_apart(shares):
    config = TINY.model_copy(update={"kv_heads": 2, "attention_bias": "qkv", "qk_norm": True})
    whole = made(config)
    x = torch.randn(2, 7, 32, generator=torch.Generator().manual_seed(0))
    attention, ffn = whole.blocks[0].attention, whole.blocks[0].ffn
    rotary = Rotary(config, torch.arange(7))
    expected = attention(x, rotary, None, None)[0], ffn(x)
    sums = torch.zeros(2, *x.shape)
    for share in range(shares):
        part = made(config).blocks[0]
        for module, dim in (
            (part.attention.qkv, 0), (part.attention.out, 1), (part.ffn.gate, 0), (part.ffn.up, 0), (part.ffn.down, 1)
        ):  # fmt: skip
            for name, parameter in list(module.named_parameters()):
                cut = parameter.detach().chunk(shares, 0 if name == "bias" else dim)[share]
                setattr(module, name, torch.nn.Parameter(cut))
        sums += torch.stack((part.attention(x, rotary, None, None)[0], part.ffn(x)))
    torch.testing.assert_close(sums, torch.stack(expected), rtol=1e-4, atol=1e-5)


def test_weights_depend_on_the_seed_and_the_name_alone():
    small, large = Transformer(TINY), Transformer(TINY.model_copy(update={"layers": 3}))
    small.initialise(1)
    large.initialise(1)
    name = "blocks.1.ffn.up.weight"
    assert torch.equal(small.state_dict()[name], large.state_dict()[name])
    other = Transformer(TINY)
    other.initialise(2)
    assert not torch.equal(small.state_dict()[name], other.state_dict()[name])


def test_cache_gives_the_same_as_the_whole_row():
    model = made(TINY.model_copy(update={"kv_heads": 2}))
    x = tokens(2, 9)
    cache: list = []
    parts = [model.hidden(x[:, :4], cache=cache)]
    parts += [model.hidden(x[:, i : i + 1], cache=cache) for i in range(4, 9)]
    torch.testing.assert_close(torch.cat(parts, dim=1), model.hidden(x), rtol=1e-4, atol=1e-5)
    with pytest.raises(ValueError, match="one token at a time"):
        model.hidden(x[:, :2], cache=cache)


def test_bfloat16_stays_near_float32():
    config = TINY.model_copy(update={"norm": "layernorm", "attention_bias": True, "ffn_bias": True})
    exact, rounded = made(config), Transformer(config, torch.bfloat16)
    rounded.load_state_dict(exact.state_dict())
    x = tokens(2, 30)
    assert rounded(x).dtype == torch.bfloat16
    torch.testing.assert_close(rounded(x).float(), exact(x), rtol=0.1, atol=0.02)
    rounded(x).sum().backward()
    assert all(p.grad.dtype == torch.float32 for p in rounded.parameters())


def test_sections_resolve_against_their_preset():
    section = ModelSection.model_validate({"preset": "crystalcoder-7b", "layers": 4, "mup": {"logit_multiplier": 1.0}})
    config = resolve(section, 32_022)
    assert (config.layers, config.width, config.vocab_size) == (4, 4096, 32032)
    assert config.mup == CRYSTALCODER_7B.mup.model_copy(update={"logit_multiplier": 1.0})
    assert resolve(ModelSection(), 8001).vocab_size == 8064
    assert resolve(ModelSection(), None).vocab_size is None
    assert resolve(ModelSection(preset=None), 10).norm == "rmsnorm"


def test_a_vocabulary_too_small_and_shapes_that_do_not_fit_are_refused():
    with pytest.raises(UserError, match="32032 tokens, but the tokenizer has 50000"):
        resolve(ModelSection(preset="crystalcoder-7b"), 50_000)
    with pytest.raises(ValueError, match="not a multiple of heads"):
        ModelSection(width=100, heads=3)
    with pytest.raises(UserError, match="rotary_dim 16 is not even and at most"):
        resolve(ModelSection(heads=32), 100)
