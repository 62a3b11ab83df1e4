"""What an optimizer step came to, summed over all processes."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from headrace.train.losses import RowLosses

if TYPE_CHECKING:
    from headrace.train.batch_losses import BatchLosses


@dataclass
class Outcome:
    """What a step came to.

    Attributes:
        losses: summed losses by source, in nats; the last entry is for targets of no source.
        tokens: targets that carried loss, by source.
        bytes: bytes of text behind these; 0 where the tokenizer has no text.
        norm: the gradient's norm before clipping.
        reason: why the weights were not updated; None if they were.
        asked: whether a process was asked to stop.
        waited: seconds that the slowest process waited for its rows.
        memory: the most bytes that a process has had at once; 0 if nobody asked.
        norms: ``weight_norm`` and ``update_norm`` of all weights, at the steps that measure them.
        rows: the losses of its rows; None of one that was passed over.
        each: those of this process's tokens; None likewise.
    """

    losses: list[float] = field(default_factory=list)
    tokens: list[int] = field(default_factory=list)
    bytes: list[int] = field(default_factory=list)
    norm: float | None = None
    reason: str | None = None
    asked: bool = False
    waited: float = 0.0
    memory: int = 0
    norms: dict[str, float] = field(default_factory=dict)
    rows: RowLosses | None = None
    each: BatchLosses | None = None

    @staticmethod
    def passed_over(sources: int) -> Outcome:
        """Of a step whose rows the recipe leaves out."""
        return Outcome([0.0] * sources, [0] * sources, [0] * sources, reason="left out")

    @property
    def loss(self) -> float:
        """The mean loss of all targets, in nats; NaN if there are none."""
        count = sum(self.tokens)
        return sum(self.losses) / count if count else float("nan")

    def by_source(self, names: list[str]) -> dict[str, dict[str, Any]]:
        """``{source: {"loss", "tokens"[, "bits_per_byte"]}}`` of the sources that had targets; a loss is None where it
        is not finite."""
        values = zip(names, self.losses, self.tokens, self.bytes, strict=False)
        return {
            name: {"loss": finite(loss / tokens), "tokens": tokens, **bits_per_byte(loss, size)}
            for name, loss, tokens, size in values
            if tokens
        }

    def line(self, names: list[str]) -> dict[str, Any]:
        """What a log says of it."""
        said = {
            "loss": finite(self.loss),
            **bits_per_byte(sum(self.losses), sum(self.bytes)),
            "grad_norm": finite(self.norm),
            **self.norms,
            "loss_tokens": sum(self.tokens),
            "sources": self.by_source(names),
        }
        return said if self.reason is None else {**said, "skipped": self.reason}


def bits_per_byte(loss: float, size: int) -> dict[str, float]:
    """``{"bits_per_byte"}`` of a summed loss in nats; nothing if there are no bytes, or the loss is not finite."""
    return {"bits_per_byte": loss / math.log(2) / size} if size and math.isfinite(loss) else {}


def finite(value: float | None) -> float | None:
    """The value, or None if JSON cannot represent it."""
    return value if value is not None and math.isfinite(value) else None
