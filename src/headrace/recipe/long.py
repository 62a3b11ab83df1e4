"""The `train.long:` section: how long rows are trained on in bounded memory."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field, PositiveInt

from headrace.recipe.base import Section


def _named(value: Any) -> Any:
    """A section that chooses by itself, for the word alone."""
    return {"auto": True} if value == "auto" else value


class LongSection(Section):
    """Long rows in bounded memory (Arctic Long Sequence Training: Bekman et al., 2025).

    Weights, losses and gradients are those of a training without it, within rounding.
    """

    auto: bool = Field(
        default=False,
        description="choose what is not given, here and of `micro_batch`, `shard` and `recompute`, by an estimate of "
        "the memory: what costs the least time of all that fits the devices at hand; `long: auto` says the same",
    )
    sequence_parallel: PositiveInt = Field(
        default=1,
        description="processes that share each row, each with a stretch of it; the others share the batch",
    )
    context: Literal["auto", "ulysses", "ring"] = Field(
        default="auto",
        description="how they attend to whole rows; ulysses: each for some of the heads; ring: each for its own "
        "tokens, while keys and values go round; auto: ulysses if their number divides the heads, else ring",
    )
    tile_loss: Literal["auto"] | PositiveInt | None = Field(
        default=None,
        description="tokens whose logits exist at a time, forward and backward; auto, and null for models of headrace: "
        "as many as make 32 M logits, at least 512",
    )
    tile_mlp: Literal["auto"] | PositiveInt | None = Field(
        default=None,
        description="tokens of each row in a feed-forward layer at a time: its activations are computed again in the "
        "backward pass, tile by tile; auto: as many as the model is wide; null: all at once",
    )
    offload_checkpoints: bool = Field(
        default=False,
        description="keep the blocks' inputs in host memory between forward and backward pass; needs `recompute: full`",
    )
    offload_optimizer: bool = Field(
        default=False, description="keep the optimizer's state in host memory, and update the weights there (AdamW)"
    )
    offload_parameters: bool = Field(
        default=False,
        description="keep weights, gradients and the optimizer's state in host memory, and on the device the weights "
        "of the block that is computed (FSDP2, also with one process; AdamW)",
    )

    @property
    def offloads_update(self) -> bool:
        """Whether weights on the device are updated on the host."""
        return self.offload_optimizer and not self.offload_parameters


Long = Annotated[LongSection, BeforeValidator(_named)]
"""The section, or `auto`."""
