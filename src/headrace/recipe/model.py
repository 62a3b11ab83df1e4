"""The `model:` section of a recipe: a decoder's architecture, in the usual terms."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import Field, PositiveInt, model_validator

from headrace.recipe.base import Section, wrong

Preset = Literal["demo", "crystalcoder-7b", "snowcoder-1.3b", "llama-7b"]


class Initialisation(Section):
    """How weights are initialized.

    Biases always start at 0 and norm gains at 1.
    """

    distribution: Literal["truncated_normal", "normal"] = Field(
        default="truncated_normal",
        description="truncated_normal is cut off at `cut` standard deviations",
    )
    cut: float = Field(default=2.0, gt=0, le=6, description="truncated_normal only; CrystalCoder was cut off at two")
    seed: int | None = Field(default=None, ge=0, lt=2**63, description="seed of the weights; null: the recipe's")
    embedding_std: float = Field(default=0.02, ge=0, description="standard deviation of the token embedding")
    hidden_std: float = Field(
        default=0.02, ge=0, description="standard deviation of every matrix between embedding and output"
    )
    output_std: float | None = Field(
        default=None,
        ge=0,
        description="standard deviation of matrices that write to the residual stream; null: hidden_std / sqrt(2 * "
        "layers), as in GPT-2",
    )
    head_std: float | None = Field(
        default=None, ge=0, description="standard deviation of an untied output head; null: hidden_std"
    )


class Mup(Section):
    """Multipliers of the maximal update parametrization (Yang et al., Tensor Programs V, 2022).

    With all at 1 and `attention: sqrt_d` this is the standard parametrization.
    """

    embedding_multiplier: float = Field(default=1.0, gt=0, description="multiplier of the embedding's output")
    logit_multiplier: float = Field(default=1.0, gt=0, description="multiplier of the logits")
    attention: Literal["sqrt_d", "d"] = Field(default="sqrt_d", description="divisor of the attention logits")
    hidden_learning_rate: float = Field(
        default=1.0,
        gt=0,
        description="multiplier of the learning rate of hidden matrices (muP: base width / width)",
    )


class ModelConfig(Section):
    """A complete decoder-only transformer: everything that determines its tensors and what they compute."""

    vocab_size: PositiveInt | None = Field(
        default=None,
        description="rows of the embedding; null: the tokenizer's size, rounded up to a multiple of `vocab_multiple`",
    )
    vocab_multiple: PositiveInt = Field(
        default=64, description="multiple to which the tokenizer's vocabulary size is rounded up"
    )
    layers: PositiveInt = Field(default=6, description="number of transformer blocks")
    width: PositiveInt = Field(default=256, description="width of the residual stream")
    heads: PositiveInt = Field(default=4, description="query heads")
    kv_heads: PositiveInt | None = Field(
        default=None, description="key and value heads (grouped-query attention); null: same as `heads`"
    )
    ffn: PositiveInt = Field(default=704, description="hidden size of the feed-forward network")
    norm: Literal["rmsnorm", "layernorm"] = Field(
        default="rmsnorm", description="normalization before each block and at the end"
    )
    norm_eps: float = Field(default=1e-5, gt=0, description="epsilon added to the variance")
    activation: Literal["swiglu", "gelu"] = Field(
        default="swiglu", description="activation of the feed-forward network; swiglu adds a gate"
    )
    attention_bias: bool = Field(default=False, description="biases in the four attention matrices")
    ffn_bias: bool = Field(default=False, description="biases in the feed-forward matrices")
    output_bias: bool = Field(default=False, description="a bias on the logits")
    tied: bool = Field(default=True, description="tie the output head to the embedding")
    parallel_residual: bool = Field(
        default=False, description="attention and feed-forward read the same input, as in GPT-NeoX"
    )
    rotary_dim: int | None = Field(
        default=None, ge=0, description="rotated dimensions per head; null: all; 0: none (no positions)"
    )
    rotary_base: float = Field(default=10000.0, gt=0, description="base of the rotary frequencies")
    rotary_pairs: Literal["half", "interleaved"] = Field(
        default="half",
        description="half: dimension i is paired with i + rotary_dim / 2 (LLaMA, NeoX); interleaved: 2i with 2i + 1 "
        "(GPT-J, CrystalCoder)",
    )
    init: Initialisation = Field(default=Initialisation(), description="how weights are initialized")
    mup: Mup = Field(default=Mup(), description="multipliers of the maximal update parametrization")

    @property
    def head_dim(self) -> int:
        """Dimensions of one head."""
        return self.width // self.heads

    @property
    def key_value_heads(self) -> int:
        """Number of key and value heads."""
        return self.kv_heads or self.heads

    @property
    def rotated(self) -> int:
        """Dimensions of a head that are rotated by position."""
        return self.head_dim if self.rotary_dim is None else self.rotary_dim

    @model_validator(mode="after")
    def _shapes_fit(self) -> ModelConfig:
        if self.width % self.heads:
            raise wrong(f"width {self.width} is not a multiple of heads {self.heads}", "change one of them", "width")
        if self.heads % self.key_value_heads:
            raise wrong(
                f"heads {self.heads} is not a multiple of kv_heads {self.key_value_heads}",
                "change one of them",
                "heads",
            )
        if self.rotated > self.head_dim or self.rotated % 2:
            raise wrong(
                f"rotary_dim {self.rotated} is not even and at most width / heads = {self.head_dim}",
                "change it, width or heads",
                "rotary_dim",
            )
        return self


class ModelSection(ModelConfig):
    """The recipe's `model:` section: a preset's name and whatever differs from it."""

    preset: Preset | None = Field(default="demo", description="preset to start from; null: the default of each key")

    @classmethod
    def without_displaced(cls, below: dict[str, Any], above: dict[str, Any]) -> dict[str, Any]:
        """Another preset discards all settings."""
        return below if above.get("preset", below.get("preset")) == below.get("preset") else {}
