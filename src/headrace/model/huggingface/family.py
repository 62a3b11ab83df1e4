"""An architecture of transformers: what it can hold, and its config.json."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from pydantic import ValidationError

from headrace.errors import UserError
from headrace.model.huggingface import layout
from headrace.recipe.model import ModelConfig

MEND = "Copy the model again, or mend its config.json."

Told = Mapping[str, Any]
"""A config.json."""


@dataclass(frozen=True)
class Family:
    """An architecture.

    Attributes:
        name: its ``model_type``.
        architecture: the class of transformers that generates.
        layout: its tensors.
        holds: the model that it holds if biases of 0 are added to a plain one, or a sentence that says what it lacks.
        write: config.json of such a model, for rows of a length, but for what all have.
        read: the model of a config.json.
    """

    name: str
    architecture: str
    layout: layout.Layout
    holds: Callable[[ModelConfig], ModelConfig | str]
    write: Callable[[ModelConfig, int], dict[str, Any]]
    read: Callable[[Told], dict[str, Any]]

    def config(self, config: ModelConfig, length: int) -> dict[str, Any]:
        """config.json of a model that :attr:`holds` has returned.

        Args:
            config: the model.
            length: tokens of the longest row.
        """
        common = {
            "architectures": [self.architecture],
            "model_type": self.name,
            "vocab_size": config.vocab_size,
            "tie_word_embeddings": config.tied,
            "torch_dtype": "float32",
        }
        return {**common, **self.write(config, length)}

    def model(self, told: Told) -> ModelConfig:
        """The model of a config.json.

        Raises:
            UserError: it is not complete, or says what headrace's model cannot do.
        """
        values = {"vocab_size": told.get("vocab_size"), "tied": told.get("tie_word_embeddings", False)}
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


class UnsupportedError(UserError):
    """A configuration says what headrace's model cannot do."""


def require(told: Told, **wanted: tuple[Any, ...]) -> None:
    """Refuse other values of some keys than these; the first is the default."""
    for key, values in wanted.items():
        found = told.get(key, values[0])
        if found not in values:
            allowed = " or ".join(map(repr, values))
            raise UnsupportedError(
                f"The model has {key}: {found!r}; headrace's own model can only have {allowed}.",
                "config.json",
                "Train it as `model: {huggingface: PATH}`.",
            )


GELU = {"gelu": "gelu", "gelu_new": "gelu_tanh", "gelu_pytorch_tanh": "gelu_tanh", "gelu_fast": "gelu_tanh"}
ACTIVATIONS = tuple(GELU)


def departure(config: ModelConfig, **wanted: tuple[Any, ...]) -> str | None:
    """The first key that has none of these values."""
    for key, values in wanted.items():
        value = getattr(config, key)
        if value not in values:
            return f"{key}: {value!r}"
    return None
