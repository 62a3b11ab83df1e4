"""What memory depends on of a model: its sizes, read from its configuration."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from headrace.model.config import AnyConfig, ForeignConfig, ModelConfig, parameter_count


@dataclass(frozen=True)
class Shape:
    """The sizes of a decoder.

    Attributes:
        width, layers, heads, kv_heads, head_size, ffn, vocab: as in :class:`~headrace.recipe.model.ModelConfig`.
        parameters: all of them, each tensor once.
        inside: those of the blocks.
        gated: whether the feed-forward network has a gate.
        tied: whether the head is the embedding.
        qk_norm: whether queries and keys are normalized.
        parallel: whether attention and feed-forward read the same input.
        rotated: dimensions of a head that are turned by position.
        windows: of each layer, how many tokens it sees; None: all.
        refused: keys of a `train` section that the model cannot be trained with.
    """

    width: int
    layers: int
    heads: int
    kv_heads: int
    head_size: int
    ffn: int
    vocab: int
    parameters: int
    inside: int
    gated: bool = True
    tied: bool = False
    qk_norm: bool = False
    parallel: bool = False
    rotated: int = 0
    windows: tuple[int | None, ...] = (None,)
    refused: frozenset[str] = frozenset()

    @property
    def block(self) -> int:
        """The parameters of a block."""
        return self.inside // self.layers

    @property
    def ends(self) -> int:
        """The parameters outside the blocks: embedding, head, the last norm."""
        return self.parameters - self.inside

    @property
    def table(self) -> int:
        """The entries of the embedding, and of the head."""
        return self.vocab * self.width

    @staticmethod
    def of(config: AnyConfig) -> Shape:
        """The sizes of a configuration, with its vocabulary resolved. One of transformers needs that library."""
        if isinstance(config, ForeignConfig):
            return _foreign(config)
        assert isinstance(config, ModelConfig)
        inside = parameter_count(config, embedding=False)
        norm = config.width * (2 if config.norm == "layernorm" else 1)
        inside -= norm + ((config.output_bias and config.vocab_size) or 0)
        return Shape(
            config.width,
            config.layers,
            config.heads,
            config.key_value_heads,
            config.head_size,
            config.ffn,
            config.vocab_size or 0,
            parameter_count(config),
            inside,
            config.gated,
            config.tied,
            config.qk_norm,
            config.parallel_residual,
            config.rotated,
            tuple(config.window(layer) for layer in range(config.layers)),
        )


def _foreign(config: ForeignConfig) -> Shape:
    from transformers import AutoConfig

    from headrace.model.foreign.trial import tried  # imports torch

    told = {key: value for key, value in config.huggingface.items() if key != "model_type"}
    found = AutoConfig.for_model(config.huggingface["model_type"], **told)

    def value(*names: str) -> Any:
        return next((got for name in names if (got := getattr(found, name, None)) is not None), None)

    width, layers, heads = found.hidden_size, found.num_hidden_layers, found.num_attention_heads
    kv_heads = value("num_key_value_heads", "num_kv_heads") or heads
    head_size = value("head_dim") or width // heads
    ffn = value("intermediate_size", "n_inner", "ffn_dim") or 4 * width
    whole, inside = parameter_count(config), parameter_count(config, embedding=False)
    tied = bool(value("tie_word_embeddings"))
    # What a block has besides its four matrices of attention is two matrices of the feed-forward layer, or three.
    others = inside / layers - 2 * width * head_size * (heads + kv_heads)
    gated = others > 2.5 * width * ffn
    windows = (value("sliding_window") if value("use_sliding_window") is not False else None,) * layers
    refused = frozenset(tried(config).refused)
    about = width, layers, heads, kv_heads, head_size, ffn, config.vocab_size, whole, inside - inside % layers
    return Shape(*about, gated, tied, rotated=head_size, windows=windows, refused=refused)
