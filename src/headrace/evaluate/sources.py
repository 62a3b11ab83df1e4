"""Sums of losses by source."""

from __future__ import annotations

from typing import Any

import numpy as np


class SourceTotals:
    """Running sums of losses and token counts by source.

    Args:
        names: the sources' names.
    """

    def __init__(self, names: list[str]) -> None:
        self.names = names
        self.losses = np.zeros(len(names) + 1)
        self.tokens = np.zeros(len(names) + 1, dtype=np.int64)
        self.bytes = np.zeros(len(names) + 1, dtype=np.int64)

    def add(self, sources: np.ndarray, losses: np.ndarray, sizes: np.ndarray | None = None) -> None:
        """Count tokens that carried loss.

        Args:
            sources: int[n], from :func:`target_sources`.
            losses: float[n], in nats.
            sizes: int[n], the bytes of text behind each token.
        """
        count = len(self.losses)
        self.losses += np.bincount(sources, weights=losses, minlength=count)
        self.tokens += np.bincount(sources, minlength=count)
        if sizes is not None:
            self.bytes += np.bincount(sources, weights=sizes, minlength=count).astype(np.int64)

    def sums(self) -> np.ndarray:
        """float64[3, n]: losses, tokens and bytes, to be added to those of other processes."""
        return np.stack([self.losses, self.tokens, self.bytes])

    def replace(self, sums: np.ndarray) -> None:
        """Take over sums; they are exact, as counts stay below 2^53."""
        self.losses, self.tokens, self.bytes = sums[0], sums[1].astype(np.int64), sums[2].astype(np.int64)

    @property
    def loss(self) -> float:
        """The mean loss of all tokens in nats; NaN if there were none."""
        total = int(self.tokens.sum())
        return float(self.losses.sum()) / total if total else float("nan")

    def by_source(self) -> dict[str, dict[str, Any]]:
        """``{source: {"loss", "tokens"[, "bits_per_byte"]}}`` for sources with tokens."""
        out: dict[str, dict[str, Any]] = {}
        for i, name in enumerate(self.names):
            if self.tokens[i]:
                out[name] = {"loss": float(self.losses[i] / self.tokens[i]), "tokens": int(self.tokens[i])}
                if self.bytes[i]:
                    out[name]["bits_per_byte"] = float(self.losses[i] / np.log(2) / self.bytes[i])
        return out
