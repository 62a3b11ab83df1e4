"""A model of transformers behind the face of :class:`headrace.model.transformer.Transformer`."""

from __future__ import annotations

import functools
import warnings
from collections.abc import Iterator, Mapping
from typing import Any

import torch
import torch.nn.functional as fn
from torch import Tensor, nn

from headrace.errors import UserError
from headrace.flow.keys import salt
from headrace.flow.notices import Notice
from headrace.model.config import ForeignConfig
from headrace.model.cross_entropy import linear_cross_entropy
from headrace.model.exchange import Exchange
from headrace.model.foreign.attention import NAME, seeing, sights, within
from headrace.model.foreign.configuration import made
from headrace.model.foreign.head import overheard
from headrace.model.foreign.proof import prove
from headrace.model.foreign.trial import MASKED, Ways, balanced, takes, tried
from headrace.model.tiled import tile_module
from headrace.model.transformer import fill


def count(config: ForeignConfig, embedding: bool = True) -> int:
    """The number of parameters, each tensor once; or of those in no embedding and not the head's."""
    with torch.device("meta"):
        model = Foreign(config)
    inside = model.between
    return sum(p.numel() for p in model.parameters() if embedding or id(p) in inside)


class Foreign(nn.Module):
    """A model of transformers.

    Args:
        config: its configuration.
        dtype: bfloat16 computes under autocast; weights stay in float32.
    """

    def __init__(self, config: ForeignConfig, dtype: torch.dtype = torch.float32) -> None:
        super().__init__()
        from transformers.initialization import no_init_weights

        self.config, self.dtype = config, dtype
        on_meta = torch.empty(0).is_meta
        with no_init_weights(), torch.device("cpu"):  # memory that nothing writes to is never taken
            self.model = made(config).eval()
        self.exchange: Exchange | None = None
        self._tile_loss: int | None = None
        self._attention = self.model.config._attn_implementation
        self.model.tie_weights()
        if on_meta:
            self._forget()

    @functools.cached_property
    def ways(self) -> Ways:
        """What can be done with it in little memory."""
        return tried(self.config)

    def _forget(self) -> None:
        """Move parameters to ``meta``; buffers, which are computed and not drawn, stay."""
        for module in self.model.modules():
            for name, parameter in module._parameters.items():
                if parameter is not None:
                    module._parameters[name] = nn.Parameter(parameter.to("meta"))
        self.model.tie_weights()

    def to_empty(self, *, device: Any, recurse: bool = True) -> Foreign:
        """As torch's, but buffers keep their values and tied weights stay tied."""
        kept = {name: buffer.clone() for name, buffer in self.model.named_buffers()}
        super().to_empty(device=device, recurse=recurse)
        for name, buffer in self.model.named_buffers():
            buffer.copy_(kept[name])
        self.model.tie_weights()
        return self

    def state_dict(self, *_: Any, **__: Any) -> dict[str, Tensor]:  # type: ignore[override]
        """Its parameters by name, each tensor once; they share memory with the module."""
        return {name: parameter.detach() for name, parameter in self.named_parameters()}

    def load_state_dict(self, tensors: Mapping[str, Tensor], *_: Any, **__: Any) -> None:  # type: ignore[override]
        """Copy what :meth:`state_dict` returned."""
        for name, parameter in self.state_dict().items():
            parameter.copy_(tensors[name])

    def train(self, mode: bool = True) -> Foreign:
        """Nothing: without dropout, training computes what evaluation does, and draws nothing."""
        return self

    @property
    def tile_loss(self) -> int | None:
        """Tokens whose logits exist at a time while the loss is computed: see :class:`Transformer`."""
        return self._tile_loss

    @tile_loss.setter
    def tile_loss(self, size: int | None) -> None:
        self.ways.require("long.tile_loss")
        self._tile_loss = size

    def tile_mlp(self, size: int | None, dtype: torch.dtype | None, compiled: bool) -> None:
        """Compute each feed-forward layer tile by tile: see :func:`~headrace.model.tiled.tile_module`.

        Raises:
            UserError: it has none that is a module by itself, of linear maps.
        """
        self.ways.require("long.tile_mlp")
        name, mlps, layers = self.ways.name, self.ways.mlps, len(self.blocks)
        if len(mlps) < layers:
            what = f"{len(mlps)} feed-forward layers of {name}'s {layers} layers are computed tile by tile."
            warnings.warn(
                f"{what} The others, such as mixtures of experts, are computed as they are.", Notice, stacklevel=2
            )
        for module in mlps:
            tile_module(self.model.get_submodule(module), size, dtype, compiled)

    @property
    def query_heads(self) -> frozenset[int]:
        """How many heads its layers have."""
        return self.ways.heads

    def share_rows(self, exchange: Exchange | None, tensor_size: int = 1) -> None:
        """See :meth:`headrace.model.transformer.Transformer.share_rows`.

        Raises:
            UserError: the model cannot compute a stretch of a row by itself, or has not as many heads.
        """
        if exchange is not None:
            self.ways.require("long.sequence_parallel")
            exchange.check(self.query_heads, tensor_size)
        self.exchange = exchange

    @property
    def blocks(self) -> nn.ModuleList:
        """Its layers."""
        return max((m for m in self.model.modules() if isinstance(m, nn.ModuleList)), key=len)

    @property
    def embedding(self) -> nn.Embedding:
        """Its token embedding."""
        found: nn.Embedding = self.model.get_input_embeddings()
        return found

    @property
    def between(self) -> set[int]:
        """The ids of parameters that are in no embedding and not the head's."""
        ends = [module for module in self.model.modules() if isinstance(module, nn.Embedding)]
        head = self.model.get_output_embeddings()
        outside = {id(p) for module in [*ends, *([] if head is None else [head])] for p in module.parameters()}
        return {id(p) for p in self.parameters()} - outside

    def hidden_matrices(self) -> Iterator[tuple[str, nn.Parameter]]:
        """Its matrices between embeddings and head."""
        inside = self.between
        return ((name, p) for name, p in self.named_parameters() if p.dim() >= 2 and id(p) in inside)

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
        """Logits, or the loss: see :meth:`headrace.model.transformer.Transformer.forward`."""
        if targets is None:
            return self._computed(tokens, positions, segments).logits
        targets = targets.flatten()
        weights = torch.ones(len(targets), device=tokens.device) if weights is None else weights.flatten()
        if self.ways.head is None:
            out = self._computed(tokens, positions, segments)
            loss, losses = _cross_entropy(_picked(out.logits, picked).float(), targets, weights, z_loss)
        else:
            matrix = self.model.get_output_embeddings()
            with overheard(matrix) as states:
                out = self._computed(tokens, positions, segments)
            [hidden] = states
            scaled = _picked(hidden, picked).to(self.dtype) * self.ways.head.scale
            bias = None if matrix.bias is None else matrix.bias * self.ways.head.scale
            about = scaled, matrix.weight, bias, targets, weights
            loss, losses = linear_cross_entropy(*about, z_loss, self.tile_loss, self.ways.head.cap)
        if balanced(self.model):  # of experts, as transformers adds it to its own loss
            loss = loss + self.model.router_aux_loss_coef * weights.sum() * out.aux_loss.to(loss.device)
        return loss, losses

    def hidden(
        self,
        tokens: Tensor,
        positions: Tensor | None = None,
        segments: Tensor | None = None,
        cache: list[Any] | None = None,
    ) -> Tensor:
        """Logits, which :meth:`logits` returns as they are: models differ in what they do to their last states.

        Raises:
            UserError: the architecture has no place for positions or segments.
        """
        out = self._computed(tokens, positions, segments, cache)
        if cache is not None:
            cache[:] = [out.past_key_values]
        return out.logits

    def _computed(
        self, tokens: Tensor, positions: Tensor | None, segments: Tensor | None, cache: list[Any] | None = None
    ) -> Any:
        own = cache is not None  # keys and values so far are for transformers' attention
        more: dict[str, Any] = {"use_cache": own}
        if cache:
            more["past_key_values"] = cache[0]
        if positions is not None:
            self._require("position_ids", "positions that start again in each document", "attention.positions: row")
            uneven = self.ways.uneven
            if uneven is not None and tokens.shape[1] >= uneven:
                raise UserError(
                    f"{self.ways.name} scales scores by places in the row from {uneven:,} tokens on, not by positions.",
                    "train.attention.positions",
                    "Set it to row, use shorter rows, or set attn_temperature_tuning: false in config.json.",
                )
            more["position_ids"] = positions.long().expand(len(tokens), -1)
        if segments is not None:
            self._require("attention_mask", "attention within documents", "attention.documents: false")
        name, sight = self._attention, sights(tokens, None, ())
        if self.ways.attends is None and not own:
            name = NAME
            more["attention_mask"] = torch.ones_like(tokens)
            sight = sights(tokens, segments, self.ways.reaches, self.exchange)
        elif segments is not None:
            more["attention_mask"] = self._mask(segments)
        elif positions is not None and takes(self.model, "attention_mask"):
            more["attention_mask"] = torch.ones_like(tokens)  # or it would infer documents from positions
        autocast = torch.autocast(tokens.device.type, torch.bfloat16, enabled=self.dtype == torch.bfloat16)
        self.model.config._attn_implementation_internal = name  # and of layers computed again in the backward pass
        with autocast, seeing(sight):
            return self.model(input_ids=tokens, **more)

    def keep_rows(self, cache: list[Any], rows: Tensor) -> None:
        """Go on with some rows of a cache, int64 [n], in this order."""
        for state in cache:
            state.batch_select_indices(rows)

    def logits(self, hidden: Tensor) -> Tensor:
        """As they are."""
        return hidden

    def _require(self, argument: str, what: str, fix: str) -> None:
        model, config = self.model, self.model.config
        # Models with a state, or with biases that grow with distance, in the place of attention take no such mask.
        attends = any(getattr(model, f"_supports_{way}", False) for way in ("sdpa", "attention_backend"))
        other = getattr(model, "_is_stateful", False) or getattr(config, "alibi", False)
        other = other or not set(getattr(config, "layer_types", None) or ()) <= MASKED
        masked = self.ways.attends is None
        if not takes(model, argument) or (not masked and (other or not attends)):
            raise UserError(f"{type(model).__name__} has no place for {what}.", "train.attention", f"Set {fix}.")
        if argument == "attention_mask" and balanced(self.model) and not masked:
            raise UserError(
                f"{type(model).__name__}'s loss of experts has no place for {what}.",
                "train.attention",
                f"Set {fix}, or output_router_logits: false in config.json.",
            )

    def _mask(self, segments: Tensor) -> Any:
        """What each position sees: causal, within its document, and within the window of layers that have one.

        A tensor [B, 1, T, T], or one for each kind of layer.
        """
        from transformers.masking_utils import create_masks_for_generate

        like = torch.empty(*segments.shape, 1, dtype=self.dtype, device=segments.device)
        # Where these start again, transformers begins a document.
        masks = create_masks_for_generate(self.model.config, like, None, None, within(segments))
        return next(iter(masks.values())) if isinstance(masks, dict) and len(masks) == 1 else masks

    def initialise(self, seed: int) -> None:
        """Draw all weights as transformers does, whole in each process, which keeps its part."""
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(salt(seed, "init", "huggingface") % 2**63)
            with torch.device("cpu"):
                model = made(self.config)
            whole = dict(prove(model, self.config, "model.huggingface").named_parameters())
        for name, parameter in self.model.named_parameters():
            fill(parameter, whole[name].data)


def _picked(states: Tensor, picked: Tensor | None) -> Tensor:
    flat = states.flatten(0, 1)
    return flat if picked is None or len(picked) == len(flat) else flat[picked]


def _cross_entropy(logits: Tensor, targets: Tensor, weights: Tensor, z_loss: float) -> tuple[Tensor, Tensor]:
    losses = fn.cross_entropy(logits, targets, reduction="none")
    penalized = losses if z_loss == 0 else losses + z_loss * logits.logsumexp(-1) ** 2
    return (penalized * weights).sum(), losses.detach()
