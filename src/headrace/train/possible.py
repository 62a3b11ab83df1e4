"""Check that a model can be trained as its stages say, before any work: what the recipe alone does not tell."""

from __future__ import annotations

from headrace.model.config import ForeignConfig
from headrace.model.presets import resolve
from headrace.model.rescaled import rescaled
from headrace.recipe.schema import Recipe
from headrace.recipe.training import TrainSection


def check_possible(recipe: Recipe) -> None:
    """Refuse what stages ask of the recipe's model and it cannot do.

    Raises:
        UserError: tiles, shared rows or split matrices are not possible with it; or its folder cannot be read.
    """
    asked = {stage.name: _asked(stage.train) for stage in recipe.stages}
    if recipe.model is None or not any(asked.values()):
        return
    config = resolve(recipe.model, None)
    for stage in recipe.stages:
        train, where = stage.train, f"stages.{stage.name}.train"
        if not asked[stage.name]:
            continue
        if isinstance(config, ForeignConfig):
            from headrace.model.foreign.trial import tried  # imports torch

            ways = tried(rescaled(config, recipe.rotary(stage), stage.name))  # type: ignore[arg-type]
            for key in asked[stage.name]:
                ways.require(key, where)
            heads = ways.heads
        else:
            heads = frozenset({config.heads})
        if train.long.context == "ulysses":
            from headrace.model.exchange import check_heads

            check_heads(heads, train.long.sequence_parallel, train.tensor_parallel, where)


def _asked(train: TrainSection) -> list[str]:
    long = train.long
    given = {
        "tensor_parallel": train.tensor_parallel > 1,
        "long.tile_mlp": long.tile_mlp is not None,
        "long.tile_loss": long.tile_loss is not None,
        "long.sequence_parallel": long.sequence_parallel > 1,
    }
    return [key for key, there in given.items() if there]
