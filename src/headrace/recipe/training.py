"""The `train:` section of a stage: optimizer, schedule, precision, checkpoints, held-out loss, samples."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import Field, NonNegativeFloat, NonNegativeInt, PositiveFloat, PositiveInt, model_validator

from headrace.recipe.base import Section, without, wrong
from headrace.recipe.long import Long, LongSection

MUONS = {"momentum", "other_learning_rate"}  # keys of OptimizerSection


class OptimizerSection(Section):
    """AdamW (Loshchilov and Hutter, 2019) or Muon (Jordan et al., 2024), with CrystalCoder's settings as defaults.

    Weight decay applies to matrices, never to biases and norms.
    """

    kind: Literal["adamw", "muon"] = Field(
        default="adamw",
        description="muon: hidden matrices are updated by Muon, scaled as large as AdamW would (Liu et al., 2025), so "
        "that its learning rate and weight decay hold; all else by AdamW",
    )

    learning_rate: float = Field(
        default=3e-4, gt=0, description="peak learning rate; for hidden matrices multiplied by mup.hidden_learning_rate"
    )
    betas: tuple[float, float] = Field(
        default=(0.9, 0.95), description="decay of the running means of the gradient and its square"
    )
    eps: float = Field(default=1e-9, gt=0, description="added to the denominator of the update")
    momentum: float = Field(
        default=0.95, ge=0, lt=1, description="muon only: decay of the running mean of the gradient"
    )
    other_learning_rate: float = Field(
        default=1.0, gt=0, description="muon only: multiplier of the learning rate of what AdamW updates"
    )
    weight_decay: NonNegativeFloat = Field(default=0.1, description="per step, times the learning rate")
    decay_embedding: bool = Field(
        default=True, description="apply weight decay to the token embedding, as CrystalCoder did"
    )
    clip: float | None = Field(default=1.0, gt=0, description="maximum global gradient norm; null: no clipping")

    @classmethod
    def without_displaced(cls, below: dict[str, Any], above: dict[str, Any]) -> dict[str, Any]:
        """AdamW displaces Muon's own keys."""
        return without(below, MUONS) if above.get("kind") == "adamw" else below

    @model_validator(mode="after")
    def _consistent(self) -> OptimizerSection:
        given = sorted(MUONS & self.model_fields_set)
        if self.kind != "muon" and given:
            raise wrong(f"AdamW has no `{given[0]}`", "remove it, or set `kind: muon`", given[0])
        if not all(0 <= beta < 1 for beta in self.betas):
            raise wrong(
                f"betas {list(self.betas)} must be at least 0 and below 1", "write values such as [0.9, 0.95]", "betas"
            )
        return self


class SchedulePiece(Section):
    """One piece of a schedule: from `start` toward `end` over `steps` steps."""

    start: NonNegativeFloat = Field(description="learning rate at the first step")
    end: NonNegativeFloat = Field(description="learning rate at the end of the piece")
    steps: PositiveInt = Field(description="length of the piece, in steps")
    shape: Literal["linear", "cosine", "exponential"] = Field(
        default="linear", description="exponential: each step multiplies by the same factor"
    )

    @model_validator(mode="after")
    def _has_a_factor(self) -> SchedulePiece:
        if self.shape == "exponential" and not (self.start and self.end):
            raise wrong("an exponential piece cannot begin or end at 0", "write a small rate", "end")
        return self


class ScheduleSection(Section):
    """The learning rate over the steps of one stage."""

    shape: Literal["linear", "cosine", "constant", "wsd", "pieces"] = Field(
        default="cosine",
        description="shape after the warmup; wsd: hold, then decay over the last `decay` steps; pieces: those listed "
        "under `pieces`",
    )
    warmup: NonNegativeFloat = Field(
        default=0.01, description="below 1: a share of the stage's steps; 1 or more: steps"
    )
    decay: NonNegativeFloat = Field(
        default=0.2, description="wsd only; below 1: a share of the stage's steps; 1 or more: steps"
    )
    end: NonNegativeFloat = Field(default=0.1, description="learning rate at the last step, as a share of the peak")
    pieces: tuple[SchedulePiece, ...] = Field(default=(), description="pieces, one after another; the last value holds")

    @classmethod
    def without_displaced(cls, below: dict[str, Any], above: dict[str, Any]) -> dict[str, Any]:
        """Pieces state every rate, so they displace the other keys that do, and are displaced by them."""
        others = {"shape", "warmup", "decay", "end"}
        if "pieces" in above or above.get("shape") == "pieces":
            return without(below, others)
        return without(below, {"pieces", "shape"}) if others & set(above) and "pieces" in below else below

    @model_validator(mode="after")
    def _pieces_belong_to_their_shape(self) -> ScheduleSection:
        if (self.shape == "pieces") != bool(self.pieces):
            raise wrong("`pieces` and `shape: pieces` belong together", "set both, or neither", "pieces")
        if self.shape == "pieces" and self.model_fields_set & {"warmup", "decay", "end"}:
            raise wrong("`shape: pieces` sets every rate itself", "remove warmup, decay and end")
        return self


class LossSection(Section):
    """What a step's summed loss is divided by.

    Losses are shown in nats per token in any case; this scales the gradient, which clipping and `eps` notice.
    """

    per: Literal["token", "row"] = Field(
        default="token", description="token: by the tokens that carry loss; row: by the rows, whatever they carry"
    )
    weight: float = Field(
        default=1.0, gt=0, description="factor of the quotient; CrystalCoder had `per: row` and 1 / 2048"
    )

    z_loss: NonNegativeFloat = Field(
        default=0.0,
        description="coefficient of the squared logarithm of the softmax's denominator, added to each token's loss "
        "(PaLM: 1e-4); losses are shown without it",
    )

    def of_each(self, rows: int, tokens: Any) -> Any:
        """The weight of each token's loss in the loss of a step with so many rows and tokens (a number, or a tensor of
        one) that carry loss."""
        return self.weight / (tokens * 0 + rows if self.per == "row" else tokens)


class AttentionSection(Section):
    """What a token can attend to within its row."""

    documents: bool = Field(
        default=False,
        description="true: only its own document; false: everything before it in the row, as in CrystalCoder",
    )
    positions: Literal["row", "document"] = Field(
        default="row", description="where rotary positions start; document: restart at 0 for each document"
    )


class HeldOutSection(Section):
    """How to measure held-out loss, at the start and end of a stage, and in between."""

    rows: PositiveInt | None = Field(default=64, description="rows of the held-out sequence to read; null: all")
    every: PositiveInt | None = Field(
        default=None, description="steps between measurements while the stage trains; null: only at its start and end"
    )
    infilling: NonNegativeInt = Field(
        default=0,
        description="held-out documents, of the sources that the stage infills, to cut holes into: how often the model "
        "writes exactly what was taken out, at the end and, unless weights are sharded, in between",
    )


class GuardSection(Section):
    """What to do with a step whose loss or gradient is not finite, or far above those before it."""

    action: Literal["skip", "rollback", "stop"] = Field(
        default="skip",
        description="skip: do not update the weights; rollback: go back to the last checkpoint and pass over the "
        "step's rows; stop: end the run",
    )
    deviations: float | None = Field(
        default=None,
        gt=0,
        description="standard deviations above the mean of the window at which a loss or gradient norm is outlying; "
        "null: only what is not finite",
    )
    window: int = Field(default=128, ge=2, description="accepted steps to compare with")
    in_a_row: PositiveInt = Field(default=5, description="such steps in a row at which the run stops")


class RecordSection(Section):
    """Losses of rows and tokens to keep, which `headrace view` and `headrace spikes` show; formats.md has the files.

    They are those of the training itself; what is kept changes nothing else.
    """

    rows: PositiveInt | None = Field(
        default=1, description="steps between records of each row's loss, 8 bytes a row; null: none"
    )
    tokens: PositiveInt | None = Field(
        default=None, description="steps between records of each token's loss, 2 bytes a token; null: none"
    )
    outlying: NonNegativeInt = Field(
        default=16,
        description="rows of each outlying step, those with the highest loss, whose tokens' losses are kept as well; "
        "0: nothing more is kept of outlying steps",
    )


class InfillPrompt(Section):
    """A text with a hole to fill."""

    prefix: str = Field(description="text before the hole")
    suffix: str = Field(description="text after the hole")


class SamplesSection(Section):
    """Samples that the model generates at the end of a stage."""

    prompts: tuple[str, ...] | None = Field(
        default=None, description="left-to-right prompts; null: one, from the start of a held-out document"
    )
    infills: tuple[InfillPrompt, ...] | None = Field(
        default=None, description="holes to fill, using FIM sentinels; null: one, cut into a held-out document"
    )
    tokens: NonNegativeInt = Field(default=48, description="maximum tokens per sample; 0: no samples")
    temperature: NonNegativeFloat = Field(
        default=0.7, description="0 is greedy, which makes small models repeat themselves; draws are keyed"
    )


def _keys(section: Any) -> set[str]:
    return set(section) if isinstance(section, dict) else set()


EXECUTION = frozenset(
    {
        "micro_batch",
        "compile",
        "recompute",
        "shard",
        "tensor_parallel",
        "long",
        "checkpoint_every",
        "initial_checkpoint",
        "keep",
        "keep_every",
        "log_every",
        "log_norms_every",
        "log",
        "record",
        "peak_flops",
        "held_out",
        "samples",
    }
)
"""Keys of :class:`TrainSection` that decide how a training is carried out, not which weights come out: each may change
at any step of a run."""


class TrainSection(Section):
    """How one stage is trained on its sequence."""

    batch: PositiveInt = Field(default=16, description="rows per step")
    micro_batch: PositiveInt | None = Field(
        default=None,
        description="rows per forward pass of a process; gradients accumulate over its share of the "
        "batch; null: all of it at once",
    )
    steps: PositiveInt | None = Field(
        default=None, description="batches to train on, a uniform sample of the sequence; null: the whole sequence"
    )
    optimizer: OptimizerSection = Field(default=OptimizerSection(), description="optimizer and learning rate")
    schedule: ScheduleSection = Field(default=ScheduleSection(), description="learning rate over the stage's steps")
    loss: LossSection = Field(default=LossSection(), description="what a step's summed loss is divided by")
    precision: Literal["fp32", "bf16", "fp8"] = Field(
        default="bf16",
        description="bf16: matrix products in bfloat16, or in float32 on CPUs that cannot multiply it; weights, "
        "optimizer and loss stay in float32; fp8: also "
        "those of the blocks in 8 bits, by torchao, on GPUs of compute capability 8.9 or more",
    )
    attention: AttentionSection = Field(
        default=AttentionSection(), description="what a token can attend to within its row"
    )
    carry_optimizer: bool = Field(
        default=False,
        description="continue with the previous stage's optimizer state; false: start fresh, as CrystalCoder did",
    )
    leave_out: tuple[tuple[NonNegativeInt, NonNegativeInt], ...] = Field(
        default=(),
        description="rows of the sequence, each [first, last], whose steps are passed over, such as those that "
        "`headrace spikes` shows",
    )
    guard: GuardSection = Field(default=GuardSection(), description="what to do with outlying steps")
    checkpoint_every: PositiveInt = Field(default=100, description="steps between checkpoints")
    initial_checkpoint: bool = Field(default=False, description="also a checkpoint before the first step")
    keep: PositiveInt = Field(default=2, description="checkpoints to keep on disk, the newest")
    keep_every: PositiveInt | None = Field(
        default=None, description="also keep, for good, the checkpoints of steps divisible by this"
    )
    log_every: PositiveInt = Field(default=1, description="steps between lines of metrics.jsonl")
    log_norms_every: PositiveInt | None = Field(
        default=None,
        description="steps between lines with the norms of all weights and of their update, for which a copy of the "
        "weights is made; null: never",
    )
    log: tuple[Literal["tensorboard", "wandb", "wandb-online"], ...] = Field(
        default=(),
        description="who else is told of what metrics.jsonl says; wandb writes to the run folder, to be sent by `wandb "
        "sync`, wandb-online sends it while the stage trains",
    )
    record: RecordSection = Field(default=RecordSection(), description="losses of rows and tokens to keep")
    peak_flops: PositiveFloat | None = Field(
        default=None,
        description="operations per second that each device could do at most, to tell utilization (MFU) by; null: the "
        "makers' figure for bf16, where it is known",
    )
    compile: bool = Field(default=False, description="use torch.compile: a slow start, then faster steps")
    recompute: Literal["none", "selective", "full"] = Field(
        default="none",
        description="activations to compute again in the backward pass rather than keep; selective: all but matrix "
        "products and attention",
    )
    shard: Literal["auto", "none", "full"] = Field(
        default="auto",
        description="with several processes: full: each keeps a share of every tensor (FSDP2); none: all of them "
        "(DDP); auto: full above 500 M parameters",
    )
    tensor_parallel: PositiveInt = Field(
        default=1, description="processes that share each matrix product; the others share the batch"
    )
    long: Long = Field(default=LongSection(), description="how long rows are trained on in bounded memory")
    held_out: HeldOutSection = Field(default=HeldOutSection(), description="how to measure held-out loss")
    samples: SamplesSection = Field(default=SamplesSection(), description="samples generated at the end of the stage")

    @classmethod
    def without_displaced(cls, below: dict[str, Any], above: dict[str, Any]) -> dict[str, Any]:
        """A schedule of pieces displaces a peak, and a peak such a schedule."""
        optimizer, schedule = below.get("optimizer"), below.get("schedule")
        if isinstance(optimizer, dict) and "pieces" in _keys(above.get("schedule")):
            return {**below, "optimizer": without(optimizer, {"learning_rate"})}
        if isinstance(schedule, dict) and "pieces" in schedule and "learning_rate" in _keys(above.get("optimizer")):
            return {**below, "schedule": without(schedule, {"pieces", "shape"})}
        return below

    @model_validator(mode="after")
    def _consistent(self) -> TrainSection:
        for first, last in self.leave_out:
            if last < first:
                raise wrong(f"rows {first} to {last} are none", "write the first row first", "leave_out")
        if self.precision == "fp8" and self.tensor_parallel > 1:
            raise wrong("products in 8 bits are not split over processes", "set tensor_parallel: 1", "tensor_parallel")
        if self.long.tile_mlp is not None and self.compile and self.recompute == "selective":
            raise wrong(
                "what a compiled block with a tiled feed-forward computes is not kept selectively",
                "set recompute: full, or none",
                "recompute",
            )
        if self.long.offload_checkpoints and self.recompute != "full":
            raise wrong(
                f"with `recompute: {self.recompute}` blocks keep more than what they begin with",
                "set recompute: full",
                "long.offload_checkpoints",
            )
        for key in ("offload_optimizer", "offload_parameters"):
            if getattr(self.long, key) and self.optimizer.kind == "muon":
                raise wrong(
                    "Muon's matrices are not updated in host memory",
                    "remove the key, or set optimizer.kind: adamw",
                    f"long.{key}",
                )
        if self.long.offload_parameters and self.shard == "none":
            raise wrong("what is in host memory is sharded", "set shard: auto, or full", "long.offload_parameters")
        if self.schedule.shape == "pieces" and "learning_rate" in self.optimizer.model_fields_set:
            raise wrong("`schedule: pieces` sets every rate itself", "remove optimizer.learning_rate")
        return self
