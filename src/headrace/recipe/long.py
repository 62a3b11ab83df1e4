"""The `train.long:` section: how long rows are trained in bounded memory."""

from __future__ import annotations

from typing import Literal

from pydantic import Field, PositiveInt

from headrace.recipe.base import Section


class LongSection(Section):
    """Long rows in bounded memory (Bekman et al., Arctic Long Sequence Training, 2025).

    Weights, losses and gradients are those of a training without it, within rounding.
    """

    tile_mlp: Literal["auto"] | PositiveInt | None = Field(
        default=None,
        description="tokens of each row in a feed-forward layer at a time: its activations are computed again in the "
        "backward pass, tile by tile; auto: as many as the model is wide; null: all at once",
    )
