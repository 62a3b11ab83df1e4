"""What is moved to host memory and back, when, and that a training with it is the one without."""

from __future__ import annotations

import contextlib

import pytest
import torch
from pydantic import ValidationError
from tiny_training import TinySequence, coordinate_steps, tiny_job

from headrace.model.config import ModelConfig
from headrace.model.transformer import Transformer
from headrace.recipe.training import TrainSection
from headrace.sequence.store import open_sequence
from headrace.train.loop import Trainer
from headrace.train.offload import CheckpointStore
from headrace.train.parallel import recomputed
from headrace.train.world import World

LAYERS = 5


def model() -> Transformer:
    made = Transformer(ModelConfig(vocab_size=37, layers=LAYERS, width=8, heads=2, ffn=24))
    made.initialise(3)
    return made


def gradients(of: Transformer) -> list[torch.Tensor]:
    tokens = torch.arange(23).view(1, 23) % 37
    of(tokens[:, :-1], targets=tokens[:, 1:].flatten())[0].backward()
    found = [parameter.grad for parameter in of.parameters()]
    for parameter in of.parameters():
        parameter.grad = None
    return found


def test_inputs_leave_one_by_one_and_are_fetched_while_the_block_after_is_computed():
    plain, other, store = model(), model(), CheckpointStore(torch.device("cpu"))
    computed = []  # layers in the order in which they are computed, and what had been moved by then
    for layer, block in enumerate(other.blocks):
        block.ffn_norm.register_forward_pre_hook(
            lambda *_, layer=layer: computed.append((layer, store.stored, store.fetched, store.on_device))
        )
        block.forward = store.around(recomputed(block.forward, "full"))
    for passes in (1, 2):
        store.stored = store.fetched = 0
        computed.clear()
        for mine, theirs in zip(gradients(other), gradients(plain), strict=True):
            assert torch.equal(mine, theirs)
        forward, backward = computed[:LAYERS], computed[LAYERS:]
        assert [(layer, stored, fetched) for layer, stored, fetched, _ in forward] == [
            (layer, layer + 1, 0) for layer in range(LAYERS)
        ]
        # The last block's input is still here; while a block is computed that of the one before is fetched.
        assert [(layer, stored, fetched) for layer, stored, fetched, _ in backward] == [
            (layer, LAYERS, min(LAYERS - layer, LAYERS - 1)) for layer in reversed(range(LAYERS))
        ]
        assert max(here for *_, here in computed) <= 2
        assert store.most_on_device == 2
        assert (store.on_device, store.on_host) == (0, 0), passes
        assert store.fetched == LAYERS - 1


def test_measuring_moves_nothing():
    other, store = model(), CheckpointStore(torch.device("cpu"))
    for block in other.blocks:
        block.forward = store.around(recomputed(block.forward, "full"))
    with torch.no_grad():
        other(torch.arange(9)[None])
    assert (store.stored, store.most_on_device) == (0, 0)


LONG = {"offload_checkpoints": True, "offload_optimizer": True, "tile_mlp": 5, "tile_loss": 7}


def test_a_training_with_its_state_on_the_host_is_the_one_without(tmp_path):
    """Bit by bit, also when one goes on where the other stopped, and back."""
    [folder] = coordinate_steps(tmp_path / "rows", [TinySequence("one", 40)])
    sequence = open_sequence(folder)

    def trained(run, long, stop_after=None):
        def stopping(step, loss):
            if step == stop_after:
                raise KeyboardInterrupt

        changes = {"recompute": "full", "checkpoint_every": 2, "long": long}
        trainer = Trainer(tiny_job(tmp_path / run, sequence, 6, **changes), World())
        with contextlib.suppress(KeyboardInterrupt):
            trainer.train(stopping)
        return trainer

    offloaded = {key: True for key in LONG if key.startswith("offload")}
    whole, other = trained("whole", {}), trained("other", offloaded)
    trained("parts", offloaded, stop_after=3)
    trained("parts", {}, stop_after=5)
    parts = trained("parts", offloaded)
    for one in (other, parts):
        for mine, theirs in ((one.model.state_dict(), whole.model.state_dict()),
                             (one.optimizer.named_state(), whole.optimizer.named_state())):  # fmt: skip
            assert mine.keys() == theirs.keys()
            for name, tensor in theirs.items():
                assert torch.equal(mine[name], tensor), name
    store = other.placed.checkpoints
    assert (store.stored, store.fetched, store.most_on_device) == (6 * 2 * 2, 6 * 2, 2)  # steps, passes, layers
    tiled = trained("tiled", LONG)
    for name, tensor in whole.model.state_dict().items():
        torch.testing.assert_close(tiled.model.state_dict()[name], tensor, rtol=1e-3, atol=5e-4)


def test_what_cannot_be_is_refused_in_the_recipe():
    with pytest.raises(ValidationError, match="blocks keep more than what they begin with"):
        TrainSection.model_validate({"long": {"offload_checkpoints": True}})
    for key in ("offload_optimizer", "offload_parameters"):
        with pytest.raises(ValidationError, match="Muon's matrices"):
            TrainSection.model_validate({"optimizer": {"kind": "muon"}, "long": {key: True}})
    with pytest.raises(ValidationError, match="is sharded"):
        TrainSection.model_validate({"shard": "none", "long": {"offload_parameters": True}})
