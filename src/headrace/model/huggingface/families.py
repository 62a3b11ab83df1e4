"""The architectures that models come from and go to."""

from __future__ import annotations

from headrace.errors import UserError
from headrace.model.huggingface.family import Family
from headrace.model.huggingface.gpt2_like import CRYSTALCODER, GPT2
from headrace.model.huggingface.llama_like import GPT_NEOX, LLAMA, QWEN2, QWEN3, STABLELM, STARCODER2
from headrace.model.huggingface.plain import Plain
from headrace.recipe.model import ModelConfig

# In the order in which a model's home is sought: the narrower one first.
FAMILIES = {family.name: family for family in (QWEN2, LLAMA, QWEN3, STABLELM, GPT_NEOX, GPT2, STARCODER2, CRYSTALCODER)}


def home(config: ModelConfig) -> tuple[Family, ModelConfig]:
    """The architecture that holds a model, and the model as it holds it, with biases of 0 where it has none.

    All but CrystalCoder's hold the model that :class:`headrace.model.huggingface.plain.Plain` makes of it.

    Raises:
        UserError: none does.
    """
    reasons = []
    for family in FAMILIES.values():
        held = family.holds(config if family is CRYSTALCODER else Plain(config).config)
        if isinstance(held, ModelConfig):
            return family, held
        reasons.append(f"{family.name} has no {held}")
    raise UserError(
        "No architecture of transformers, nor CrystalCoder's, holds this model.",
        "model",
        "For the next one, change what prevents it: " + "; ".join(reasons) + ".",
    )
