"""How a model of transformers can be computed in little memory, found by running it once without weights.

Tensors on ``meta`` have shapes and no numbers: a forward pass costs milliseconds a layer and no memory, for any size,
and what it finds follows from the configuration alone. So all processes, and a resumed training, find the same.
"""

from __future__ import annotations

import functools
import json
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from headrace.errors import UserError
from headrace.model.config import ForeignConfig
from headrace.model.foreign import attention
from headrace.model.foreign.attention import Sight, seeing
from headrace.model.foreign.configuration import first_line, made
from headrace.model.foreign.feed_forward import feed_forwards
from headrace.model.foreign.head import Head, overheard, stand_ins

LENGTH = 8  # tokens of a trial's row

# Layers that see others through attention alone; recurrent ones and convolutions carry a state across documents.
MASKED = {"full_attention", "sliding_attention", "chunked_attention"}


@dataclass(frozen=True)
class Ways:
    """What can be done with a model, and of what cannot be done why.

    Attributes:
        attends: None: its layers mix tokens by headrace's attention alone; or why they cannot.
        windows: of its layers, then.
        heads: how many queries' heads its layers have.
        head: how its last states become logits; None: it is not known.
        conceals: why not.
        mlps: names of its feed-forward layers, as far as they are modules by themselves, whose maps are linear.
    """

    attends: str | None
    windows: frozenset[int | None] = frozenset()
    heads: frozenset[int] = frozenset()
    head: Head | None = None
    conceals: str | None = None
    mlps: tuple[str, ...] = ()


def tried(config: ForeignConfig) -> Ways:
    """What can be done with the model of a configuration."""
    return _tried(json.dumps(config.huggingface, sort_keys=True), config.vocab_size)


@functools.lru_cache(maxsize=8)
def _tried(told: str, vocab_size: int) -> Ways:
    with torch.device("meta"):
        model = made(ForeignConfig(huggingface=json.loads(told), vocab_size=vocab_size)).eval()
        model.to(torch.bfloat16)  # the only type of experts' products on meta
    for parameter in model.parameters():
        parameter.requires_grad_(False)
    watched = _Watched()
    attends = _attends(model, watched)
    if attends is not None:
        watched = _Watched()
        model.config._attn_implementation_internal = "eager"  # whose masks are made without looking at numbers
    about = frozenset(watched.windows), frozenset(watched.heads)
    with feed_forwards(model, lambda: watched.calls) as found:
        head, conceals = _head(model, watched)
    mlps = tuple(name for name, count in found.items() if count == 1)
    return Ways(attends, *about, head, conceals, mlps)


def _attends(model: Any, watched: _Watched) -> str | None:
    name, config = type(model).__name__, model.config
    if others := sorted(set(getattr(config, "layer_types", None) or ()) - MASKED):
        return f"{name} has layers of {', '.join(others)}"
    if getattr(model, "_is_stateful", False):
        return f"{name} carries a state from token to token"
    if not model._can_set_attn_implementation():
        return f"{name} has its own attention, which cannot be replaced"
    attention.register()
    model.config._attn_implementation_internal = attention.NAME
    try:
        with seeing(watched):
            _run(model)
    except UserError as error:
        return error.what
    except Exception as error:
        return f"{name} cannot be tried with headrace's attention: {first_line(error)}"
    if watched.calls != config.num_hidden_layers:
        return f"{name} has {config.num_hidden_layers} layers, of which {watched.calls} attend"
    return None


class _Watched:
    # Watches attention without computing it.
    def __init__(self) -> None:
        self.calls, self.windows, self.heads = 0, set[int | None](), set[int]()

    def __call__(self, window: int | None) -> Sight:
        watched = self

        class Watched(Sight):
            def attend(self, q: Tensor, k: Tensor, v: Tensor, scale: float) -> Tensor:
                watched.calls += 1
                watched.windows.add(window)
                watched.heads.add(q.shape[1])
                return q.new_empty(*q.shape[:3], v.shape[-1])

        return Watched(window)


def _run(model: Any) -> Any:
    ones = torch.ones(1, LENGTH, dtype=torch.int64, device="meta")
    with torch.no_grad():
        return model(input_ids=ones, attention_mask=ones, use_cache=False)


def _head(model: Any, watched: _Watched) -> tuple[Head | None, str | None]:
    name, head = type(model).__name__, model.get_output_embeddings()
    if type(head) is not nn.Linear:
        return None, f"{name} has no matrix from states to logits"
    given: list[Tensor] = []

    def stand_in(_: nn.Module, __: Any, out: Tensor) -> Tensor:
        given.append(stand_ins(out))
        return given[-1]

    hook = head.register_forward_hook(stand_in)
    try:
        with overheard(head) as heard, seeing(watched):
            logits = _run(model).logits
    except Exception as error:
        return None, f"{name} cannot be tried: {first_line(error)}"
    finally:
        hook.remove()
    if len(heard) != 1 or heard[0].shape[:2] != (1, LENGTH):
        return None, f"{name} uses its output matrix otherwise than once for all tokens"
    found = Head.of(given[0], logits)
    return found, None if found else f"{name} makes more of its logits than a factor or a soft cap"
