"""`long: auto`: the cheapest settings that fit, the same for everybody, and what is said about them."""

from __future__ import annotations

from contextlib import suppress
from dataclasses import replace
from itertools import combinations

import pytest

from headrace.errors import UserError
from headrace.memory.choice import SWITCHES, _cost, chosen
from headrace.memory.estimate import estimate
from headrace.memory.fit import fits
from headrace.memory.machines import GIB, Machine
from headrace.memory.shape import Shape
from headrace.memory.stage import settings_of
from headrace.model.config import ForeignConfig
from headrace.model.presets import PRESETS
from headrace.recipe.training import TrainSection

LLAMA = Shape.of(PRESETS["llama-3-8b"])
SMALL = Shape.of(PRESETS["llama-3.2-1b"])


def section(**keys) -> TrainSection:
    return TrainSection.model_validate({"batch": 8, "long": "auto", **keys})


def decided(length: int, machine: Machine, shape: Shape = LLAMA, **keys) -> tuple[TrainSection, str]:
    return chosen(section(**keys), length, shape, machine, "train")


def test_nothing_is_changed_where_all_fits():
    found, why = decided(1024, Machine.of("h200"), SMALL)
    assert found == section()
    assert "changes nothing" in why


@pytest.mark.parametrize("length", [32_768, 131_072, 400_000])
def test_what_is_chosen_fits_and_nothing_cheaper_does(length):
    machine = Machine.of("h100", 8, host=1_900 * 10**9)
    found, why = decided(length, machine)
    settings = settings_of(found, length, LLAMA, machine, "")
    assert fits(estimate(LLAMA, settings), machine)
    flat = [switch for switches in SWITCHES for switch in switches]
    taken = [switch for switch in flat if str(switch) in why]
    assert taken
    # Any one of them taken back does not fit.
    for kept in combinations(taken, len(taken) - 1):
        keys: dict = {}
        for switch in kept:
            first, _, inner = switch.key.rpartition(".")
            (keys.setdefault("long", {}) if first else keys)[inner] = switch.value
        if "offload_checkpoints" in keys.get("long", {}) and keys.get("recompute") != "full":
            continue  # is refused
        less = settings_of(TrainSection.model_validate({"batch": 8, **keys}), length, LLAMA, machine, "")
        assert not fits(estimate(LLAMA, less), machine)


def test_longer_rows_never_cost_less():
    machine, costs = Machine.of("h100", 8), []
    for length in (4096, 16_384, 65_536, 262_144, 500_000):
        found, why = decided(length, machine)
        costs.append(_cost(found, [one for switches in SWITCHES for one in switches if str(one) in why]))
    assert costs == sorted(costs)
    assert costs[0] < costs[-1]


def test_it_is_the_same_every_time():
    machine = Machine.of("h200", 8)
    assert decided(300_000, machine) == decided(300_000, machine)


def test_what_the_recipe_states_stays():
    machine = Machine.of("h100", 8)
    found, why = decided(65_536, machine, recompute="none", micro_batch=1)
    assert found.recompute == "none"
    assert "recompute" not in why
    found, _ = decided(65_536, machine, long={"auto": True, "sequence_parallel": 1})
    assert found.long.sequence_parallel == 1


def test_a_row_that_fits_nowhere_is_refused_with_the_figures():
    with pytest.raises(UserError, match="do not fit") as error:
        decided(100_000_000, Machine.of("h100", 8))
    assert error.value.where == "train.long"
    assert "GiB" in error.value.what


def test_what_is_not_possible_is_never_chosen():
    """More processes for a row than divide them all; products kept of compiled blocks with a tiled network."""
    machine = Machine.of("h100", 6)
    found, _ = decided(60_000, machine, compile=True)
    assert 6 % found.long.sequence_parallel == 0
    assert not (found.long.tile_mlp and found.recompute == "selective")


def test_on_cpus_it_goes_by_the_machines_memory():
    machine = Machine("CPU", 24 * GIB, False)
    found, why = decided(16_384, machine, SMALL, batch=1)
    assert found.recompute != "none"
    assert "CPU" in why
    with pytest.raises(UserError):
        decided(16_384, replace(machine, memory=8 * GIB), SMALL, batch=1)


@pytest.mark.parametrize(
    ("told", "refused"),
    [
        ({"model_type": "mixtral", "num_key_value_heads": 2, "num_local_experts": 4}, {"long.tile_mlp"}),
        ({"model_type": "opt", "ffn_dim": 512, "word_embed_proj_dim": 128}, {"long.tile_mlp"}),
        ({"model_type": "mixtral", "output_router_logits": True}, {"long.tile_mlp", "long.sequence_parallel"}),
        ({"model_type": "llama", "num_key_value_heads": 2}, set()),
    ],
)
def test_nothing_is_chosen_that_a_model_of_transformers_refuses(told, refused):
    """Whatever the memory: where it does not suffice without, nothing fits."""
    pytest.importorskip("transformers")
    about = {"vocab_size": 512, "hidden_size": 128, "num_hidden_layers": 2, "num_attention_heads": 4}
    config = ForeignConfig(huggingface={**about, "intermediate_size": 512, **told}, vocab_size=512)
    shape = Shape.of(config)
    assert shape.refused == refused | {"tensor_parallel"}
    machine, taken = Machine("GPU", 8 * GIB, True, 4, 1, 400 * GIB), set[str]()
    for length in (2**n for n in range(12, 24)):
        with suppress(UserError):  # where nothing fits
            long = decided(length, machine, shape)[0].long
            taken |= {"long.tile_mlp"} if long.tile_mlp is not None else set()
            taken |= {"long.sequence_parallel"} if long.sequence_parallel > 1 else set()
    assert taken == {"long.tile_mlp", "long.sequence_parallel"} - refused
