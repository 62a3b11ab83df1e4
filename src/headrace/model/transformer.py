"""The decoder: one file for LLaMA, GPT-NeoX and CrystalCoder shapes, with muP.

Shapes: B rows, T tokens, D width, H query heads, K key-value heads, E dimensions per head, V vocabulary.

Weights stay in float32. With ``dtype=torch.bfloat16`` each is cast where it is multiplied, and activations are bfloat16
except in rotary tables, norm and softmax statistics, and the loss. This is the arithmetic of autocast without its casts
back and forth: 10.9 k tokens/s versus 6.7 k under autocast and 3.5 k in float32 (6.8 M parameters, rows of 512, two
cores with AVX-512 bfloat16), with the attention of :mod:`headrace.model.attention` and the loss of
:mod:`headrace.model.cross_entropy` in all three.
"""

from __future__ import annotations

import math
from collections.abc import Iterator

import torch
import torch.nn.functional as fn
from torch import Tensor, nn

from headrace.flow.keys import salt
from headrace.model.attention import KeyValues, attend, document_bias
from headrace.recipe.model import Initialisation, ModelConfig


class Linear(nn.Linear):
    """A linear map whose float32 weight is cast to the activations' type where it is used."""

    def forward(self, x: Tensor) -> Tensor:
        """[..., in] -> [..., out], in the type of ``x``."""
        bias = None if self.bias is None else self.bias.to(x.dtype)
        return fn.linear(x, self.weight.to(x.dtype), bias)


class Norm(nn.Module):
    """LayerNorm (Ba et al., 2016) or RMSNorm (Zhang and Sennrich, 2019), with statistics in float32."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.eps = config.norm_eps
        self.weight = nn.Parameter(torch.empty(config.width))
        self.bias = nn.Parameter(torch.empty(config.width)) if config.norm == "layernorm" else None

    def forward(self, x: Tensor) -> Tensor:
        """[..., D] -> [..., D]."""
        weight = self.weight.to(x.dtype)
        if self.bias is None:
            return fn.rms_norm(x, (x.shape[-1],), weight, self.eps)
        return fn.layer_norm(x, (x.shape[-1],), weight, self.bias.to(x.dtype), self.eps)


class Rotary:
    """Rotary position embedding (Su et al., 2021) of the first ``rotary_dim`` dimensions of each head.

    Attributes:
        cos, sin: float32 [T, R / 2] if all rows share their positions, else [B, 1, T, R / 2].
    """

    def __init__(self, config: ModelConfig, positions: Tensor) -> None:
        self.rotated, self.interleaved = config.rotated, config.rotary_pairs == "interleaved"
        exponent = torch.arange(0, self.rotated, 2, device=positions.device, dtype=torch.float32) / max(1, self.rotated)
        angle = positions.float().unsqueeze(-1) / config.rotary_base**exponent
        angle = angle if positions.dim() == 1 else angle.unsqueeze(1)
        self.cos, self.sin = angle.cos(), angle.sin()

    def __call__(self, x: Tensor) -> Tensor:
        """Rotate queries or keys [B, heads, T, E] by their positions."""
        if self.rotated == 0:
            return x
        turned, rest = x[..., : self.rotated], x[..., self.rotated :]
        if self.interleaved:
            a, b = turned.unflatten(-1, (-1, 2)).unbind(-1)
            turned = torch.stack((a * self.cos - b * self.sin, a * self.sin + b * self.cos), dim=-1).flatten(-2)
        else:
            a, b = turned.chunk(2, dim=-1)
            turned = torch.cat((a * self.cos - b * self.sin, a * self.sin + b * self.cos), dim=-1)
        turned = turned.to(x.dtype)
        return turned if rest.shape[-1] == 0 else torch.cat((turned, rest), dim=-1)


class Attention(nn.Module):
    """Causal self-attention, grouped-query if there are fewer key-value heads (Ainslie et al., 2023)."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.heads, self.kv_heads, self.head_dim = config.heads, config.key_value_heads, config.head_dim
        self.scale = 1 / (self.head_dim if config.mup.attention == "d" else math.sqrt(self.head_dim))
        self.qkv = Linear(config.width, (self.heads + 2 * self.kv_heads) * self.head_dim, bias=config.attention_bias)
        self.out = Linear(config.width, config.width, bias=config.attention_bias)

    def forward(
        self, x: Tensor, rotary: Rotary, bias: Tensor | None, past: KeyValues | None
    ) -> tuple[Tensor, KeyValues]:
        """[B, T, D] -> [B, T, D], and this layer's keys and values so far, each [B, K, past + T, E]."""
        B, T, D = x.shape
        qkv = self.qkv(x).view(B, T, -1, self.head_dim).transpose(1, 2)
        q, k, v = qkv.split((self.heads, self.kv_heads, self.kv_heads), dim=1)
        q, k = rotary(q), rotary(k)
        if past is not None:
            k, v = torch.cat((past[0], k), dim=2), torch.cat((past[1], v), dim=2)
        y = attend(q, k, v, self.scale, bias)
        return self.out(y.transpose(1, 2).reshape(B, T, D)), (k, v)


class FeedForward(nn.Module):
    """SwiGLU (Shazeer, 2020) or GELU. Gate and value share one matrix, the gate's rows first."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.gated = config.activation == "swiglu"
        self.up = Linear(config.width, config.ffn * (2 if self.gated else 1), bias=config.ffn_bias)
        self.down = Linear(config.ffn, config.width, bias=config.ffn_bias)

    def forward(self, x: Tensor) -> Tensor:
        """[B, T, D] -> [B, T, D]."""
        if not self.gated:
            return self.down(fn.gelu(self.up(x)))
        gate, value = self.up(x).chunk(2, dim=-1)
        return self.down(fn.silu(gate) * value)


class Block(nn.Module):
    """One layer, with normalization before each part."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.parallel = config.parallel_residual
        self.attention_norm, self.attention = Norm(config), Attention(config)
        self.ffn_norm, self.ffn = Norm(config), FeedForward(config)

    def forward(
        self, x: Tensor, rotary: Rotary, bias: Tensor | None, past: KeyValues | None
    ) -> tuple[Tensor, KeyValues]:
        """[B, T, D] -> [B, T, D], and the layer's keys and values."""
        y, seen = self.attention(self.attention_norm(x), rotary, bias, past)
        if self.parallel:
            return x + y + self.ffn(self.ffn_norm(x)), seen
        x = x + y
        return x + self.ffn(self.ffn_norm(x)), seen


class Transformer(nn.Module):
    """A decoder-only language model.

    Args:
        config: complete, including its vocabulary size.
        dtype: dtype of matrix products and activations.
    """

    def __init__(self, config: ModelConfig, dtype: torch.dtype = torch.float32) -> None:
        super().__init__()
        if config.vocab_size is None:
            raise ValueError("the vocabulary size is not resolved yet")
        self.config, self.dtype = config, dtype
        self.embedding = nn.Embedding(
            config.vocab_size, config.width, _weight=torch.empty(config.vocab_size, config.width)
        )
        self.blocks = nn.ModuleList(Block(config) for _ in range(config.layers))
        self.norm = Norm(config)
        self.head = None if config.tied else Linear(config.width, config.vocab_size, bias=False)
        self.output_bias = nn.Parameter(torch.empty(config.vocab_size)) if config.output_bias else None

    @property
    def output_weight(self) -> Tensor:
        """The matrix [V, D] that maps hidden states to logits."""
        return self.embedding.weight if self.head is None else self.head.weight

    def hidden(
        self,
        tokens: Tensor,
        positions: Tensor | None = None,
        segments: Tensor | None = None,
        cache: list[KeyValues] | None = None,
    ) -> Tensor:
        """The last layer's normalized output, times the logit multiplier.

        Args:
            tokens: int64 [B, T].
            positions: int [T] or [B, T]; None: 0, 1, 2, ... in each row.
            segments: int [B, T]: attend only where these are equal; None: to everything before in the row.
            cache: keys and values per layer, extended in place. Empty at first; afterwards T must be 1.

        Returns:
            [B, T, D] in ``dtype``.
        """
        past = cache[0][0].shape[2] if cache else 0
        if past and tokens.shape[1] != 1:
            raise ValueError("with a filled cache, give one token at a time")
        if positions is None:
            positions = torch.arange(past, past + tokens.shape[1], device=tokens.device)
        rotary = Rotary(self.config, positions)
        bias = None if segments is None else document_bias(segments, self.dtype)
        x = fn.embedding(tokens, self.embedding.weight).to(self.dtype) * self.config.mup.embedding_multiplier
        for i, block in enumerate(self.blocks):
            x, seen = block(x, rotary, bias, cache[i] if past and cache else None)
            if cache is not None:
                cache[i : i + 1] = [seen]
        return self.norm(x) * self.config.mup.logit_multiplier

    def logits(self, hidden: Tensor) -> Tensor:
        """[..., D] -> [..., V] in ``dtype``."""
        bias = None if self.output_bias is None else self.output_bias.to(hidden.dtype)
        return fn.linear(hidden, self.output_weight.to(hidden.dtype), bias)

    def forward(self, tokens: Tensor, positions: Tensor | None = None, segments: Tensor | None = None) -> Tensor:
        """Logits [B, T, V] of each next token; see :meth:`hidden`."""
        return self.logits(self.hidden(tokens, positions, segments))

    def initialise(self, seed: int) -> None:
        """Draw all weights. Each tensor has its own generator, keyed by its name: no order, no state."""
        init, config = self.config.init, self.config
        seed = seed if init.seed is None else init.seed
        output_std = config.init.output_std
        if output_std is None:
            output_std = init.hidden_std / math.sqrt(2 * config.layers)
        head_std = init.hidden_std if init.head_std is None else init.head_std
        for name, parameter in self.named_parameters():
            if name.endswith("bias"):
                nn.init.zeros_(parameter)
            elif parameter.dim() == 1:
                nn.init.ones_(parameter)
            elif name == "embedding.weight":
                _draw(parameter, init.embedding_std, init, salt(seed, "init", name))
            elif name == "head.weight":
                _draw(parameter, head_std, init, salt(seed, "init", name))
            elif name.endswith(("attention.out.weight", "ffn.down.weight")):
                _draw(parameter, output_std, init, salt(seed, "init", name))
            else:
                _draw(parameter, init.hidden_std, init, salt(seed, "init", name))

    def hidden_matrices(self) -> Iterator[tuple[str, nn.Parameter]]:
        """The matrices between embedding and output, whose learning rate muP scales."""
        return ((n, p) for n, p in self.named_parameters() if n.startswith("blocks.") and p.dim() == 2)


@torch.no_grad()
def _draw(parameter: Tensor, std: float, init: Initialisation, seed: int) -> None:
    # Drawn on the CPU, so that the weights do not depend on the device.
    generator = torch.Generator().manual_seed(seed % 2**63)
    value = torch.empty(parameter.shape, dtype=torch.float32)
    if init.distribution == "normal":
        value.normal_(0.0, std, generator=generator)
    else:
        nn.init.trunc_normal_(value, 0.0, std, -init.cut * std, init.cut * std, generator=generator)
    parameter.copy_(value)
