"""The decoder: one file for LLaMA, Qwen, GPT-NeoX, GPT-2 and CrystalCoder shapes, with muP.

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
from torch.distributed.tensor import DTensor
from torch.distributed.tensor._utils import compute_local_shape_and_global_offset

from headrace.flow.keys import salt
from headrace.model.attention import Documents, KeyValues, attend
from headrace.model.cross_entropy import linear_cross_entropy
from headrace.model.exchange import Exchange
from headrace.model.rms_norm import rms_norm
from headrace.model.rotary import Rotary
from headrace.model.tiled import tile_module
from headrace.recipe.model import Initialisation, ModelConfig


class Linear(nn.Linear):
    """A linear map whose float32 weight is cast to the activations' type where it is used."""

    def reset_parameters(self) -> None:
        """Nothing: :meth:`Transformer.initialise` draws all weights."""

    def forward(self, x: Tensor) -> Tensor:
        """[..., in] -> [..., out], in the type of ``x``."""
        bias = None if self.bias is None else self.bias.to(x.dtype)
        return fn.linear(x, self.weight.to(x.dtype), bias)


class Norm(nn.Module):
    """LayerNorm (Ba et al., 2016) or RMSNorm (Zhang and Sennrich, 2019), with statistics in float32."""

    def __init__(self, width: int, kind: str, eps: float) -> None:
        super().__init__()
        self.eps = eps
        self.weight = nn.Parameter(torch.empty(width))
        self.bias = nn.Parameter(torch.empty(width)) if kind == "layernorm" else None

    @classmethod
    def of(cls, config: ModelConfig) -> Norm:
        """The norm of the residual stream."""
        return cls(config.width, config.norm, config.norm_eps)

    def forward(self, x: Tensor) -> Tensor:
        """[..., D] -> [..., D]."""
        weight = self.weight.to(x.dtype)
        if self.bias is None:
            return rms_norm(x, weight, self.eps)
        return fn.layer_norm(x, (x.shape[-1],), weight, self.bias.to(x.dtype), self.eps)


class Attention(nn.Module):
    """Causal self-attention, grouped-query if there are fewer key-value heads (Ainslie et al., 2023).

    The rows of ``qkv`` are [K, H / K + 2, E]: for each key-value head its queries, its key and its value. So it is one
    product, 10 to 30 % faster than three (4,096 tokens x 256 or 512, two cores), and any slice of whole key-value heads
    is attention by itself: how many there are, ``forward`` reads from the projection's output.
    """

    def __init__(self, config: ModelConfig, window: int | None) -> None:
        super().__init__()
        self.window = window
        self.exchange: Exchange | None = None  # with the processes that share the rows
        self.head_size, self.group = config.head_size, config.heads // config.key_value_heads
        self.scale = 1 / (self.head_size if config.mup.attention == "d" else math.sqrt(self.head_size))
        rows = (config.heads + 2 * config.key_value_heads) * self.head_size
        self.qkv = Linear(config.width, rows, bias=bool(config.attention_bias))
        self.out = Linear(config.heads * self.head_size, config.width, bias=config.attention_bias is True)
        normed = config.qk_norm
        self.q_norm = Norm(self.head_size, "rmsnorm", config.norm_eps) if normed else None
        self.k_norm = Norm(self.head_size, "rmsnorm", config.norm_eps) if normed else None

    def forward(
        self, x: Tensor, rotary: Rotary, documents: Documents | None, past: KeyValues | None
    ) -> tuple[Tensor, KeyValues]:
        """[B, T, D] -> [B, T, D], and this layer's keys and values so far, each [B, K, past + T, E]."""
        B, T, _ = x.shape
        heads = self.qkv(x).view(B, T, -1, self.group + 2, self.head_size).permute(0, 2, 3, 1, 4)
        q, k, v = heads.split((self.group, 1, 1), dim=2)
        if self.q_norm is not None and self.k_norm is not None:
            q, k = self.q_norm(q), self.k_norm(k)
        q, k, v = rotary(q).flatten(1, 2), rotary(k).squeeze(2), v.squeeze(2)
        if past is not None:
            k, v = torch.cat((past[0], k), dim=2), torch.cat((past[1], v), dim=2)
        over = attend if self.exchange is None else self.exchange.attend
        y = over(q, k, v, self.scale, documents, self.window)
        return self.out(y.transpose(1, 2).reshape(B, T, -1)), (k, v)


class FeedForward(nn.Module):
    """SwiGLU (Shazeer, 2020) or GELU.

    Gate and value are two matrices, so that each can be sharded by columns of the hidden layer as it is. As one matrix
    they would be no faster (4,096 tokens, two cores: 7.9 versus 8.3 ms at width 256, 56 versus 53 at 512).
    """

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.gate = Linear(config.width, config.ffn, bias=config.ffn_bias) if config.gated else None
        self.up = Linear(config.width, config.ffn, bias=config.ffn_bias)
        self.down = Linear(config.ffn, config.width, bias=config.ffn_bias)
        self.approximate = "tanh" if config.activation == "gelu_tanh" else "none"

    def forward(self, x: Tensor) -> Tensor:
        """[B, T, D] -> [B, T, D]."""
        if self.gate is None:
            return self.down(fn.gelu(self.up(x), approximate=self.approximate))
        return self.down(fn.silu(self.gate(x)) * self.up(x))


class Block(nn.Module):
    """One layer, with normalization before each part; ``window``: how many tokens each sees at most."""

    def __init__(self, config: ModelConfig, window: int | None) -> None:
        super().__init__()
        self.parallel = config.parallel_residual
        self.attention_norm, self.attention = Norm.of(config), Attention(config, window)
        self.ffn_norm, self.ffn = Norm.of(config), FeedForward(config)

    def forward(
        self, x: Tensor, rotary: Rotary, documents: Documents | None, past: KeyValues | None, caching: bool
    ) -> tuple[Tensor, KeyValues | None]:
        """[B, T, D] -> [B, T, D], and if ``caching`` the layer's keys and values: FSDP2 warns of views as outputs."""
        y, seen = self.attention(self.attention_norm(x), rotary, documents, past)
        seen = seen if caching else None
        if self.parallel:
            return x + y + self.ffn(self.ffn_norm(x)), seen
        x = x + y
        return x + self.ffn(self.ffn_norm(x)), seen


class Transformer(nn.Module):
    """A decoder-only language model.

    Args:
        config: complete, including its vocabulary size.
        dtype: dtype of matrix products and activations.

    Attributes:
        tile_loss: tokens whose logits exist at a time while the loss is computed; None: as
            :func:`~headrace.model.cross_entropy.linear_cross_entropy` has it.
    """

    def __init__(self, config: ModelConfig, dtype: torch.dtype = torch.float32) -> None:
        super().__init__()
        if config.vocab_size is None:
            raise ValueError("the vocabulary size is not resolved yet")
        self.config, self.dtype = config, dtype
        self.exchange: Exchange | None = None
        self.tile_loss: int | None = None
        self.windows = {config.window(layer) for layer in range(config.layers)}
        self.embedding = _table(config.vocab_size, config.width)
        self.positions = _table(config.learned_positions, config.width) if config.learned_positions else None
        self.blocks = nn.ModuleList(Block(config, config.window(layer)) for layer in range(config.layers))
        self.norm = Norm.of(config)
        self.head = None if config.tied else Linear(config.width, config.vocab_size, bias=False)
        self.output_bias = nn.Parameter(torch.empty(config.vocab_size)) if config.output_bias else None

    def tile_mlp(self, size: int | None, dtype: torch.dtype | None, compiled: bool) -> None:
        """Compute each feed-forward layer tile by tile: see :func:`~headrace.model.tiled.tile_module`."""
        for module in self.modules():
            if isinstance(module, FeedForward):
                tile_module(module, size, dtype, compiled)

    @property
    def output_weight(self) -> Tensor:
        """The matrix [V, D] that maps hidden states to logits."""
        return self.embedding.weight if self.head is None else self.head.weight

    @property
    def query_heads(self) -> frozenset[int]:
        """How many heads its layers have."""
        return frozenset({self.config.heads})

    def share_rows(self, exchange: Exchange | None, tensor_size: int = 1) -> None:
        """Compute a stretch of each row, the processes of ``exchange`` the others; None: whole rows again.

        Args:
            exchange: with these processes.
            tensor_size: how many processes share each matrix, and so the heads.

        Raises:
            UserError: there are not as many heads for each process.
        """
        if exchange is not None:
            exchange.check(self.query_heads, tensor_size)
        self.exchange = exchange
        for module in self.modules():
            if isinstance(module, Attention):
                module.exchange = exchange

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
            positions: int [T] or [B, T]; None: 0, 1, 2, ... in each row. Needed where rows are shared.
            segments: int [B, T]: attend only where these are equal; None: to everything before in the row. Where rows
                are shared, those of the whole rows.
            cache: keys and values per layer, extended in place. Empty at first; afterwards T must be 1.

        Returns:
            [B, T, D] in ``dtype``.
        """
        past = cache[0][0].shape[2] if cache else 0
        if past and tokens.shape[1] != 1:
            raise ValueError("with a filled cache, give one token at a time")
        if positions is None:
            positions = torch.arange(past, past + tokens.shape[1], device=tokens.device)
        rotary = Rotary(self.config, positions, None if self.exchange is None else self.exchange.highest)
        found = Documents.of if self.exchange is None else self.exchange.documents
        documents = None if segments is None else found(segments, self.windows)
        x = fn.embedding(tokens, self.embedding.weight)
        if self.positions is not None:
            x = x + fn.embedding(positions, self.positions.weight)
        x = x.to(self.dtype) * self.config.mup.embedding_multiplier
        for i, block in enumerate(self.blocks):
            x, seen = block(x, rotary, documents, cache[i] if past and cache else None, cache is not None)
            if cache is not None:
                cache[i : i + 1] = [seen]
        return self.norm(x) * self.config.mup.logit_multiplier

    def keep_rows(self, cache: list[KeyValues], rows: Tensor) -> None:
        """Go on with some rows of a cache, int64 [n], in this order."""
        cache[:] = [(keys[rows], values[rows]) for keys, values in cache]

    def logits(self, hidden: Tensor) -> Tensor:
        """[..., D] -> [..., V] in ``dtype``."""
        bias = None if self.output_bias is None else self.output_bias.to(hidden.dtype)
        return fn.linear(hidden, self.output_weight.to(hidden.dtype), bias)

    def forward(
        self,
        tokens: Tensor,
        positions: Tensor | None = None,
        segments: Tensor | None = None,
        targets: Tensor | None = None,
        weights: Tensor | None = None,
        picked: Tensor | None = None,
        z_loss: float = 0.0,
    ) -> Tensor | tuple[Tensor, Tensor]:
        """Logits; or with targets the loss, which is here so that wrappers of the module see all that it computes.

        Args:
            tokens: int64 [B, T].
            positions: as for :meth:`hidden`.
            segments: as for :meth:`hidden`.
            targets: int64 [N], or [B, T].
            weights: float32 [N], each target's weight in the sum.
            picked: int64 [N], the flat positions of the targets; None: all B * T.
            z_loss: as for :func:`~headrace.model.cross_entropy.linear_cross_entropy`.

        Returns:
            Without targets, logits [B, T, V] of each next token. With targets, the weighted sum of their losses in
            nats, differentiable, and each one's loss, float32 [N].
        """
        hidden = self.hidden(tokens, positions, segments)
        if targets is None:
            return self.logits(hidden)
        hidden = hidden.flatten(0, 1)
        if picked is not None and len(picked) != len(hidden):
            hidden = hidden[picked]
        targets = targets.flatten()
        weights = torch.ones(len(targets), device=hidden.device) if weights is None else weights.flatten()
        about = hidden, self.output_weight, self.output_bias, targets, weights
        return linear_cross_entropy(*about, z_loss, self.tile_loss)

    def initialise(self, seed: int) -> None:
        """Draw all weights, one tensor at a time.

        Each has its own generator, keyed by its name: there is no order and no state. Of a sharded parameter each
        process draws the whole and keeps its part, so the weights are the same for any number of processes.
        """
        init = self.config.init
        seed = seed if init.seed is None else init.seed
        for name, parameter in self.named_parameters():
            if parameter.dim() == 2:
                value = _drawn(parameter.shape, self._spread(name), init, salt(seed, "init", name))
            else:
                value = torch.full(parameter.shape, float(not name.endswith("bias")))
            fill(parameter, value)

    def _spread(self, name: str) -> float:
        """The standard deviation of a matrix's entries."""
        init = self.config.init
        if name in ("embedding.weight", "positions.weight"):
            return init.embedding_std
        if name == "head.weight":
            # Under muP the head's entries do not shrink with width; the logit multiplier does (Yang et al., 2022, table
            # 8). hidden_std falls as the root of hidden_learning_rate.
            base = init.hidden_std / math.sqrt(self.config.mup.hidden_learning_rate)
            return base if init.head_std is None else init.head_std
        if name.endswith(("attention.out.weight", "ffn.down.weight")):
            return init.hidden_std / math.sqrt(2 * self.config.layers) if init.output_std is None else init.output_std
        return init.hidden_std

    def hidden_matrices(self) -> Iterator[tuple[str, nn.Parameter]]:
        """The matrices between embedding and output, whose learning rate muP scales."""
        return ((n, p) for n, p in self.named_parameters() if n.startswith("blocks.") and p.dim() == 2)


def _table(rows: int, width: int) -> nn.Embedding:
    return nn.Embedding(rows, width, _weight=torch.empty(rows, width))


def _drawn(shape: torch.Size, std: float, init: Initialisation, seed: int) -> Tensor:
    # On the CPU, so that the weights do not depend on the device.
    generator = torch.Generator().manual_seed(seed % 2**63)
    value = torch.empty(shape, dtype=torch.float32, device="cpu")
    if init.distribution == "normal":
        return value.normal_(0.0, std, generator=generator)
    return nn.init.trunc_normal_(value, 0.0, std, -init.cut * std, init.cut * std, generator=generator)


@torch.no_grad()
def fill(parameter: Tensor, value: Tensor) -> None:
    """Copy a whole tensor into a parameter, or this process's part of it into its shard."""
    if isinstance(parameter, DTensor):
        shape, offset = compute_local_shape_and_global_offset(
            parameter.shape, parameter.device_mesh, parameter.placements
        )
        part = tuple(slice(start, start + size) for start, size in zip(offset, shape, strict=True))
        parameter.to_local().copy_(value[part])
    else:
        parameter.copy_(value)
