"""The trainers that ours is compared with, and ours: the same model, weights and optimizer, each in its own manner."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as fn
from torch import Tensor, nn

from headrace.model.huggingface.writing import Written
from headrace.model.transformer import Transformer
from headrace.recipe.model import ModelConfig
from headrace.recipe.training import OptimizerSection
from headrace.train.optimizer import Optimizer

RATE, BETAS, EPS, CLIP = 1e-3, (0.9, 0.95), 1e-9, 1.0

Loss = Callable[[Tensor, Tensor], Tensor]


@dataclass
class Trainer:
    """One way to train.

    Attributes:
        model: the module.
        loss: the mean loss of tokens and targets [B, T], differentiable.
        optimizer: of the model's parameters.
    """

    model: nn.Module
    loss: Loss
    optimizer: torch.optim.Optimizer | Optimizer

    def step(self, tokens: Tensor) -> float:
        """One step on rows [B, T + 1]; its loss."""
        self.optimizer.zero_grad()
        loss = self.loss(tokens[:, :-1], tokens[:, 1:])
        loss.backward()
        torch.nn.utils.clip_grad_norm_(self.model.parameters(), CLIP)
        self.optimizer.step()
        return loss.item()


def _adamw(model: nn.Module) -> torch.optim.Optimizer:
    return torch.optim.AdamW(model.parameters(), lr=RATE, betas=BETAS, eps=EPS, weight_decay=0.0, fused=True)


def _llama(config: ModelConfig, length: int) -> tuple[dict[str, Any], dict[str, Tensor]]:
    # Ours as a LLaMA of transformers: its configuration and weights, the same for all.
    model = Transformer(config)
    model.initialise(1)
    weights = {name: tensor.detach() for name, tensor in model.named_parameters()}
    written = Written(config, weights.__getitem__)
    return written.describe(length), dict(written.tensors(list(written.shapes)))


def ours(config: ModelConfig, length: int, compiled: bool) -> Trainer:
    """headrace's model, loss and optimizer in bf16, with float32 weights."""
    model = Transformer(config, torch.bfloat16)
    model.initialise(1)
    for block in model.blocks:
        if compiled:
            block.compile()  # as headrace does

    def loss(tokens: Tensor, targets: Tensor) -> Tensor:
        weights = torch.full((targets.numel(),), 1 / targets.numel())
        total: Tensor = model(tokens, targets=targets, weights=weights)[0]
        return total

    section = OptimizerSection(learning_rate=RATE, betas=BETAS, eps=EPS, weight_decay=0.0)
    return Trainer(model, loss, Optimizer(model, section))


def _transformers(config: ModelConfig, length: int, compiled: bool, pure: bool, autocast: bool = True) -> Trainer:
    from transformers import LlamaConfig, LlamaForCausalLM

    described, weights = _llama(config, length)
    model = LlamaForCausalLM(LlamaConfig(**described, attn_implementation="sdpa", use_cache=False))
    missing = model.load_state_dict(weights, strict=False)
    if missing.unexpected_keys or set(missing.missing_keys) - {"lm_head.weight"}:
        raise RuntimeError(f"transformers names its weights otherwise: {missing}")
    model.tie_weights()
    model = model.to(torch.bfloat16) if pure else model
    call = torch.compile(model) if compiled else model

    def loss(tokens: Tensor, targets: Tensor) -> Tensor:
        with torch.autocast("cpu", torch.bfloat16, enabled=autocast and not pure):
            logits = call(tokens).logits
        return fn.cross_entropy(logits.flatten(0, 1).float(), targets.flatten())

    return Trainer(model, loss, _adamw(model))


def transformers_bf16(config: ModelConfig, length: int, compiled: bool) -> Trainer:
    """LlamaForCausalLM with weights and optimizer in bf16."""
    return _transformers(config, length, compiled, pure=True)


def transformers_autocast(config: ModelConfig, length: int, compiled: bool) -> Trainer:
    """LlamaForCausalLM with float32 weights under autocast."""
    return _transformers(config, length, compiled, pure=False)


def transformers_fp32(config: ModelConfig, length: int, compiled: bool) -> Trainer:
    """LlamaForCausalLM in float32."""
    return _transformers(config, length, compiled, pure=False, autocast=False)


def litgpt(config: ModelConfig, length: int, compiled: bool) -> Trainer:
    """litgpt's GPT as its pretraining runs it on this precision: bf16-mixed."""
    from litgpt.config import Config
    from litgpt.model import GPT

    _, weights = _llama(config, length)
    model = GPT(
        Config(
            name="bench", block_size=length, vocab_size=config.vocab_size, padded_vocab_size=config.vocab_size,
            n_layer=config.layers, n_head=config.heads, n_embd=config.width, n_query_groups=config.key_value_heads,
            rotary_percentage=1.0, parallel_residual=False, bias=False, norm_class_name="RMSNorm",
            norm_eps=config.norm_eps, mlp_class_name="LLaMAMLP", intermediate_size=config.ffn,
            rope_base=int(config.rotary_base),
        )
    )  # fmt: skip
    named = {"transformer.wte.weight": weights["model.embed_tokens.weight"]}
    named |= {"transformer.ln_f.weight": weights["model.norm.weight"]}
    for i in range(config.layers):
        at = f"model.layers.{i}."
        qkv = torch.cat([weights[f"{at}self_attn.{x}_proj.weight"] for x in "qkv"])
        named |= {
            f"transformer.h.{i}.norm_1.weight": weights[at + "input_layernorm.weight"],
            f"transformer.h.{i}.attn.qkv.weight": qkv,
            f"transformer.h.{i}.attn.proj.weight": weights[at + "self_attn.o_proj.weight"],
            f"transformer.h.{i}.norm_2.weight": weights[at + "post_attention_layernorm.weight"],
            f"transformer.h.{i}.mlp.fc_1.weight": weights[at + "mlp.gate_proj.weight"],
            f"transformer.h.{i}.mlp.fc_2.weight": weights[at + "mlp.up_proj.weight"],
            f"transformer.h.{i}.mlp.proj.weight": weights[at + "mlp.down_proj.weight"],
        }
    model.lm_head.weight = model.transformer.wte.weight
    model.load_state_dict({**named, "lm_head.weight": named["transformer.wte.weight"]})
    return _under_autocast(model, compiled)


def nano(config: ModelConfig, length: int, compiled: bool) -> Trainer:
    """A loop like nanoGPT's: plain modules under autocast, logits whole."""
    _, weights = _llama(config, length)
    model = _Nano(config, weights)
    return _under_autocast(model, compiled)


def _under_autocast(model: nn.Module, compiled: bool) -> Trainer:
    call = torch.compile(model) if compiled else model

    def loss(tokens: Tensor, targets: Tensor) -> Tensor:
        with torch.autocast("cpu", torch.bfloat16):
            return fn.cross_entropy(call(tokens).flatten(0, 1), targets.flatten())

    return Trainer(model, loss, _adamw(model))


class _Nano(nn.Module):
    def __init__(self, config: ModelConfig, weights: dict[str, Tensor]) -> None:
        super().__init__()
        self.heads, self.size, self.eps = config.heads, config.head_size, config.norm_eps
        self.wte = nn.Embedding.from_pretrained(weights["model.embed_tokens.weight"].clone(), freeze=False)
        self.lm_head = nn.Linear(config.width, int(config.vocab_size or 0), bias=False)
        self.lm_head.weight = self.wte.weight
        self.norm = nn.Parameter(weights["model.norm.weight"].clone())
        self.layers = nn.ModuleList()
        for i in range(config.layers):
            at = f"model.layers.{i}."
            qkv = torch.cat([weights[f"{at}self_attn.{x}_proj.weight"] for x in "qkv"])
            of = {
                "qkv": qkv,
                "proj": weights[at + "self_attn.o_proj.weight"],
                "gate": weights[at + "mlp.gate_proj.weight"],
                "up": weights[at + "mlp.up_proj.weight"],
                "down": weights[at + "mlp.down_proj.weight"],
            }
            layer = nn.ModuleDict({name: nn.Linear(w.shape[1], w.shape[0], bias=False) for name, w in of.items()})
            for name, w in of.items():
                layer[name].weight.data.copy_(w)
            layer.norms = nn.ParameterList(
                weights[at + n].clone() for n in ("input_layernorm.weight", "post_attention_layernorm.weight")
            )
            self.layers.append(layer)
        exponent = torch.arange(0, self.size, 2).float() / self.size
        angle = torch.arange(1 << 14).float()[:, None] / config.rotary_base**exponent
        self.register_buffer("cos", torch.cat((angle, angle), 1).cos(), persistent=False)
        self.register_buffer("sin", torch.cat((angle, angle), 1).sin(), persistent=False)

    def turned(self, x: Tensor) -> Tensor:
        a, b = x.chunk(2, dim=-1)
        length = x.shape[2]
        return (x * self.cos[:length] + torch.cat((-b, a), dim=-1) * self.sin[:length]).to(x.dtype)

    def forward(self, tokens: Tensor) -> Tensor:
        x = self.wte(tokens)
        B, T, D = x.shape
        for layer in self.layers:
            qkv = layer["qkv"](fn.rms_norm(x, (D,), layer.norms[0], self.eps))
            q, k, v = (part.view(B, T, self.heads, self.size).transpose(1, 2) for part in qkv.split(D, dim=2))
            y = fn.scaled_dot_product_attention(self.turned(q), self.turned(k), v, is_causal=True)
            x = x + layer["proj"](y.transpose(1, 2).reshape(B, T, D))
            y = fn.rms_norm(x, (D,), layer.norms[1], self.eps)
            x = x + layer["down"](fn.silu(layer["gate"](y)) * layer["up"](y))
        return self.lm_head(fn.rms_norm(x, (D,), self.norm, self.eps))


PEERS: dict[str, Callable[[ModelConfig, int, bool], Trainer]] = {
    "transformers, bf16": transformers_bf16,
    "transformers, autocast": transformers_autocast,
    "litgpt": litgpt,
    "a loop like nanoGPT's": nano,
}
