"""The network of a pooled encoder, and its training."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import torch
from safetensors.torch import load_file, save
from torch import Tensor, nn

from headrace.recipe.quality import PLACES, Pooled
from headrace.select.quality.examples import Examples
from headrace.select.quality.scorer import buffers
from headrace.select.quality.units import BUCKETS, units
from headrace.select.quality.windows import Ids, averaged, batches, windows

FILE = "pooled.safetensors"
_ROWS, _TOKENS = 64, 1 << 15  # windows of a step; units that are scored together
_DECAY = 0.01  # AdamW's default (1711.05101)


class Net(nn.Module):
    """The network.

    Args:
        width: numbers of an embedding.
    """

    def __init__(self, width: int) -> None:
        super().__init__()
        self.embedding = nn.Embedding(BUCKETS, width)
        self.query = nn.Parameter(torch.empty(width))
        self.hidden = nn.Linear(2 * width, width)
        self.out = nn.Linear(width, 1)
        drawn = torch.Generator().manual_seed(0)
        with torch.no_grad():
            for parameter in self.parameters():
                scale = parameter.shape[-1] ** -0.5 if parameter.dim() > 1 else 0.02
                parameter.normal_(0, scale, generator=drawn)

    def forward(self, ids: Tensor) -> Tensor:
        """int64[rows, units], 0 for padding, to the log-odds, float32[rows]."""
        states, kept = self.embedding(ids), ids > 0
        share = (states @ self.query).masked_fill(~kept, -torch.inf).softmax(-1)
        mean = (states * kept[..., None]).sum(1) / kept.sum(1, keepdim=True)
        pooled = torch.cat([mean, (share[:, None] @ states)[:, 0]], dim=-1)
        logits: Tensor = self.out(nn.functional.gelu(self.hidden(pooled)))[:, 0]
        return logits


class PooledModel:
    """A pooled encoder: a text's score is the mean over its windows of the network's probability.

    Args:
        config: its section of the recipe.
    """

    def __init__(self, config: Pooled) -> None:
        self.config, self.net = config, Net(config.width)

    def load(self, file: Callable[[str], Path]) -> PooledModel:
        """Take what :meth:`save` wrote."""
        self.net.load_state_dict(load_file(file(FILE)))
        return self

    def save(self) -> dict[str, bytes]:
        """Its weights."""
        return {FILE: save(dict(self.net.state_dict()))}

    def train(self, examples: Examples, share: float) -> None:
        """Train it."""
        optimizer = torch.optim.AdamW(self.net.parameters(), lr=self.config.rate, weight_decay=_DECAY)
        for _ in range(self.config.passes):
            for batch in examples.training(share):
                found, owners = self._windows(batch)
                labels = torch.from_numpy(batch.column("label").to_numpy()[owners].astype(np.float32))
                counts = np.bincount(owners, minlength=batch.num_rows)
                shares = torch.from_numpy((1 / counts[owners]).astype(np.float32))
                for rows in batches([1] * len(found), _ROWS):
                    losses = nn.functional.binary_cross_entropy_with_logits(
                        self.net(_padded([found[row] for row in rows.tolist()])), labels[rows], reduction="none"
                    )
                    ((losses * shares[rows]).sum() / shares[rows].sum()).backward()
                    optimizer.step()
                    optimizer.zero_grad()

    @torch.inference_mode()
    def score(self, batch: pa.RecordBatch) -> npt.NDArray[np.float32]:
        """Probabilities of being a positive, float32[n]; nan for a text without units."""
        found, owners = self._windows(batch)
        scores = np.empty(len(found), dtype=np.float32)
        for rows in batches([len(ids) for ids in found], _TOKENS):
            scores[rows] = torch.sigmoid(self.net(_padded([found[row] for row in rows.tolist()]))).numpy()
        return averaged(scores, owners, batch.num_rows)

    def _windows(self, batch: pa.RecordBatch) -> tuple[list[Ids], npt.NDArray[np.int64]]:
        data, offsets = buffers(batch)
        return windows(data, offsets, lambda texts: [units(text) for text in texts], self.config.window, PLACES)


def _padded(found: Sequence[Ids]) -> Tensor:
    out = np.zeros((len(found), max(map(len, found))), dtype=np.int64)
    for row, ids in enumerate(found):
        out[row, : len(ids)] = ids
    return torch.from_numpy(out)
