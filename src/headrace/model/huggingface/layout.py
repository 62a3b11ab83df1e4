"""Where an architecture keeps a model's tensors: names, and how our fused and their fused matrices correspond."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

import torch
from torch import Tensor

from headrace.model.transformer import Transformer
from headrace.recipe.model import ModelConfig

QKV = "attention.qkv"


@dataclass(frozen=True)
class Layout:
    """The tensors of an architecture.

    Attributes:
        prefix: before a block's modules; ``{}`` is its number.
        block: our module of a block -> theirs. Of ``attention.qkv`` either three names, or one whose rows are queries,
            keys, values; ``per_head`` says that they are so head by head, as ours are.
        ends: our parameters and modules outside the blocks -> theirs.
        transposed: whether matrices of blocks are [in, out], as in GPT-2's Conv1D.
        per_head: see ``block``.
        base: a prefix that files of the model without its head lack.
    """

    prefix: str
    block: Mapping[str, str | tuple[str, ...]]
    ends: Mapping[str, str]
    base: str
    transposed: bool = False
    per_head: bool = False
    buffers: tuple[str, ...] = field(default=("rotary_emb.inv_freq",))

    def names(self, name: str) -> tuple[str, ...]:
        """Their tensors that hold ours; one, or those of queries, keys and values."""
        module, _, kind = name.rpartition(".")
        if not name.startswith("blocks."):
            return (self.ends[name] if name in self.ends else f"{self.ends[module]}.{kind}",)
        _, number, inner = module.split(".", 2)
        theirs = self.block[inner]
        prefix = self.prefix.format(number)
        return tuple(f"{prefix}{part}.{kind}" for part in ([theirs] if isinstance(theirs, str) else theirs))

    def out(self, config: ModelConfig, name: str, tensor: Tensor) -> dict[str, Tensor]:
        """Their tensors for one of ours."""
        names, inner = self.names(name), name.startswith("blocks.")
        parts = [tensor]
        if inner and QKV in name and not self.per_head:
            parts = list(_apart(config, tensor))
            parts = parts if len(names) == 3 else [torch.cat(parts)]
        if inner and self.transposed and tensor.dim() == 2:
            parts = [part.T for part in parts]
        return {theirs: part.contiguous() for theirs, part in zip(names, parts, strict=True)}

    def back(self, config: ModelConfig, name: str, get: Callable[[str], Tensor]) -> Tensor:
        """Our tensor from theirs.

        Args:
            config: the model.
            name: our tensor.
            get: returns one of theirs.
        """
        parts, inner = [get(theirs) for theirs in self.names(name)], name.startswith("blocks.")
        if inner and self.transposed and parts[0].dim() == 2:
            parts = [part.T for part in parts]
        if inner and QKV in name and not self.per_head:
            size, heads = config.head_size, (config.heads, config.key_value_heads, config.key_value_heads)
            if len(parts) == 1:
                parts = list(parts[0].split([count * size for count in heads]))
            return _together(config, *parts)
        return parts[0]

    def shapes(self, config: ModelConfig) -> dict[str, tuple[str, torch.Size]]:
        """Each of their tensors: the one of ours that it holds, all of it or a part, and its shape."""
        out = {}
        for name, shape in ours(config).items():
            for theirs, tensor in self.out(config, name, torch.empty(shape, device="meta")).items():
                out[theirs] = name, tensor.shape
        return out


def ours(config: ModelConfig) -> dict[str, torch.Size]:
    """The shape of each parameter of a model."""
    with torch.device("meta"):
        return {name: parameter.shape for name, parameter in Transformer(config).named_parameters()}


def _apart(config: ModelConfig, qkv: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    groups = qkv.unflatten(0, (config.key_value_heads, -1, config.head_size))
    q, k, v = groups.split((config.heads // config.key_value_heads, 1, 1), dim=1)
    return q.flatten(0, 2), k.flatten(0, 2), v.flatten(0, 2)


def _together(config: ModelConfig, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    parts = [part.unflatten(0, (config.key_value_heads, -1, config.head_size)) for part in (q, k, v)]
    return torch.cat(parts, dim=1).flatten(0, 2)


_ATTENTION: dict[str, str | tuple[str, ...]] = {
    QKV: ("self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj"),
    "attention.out": "self_attn.o_proj",
    "attention.q_norm": "self_attn.q_norm",
    "attention.k_norm": "self_attn.k_norm",
    "attention_norm": "input_layernorm",
    "ffn_norm": "post_attention_layernorm",
}
_ENDS = {"embedding": "model.embed_tokens", "norm": "model.norm", "head": "lm_head"}

# Llama, Qwen 2 and 3, StableLM.
LLAMA = Layout(
    "model.layers.{}.",
    {**_ATTENTION, "ffn.gate": "mlp.gate_proj", "ffn.up": "mlp.up_proj", "ffn.down": "mlp.down_proj"},
    _ENDS,
    base="model.",
)

STARCODER2 = Layout(
    "model.layers.{}.", {**_ATTENTION, "ffn.up": "mlp.c_fc", "ffn.down": "mlp.c_proj"}, _ENDS, base="model."
)

GPT_NEOX = Layout(
    "gpt_neox.layers.{}.",
    {
        QKV: "attention.query_key_value",
        "attention.out": "attention.dense",
        "attention_norm": "input_layernorm",
        "ffn_norm": "post_attention_layernorm",
        "ffn.up": "mlp.dense_h_to_4h",
        "ffn.down": "mlp.dense_4h_to_h",
    },
    {"embedding": "gpt_neox.embed_in", "norm": "gpt_neox.final_layer_norm", "head": "embed_out"},
    base="gpt_neox.",
    per_head=True,
    buffers=("attention.bias", "attention.masked_bias", "rotary_emb.inv_freq"),
)

# Of a gated network, c_fc is the value and c_fc2 the gate: CrystalCoder only.
GPT2 = Layout(
    "transformer.h.{}.",
    {
        QKV: "attn.c_attn",
        "attention.out": "attn.c_proj",
        "attention_norm": "ln_1",
        "ffn_norm": "ln_2",
        "ffn.up": "mlp.c_fc",
        "ffn.gate": "mlp.c_fc2",
        "ffn.down": "mlp.c_proj",
    },
    {"embedding": "transformer.wte", "positions": "transformer.wpe", "norm": "transformer.ln_f", "head": "lm_head"},
    base="transformer.",
    transposed=True,
    buffers=("attn.bias", "attn.masked_bias"),
)

# headrace's own names, as in a run's artifacts and checkpoints.
OWN_BLOCK = (QKV, "attention.out", "attention.q_norm", "attention.k_norm", "attention_norm", "ffn_norm", "ffn.gate",
             "ffn.up", "ffn.down")  # fmt: skip
OWN = Layout(
    "blocks.{}.",
    {module: module for module in OWN_BLOCK},
    {name: name for name in ("embedding", "positions", "norm", "head", "output_bias")},
    base="",
    per_head=True,
)
