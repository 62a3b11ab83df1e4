"""An encoder of transformers with a linear head, applied and trained.

Frozen, the encoder's states are computed once and the head is fitted to them exactly; fine-tuned, all of it is trained
as BERT is (1810.04805, A.3).
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import torch
from safetensors.torch import load_file, save
from torch import Tensor

from headrace.annotate.logistic import fit
from headrace.annotate.pretrained import Pretrained
from headrace.errors import UserError
from headrace.model.huggingface.reading import read_json
from headrace.recipe.quality import Encoder
from headrace.select.quality.examples import Examples
from headrace.select.quality.scorer import buffers
from headrace.select.quality.windows import Ids, averaged, batches, windows

WHERE = "quality.annotators"
HEAD, BODY = "head.safetensors", "encoder.safetensors"
_ROWS, _WARM = 32, 0.1  # examples a step, and the share of steps to reach the rate: BERT's (1810.04805, A.3)
_DECAY, _CLIP = 0.01, 1.0


class EncoderModel:
    """An encoder with its head: a text's score is the mean over its windows of the head's probability.

    Args:
        config: its section of the recipe.

    Raises:
        UserError: as :class:`headrace.annotate.pretrained.Pretrained`.
    """

    def __init__(self, config: Encoder) -> None:
        self.config = config
        self.body = Pretrained(Path(config.folder), "AutoModel", config.window, config.precision == "bf16", WHERE)
        self.first = _first(self.body.folder) if config.pool is None else config.pool == "first"
        with torch.inference_mode():
            out, _ = self.body.forward([np.zeros(1, dtype=np.int32)])
        self.weights, self.bias = torch.zeros(out.last_hidden_state.shape[-1]), torch.zeros(())

    def load(self, file: Callable[[str], Path]) -> EncoderModel:
        """Take what :meth:`save` wrote."""
        head = load_file(file(HEAD))
        self.weights, self.bias = head["weight"], head["bias"]
        if self.config.fine_tune is not None:
            self.body.model.load_state_dict(load_file(file(BODY)))
        return self

    def save(self) -> dict[str, bytes]:
        """The head, and the encoder if it was trained."""
        files = {HEAD: save({"weight": self.weights, "bias": self.bias})}
        if self.config.fine_tune is not None:
            state = self.body.model.state_dict()
            files[BODY] = save({name: tensor.cpu().contiguous() for name, tensor in state.items()})
        return files

    def train(self, examples: Examples, share: float) -> None:
        """Fit the head, and train the encoder with it if the recipe says so."""
        self._fit(examples, share)
        if self.config.fine_tune is not None:
            self._fine_tune(examples, share)

    def score(self, batch: pa.RecordBatch) -> npt.NDArray[np.float32]:
        """Probabilities of being a positive, float32[n]; nan for a text without tokens."""
        data, offsets = buffers(batch)
        found, owners = windows(data, offsets, self.body.encode, self.body.length, self.config.windows)
        scores = self.body.compute(found, lambda out, mask: torch.sigmoid(self._logits(out, mask))[:, None], 1)
        return averaged(scores[:, 0], owners, batch.num_rows)

    def _logits(self, out: Any, mask: Tensor) -> Tensor:
        pooled = self._pooled(out, mask)
        logits: Tensor = pooled @ self.weights.to(pooled.device) + self.bias.to(pooled.device)
        return logits

    def _pooled(self, out: Any, mask: Tensor) -> Tensor:
        """float32[rows, width]: the first state, or the mean."""
        states = out.last_hidden_state.float()
        if self.first:
            return states[:, 0]
        kept = mask[..., None].to(states.dtype)
        mean: Tensor = (states * kept).sum(1) / kept.sum(1)
        return mean

    def _windows(self, examples: Examples, share: float) -> Iterator[tuple[list[Ids], npt.NDArray, npt.NDArray]]:
        """For each batch of examples: windows, their labels, and the share of its text that each is."""
        for batch in examples.training(share):
            data, offsets = buffers(batch)
            found, owners = windows(data, offsets, self.body.encode, self.body.length, self.config.windows)
            labels = batch.column("label").to_numpy()[owners].astype(np.float32)
            yield found, labels, (1 / np.bincount(owners, minlength=batch.num_rows)[owners]).astype(np.float32)

    def _fit(self, examples: Examples, share: float) -> None:
        """Fit the head to the states of all windows, which may be more than memory holds."""
        labels, shares = [], []
        width = len(self.weights)
        with tempfile.TemporaryFile(dir=examples.ctx.folder) as file:
            for found, label, part in self._windows(examples, share):
                file.write(self.body.compute(found, self._pooled, width).tobytes())
                labels.append(label)
                shares.append(part)
            if not sum(map(len, labels)):
                raise UserError("No example has any text.", WHERE, "Name other positives, or look at their `fields`.")
            file.flush()
            states = np.memmap(file, np.float32, "r").reshape(-1, width)
            weights, bias = fit(states, np.concatenate(labels), np.concatenate(shares))
        self.weights, self.bias = torch.from_numpy(weights), torch.tensor(bias, dtype=torch.float32)

    def _fine_tune(self, examples: Examples, share: float) -> None:
        """Train encoder and head together, from the head that was fitted."""
        how = self.config.fine_tune
        assert how is not None
        place = self.body.model.device
        head = [self.weights.to(place).requires_grad_(), self.bias.to(place).requires_grad_()]
        self.weights, self.bias = head
        body = [p for p in self.body.model.parameters() if p.requires_grad]
        optimizer = torch.optim.AdamW([*body, *head], lr=how.rate, weight_decay=_DECAY)
        steps = how.passes * sum(-(-len(found) // _ROWS) for found, _, _ in self._windows(examples, share))
        warm = max(1, round(_WARM * steps))
        plan = torch.optim.lr_scheduler.LambdaLR(
            optimizer, lambda step: min((step + 1) / warm, (steps - step) / max(1, steps - warm))
        )
        for _ in range(how.passes):
            for found, labels, shares in self._windows(examples, share):
                for rows in batches([1] * len(found), _ROWS):
                    out, mask = self.body.forward([found[row] for row in rows.tolist()])
                    target, part = (torch.from_numpy(x[rows]).to(place) for x in (labels, shares))
                    losses = torch.nn.functional.binary_cross_entropy_with_logits(
                        self._logits(out, mask), target, reduction="none"
                    )
                    ((losses * part).sum() / part.sum()).backward()
                    torch.nn.utils.clip_grad_norm_([*body, *head], _CLIP)
                    optimizer.step()
                    optimizer.zero_grad()
                    plan.step()
        self.weights, self.bias = (one.detach().cpu() for one in head)


def _first(folder: Path) -> bool:
    """Whether a model of sentence-transformers says that texts are told by their first state; otherwise by the mean."""
    path = folder / "1_Pooling" / "config.json"
    return bool(read_json(path).get("pooling_mode_cls_token")) if path.is_file() else False
