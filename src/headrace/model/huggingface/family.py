"""An architecture of transformers: what it can hold, and its config.json."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from pydantic import ValidationError

from headrace.errors import UserError
from headrace.model.config import Mup
from headrace.model.huggingface import layout
from headrace.recipe.model import ModelConfig

MEND = "Copy the model again, or mend its config.json."

Told = Mapping[str, Any]
"""A config.json."""

Biases = tuple[bool | str, bool]
"""`attention_bias` and `ffn_bias`."""

_ORDER = (False, "qkv", True)


def switches(config: ModelConfig) -> dict[str, Any]:
    """What architectures differ in, other than biases: a recipe's key, or two of them -> the model's value."""
    positions = "none" if config.rotated == 0 else "rotary" if config.rotated == config.head_size else "partly rotary"
    if config.learned_positions is not None:
        positions = "learned" if positions == "none" else f"learned and {positions}"
    turned, every = config.rotated > 0, config.sliding_window_pattern is None
    return {
        "norm": config.norm,
        "activation": config.activation,
        "positions": positions,
        "rotary_base": "10000" if not turned or config.rotary_base == 10000.0 else "other",
        "rotary_scaling": "null" if not turned or config.rotary_scaling is None else config.rotary_scaling.kind,
        "sliding_window": "null" if config.sliding_window is None else "N" if every else "N by pattern",
        "kv_heads": "null" if config.key_value_heads == config.heads else "fewer",
        "head_dim": "null" if config.head_size * config.heads == config.width else "other",
        "parallel_residual": config.parallel_residual,
        "qk_norm": config.qk_norm,
        "output_bias": config.output_bias,
    }


# What a family holds unless it says otherwise.
_USUAL: dict[str, tuple[Any, ...]] = {
    "norm": ("rmsnorm",),
    "activation": ("swiglu",),
    "positions": ("rotary",),
    "rotary_base": ("10000", "other"),
    "rotary_scaling": ("null", "linear", "dynamic", "llama3", "yarn"),
    "sliding_window": ("null",),
    "kv_heads": ("null", "fewer"),
    "head_dim": ("null", "other"),
    "parallel_residual": (False,),
    "qk_norm": (False,),
    "output_bias": (False,),
}


@dataclass(frozen=True)
class Family:
    """An architecture.

    Attributes:
        name: its ``model_type``.
        architecture: the class of transformers that generates.
        layout: its tensors.
        biases: those it can have, ascending; a model with fewer gets biases of 0.
        write: config.json of such a model, for rows of a length, but for what all have.
        read: the model of a config.json.
        own: of :func:`switches`, the values it holds where they are not the usual ones.
        multipliers: whether it has muP's, and interleaved rotary pairs; others have them folded into their weights.
    """

    name: str
    architecture: str
    layout: layout.Layout
    biases: tuple[Biases, ...]
    write: Callable[[ModelConfig, int], dict[str, Any]]
    read: Callable[[Told], dict[str, Any]]
    own: Mapping[str, tuple[Any, ...]] = field(default_factory=dict)
    multipliers: bool = False

    @property
    def holds(self) -> dict[str, tuple[Any, ...]]:
        """The values of each switch that it holds."""
        return {**_USUAL, **self.own}

    def lacks(self, config: ModelConfig) -> dict[str, Any]:
        """The switches of a model whose values it does not hold: switch -> those it holds."""
        found = switches(config)
        lacking: dict[str, Any] = {key: held for key, held in self.holds.items() if found[key] not in held}
        attention, ffn = self.biases[-1]
        if _ORDER.index(config.attention_bias) > _ORDER.index(attention):
            lacking["attention_bias"] = tuple(dict.fromkeys(pair[0] for pair in self.biases))
        if config.ffn_bias > ffn:
            lacking["ffn_bias"] = (False,)
        return lacking

    def exactly(self, config: ModelConfig) -> bool:
        """Whether it has the model's biases and no others."""
        return (config.attention_bias, config.ffn_bias) in self.biases

    def held(self, config: ModelConfig) -> ModelConfig:
        """A model that it does not lack anything for, as it holds it: computes the same."""
        attention, ffn = next(
            (attention, ffn)
            for attention, ffn in self.biases
            if _ORDER.index(config.attention_bias) <= _ORDER.index(attention) and config.ffn_bias <= ffn
        )
        form = {"rotary_pairs": "interleaved"} if self.multipliers else {"rotary_pairs": "half", "mup": Mup()}
        return config.model_copy(update={"attention_bias": attention, "ffn_bias": ffn, **form})

    def config(self, config: ModelConfig, length: int) -> dict[str, Any]:
        """config.json of a model that :meth:`held` has returned.

        Args:
            config: the model.
            length: tokens of the longest row.
        """
        common = {
            "architectures": [self.architecture],
            "model_type": self.name,
            "vocab_size": config.vocab_size,
            "tie_word_embeddings": config.tied,
        }
        return {**common, **self.write(config, length)}

    def model(self, told: Told) -> ModelConfig:
        """The model of a config.json.

        Raises:
            UserError: it is not complete, or says what headrace's model cannot do.
        """
        values = {"vocab_size": told.get("vocab_size") or 0, "tied": told.get("tie_word_embeddings", False)}
        try:
            return ModelConfig.model_validate({**values, **self.read(told)})
        except ValidationError as error:
            first = error.errors()[0]
            place = ".".join(map(str, first["loc"]))
            raise UserError(
                f"The model's configuration cannot be used: {place}{': ' if place else ''}{first['msg']}.",
                "config.json",
                MEND,
            ) from None


def require(told: Told, **wanted: tuple[Any, ...]) -> None:
    """Refuse other values of some keys than these; the first is the default.

    Raises:
        UserError: headrace's model cannot do what another value says.
    """
    for key, values in wanted.items():
        found = told.get(key, values[0])
        if found not in values:
            allowed = " or ".join(map(repr, values))
            raise UserError(
                f"The model has {key}: {found!r}; headrace's own model can only have {allowed}.",
                "config.json",
                "Train it as `model: {huggingface: PATH}`.",
            )


GELU = {"gelu": "gelu", "gelu_new": "gelu_tanh", "gelu_pytorch_tanh": "gelu_tanh", "gelu_fast": "gelu_tanh"}
ACTIVATIONS = tuple(GELU)
EITHER_GELU = ("gelu", "gelu_tanh")
EVERY_BIAS: tuple[Biases, ...] = ((False, False), (False, True), (True, False), (True, True))


def renamed(names: Mapping[str, str], told: Told) -> dict[str, Any]:
    """Our keys of a config.json: theirs -> ours, None where it has none."""
    return {ours: told.get(theirs) for theirs, ours in names.items()}


def shape(names: Mapping[str, str], config: ModelConfig) -> dict[str, Any]:
    """Back: their keys of a model."""
    return {theirs: getattr(config, ours) for theirs, ours in names.items()}
