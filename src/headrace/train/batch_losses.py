"""The losses of a batch by row and token, gathered from the processes that share it.

They are those of the forward pass that trains, kept until the step is judged: 4 bytes a token.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from headrace.model.micro import Micro
from headrace.sequence.stretch import Stretch
from headrace.train.losses import HIGHEST, NO_TARGET
from headrace.train.world import World


class BatchLosses:
    """The losses of a process's share of a batch.

    Args:
        loss: bool[n, L], whether the target of each position of its rows carries loss.
        stretch: the part of these rows that is the process's.
        first: the place of its first row in the batch.
        batch: rows of the batch.
        world: the processes.
    """

    def __init__(self, loss: np.ndarray, stretch: Stretch, first: int, batch: int, world: World) -> None:
        self.first, self.batch, self.world = first, batch, world
        self._length, self._places = loss.shape[1], stretch.places(loss.shape[1])
        self._carries = stretch.cut(loss)
        self._losses = torch.zeros(self._carries.shape, dtype=torch.float32, device=world.device)
        self._row = 0

    def add(self, micro: Micro, each: Tensor) -> None:
        """Take over the losses of the next micro-batch, float[N]; those after the last row have no targets."""
        part = self._losses[self._row : self._row + len(micro.tokens)]
        part.view(-1)[micro.picked] = each.detach().float()
        self._row += len(part)

    def sums(self) -> Tensor:
        """float64[2 B], to be summed over processes: each row's summed losses, then its targets."""
        out = torch.zeros(2, self.batch, dtype=torch.float64, device=self.world.device)
        own = slice(self.first, self.first + len(self._losses))
        out[0, own] = self._losses.sum(dim=1, dtype=torch.float64)
        out[1, own] = torch.from_numpy(self._carries.sum(axis=1)).to(self.world.device, torch.float64)
        return out.flatten()

    def tokens(self, rows: np.ndarray) -> np.ndarray:
        """float16[n, L]: the losses of the tokens of some rows of the batch, in every process. All processes ask."""
        device = self.world.device
        found = torch.zeros(len(rows), self._length, dtype=torch.float16, device=device)
        own = np.flatnonzero((rows >= self.first) & (rows < self.first + len(self._losses)))
        of_row, there = rows[own] - self.first, self._places < self._length
        losses = self._losses[torch.from_numpy(of_row).to(device)]
        losses = torch.where(losses.isfinite(), losses.clamp(0, HIGHEST), losses)  # what is finite stays so
        carries = torch.from_numpy(self._carries[of_row]).to(device)
        told = torch.where(carries, losses, NO_TARGET).half()[:, torch.from_numpy(there).to(device)]
        columns = torch.from_numpy(self._places[there]).to(device)
        found[torch.from_numpy(own).to(device)[:, None], columns] = told
        return np.asarray(self.world.sum(found).cpu().numpy())  # each is of one process: nothing is rounded
