"""A recipe's stage as settings: what it asks for, on how many processes."""

from __future__ import annotations

from headrace.environment import multiplies_bfloat16
from headrace.errors import UserError
from headrace.memory.machines import Machine
from headrace.memory.settings import Settings
from headrace.memory.shape import Shape
from headrace.recipe.schema import Recipe, Stage
from headrace.recipe.training import TrainSection

# As headrace.train.parallel has it, which needs torch: up to so many parameters each process keeps all of them.
REPLICATED = 500_000_000


def stage_of(recipe: Recipe, name: str | None) -> Stage:
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
    from headrace.tokens.expected import expected_size

    if recipe.model is None:
        raise UserError("The recipe trains no model.", "model", "Add a `model:` section.")
    size, notes = expected_size(recipe)
    return Shape.of(resolve(recipe.model, size)), notes


def settings_of(train: TrainSection, length: int, shape: Shape, machine: Machine, where: str) -> Settings:
    """How a stage is trained on a machine.

    Args:
        train: its section.
        length: tokens of a row.
        shape: its model.
        machine: on what, a process for each device.
        where: the section's place in the recipe, for errors.

    Raises:
        UserError: processes cannot be divided as the section says, or the model's heads.
    """
    processes, tensor, sequence = machine.processes, train.tensor_parallel, train.long.sequence_parallel
    if processes % (tensor * sequence):
        ways = f"each matrix {tensor} ways" if sequence == 1 else f"each row {sequence} ways"
        both = f" and each matrix {tensor} ways" if sequence > 1 and tensor > 1 else ""
        raise UserError(
            f"{processes} process{'es' * (processes > 1)} cannot share {ways}{both}.",
            f"{where}.{'tensor_parallel' if sequence == 1 else 'long.sequence_parallel'}",
            f"Give --gpus and --nodes so that there is a multiple of {tensor * sequence}.",
        )
    uneven = (shape.heads // tensor) % sequence != 0
    ring = train.long.context == "ring" or (train.long.context == "auto" and uneven)
    divided = (
        ("key-value heads", shape.kv_heads, tensor, "tensor_parallel"),
        ("ffn columns", shape.ffn, tensor, "tensor_parallel"),
        ("heads", shape.heads // tensor, 1 if ring else sequence, "long.sequence_parallel"),
    )
    for what, count, by, key in divided:
        if count % by:
            raise UserError(
                f"A model with {count} {what} cannot be split over {by} processes.",
                f"{where}.{key}",
                f"Use a number that divides {count}.",
            )
    data = processes // (tensor * sequence)
    share = -(-train.batch // data)
    rows = min(train.micro_batch or share, share)
    large = shape.parameters > REPLICATED
    sharded = data * sequence > 1 and (tensor > 1 or train.shard == "full" or (train.shard == "auto" and large))
    return Settings(
        length=length,
        rows=rows,
        passes=-(-share // rows),
        bits16=train.precision != "fp32" and (machine.accelerator or multiplies_bfloat16()),
        recompute=train.recompute,
        accelerator=machine.accelerator,
        data=data,
        sequence=sequence,
        ring=ring and sequence > 1,
        tensor=tensor,
        sharded=sharded,
        muon=train.optimizer.kind == "muon",
        documents=train.attention.documents,
        positions=train.attention.positions == "document",
        norms=train.log_norms_every is not None,
        tile_mlp=shape.width if train.long.tile_mlp == "auto" else train.long.tile_mlp,
        tile_loss=None if train.long.tile_loss == "auto" else train.long.tile_loss,
        offload_checkpoints=train.long.offload_checkpoints,
        offload_optimizer=train.long.offload_optimizer,
        offload_parameters=train.long.offload_parameters,
    )
