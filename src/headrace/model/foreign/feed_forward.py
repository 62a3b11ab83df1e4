"""Feed-forward layers of any model, found by shape: modules of linear maps that take states and return as many."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from torch import Tensor, nn


def linear(module: nn.Module) -> bool:
    """Whether a module has several linear maps, and no other parameters or buffers."""
    from transformers.pytorch_utils import Conv1D  # GPT-2's linear map

    holders = [one for one in module.modules() if one._parameters or one._buffers]
    return len(holders) > 1 and all(type(one) in (nn.Linear, Conv1D) for one in holders)


@contextmanager
def feed_forwards(model: nn.Module, attended: Callable[[], int]) -> Iterator[dict[str, int]]:
    """Count the forward passes of modules that look like feed-forward layers: one tensor [B, T, D] in and out.

    Whether they also map each token by itself, only numbers tell.

    Args:
        model: whose modules.
        attended: how often attention was computed until now.

    Yields:
        The number of forward passes of each; the outer of nested ones alone, and none in which attention is computed.
    """
    modules = {name: module for name, module in model.named_modules() if linear(module)}
    outer = {name: one for name, one in modules.items() if not any(name.startswith(f"{other}.") for other in modules)}
    found, begun, hooks = dict[str, int](), dict[str, int](), []

    def before(name: str) -> Callable[..., None]:
        def hook(*_: Any) -> None:
            begun[name] = attended()

        return hook

    def after(name: str) -> Callable[..., None]:
        def hook(_: nn.Module, given: tuple[Any, ...], named: dict[str, Any], out: Any) -> None:
            fits = len(given) == 1 and not named and isinstance(out, Tensor) and isinstance(given[0], Tensor)
            fits = fits and out.dim() == 3 and out.shape == given[0].shape and attended() == begun[name]
            found[name] = found.get(name, 0) + 1 if fits else -(1 << 30)

        return hook

    for name, module in outer.items():
        hooks += [
            module.register_forward_pre_hook(before(name)),
            module.register_forward_hook(after(name), with_kwargs=True),
        ]
    try:
        yield found
    finally:
        for one in hooks:
            one.remove()
