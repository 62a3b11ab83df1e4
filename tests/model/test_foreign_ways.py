"""Models of transformers in little memory: the loss without logits, attention without masks, against transformers."""

from __future__ import annotations

import json
from typing import Any

import pytest
import torch
import torch.nn.functional as fn
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from bench.counted import Counted
from headrace.errors import UserError
from headrace.model import cross_entropy
from headrace.model.blockwise import BLOCK
from headrace.model.config import ForeignConfig
from headrace.model.foreign.head import Head, stand_ins
from headrace.model.foreign.module import Foreign
from headrace.model.foreign.proof import prove
from headrace.train.parallel import recomputed
from quick import quick

transformers = pytest.importorskip("transformers")
SIZE = {"vocab_size": 100, "num_hidden_layers": 2, "num_attention_heads": 4, "hidden_size": 32, "intermediate_size": 48}
GROUPED = {**SIZE, "num_key_value_heads": 2}
EIGHT = {**GROUPED, "head_dim": 8}
FALCON = {"vocab_size": 100, "hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4}
OLD = {"vocab_size": 100, "n_embd": 32, "n_layer": 2, "n_head": 4, "n_positions": 64}

# How each is computed: by our attention, with the loss from hidden states; or what stands in the way.
MODELS: dict[str, tuple[Any, str | None]] = {
    "llama": (transformers.LlamaConfig(**GROUPED, tie_word_embeddings=True), None),
    "qwen2": (
        transformers.Qwen2Config(**GROUPED, use_sliding_window=True, sliding_window=3, max_window_layers=1),
        None,
    ),
    "qwen3": (transformers.Qwen3Config(**EIGHT), None),
    "mistral": (transformers.MistralConfig(**GROUPED, sliding_window=3), None),
    "gpt_neox": (transformers.GPTNeoXConfig(**SIZE), None),
    "phi": (transformers.PhiConfig(**SIZE), None),  # its head has a bias
    "phi3": (transformers.Phi3Config(**GROUPED, pad_token_id=0, sliding_window=4), None),
    "cohere": (transformers.CohereConfig(**GROUPED, logit_scale=0.25), None),
    "cohere2": (transformers.Cohere2Config(**EIGHT, sliding_window=3), None),
    "granite": (transformers.GraniteConfig(**GROUPED, logits_scaling=4.0, attention_multiplier=0.1), None),
    "gemma3_text": (transformers.Gemma3TextConfig(**EIGHT, sliding_window=3, final_logit_softcapping=2.0), None),
    "gpt2": (transformers.GPT2Config(**OLD), None),
    "opt": (transformers.OPTConfig(**SIZE, ffn_dim=48, max_position_embeddings=64, word_embed_proj_dim=16), None),
    "olmo2": (transformers.Olmo2Config(**GROUPED), None),
    "starcoder2": (transformers.Starcoder2Config(**GROUPED, sliding_window=4), None),
    "stablelm": (transformers.StableLmConfig(**GROUPED), None),
    "mixtral": (transformers.MixtralConfig(**GROUPED, num_local_experts=4), None),
    "balanced": (transformers.MixtralConfig(**GROUPED, num_local_experts=4, output_router_logits=True), None),
    "deepseek_v3": (
        transformers.DeepseekV3Config(
            **SIZE,
            num_key_value_heads=4,
            q_lora_rank=16,
            kv_lora_rank=16,
            qk_rope_head_dim=4,
            qk_nope_head_dim=8,
            v_head_dim=6,
            n_routed_experts=4,
            num_experts_per_tok=2,
            n_group=1,
            topk_group=1,
            moe_intermediate_size=16,
            first_k_dense_replace=1,
        ),
        None,
    ),
    "gemma2": (
        transformers.Gemma2Config(
            **EIGHT, sliding_window=3, attn_logit_softcapping=1.5, query_pre_attn_scalar=4, final_logit_softcapping=2.0
        ),
        None,
    ),
    "gpt_oss": (transformers.GptOssConfig(**EIGHT, num_local_experts=4, sliding_window=3), None),
    "llama4_text": (
        transformers.Llama4TextConfig(
            **{**EIGHT, "num_hidden_layers": 4},
            attention_chunk_size=3,
            num_local_experts=2,
            pad_token_id=0,
            no_rope_layer_interval=2,
        ),
        None,
    ),
    "bloom": (transformers.BloomConfig(vocab_size=100, hidden_size=32, n_layer=2, n_head=4), "has its own attention"),
    "mpt": (transformers.MptConfig(vocab_size=100, d_model=32, n_layers=2, n_heads=4), "has its own attention"),
    "falcon": (transformers.FalconConfig(**FALCON), "has its own attention"),
    "alibi": (transformers.FalconConfig(**FALCON, alibi=True), "has its own attention"),
    "mamba": (
        transformers.MambaConfig(vocab_size=100, hidden_size=16, num_hidden_layers=1, state_size=4),
        "layers of linear_attention",
    ),
    "qwen3_next": (
        transformers.Qwen3NextConfig(
            **EIGHT,
            linear_num_value_heads=4,
            linear_num_key_heads=2,
            linear_key_head_dim=8,
            linear_value_head_dim=8,
            num_experts=4,
            num_experts_per_tok=2,
            moe_intermediate_size=16,
            shared_expert_intermediate_size=16,
            layer_types=["linear_attention", "full_attention"],
        ),
        "layers of linear_attention",
    ),
}
WELL_KNOWN = ["llama", "qwen2", "qwen3", "mistral", "gpt_neox", "phi", "cohere", "balanced", "gemma2", "bloom", "mamba"]
CUT, LENGTH = 5, 14


def both(name: str, dtype: torch.dtype = torch.float32) -> tuple[Any, Foreign]:
    """The model as transformers computes it, and as we do, with equal weights, wide enough that attention matters."""
    config = ForeignConfig(huggingface=json.loads(MODELS[name][0].to_json_string()), vocab_size=100)
    torch.manual_seed(0)
    theirs = transformers.AutoModelForCausalLM.from_config(MODELS[name][0], dtype=torch.float32).eval()
    with torch.no_grad():
        for parameter in theirs.parameters():
            if parameter.dim() > 1:
                parameter.mul_(4)
        for name_, parameter in theirs.named_parameters():
            if name_.endswith("sinks"):
                parameter.copy_(torch.linspace(-1, 2, len(parameter)))
    prove(theirs, config, "here")
    ours = Foreign(config, dtype)
    ours.load_state_dict({f"model.{key}": value for key, value in theirs.named_parameters()})
    return theirs, ours


def tokens() -> Tensor:
    return torch.randint(3, 100, (2, LENGTH), generator=torch.Generator().manual_seed(1))


def by_document() -> tuple[Tensor, Tensor]:
    positions = torch.tensor([*range(CUT), *range(LENGTH - CUT)]).expand(2, -1)
    return positions, (torch.arange(LENGTH) >= CUT).int().expand(2, -1)


def assert_gradients_equal(ours: nn.Module, theirs: nn.Module) -> None:
    wanted = {key: value.grad for key, value in theirs.named_parameters() if value.grad is not None}
    whole = torch.stack([grad.norm() for grad in wanted.values()]).norm()
    found = {key: value.grad for key, value in ours.named_parameters() if value.grad is not None}
    for key, gradient in wanted.items():
        apart = (found[key] - gradient).norm() if key in found else gradient.norm()
        assert apart <= 1e-4 * gradient.norm() + 1e-6 * whole, key


@pytest.mark.parametrize("name", quick(list(MODELS), *WELL_KNOWN))
def test_loss_and_gradients_are_those_of_transformers(name):
    theirs, ours = both(name)
    x, obstacle = tokens(), MODELS[name][1]
    assert (ours.ways.attends is None) if obstacle is None else obstacle in str(ours.ways.attends)
    picked = torch.arange(2 * LENGTH).view(2, -1)[:, 1:-1].flatten()
    targets = x.roll(-1, 1).flatten()[picked]
    weights = torch.linspace(0.1, 1, len(targets))
    out = theirs(input_ids=x, use_cache=False)
    logits = out.logits.flatten(0, 1)[picked]
    expected = fn.cross_entropy(logits, targets, reduction="none")
    total = ((expected + 0.01 * logits.logsumexp(-1) ** 2) * weights).sum()
    if name == "balanced":
        total = total + theirs.router_aux_loss_coef * weights.sum() * out.aux_loss
    total.backward()
    loss, each = ours(x, None, None, targets, weights, picked, 0.01)
    loss.backward()
    torch.testing.assert_close(each, expected, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(loss, total, rtol=1e-5, atol=1e-5)
    assert_gradients_equal(ours.model, theirs)


@pytest.mark.parametrize("name", quick(list(MODELS), *WELL_KNOWN))
def test_documents_are_trained_as_if_each_were_alone_or_refused(name):
    theirs, ours = both(name)
    x, y = tokens(), tokens().roll(-1, 1)
    positions, segments = by_document()
    theirs.config.output_router_logits = False
    for block in ours.blocks:  # as the trainer does; attention is computed again with what it saw
        block.forward = recomputed(block.forward, "full")
    if name in ("bloom", "mpt", "alibi", "mamba", "qwen3_next"):
        with pytest.raises(UserError, match="has no place for"):
            ours(x, positions, segments, y)
        return
    total = torch.zeros(())
    for part in (slice(0, CUT), slice(CUT, None)):
        logits = theirs(input_ids=x[:, part], use_cache=False).logits.flatten(0, 1)
        total = total + fn.cross_entropy(logits, y[:, part].flatten(), reduction="sum")
    total.backward()
    loss, _ = ours(x, positions, segments, y)
    loss.backward()
    if name == "balanced":
        assert loss > total  # of all documents together
    else:
        assert_gradients_equal(ours.model, theirs)
        torch.testing.assert_close(loss, total, rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(ours(x, positions)[:, :CUT], ours(x)[:, :CUT], rtol=1e-4, atol=1e-4)
    without = ours(x, positions)[:, CUT:]  # starting positions again parts no documents by itself
    assert not torch.allclose(without, ours(x, positions, segments)[:, CUT:], rtol=1e-3, atol=1e-3)


class Largest(TorchDispatchMode):
    """The most numbers that a tensor made here has."""

    def __init__(self) -> None:
        super().__init__()
        self.most = 0

    def __torch_dispatch__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        out = function(*args, **kwargs or {})
        self.most = max([self.most, *(leaf.numel() for leaf in tree_leaves(out) if isinstance(leaf, Tensor))])
        return out


@pytest.mark.parametrize("name", ["llama", "mistral", "gemma2", "gpt_oss", "llama4_text"])
def test_no_tensor_has_the_size_of_logits_or_of_a_mask(monkeypatch, name):
    monkeypatch.setattr(cross_entropy, "CHUNK", 1 << 12)
    monkeypatch.setattr(cross_entropy, "LEAST_ROWS", 16)
    _, ours = both(name)
    length = 4096
    x = torch.arange(length)[None] % 100
    segments = (torch.arange(length) // 100).int()[None]
    positions = (torch.arange(length) % 100)[None]
    with Largest() as seen:
        loss, _ = ours(x, positions, segments, x)
        loss.backward()
    experts = getattr(ours.model.config, "num_local_experts", 0) * 2 * SIZE["intermediate_size"]  # that all see all
    most = max(4 * BLOCK**2, length * experts)  # a block of attention, of all heads
    assert seen.most <= most < (length * 100 if not experts else length**2 // 8)


def test_bfloat16_multiplies_as_autocast_does():
    theirs, ours = both("llama", torch.bfloat16)
    x = tokens()
    with torch.autocast("cpu", torch.bfloat16):
        expected = fn.cross_entropy(theirs(input_ids=x).logits.flatten(0, 1).float(), x.flatten(), reduction="none")
    loss, each = ours(x, targets=x)
    loss.backward()
    torch.testing.assert_close(each, expected, rtol=0.03, atol=0.03)
    assert all(parameter.grad.dtype == torch.float32 for parameter in ours.parameters())


def test_generation_goes_on_with_transformers_attention_after_training():
    theirs, ours = both("mistral")
    ours(tokens(), targets=tokens())[0].backward()
    cache: list[Any] = []
    prompt, more = tokens()[:, :9], tokens()[:, 9:10]
    ours.hidden(prompt, cache=cache)
    with torch.no_grad():
        expected = theirs(input_ids=tokens()[:, :10]).logits[:, -1:]
        torch.testing.assert_close(ours.hidden(more, cache=cache), expected, rtol=1e-4, atol=1e-4)
    assert "headrace" not in json.dumps(ours.model.config.to_dict(), default=str)


@pytest.mark.parametrize(
    ("made", "expected"),
    [
        (lambda z: z, Head()),
        (lambda z: z / 8, Head(0.125)),
        (lambda z: -3 * z, Head(-3.0)),
        (lambda z: 30 * torch.tanh(z / 30), Head(1.0, 30.0)),
        (lambda z: 5 * torch.tanh(2 * z / 5), Head(2.0, 5.0)),
        (lambda z: z + 1, None),
        (lambda z: z.clamp(-50, 50), None),
        (lambda z: z.where(torch.arange(z.shape[-1]) != 7, torch.finfo().min), None),
        (lambda z: z[..., :-1], None),
        (lambda z: z * torch.linspace(1, 1.01, z.shape[-1]), None),
        (lambda z: z.log_softmax(-1), None),
        (lambda z: z * 0, None),
        (lambda z: z.to("meta"), None),
    ],
)
def test_what_becomes_of_logits_is_known_by_numbers(made, expected):
    products = stand_ins(torch.empty(1, 1, 500, device="meta"))
    found = Head.of(products, made(products))
    if expected is None:
        assert found is None
    else:
        assert found is not None
        assert found.scale == pytest.approx(expected.scale, rel=1e-4)
        assert found.cap == (None if expected.cap is None else pytest.approx(expected.cap, rel=1e-4))


def test_layers_that_mix_tokens_otherwise_are_refused():
    config = ForeignConfig(huggingface=json.loads(MODELS["llama"][0].to_json_string()), vocab_size=100)
    theirs = transformers.AutoModelForCausalLM.from_config(MODELS["llama"][0]).eval()
    plain = theirs.model.layers[1].mlp.forward
    theirs.model.layers[1].mlp.forward = lambda x: plain(x + x.roll(1, 1).tril())
    with pytest.raises(UserError, match=r"mix tokens otherwise|positions, which|no causal model"):
        prove(theirs, config, "here")


@pytest.mark.parametrize("name", quick(["llama", "gpt2", "gemma2", "deepseek_v3"], "llama"))
@pytest.mark.filterwarnings("ignore:Of DeepseekV3ForCausalLM")
def test_tiles_change_nothing(name):
    theirs, ours = both(name)
    x, y = tokens(), tokens().roll(-1, 1)
    total = fn.cross_entropy(theirs(input_ids=x, use_cache=False).logits.flatten(0, 1), y.flatten(), reduction="sum")
    total.backward()
    ours.tile_mlp(3, torch.float32, False)
    ours.tile_loss = 5
    for block in ours.blocks:
        block.forward = recomputed(block.forward, "full")
    with Counted() as seen:
        loss, _ = ours(x, targets=y)
        loss.backward()
    torch.testing.assert_close(loss, total, rtol=1e-5, atol=1e-5)
    assert_gradients_equal(ours.model, theirs)
    whole = {(2 * LENGTH, 100), (2, LENGTH, 100)}
    if name != "deepseek_v3":  # whose queries are as wide as its first feed-forward layer
        whole |= {(2 * LENGTH, 48), (2, LENGTH, 48)}
    assert not whole & seen.shapes


def test_what_cannot_be_tiled_or_shared_is_refused_with_its_reason():
    for name, what in (("opt", "no feed-forward layers"), ("mixtral", "mixtures of experts")):
        with pytest.raises(UserError, match=what):
            both(name)[1].tile_mlp(3, None, False)
    with pytest.raises(UserError, match="its loss needs all logits"):
        both("qwen3_next")[1].tile_loss = 3


def test_feed_forward_layers_that_mix_tokens_are_refused(monkeypatch):
    from transformers.models.llama.modeling_llama import LlamaMLP

    plain = LlamaMLP.forward
    monkeypatch.setattr(LlamaMLP, "forward", lambda self, x: plain(self, x) + x.cumsum(1) / 100)
    with pytest.raises(UserError, match=r"mix tokens|positions, which"):
        both("llama")
