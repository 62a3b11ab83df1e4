"""The same model at another width, under the maximal update parametrization (Yang et al., Tensor Programs V, 2022)."""

from __future__ import annotations

import math

from headrace.errors import UserError
from headrace.recipe.model import ModelConfig


def at_width(config: ModelConfig, width: int) -> ModelConfig:
    """A model of another width for which the same learning rate is right (table 8, with Adam).

    Heads keep their size and grow in number. With r = width / the model's own: standard deviations of hidden matrices
    fall as 1 / sqrt(r), their learning rate and the logits as 1 / r; embedding and head keep theirs.

    Raises:
        UserError: the width does not come to whole heads.
    """
    ratio = width / config.width
    heads, kv_heads = config.heads * ratio, config.key_value_heads * ratio
    if heads != int(heads) or kv_heads != int(kv_heads) or width < 1:
        raise UserError(
            f"At width {width} the model would have {heads:g} heads and {kv_heads:g} key-value heads.",
            "--widths",
            f"Use multiples of {config.width // math.gcd(config.heads, config.key_value_heads)}.",
        )
    root = math.sqrt(ratio)
    init, mup = config.init, config.mup
    output = None if init.output_std is None else init.output_std / root
    return config.model_copy(
        update={
            "width": width,
            "heads": int(heads),
            "kv_heads": int(kv_heads),
            "head_dim": config.head_size,
            "ffn": round(config.ffn * ratio),
            "init": init.model_copy(update={"hidden_std": init.hidden_std / root, "output_std": output}),
            "mup": mup.model_copy(
                update={
                    "logit_multiplier": mup.logit_multiplier / ratio,
                    "hidden_learning_rate": mup.hidden_learning_rate / ratio,
                }
            ),
        }
    )
