"""Processes that share rows compute the loss and the gradients of one that has them alone."""

from __future__ import annotations

import functools
import itertools
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.distributed as dist
import torch.multiprocessing as mp
from test_transformer import made

from headrace.errors import UserError
from headrace.model import ring
from headrace.model.config import ForeignConfig, ModelConfig
from headrace.model.exchange import Exchange, Ulysses
from headrace.model.foreign.module import Foreign
from headrace.model.micro import Micro
from headrace.model.ring import Ring
from headrace.model.transformer import Transformer
from headrace.recipe.training import AttentionSection
from headrace.sequence.batch import Batch
from headrace.sequence.stretch import Stretch
from headrace.train.parallel import recomputed

VOCAB, ROWS, WORLD = 31, 3, 4
SHAPE = {"vocab_size": VOCAB, "layers": 2, "width": 24, "heads": 4, "head_dim": 6, "ffn": 20}
MODELS = {
    "plain": {},
    "grouped": {"kv_heads": 2, "qk_norm": True, "sliding_window": 5, "sliding_window_pattern": 2},
    "multi-query": {"kv_heads": 1, "attention_bias": "qkv", "parallel_residual": True, "tied": False},
    "uneven groups": {"heads": 12, "kv_heads": 6, "rotary_pairs": "interleaved"},
    "learned positions": {"learned_positions": 21, "rotary_dim": 0, "norm": "layernorm", "activation": "gelu",
                          "output_bias": True},
    "fewer heads": {"heads": 2, "kv_heads": 1, "sliding_window": 4},
    "muP": {"mup": {"attention": "d", "embedding_multiplier": 3.0, "logit_multiplier": 0.5}},
    "dynamic": {"rotary_scaling": {"kind": "dynamic", "factor": 4.0, "original_length": 4}},
}  # fmt: skip
LLAMA = {"vocab_size": VOCAB, "hidden_size": 24, "num_attention_heads": 4, "intermediate_size": 20,
         "num_hidden_layers": 2, "max_position_embeddings": 24}  # fmt: skip
FOREIGN = {
    "llama": {"model_type": "llama", "num_key_value_heads": 2},
    "mistral": {"model_type": "mistral", "num_key_value_heads": 1, "sliding_window": 5},
    "gpt2": {"model_type": "gpt2", "n_positions": 24},
    "neox": {"model_type": "gpt_neox", "use_parallel_residual": True, "rotary_pct": 0.5},
    "soft caps": {"model_type": "gemma2", "num_key_value_heads": 2, "head_dim": 6, "sliding_window": 5,
                  "attn_logit_softcapping": 1.5, "query_pre_attn_scalar": 2},
    "sinks": {"model_type": "gpt_oss", "num_key_value_heads": 2, "head_dim": 6, "sliding_window": 5,
              "num_local_experts": 2, "num_experts_per_tok": 1},
    "chunks": {"model_type": "llama4_text", "num_key_value_heads": 2, "head_dim": 6, "attention_chunk_size": 5,
               "num_local_experts": 2, "pad_token_id": 0, "attn_temperature_tuning": False, "no_rope_layers": [1, 0]},
}  # fmt: skip
SINGLE = {"soft caps", "sinks"}  # parts of these are computed in float32
# 13 and 21 are multiples of no number of processes; of 3 positions the last of four processes has none.
LENGTHS = (3, 13, 16, 21)


def batch(length: int, mask: str, seed: int) -> Batch:
    """Rows of several documents each, the last padding."""
    draws = np.random.default_rng([seed, length])
    ids = np.sort(draws.integers(1, 4, (ROWS, length)), axis=1).astype(np.int32)
    ids[0, length - length // 4 :] = 0
    ids[1] = 1
    new = np.diff(ids, axis=1, prepend=-1) != 0
    at = np.broadcast_to(np.arange(length, dtype=np.int32), ids.shape)
    positions = at - np.maximum.accumulate(np.where(new, at, 0), axis=1)
    loss = draws.random((ROWS, length)) < 0.6
    if mask == "first":  # the processes with the rest have no label
        loss[:, length // 4 + 1 :] = False
    if mask == "one":
        loss[:] = False
        loss[1, -1] = True
    loss[2] &= mask == "some"  # else a row without any
    return Batch(draws.integers(0, VOCAB, (ROWS, length + 1)), loss, ids, positions)


def gradients(model: Transformer) -> dict[str, torch.Tensor]:
    found = {name: p.grad.clone() for name, p in model.named_parameters() if p.grad is not None}
    model.zero_grad()
    return found


def check(
    make: Callable[[], Transformer],
    exchange: Exchange,
    rows: Batch,
    attention: AttentionSection,
    full: bool,
    rtol: float = 1e-9,
) -> None:
    cpu, weight = torch.device("cpu"), torch.tensor(0.1)
    model = make()
    alone = Micro.of(rows, attention, cpu)
    total, each = alone.forward(model, weight.double(), 0.01)
    total.backward()
    expected = gradients(model)
    model.share_rows(exchange)
    if full:
        for block in model.blocks:
            block.forward = recomputed(block.forward, "full")
    stretch = exchange.stretch
    part = Micro.of(rows, attention, cpu, stretch=stretch)
    own, losses = part.forward(model, weight.double(), 0.01)
    own.backward()
    found = gradients(model)
    assert found.keys() == expected.keys()  # also in a process without labels
    spread = torch.zeros(ROWS, 2 * rows.loss.shape[1] + WORLD, dtype=torch.float64)
    length = stretch.length(rows.loss.shape[1])
    places = torch.from_numpy(stretch.places(rows.loss.shape[1]))
    spread[part.picked // length, places[part.picked % length]] = losses
    own = own.detach()
    for tensor in (own, spread, *found.values()):
        dist.all_reduce(tensor, group=exchange.group)
    torch.testing.assert_close(own, total.detach(), rtol=rtol / 10, atol=0)
    torch.testing.assert_close(spread[:, : rows.loss.shape[1]].flatten()[alone.picked], each, rtol=rtol, atol=1e-12)
    assert int((spread != 0).sum()) == len(each)  # each target once
    for name, gradient in expected.items():
        torch.testing.assert_close(
            found[name], gradient, rtol=rtol, atol=rtol / 1e3, msg=lambda m, name=name: f"{name}: {m}"
        )


def double(config: ModelConfig | ForeignConfig) -> Transformer:
    if isinstance(config, ModelConfig):
        return made(config, torch.float64).double()
    model = Foreign(config, torch.float64)
    if model.model._can_set_experts_implementation():
        model.model.set_experts_implementation("eager")  # others do not multiply float64
    model.initialise(3)
    return model.double()  # type: ignore[return-value]


def work(rank: int, folder: str) -> None:
    torch.set_num_threads(1)
    ring.QUERIES, ring.KEYS = 2, 3  # several tiles
    dist.init_process_group("gloo", init_method=f"file://{folder}/store", rank=rank, world_size=WORLD)
    pairs, _ = dist.new_subgroups(2)
    everyone = dist.new_group()
    ways = itertools.cycle([(False, "row"), (True, "document"), (True, "row"), (False, "document"), (True, "document")])
    turns = itertools.cycle(itertools.product(("some", "first", "one"), LENGTHS))
    configs = {name: ModelConfig(**{**SHAPE, **changes}) for name, changes in MODELS.items()}
    configs |= {name: ForeignConfig(huggingface={**LLAMA, **told}, vocab_size=VOCAB) for name, told in FOREIGN.items()}
    for name, config in configs.items():
        kinds = [Ring] if name == "fewer heads" else [Ulysses, Ring]
        groups = (pairs, everyone) if name in FOREIGN else (pairs, everyone, pairs, everyone)
        for kind, group in itertools.product(kinds, groups):
            exchange, (mask, length), (documents, positions) = kind(group), next(turns), next(ways)
            where = f"{name}, {kind.__name__} of {group.size()}, {documents=}, {positions=}, {mask=}, {length=}"
            rows = batch(length, mask, seed=0)
            attention = AttentionSection(documents=documents, positions=positions)
            try:
                close = 1e-5 if name in SINGLE else 1e-9
                check(functools.partial(double, config), exchange, rows, attention, mask == "first", close)
            except Exception as error:
                raise AssertionError(f"{where}: {error}") from error
    dist.destroy_process_group()


def test_loss_and_gradients_are_those_of_one_process(tmp_path: Path) -> None:
    mp.spawn(work, args=(str(tmp_path),), nprocs=WORLD)


@pytest.mark.parametrize("length", [1, 7, 8, 9])
@pytest.mark.parametrize("pieces", [1, 2, 3, 8])
def test_stretches_make_up_the_row(length, pieces):
    rows = np.arange(2 * length).reshape(2, length) + 1
    for parts in ([(i,) for i in range(pieces)], [(i, 2 * pieces - 1 - i) for i in range(pieces)]):
        stretches = [Stretch(part, pieces * len(part)) for part in parts]
        out = np.zeros((2, length + 2 * pieces), dtype=np.int64)
        for one in stretches:
            assert one.cut(rows).shape == (2, one.length(length))
            out[:, one.places(length)] += one.cut(rows)
        np.testing.assert_array_equal(out[:, :length], rows)
        assert not out[:, length:].any()


class Group:
    def __init__(self, count):
        self.count = count

    def size(self):
        return self.count


def test_heads_that_cannot_be_divided_are_refused_with_what_can():
    model = Transformer(ModelConfig(**{**SHAPE, "heads": 12, "kv_heads": 3}))
    with pytest.raises(UserError, match="12 attention heads cannot be divided among 5") as told:
        model.share_rows(Ulysses(Group(5)))
    assert told.value.fix == "Use 1, 2, 3, 4, 6, 12; or set context: ring."
    with pytest.raises(UserError, match="4 attention heads of each of 3 processes that share the matrices") as told:
        model.share_rows(Ulysses(Group(3)), tensor_size=3)
    assert told.value.fix == "Use 1, 2, 4; or set context: ring."


@pytest.mark.parametrize(
    ("told", "message"),
    [
        (
            {"rope_parameters": {"rope_type": "dynamic", "factor": 2.0, "rope_theta": 1e4}},
            "depend on the length of whole",
        ),
        ({"model_type": "mamba", "state_size": 4}, "its rows cannot be shared"),
        ({"num_attention_heads": 6}, "6 attention heads cannot be divided among 4"),
        (
            {"model_type": "llama4_text", "pad_token_id": 0, "no_rope_layers": [1, 0], "num_local_experts": 2},
            "by places in the row",
        ),
    ],
)
def test_models_of_transformers_that_cannot_share_rows_say_why(told, message):
    model = Foreign(ForeignConfig(huggingface={"model_type": "llama", **LLAMA, **told}, vocab_size=VOCAB))
    with pytest.raises(UserError, match=message):
        model.share_rows(Ulysses(Group(4)))
    assert model.exchange is None
