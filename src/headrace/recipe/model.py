"""The `model:` section of a recipe: a decoder's architecture, in the usual terms."""

from __future__ import annotations

import math
from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field, PositiveInt, model_validator

from headrace.recipe.base import Section, wrong

Preset = Literal[
    "demo",
    "tiny",
    "crystalcoder-7b",
    "snowcoder-1.3b",
    "llama-7b",
    "llama-3-8b",
    "llama-3.2-1b",
    "llama-3.2-3b",
    "mistral-7b",
    "smollm2-135m",
    "smollm2-360m",
    "smollm2-1.7b",
    "qwen2-0.5b",
    "qwen2-1.5b",
    "qwen2-7b",
    "qwen3-0.6b",
    "qwen3-1.7b",
    "qwen3-4b",
    "qwen3-8b",
    "gpt2",
    "gpt2-medium",
    "gpt2-large",
    "gpt2-xl",
    "pythia-14m",
    "pythia-70m",
    "pythia-160m",
    "pythia-410m",
    "pythia-1b",
    "pythia-1.4b",
    "pythia-2.8b",
    "pythia-6.9b",
    "gpt-neox-20b",
]


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
        default=None,
        ge=0,
        description="standard deviation of an untied output head; null: hidden_std / sqrt(mup.hidden_learning_rate), "
        "which under muP is the same for all widths",
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


class RotaryScaling(Section):
    """Rotary frequencies for rows longer than a model was trained on. Start from a model, train on longer rows."""

    kind: Literal["linear", "dynamic", "yarn", "llama3"] = Field(
        description="linear: all frequencies divided by `factor`; dynamic: a `rotary_base` that grows with what a row "
        "has beyond `original_length` (NTK-aware); llama3, yarn: only those that turn seldom within "
        "`original_length`, blending from `low_turns` to `high_turns` (Llama 3.1; Peng et al., 2023)"
    )
    factor: float = Field(ge=1, description="how many times longer the rows are to be")
    original_length: PositiveInt = Field(default=8192, description="row length the model was trained on")
    low_turns: float = Field(
        default=1.0, gt=0, description="a pair that turns no more often than this is divided by `factor`"
    )
    high_turns: float | None = Field(
        default=None, gt=0, description="a pair that turns this often is kept; null: 4 for llama3, 32 for yarn"
    )
    attention_factor: float | None = Field(
        default=None, gt=0, description="multiplier of queries and keys; null: 0.1 ln(factor) + 1 for yarn, else 1"
    )

    @property
    def most_turns(self) -> float:
        """`high_turns`, or its kind's default."""
        return self.high_turns or (32.0 if self.kind == "yarn" else 4.0)

    @property
    def temperature(self) -> float:
        """`attention_factor`, or its kind's default."""
        return self.attention_factor or (0.1 * math.log(self.factor) + 1 if self.kind == "yarn" else 1.0)

    @model_validator(mode="after")
    def _turns_are_a_range(self) -> RotaryScaling:
        if self.low_turns >= self.most_turns:
            raise wrong(
                f"low_turns {self.low_turns:g} is not below high_turns {self.most_turns:g}",
                "change one of them",
                "low_turns",
            )
        return self


class StageScaling(RotaryScaling):
    """Rotary scaling whose lengths are the stages'."""

    kind: Literal["linear", "ntk", "dynamic", "yarn", "llama3"] = Field(  # type: ignore[assignment]
        description="as for the model; linear is position interpolation (Chen et al., 2023); ntk: a `rotary_base` so "
        "much larger that the slowest pair turns `factor` times more slowly and the fastest as before"
    )
    factor: float | None = Field(  # type: ignore[assignment]
        default=None, ge=1, description="how many times longer the rows are; null: as the lengths are"
    )
    original_length: PositiveInt | None = Field(  # type: ignore[assignment]
        default=None, description="row length the model was trained on; null: that of the stage before"
    )


def _kind(value: Any) -> Any:
    """A section that only names its kind, for the name alone."""
    return {"kind": value} if isinstance(value, str) else value


class Rotary(Section):
    """Rotary frequencies from a stage on, for rows longer than those before."""

    base: float | None = Field(
        default=None,
        gt=0,
        description="another `rotary_base`, larger for longer rows (Xiong et al., 2023); null: as before",
    )
    scaling: Annotated[StageScaling | None, BeforeValidator(_kind)] = Field(
        default=None, description="how to scale; a kind alone stands for a section with it; null: as before"
    )

    @model_validator(mode="after")
    def _changes_something(self) -> Rotary:
        if self.base is None and self.scaling is None:
            raise wrong("nothing is changed", "give `base` or `scaling`")
        return self


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
    head_dim: PositiveInt | None = Field(default=None, description="dimensions of a head; null: width / heads")
    ffn: PositiveInt = Field(default=704, description="hidden size of the feed-forward network")
    norm: Literal["rmsnorm", "layernorm"] = Field(
        default="rmsnorm", description="normalization before each block and at the end"
    )
    norm_eps: float = Field(default=1e-5, gt=0, description="epsilon added to the variance")
    activation: Literal["swiglu", "gelu", "gelu_tanh"] = Field(
        default="swiglu",
        description="activation of the feed-forward network; swiglu adds a gate; gelu_tanh: GPT-2's approximation",
    )
    attention_bias: bool | Literal["qkv"] = Field(
        default=False, description="biases in the four attention matrices; qkv: not in the output's, as in Qwen 2"
    )
    qk_norm: bool = Field(default=False, description="RMSNorm of each query and key, as in Qwen 3")
    ffn_bias: bool = Field(default=False, description="biases in the feed-forward matrices")
    output_bias: bool = Field(default=False, description="a bias on the logits")
    tied: bool = Field(default=True, description="tie the output head to the embedding")
    parallel_residual: bool = Field(
        default=False, description="attention and feed-forward read the same input, as in GPT-NeoX"
    )
    sliding_window: PositiveInt | None = Field(
        default=None, description="tokens that each token sees, itself included, as in Mistral; null: all before it"
    )
    sliding_window_pattern: int | None = Field(
        default=None, ge=2, description="every so many layers, one sees all tokens (Gemma 2: 2, Gemma 3: 6); null: none"
    )
    learned_positions: PositiveInt | None = Field(
        default=None, description="rows of a learned table of positions, added to the embedding as in GPT-2; null: none"
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
    rotary_scaling: RotaryScaling | None = Field(
        default=None, description="frequencies for rows longer than the model was trained on; null: as they are"
    )
    init: Initialisation = Field(default=Initialisation(), description="how weights are initialized")
    mup: Mup = Field(default=Mup(), description="multipliers of the maximal update parametrization")

    @property
    def head_size(self) -> int:
        """Dimensions of one head."""
        return self.head_dim or self.width // self.heads

    @property
    def key_value_heads(self) -> int:
        """Number of key and value heads."""
        return self.kv_heads or self.heads

    @property
    def rotated(self) -> int:
        """Dimensions of a head that are rotated by position."""
        return self.head_size if self.rotary_dim is None else self.rotary_dim

    def window(self, layer: int) -> int | None:
        """The `sliding_window` of a layer, from 0."""
        pattern = self.sliding_window_pattern
        return None if pattern is not None and (layer + 1) % pattern == 0 else self.sliding_window

    @property
    def gated(self) -> bool:
        """Whether the feed-forward network has a gate."""
        return self.activation == "swiglu"

    @model_validator(mode="after")
    def _shapes_fit(self) -> ModelConfig:
        if self.head_dim is None and self.width % self.heads:
            raise wrong(
                f"width {self.width} is not a multiple of heads {self.heads}",
                "change one of them, or state head_dim",
                "width",
            )
        if self.heads % self.key_value_heads:
            raise wrong(
                f"heads {self.heads} is not a multiple of kv_heads {self.key_value_heads}",
                "change one of them",
                "heads",
            )
        if self.sliding_window_pattern is not None and self.sliding_window is None:
            raise wrong("there is no window for the layers between", "set sliding_window", "sliding_window_pattern")
        if self.rotated > self.head_size or self.rotated % 2:
            raise wrong(
                f"rotary_dim {self.rotated} is not even and at most width / heads = {self.head_size}"
                if self.head_dim is None
                else f"rotary_dim {self.rotated} is not even and at most head_dim {self.head_size}",
                "change it, width or heads" if self.head_dim is None else "change one of them",
                "rotary_dim",
            )
        return self


class ModelSection(ModelConfig):
    """The recipe's `model:` section: a preset's name and whatever differs from it."""

    preset: Preset | None = Field(default="demo", description="preset to start from; null: the default of each key")
    weights: str | None = Field(
        default=None,
        description="folder with config.json and safetensors, of Llama, Mistral, Qwen 2 or 3, StableLM, GPT-NeoX, "
        "GPT-2, StarCoder 2, CrystalCoder or headrace: the model, and the weights that the first stage starts from; "
        "other keys override its configuration",
    )
    huggingface: str | None = Field(
        default=None,
        description="folder with the config.json of any causal model that transformers has, trained as it is there; "
        "with safetensors too, the first stage starts from them; excludes all other keys",
    )

    @classmethod
    def without_displaced(cls, below: dict[str, Any], above: dict[str, Any]) -> dict[str, Any]:
        """Another preset discards all settings."""
        if above.get("weights") or above.get("huggingface"):
            return {}
        return below if above.get("preset", below.get("preset")) == below.get("preset") else {}

    @model_validator(mode="after")
    def _one_origin(self) -> ModelSection:
        given = self.model_fields_set
        if self.huggingface is not None and given != {"huggingface"}:
            others = ", ".join(sorted(given - {"huggingface"}))
            raise wrong(f"`huggingface` excludes other keys ({others})", "remove one or the other", "huggingface")
        if self.weights is not None and "preset" in given:
            raise wrong("`weights` and `preset` both name the model", "remove one of them", "weights")
        return self
