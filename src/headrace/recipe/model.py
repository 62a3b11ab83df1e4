"""The `model:` section of a recipe: the architecture of a decoder, in the field's usual names."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import Field, PositiveInt, model_validator

from headrace.recipe.base import Section, wrong

Preset = Literal["demo", "crystalcoder-7b", "snowcoder-1.3b", "llama-7b"]


class Initialisation(Section):
    """How weights are drawn before the first step.

    Biases start at 0 and norm gains at 1, always.
    """

    distribution: Literal["truncated_normal", "normal"] = Field(
        default="truncated_normal",
        description="truncated_normal is cut at two standard deviations, as CrystalCoder's is",
    )
    embedding_std: float = Field(default=0.02, ge=0, description="standard deviation of the token embedding")
    hidden_std: float = Field(
        default=0.02, ge=0, description="standard deviation of every matrix between embedding and output"
    )
    output_std: float | None = Field(
        default=None,
        ge=0,
        description="of matrices that write to the residual stream; null: hidden_std / sqrt(2 * layers), GPT-2's rule",
    )
    head_std: float | None = Field(default=None, ge=0, description="of an untied output head; null: hidden_std")


class Mup(Section):
    """Multipliers of the maximal update parametrisation (Yang et al., Tensor Programs V, 2022).

    All at 1 and `attention: sqrt_d` is the standard parametrisation.
    """

    embedding_multiplier: float = Field(default=1.0, gt=0, description="the embedding's output is multiplied by this")
    logit_multiplier: float = Field(default=1.0, gt=0, description="the logits are multiplied by this")
    attention: Literal["sqrt_d", "d"] = Field(default="sqrt_d", description="what queries times keys are divided by")
    hidden_learning_rate: float = Field(
        default=1.0,
        gt=0,
        description="the learning rate of hidden matrices is multiplied by this (muP: base width / width)",
    )


class ModelConfig(Section):
    """A decoder-only transformer, complete: everything that determines its tensors and what they compute."""

    vocab_size: PositiveInt | None = Field(
        default=None, description="rows of the embedding; null: the tokenizer's size, rounded up to `vocab_multiple`"
    )
    vocab_multiple: PositiveInt = Field(
        default=64, description="what a vocabulary size taken from the tokenizer is rounded up to"
    )
    layers: PositiveInt = Field(default=6, description="blocks of attention and feed-forward")
    width: PositiveInt = Field(default=256, description="size of the residual stream")
    heads: PositiveInt = Field(default=4, description="query heads")
    kv_heads: PositiveInt | None = Field(
        default=None, description="key and value heads (grouped-query attention); null: as heads"
    )
    ffn: PositiveInt = Field(default=704, description="inner size of the feed-forward network")
    norm: Literal["rmsnorm", "layernorm"] = Field(
        default="rmsnorm", description="normalisation before each block and at the end"
    )
    norm_eps: float = Field(default=1e-5, gt=0, description="added to the variance")
    activation: Literal["swiglu", "gelu"] = Field(
        default="swiglu", description="of the feed-forward network; swiglu has a gate beside it"
    )
    attention_bias: bool = Field(default=False, description="biases in the attention's four matrices")
    ffn_bias: bool = Field(default=False, description="biases in the feed-forward matrices")
    output_bias: bool = Field(default=False, description="a bias on the logits")
    tied: bool = Field(default=True, description="the output head is the embedding")
    parallel_residual: bool = Field(
        default=False, description="attention and feed-forward read the same input, as GPT-NeoX"
    )
    rotary_dim: int | None = Field(
        default=None, ge=0, description="how many of a head's dimensions are rotated; null: all; 0: none (no positions)"
    )
    rotary_base: float = Field(default=10000.0, gt=0, description="base of the rotary frequencies")
    rotary_pairs: Literal["half", "interleaved"] = Field(
        default="half",
        description="half: dimension i turns with i + rotary_dim / 2 (LLaMA, NeoX); "
        "interleaved: 2i with 2i + 1 (GPT-J, CrystalCoder)",
    )
    init: Initialisation = Field(default=Initialisation(), description="how weights are drawn")
    mup: Mup = Field(default=Mup(), description="multipliers of the maximal update parametrisation")

    @property
    def head_dim(self) -> int:
        """Dimensions of one head."""
        return self.width // self.heads

    @property
    def key_value_heads(self) -> int:
        """Heads of keys and values."""
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

    preset: Preset | None = Field(default="demo", description="where to start from; null: the defaults of each key")

    @classmethod
    def giving_way(cls, below: dict[str, Any], above: dict[str, Any]) -> dict[str, Any]:
        """Another preset begins anew."""
        return below if above.get("preset", below.get("preset")) == below.get("preset") else {}
