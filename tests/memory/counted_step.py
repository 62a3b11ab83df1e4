"""What torch really holds in a training step: the bytes of all live storages, counted as operations make them."""

from __future__ import annotations

import weakref
from collections import Counter
from collections.abc import Iterable
from typing import Any

import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from headrace.model.build import build
from headrace.model.config import AnyConfig
from headrace.recipe.training import OptimizerSection
from headrace.train.optimizer import Optimizer
from headrace.train.parallel import recomputed


class Live(TorchDispatchMode):
    """Counts storages that operations make, until they are freed. What a kernel allocates within is not seen.

    Args:
        there: tensors that are there before, and are not counted.

    Attributes:
        now: bytes alive.
        peaks: the most bytes at once in each phase.
        phase: which one this is.
        owner: whose storages are being made.
    """

    def __init__(self, there: Iterable[torch.Tensor]) -> None:
        super().__init__()
        self._there = {tensor.untyped_storage()._cdata for tensor in there}
        self.now, self.phase, self.owner = 0, "", "block"
        self.peaks: Counter[str] = Counter()
        self._owned: dict[int, tuple[str, int]] = {}

    def __torch_dispatch__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        out = function(*args, **(kwargs or {}))
        for leaf in tree_leaves(out):
            if isinstance(leaf, torch.Tensor):
                self._note(leaf.untyped_storage())
        return out

    def _note(self, storage: Any) -> None:
        key = storage._cdata
        if key in self._owned or key in self._there:
            return
        self._owned[key] = self.owner, storage.nbytes()
        self.now += storage.nbytes()
        weakref.finalize(storage, self._gone, key)
        self.peaks[self.phase] = max(self.peaks[self.phase], self.now)

    def _gone(self, key: int) -> None:
        self.now -= self._owned.pop(key)[1]

    def by_owner(self) -> Counter[str]:
        """Bytes alive by whose they are."""
        found: Counter[str] = Counter()
        for owner, size in self._owned.values():
            found[owner] += size
        return found


class Counted:
    """The memory of one training step of a model, beyond its weights and the optimizer's state.

    Args:
        config: the model.
        rows, length: of the batch.
        bits16: whether activations are bfloat16.
        recompute: as in a recipe.

    Attributes:
        forward_end: bytes by owner (``attention``, ``mlp``, ``block``) when all hidden states are there.
        peaks: the most bytes at once during ``forward``, ``loss``, ``backward`` and ``update``.
    """

    def __init__(self, config: AnyConfig, rows: int, length: int, bits16: bool, recompute: str) -> None:
        model = build(config, torch.bfloat16 if bits16 else torch.float32)
        model.initialise(0)
        optimizer = Optimizer(model, OptimizerSection())
        tokens = torch.randint(0, config.vocab_size, (rows, length + 1))
        live = Live([tokens, *model.parameters(), *optimizer.named_state().values()])
        for block in model.blocks:
            if recompute != "none":
                block.forward = recomputed(block.forward, recompute)
            for owner, names in (("attention", ("attention_norm", "attention")), ("mlp", ("ffn_norm", "ffn"))):
                for name in names:
                    getattr(block, name).register_forward_pre_hook(lambda *_, own=owner: setattr(live, "owner", own))
                    getattr(block, name).register_forward_hook(lambda *_: setattr(live, "owner", "block"))
        hidden = model.hidden

        def watched(*args: Any, **kwargs: Any) -> Any:
            out = hidden(*args, **kwargs)
            self.forward_end = live.by_owner()
            live.phase = "loss"
            return out

        model.hidden = watched  # type: ignore[method-assign]
        with live:
            live.phase = "forward"
            loss, _ = model(tokens[:, :-1], targets=tokens[:, 1:])
            live.phase = "backward"
            loss.backward()
            live.phase = "update"
            optimizer.step()
        self.peaks = live.peaks
