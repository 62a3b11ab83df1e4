"""A recipe's stage as settings: what it asks for, on how many processes."""

from __future__ import annotations

from headrace.errors import UserError
from headrace.memory.machines import Machine
from headrace.memory.settings import Settings
from headrace.memory.shape import Shape
from headrace.recipe.schema import Recipe, Stage

# As headrace.train.parallel has it, which needs torch: up to so many parameters each process keeps all of them.
REPLICATED = 500_000_000


def chosen(recipe: Recipe, name: str | None) -> Stage:
    """A stage of a recipe that trains a model.

    Args:
        recipe: the recipe.
        name: the stage's; None: the one with the longest rows.

    Raises:
        UserError: there is no model, or no such stage.
    """
    if recipe.model is None:
        raise UserError("The recipe trains no model.", "model", "Add a `model:` section.")
    if not recipe.stages:
        raise UserError("The recipe has no stages.", "stages", "Add one.")
    if name is None:
        return max(recipe.stages, key=lambda stage: stage.sequence_length)
    found = next((stage for stage in recipe.stages if stage.name == name), None)
    if found is None:
        known = ", ".join(stage.name for stage in recipe.stages)
        raise UserError(f"The recipe has no stage {name!r}.", "--stage", f"Choose one of {known}.")
    return found


def shape_of(recipe: Recipe) -> tuple[Shape, list[str]]:
    """The sizes of a recipe's model, and what was assumed about them, in sentences.

    Raises:
        UserError: there is no model, or it cannot be read.
    """
    from headrace.model.presets import resolve
    from headrace.tokens.training import expected_size

    if recipe.model is None:
        raise UserError("The recipe trains no model.", "model", "Add a `model:` section.")
    size, notes = expected_size(recipe)
    return Shape.of(resolve(recipe.model, size)), notes


def settings_of(stage: Stage, shape: Shape, machine: Machine) -> Settings:
    """How a stage is trained on a machine.

    Raises:
        UserError: its processes cannot be divided as the recipe says, or its heads.
    """
    train, processes = stage.train, machine.processes
    tensor = train.tensor_parallel
    if processes % tensor:
        raise UserError(
            f"{processes} process{'es' * (processes > 1)} cannot share each matrix {tensor} ways.",
            f"stages.{stage.name}.train.tensor_parallel",
            f"Give --gpus and --nodes so that there is a multiple of {tensor}.",
        )
    for what, count in (("key-value heads", shape.kv_heads), ("ffn columns", shape.ffn)):
        if count % tensor:
            raise UserError(
                f"A model with {count} {what} cannot be split over {tensor} processes.",
                f"stages.{stage.name}.train.tensor_parallel",
                f"Use a number that divides {count}.",
            )
    data = processes // tensor
    share = -(-train.batch // data)
    rows = min(train.micro_batch or share, share)
    sharded = data > 1 and (
        tensor > 1 or train.shard == "full" or (train.shard == "auto" and shape.parameters > REPLICATED)
    )
    return Settings(
        length=stage.sequence_length,
        rows=rows,
        passes=-(-share // rows),
        bits16=train.precision != "fp32",
        recompute=train.recompute,
        accelerator=machine.accelerator,
        data=data,
        tensor=tensor,
        sharded=sharded,
        muon=train.optimizer.kind == "muon",
        documents=train.attention.documents,
        positions=train.attention.positions == "document",
        norms=train.log_norms_every is not None,
        tile_mlp=shape.width if train.long.tile_mlp == "auto" else train.long.tile_mlp,
    )
