"""How a model of transformers can be computed in little memory, found by running it once without weights.

Tensors on ``meta`` have shapes and no numbers: a forward pass costs milliseconds a layer and no memory, for any size,
and what it finds follows from the configuration alone. So all processes, and a resumed training, find the same.
"""

from __future__ import annotations

import functools
import inspect
import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from headrace.errors import UserError
from headrace.model.config import ForeignConfig
from headrace.model.foreign import attention
from headrace.model.foreign.attention import Reach, Sight, seeing
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
        name: of its class.
        attends: None: its layers mix tokens by headrace's attention alone; or why they cannot.
        reaches: of its layers, then.
        heads: how many queries' heads its layers have.
        head: how its last states become logits; None: it is not known.
        conceals: why not.
        mlps: names of its feed-forward layers, as far as they are modules by themselves, whose maps are linear.
        whole: None: a stretch of a row can be computed by itself, but for attention; or why not.
        uneven: positions from which on scores depend on places in the row, and not on positions; None: none do.
    """

    name: str
    attends: str | None
    reaches: frozenset[Reach] = frozenset()
    heads: frozenset[int] = frozenset()
    head: Head | None = None
    conceals: str | None = None
    mlps: tuple[str, ...] = ()
    whole: str | None = None
    uneven: int | None = None

    @property
    def refused(self) -> Mapping[str, tuple[str, str]]:
        """Of a stage's `train` section the keys that cannot be given: why, and what to do."""
        found = {"tensor_parallel": ("A model of transformers is not split over processes", "Set it to 1, or shard.")}
        if not self.mlps:
            lacks = "no feed-forward layers that can be computed tile by tile, such as mixtures of experts"
            found["long.tile_mlp"] = f"{self.name} has {lacks}", "Set it to null."
        if self.head is None:
            found["long.tile_loss"] = f"{self.conceals}: its loss needs all logits", "Set it to null."
        if self.whole is not None:
            found["long.sequence_parallel"] = f"{self.whole}: its rows cannot be shared", "Set it to 1, or shard."
        return found

    def require(self, key: str, where: str = "train") -> None:
        """Refuse a key that cannot be given.

        Args:
            key: dotted, of a stage's `train` section.
            where: that section.

        Raises:
            UserError: it cannot.
        """
        if key in self.refused:
            what, fix = self.refused[key]
            raise UserError(f"{what}.", f"{where}.{key}", fix)


def tried(config: ForeignConfig) -> Ways:
    """What can be done with the model of a configuration."""
    return _tried(json.dumps(config.huggingface, sort_keys=True), config.vocab_size)


@functools.lru_cache(maxsize=8)
def _tried(told: str, vocab_size: int) -> Ways:
    with torch.device("meta"):
        model = made(ForeignConfig(huggingface=json.loads(told), vocab_size=vocab_size)).eval()
    if model._can_set_experts_implementation():
        # Others look at which experts are chosen, or multiply in some types and sizes alone.
        model.config._experts_implementation_internal = "batched_mm"
    for parameter in model.parameters():
        parameter.requires_grad_(False)
    watched = _Watched()
    attends = _attends(model, watched)
    if attends is not None:
        watched = _Watched()
        model.config._attn_implementation_internal = "eager"  # whose masks are made without looking at numbers
    with feed_forwards(model, lambda: watched.calls) as found:
        head, conceals = _head(model, watched)
    mlps = tuple(name for name, count in found.items() if count == 1)
    uneven = _uneven(model.config)
    about = type(model).__name__, attends, frozenset(watched.reaches), frozenset(watched.heads)
    return Ways(*about, head, conceals, mlps, _whole(model, attends, uneven), uneven)


def balanced(model: Any) -> bool:
    """Whether the loss has a part that spreads tokens over experts."""
    return bool(getattr(model.config, "output_router_logits", False)) and hasattr(model, "router_aux_loss_coef")


def takes(model: Any, argument: str) -> bool:
    """Whether a forward pass has a place for an argument."""
    return argument in inspect.signature(model.forward).parameters


def _whole(model: Any, attends: str | None, uneven: int | None) -> str | None:
    name, config = type(model).__name__, model.config
    turns = getattr(config, "rope_parameters", None) or getattr(config, "rope_scaling", None) or {}
    kinds = {str(told.get("rope_type")) for told in (turns, *turns.values()) if isinstance(told, dict)}
    if lengths := kinds & {"dynamic", "longrope"}:
        return f"{name}'s rotary frequencies ({', '.join(lengths)}) depend on the length of whole rows"
    if attends is not None:
        return attends
    if not takes(model, "position_ids"):
        return f"{name} has no place for positions"
    if balanced(model):
        return f"{name}'s loss of experts is of whole rows"
    if uneven is not None:
        return f"{name} scales scores by places in the row (attn_temperature_tuning)"
    return None


def _uneven(config: Any) -> int | None:
    # Llama 4 counts places where it scales the scores of layers without rotary embedding.
    without = 0 in (getattr(config, "no_rope_layers", None) or ())
    scales = without and getattr(config, "attn_temperature_tuning", False)
    return int(config.floor_scale) if scales else None


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
        self.calls, self.reaches, self.heads = 0, set[Reach](), set[int]()

    def __call__(self, reach: Reach) -> Sight:
        watched = self

        class Watched(Sight):
            def attend(self, q: Tensor, k: Tensor, v: Tensor, scale: float, *_: Any) -> Tensor:
                watched.calls += 1
                watched.reaches.add(reach)
                watched.heads.add(q.shape[1])
                return q.new_empty(*q.shape[:3], v.shape[-1])

        return Watched(reach.window)


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
