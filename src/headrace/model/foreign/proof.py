"""Whether a model with these weights computes what it is trained for, seen in the numbers of a few tokens."""

from __future__ import annotations

import inspect
from typing import Any

import torch
import torch.nn.functional as fn
from torch import Tensor

from headrace.errors import UserError
from headrace.model.config import ForeignConfig
from headrace.model.foreign.attention import Sight, attending, seeing, sights
from headrace.model.foreign.head import overheard
from headrace.model.foreign.trial import LENGTH, tried

CUT = 3  # tokens of the first document


@torch.no_grad()
def prove(model: Any, config: ForeignConfig, where: str) -> Any:
    """Refuse a model that sees what it is to predict, such as BERT unless it was made a decoder; or one that headrace's
    attention and loss compute otherwise than transformers does.

    Args:
        model: of transformers, on the CPU, in float32; it is returned.
        config: its configuration.
        where: named in an error.

    Raises:
        UserError: it is one of these.
    """
    size = model.config.vocab_size
    tokens = torch.arange(LENGTH)[None] % size
    changed = torch.cat((tokens[:, :-1], (tokens[:, -1:] + 1) % size), dim=1)
    own, other = model.eval()(input_ids=torch.cat((tokens, changed)), use_cache=False).logits.split(1)
    if not _same(own[:, :-1], other[:, :-1]):
        raise UserError(
            f"{type(model).__name__} is no causal model: what it says of a token depends on later ones.",
            where,
            "Set `is_decoder: true` in its config.json, if it has that key, or use a decoder.",
        )
    ways = tried(config)
    if ways.attends is None:
        _prove_attention(model, tokens, own, ways.reaches, where)
    if ways.head is not None:
        with overheard(model.get_output_embeddings()) as states:
            model(input_ids=tokens, use_cache=False)
        head = model.get_output_embeddings()
        if not _same(ways.head(fn.linear(states[0], head.weight, head.bias)), own):
            raise _other(model, "loss", where)
    _prove_tiles(model, tokens, ways.mlps, where)
    return model


def _prove_tiles(model: Any, tokens: Tensor, mlps: tuple[str, ...], where: str) -> None:
    def refuse(module: Any, given: tuple[Tensor], out: Tensor) -> None:
        parts = [module.forward(part) for part in given[0].split(CUT, dim=1)]
        if not _same(torch.cat(parts, dim=1), out):
            raise _other(model, "feed-forward layers, which mix tokens,", where)

    hooks = [model.get_submodule(name).register_forward_hook(refuse) for name in mlps]
    try:
        model(input_ids=tokens, use_cache=False)
    finally:
        for hook in hooks:
            hook.remove()


def _prove_attention(model: Any, tokens: Tensor, own: Tensor, reaches: Any, where: str) -> None:
    about = {"attention_mask": torch.ones_like(tokens), "use_cache": False}
    with attending(model), seeing(sights(tokens, None, reaches)):
        if not _same(model(input_ids=tokens, **about).logits, own):
            raise _other(model, "attention", where)
    if "position_ids" in inspect.signature(model.forward).parameters:
        second = model(input_ids=tokens[:, CUT:], use_cache=False).logits
        segments = (torch.arange(LENGTH) >= CUT)[None].int()
        about["position_ids"] = torch.cat((torch.arange(CUT), torch.arange(LENGTH - CUT)))[None]
        with attending(model), seeing(sights(tokens, segments, reaches)):
            ours = model(input_ids=tokens, **about).logits
        if not _same(ours, torch.cat((own[:, :CUT], second), dim=1)):
            raise _other(model, "positions, which start again from 0 in each document,", where)
    changed = tokens.clone()
    changed[:, CUT] = (changed[:, CUT] + 1) % model.config.vocab_size
    with attending(model), seeing(lambda reach: _Alone(reach.window)):
        one, other = (model(input_ids=x, **about).logits for x in (tokens, changed))
    elsewhere = torch.arange(LENGTH) != CUT
    if not _same(one[:, elsewhere], other[:, elsewhere]):
        raise _other(model, "layers, which mix tokens otherwise than by attention,", where)


class _Alone(Sight):
    # Each position sees itself alone.
    def attend(self, q: Tensor, k: Tensor, v: Tensor, scale: float, *_: Any) -> Tensor:
        return v.repeat_interleave(q.shape[1] // v.shape[1], dim=1)


def _same(one: Tensor, other: Tensor) -> bool:
    return torch.allclose(one, other, rtol=1e-3, atol=1e-4 * one.abs().max().item(), equal_nan=True)


def _other(model: Any, what: str, where: str) -> UserError:
    return UserError(
        f"headrace computes the {what} of {type(model).__name__} otherwise than transformers does.",
        where,
        "Use another model, and report this one.",
    )
