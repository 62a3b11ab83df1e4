"""The architectures that models come from and go to."""

from __future__ import annotations

from headrace.errors import UserError
from headrace.model.huggingface.family import Family
from headrace.model.huggingface.gpt2_like import CRYSTALCODER, GPT2
from headrace.model.huggingface.llama_like import GPT_NEOX, LLAMA, MISTRAL, QWEN2, QWEN3, STABLELM, STARCODER2
from headrace.recipe.model import ModelConfig

# Where models go, in the order in which a home is sought: the narrower one first.
HOMES = (QWEN2, LLAMA, MISTRAL, QWEN3, STABLELM, GPT_NEOX, GPT2, STARCODER2, CRYSTALCODER)
_POSITIONS = {
    "rotary": "rotary_dim: null, learned_positions: null",
    "partly rotary": "rotary_dim: N, learned_positions: null",
    "learned": "learned_positions: N, rotary_dim: 0",
}
FAMILIES = {family.name: family for family in HOMES}


def home(config: ModelConfig) -> Family:
    """The architecture that holds a model: one with exactly its biases before one that has more, which are then 0.

    Raises:
        UserError: none does; names the nearest and what it lacks.
    """
    lacking = {family.name: family.lacks(config) for family in HOMES}
    able = [family for family in HOMES if not lacking[family.name]]
    if able:
        return next((family for family in able if family.exactly(config)), able[0])
    least = min(map(len, lacking.values()))
    near = [family for family in HOMES if len(lacking[family.name]) == least]
    near = [family for family in near if family.exactly(config)] or near
    ways = "; or ".join(f"for {family.name}, {_changes(lacking[family.name])}" for family in near)
    raise UserError(
        f"No architecture of transformers, nor CrystalCoder's, holds this model: the nearest, {near[0].name},"
        f" does without its {', '.join(lacking[near[0].name])}.",
        "model",
        f"Train {ways}.",
    )


def shown(value: object) -> str:
    """A value of a switch, as in a recipe."""
    return str(value).lower() if isinstance(value, bool) else str(value)


def _changes(lacks: dict[str, tuple[object, ...]]) -> str:
    return ", ".join(
        " or ".join(_POSITIONS[str(value)] for value in held)
        if key == "positions"
        else f"{key}: {' or '.join(map(shown, held))}"
        for key, held in lacks.items()
    )


def table() -> str:
    """What each architecture holds, as a table in Markdown."""
    keys = [key for key in HOMES[0].holds if any(family.holds[key] != (False,) for family in HOMES)]
    every = {key: {value for family in HOMES for value in family.holds[key]} for key in keys if key != "positions"}
    rows = [("", *(f"`{key}`" if key != "positions" else key for key in keys), "`attention_bias` / `ffn_bias`")]
    rows.append(tuple("---" for _ in rows[0]))
    for family in HOMES:
        held = [
            "any" if set(family.holds[key]) == every.get(key) else ", ".join(map(shown, family.holds[key]))
            for key in keys
        ]
        biases = "any" if family is LLAMA else ", ".join(" / ".join(map(shown, pair)) for pair in family.biases)
        rows.append((f"`{family.name}`", *held, biases))
    return "\n".join(f"| {' | '.join(row)} |" for row in rows)
