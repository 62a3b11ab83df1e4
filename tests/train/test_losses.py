"""Recorded losses: those of plain torch, whatever the micro-batch; cut back, kept of spikes, and found again."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from tiny_training import TinyReader, TinySequence, coordinate_steps, tiny_job
from torch.nn.functional import cross_entropy

from headrace.sequence.loader import Loader
from headrace.sequence.store import open_sequence
from headrace.train import guard, losses
from headrace.train.loop import Trainer
from headrace.train.trajectory import latest
from headrace.train.world import World
from quick import examples

HERE = Path(__file__).parent
BATCH, LENGTH = 4, 16
EVERY = {"rows": 1, "tokens": 1}
SPOILT, SPIKE = 150, 38  # a row of noise, and its step
GUARDED = {"optimizer": {"learning_rate": 0.03}, "guard": {"deviations": 6.0, "window": 8}}


@pytest.fixture(scope="module")
def sequence(tmp_path_factory):
    [folder] = coordinate_steps(tmp_path_factory.mktemp("rows") / "run", [TinySequence("one", 160)])
    return open_sequence(folder)


class Spoilt(TinyReader):
    """One row is noise, and one carries no loss."""

    def copy(self, start, stop, out):
        super().copy(start, stop, out)
        if start <= SPOILT < stop:
            out[SPOILT - start] = np.random.default_rng(0).integers(128, 256, LENGTH + 1)

    def targets(self, start, stop):
        loss = super().targets(start, stop)
        if start <= 9 < stop:
            loss[9 - start] = False
        return loss


def trained(job, **options) -> Trainer:
    trainer = Trainer(job, World())
    trainer.train(lambda step, loss: None, **options)
    return trainer


def expected(model, batch) -> np.ndarray:
    """float64[B, L]: what plain torch says; NaN without loss."""
    tokens = torch.from_numpy(batch.tokens.astype(np.int64))
    with torch.no_grad():
        each = cross_entropy(model(tokens[:, :-1]).transpose(1, 2).double(), tokens[:, 1:], reduction="none")
    return np.where(batch.loss, each.numpy(), np.nan)


@pytest.mark.parametrize("micro_batch", [1, 2, 3, None])
@pytest.mark.parametrize("z_loss", [0.0, 0.1])
def test_losses_are_those_of_plain_torch(tmp_path, sequence, micro_batch, z_loss):
    """The weights before each step say what its rows and tokens lost."""
    rows, job = Spoilt(sequence), {"micro_batch": micro_batch, "record": EVERY, "loss": {"z_loss": z_loss}}
    trainer = Trainer(tiny_job(tmp_path, rows, 4, **job), World())
    wanted = [expected(trainer.model, Loader(rows, BATCH).at(0))]
    trainer.train(
        lambda step, loss: step < 4 and wanted.append(expected(trainer.model, Loader(rows, BATCH).at(BATCH * step)))
    )
    folder = latest(tmp_path, "one")
    for step, each in enumerate(wanted, 1):
        found = losses.rows_of(folder, BATCH, step)
        np.testing.assert_array_equal(found.targets, np.isfinite(each).sum(axis=1))
        known = found.targets > 0
        np.testing.assert_allclose(found.loss[known], np.nanmean(each[known], axis=1), rtol=1e-5)
        assert np.isnan(found.loss[~known]).all()
        tokens = losses.tokens_of(folder, LENGTH, step)
        assert list(tokens) == list(range(4 * step - 4, 4 * step))
        for told, one in zip(tokens.values(), each, strict=True):
            np.testing.assert_array_equal(told == losses.NO_TARGET, np.isnan(one))
            np.testing.assert_allclose(told[told >= 0], one[np.isfinite(one)], rtol=1e-3, atol=1e-4)
            mean, count = losses.mean_of(told, 0, LENGTH + 1)
            assert count == np.isfinite(one).sum()
            assert mean == pytest.approx(np.nanmean(one), rel=1e-3) if count else np.isnan(mean)
    assert not losses.rows_of(folder, BATCH, 3).targets[1]  # row 9


def test_what_is_recorded_changes_nothing_else(tmp_path, sequence):
    ways = {"all": EVERY, "some": {"rows": 3, "tokens": 2}, "none": {"rows": None, "outlying": 0}}
    done = {name: trained(tiny_job(tmp_path / name, sequence, 6, record=way)) for name, way in ways.items()}
    folders = {name: one.job.folder for name, one in done.items()}
    assert len({folder.name for folder in folders.values()}) == 1
    for name, tensor in done["none"].model.state_dict().items():
        assert torch.equal(tensor, done["all"].model.state_dict()[name])
        assert torch.equal(tensor, done["some"].model.state_dict()[name])
    assert [name for name in ways if list(folders[name].glob("*.bin"))] == ["all", "some"]
    for step in range(1, 7):
        rows, tokens = (losses.rows_of(folders["some"], BATCH, step), losses.tokens_of(folders["some"], LENGTH, step))
        assert (rows is not None, bool(tokens)) == (step % 3 == 0, step % 2 == 0)
        if rows is not None:
            np.testing.assert_array_equal(rows.loss, losses.rows_of(folders["all"], BATCH, step).loss)
    one = (folders["all"] / losses.ROWS).stat().st_size, (folders["all"] / losses.TOKENS).stat().st_size
    assert one == (6 * (8 + 8 * BATCH), 6 * BATCH * (16 + 2 * LENGTH))


@pytest.mark.slow
def test_killed_in_steps_and_run_again_records_the_same(tmp_path, sequence):
    """The bytes of both files; killed before a checkpoint and right after one."""
    told, jobs = tmp_path / "jobs.json", {}
    for name in ("whole", "killed"):
        (tmp_path / name).mkdir()
        section = {"checkpoint_every": 3, "record": EVERY}
        about = {"run": str(tmp_path / name), "sequence": str(sequence.path), "steps": 10}
        jobs[name] = {**about, "section": section}
    for launch in ([jobs["whole"], {**jobs["killed"], "dies_at": 6}], [{**jobs["killed"], "dies_at": 10}],
                   [jobs["killed"]]):  # fmt: skip
        told.write_text(json.dumps(launch))
        done = subprocess.run([sys.executable, str(HERE / "launched.py"), str(told)])
        assert done.returncode == (-9 if "dies_at" in launch[-1] else 0)
    for name in (losses.ROWS, losses.TOKENS):
        whole, killed = ((latest(tmp_path / run, "one") / name).read_bytes() for run in ("whole", "killed"))
        assert whole == killed
        assert len(whole) == 10 * (8 + 8 * BATCH if name == losses.ROWS else BATCH * (16 + 2 * LENGTH))


def test_a_longer_record_than_the_checkpoint_knows_is_cut(tmp_path, sequence):
    """Also one that a kill cut in an entry, one that is gone, and where recording has been turned off since."""
    whole = trained(tiny_job(tmp_path / "whole", sequence, 8, record=EVERY, checkpoint_every=2)).job.folder
    for name, length in (("longer", None), ("torn", -5), ("shorter", 50), ("gone", 0)):
        job = tiny_job(tmp_path / name, sequence, 8, record=EVERY, checkpoint_every=2)

        def stop(step, loss):
            if step == 5:
                raise KeyboardInterrupt

        with pytest.raises(KeyboardInterrupt):
            Trainer(job, World()).train(stop)
        for file in (losses.ROWS, losses.TOKENS):
            data = (job.folder / file).read_bytes()
            assert losses.rows_of(job.folder, BATCH, 5) is not None or file == losses.TOKENS
            (job.folder / file).write_bytes(data[:length])
        if name in ("shorter", "gone"):
            with pytest.warns(UserWarning, match="entries are missing. Training is not affected"):
                trained(job)
        else:
            trained(job)
            for file in (losses.ROWS, losses.TOKENS):
                assert (job.folder / file).read_bytes() == (whole / file).read_bytes()
        for step in range(5, 9):  # those after the checkpoint of step 4
            found = losses.rows_of(job.folder, BATCH, step)
            np.testing.assert_array_equal(found.loss, losses.rows_of(whole, BATCH, step).loss)
            assert losses.tokens_of(job.folder, LENGTH, step).keys() == losses.tokens_of(whole, LENGTH, step).keys()
    off = tiny_job(tmp_path / "longer", sequence, 8, record={"rows": None}, checkpoint_every=2)
    for checkpoint in sorted(off.folder.glob("step-*"))[1:]:
        checkpoint.rename(tmp_path / checkpoint.name)
    trained(off)
    assert losses.rows_of(off.folder, BATCH, 6) is not None
    assert losses.rows_of(off.folder, BATCH, 7) is None


@pytest.mark.parametrize("action", ["skip", "rollback"])
def test_of_an_outlying_step_the_rows_that_made_it_are_kept(tmp_path, sequence, action):
    """The step is known by its rows even where the log was cut back behind it."""
    changes = {**GUARDED, "guard": {**GUARDED["guard"], "action": action}, "record": {"outlying": 2}}
    job = tiny_job(tmp_path, Spoilt(sequence), 40, **changes)
    if action == "rollback":
        with pytest.warns(UserWarning, match="is rolled back"):
            trained(job)
    else:
        trained(job)
    [spike] = guard.spikes(job.folder)
    assert spike["step"] == SPIKE - 1
    found = losses.rows_of(job.folder, BATCH, SPIKE)
    assert found.order[0] == SPOILT % BATCH
    assert found.loss[found.order[0]] > 2 * found.loss[found.order[1]]
    mean = np.average(found.loss, weights=found.targets)
    assert mean == pytest.approx(spike["loss"], rel=1e-5)
    tokens = losses.tokens_of(job.folder, LENGTH, SPIKE)
    assert list(tokens) == [148 + row for row in found.highest(2)]
    for row, told in tokens.items():
        assert losses.mean_of(told, 0, LENGTH + 1)[0] == pytest.approx(found.loss[row - 148], rel=1e-3)
    logged = [int(entry["step"]) for block in losses.blocks(job.folder, BATCH, 1, 40) for entry in block]
    assert logged == [step for step in range(1, 41) if action == "skip" or step != SPIKE]
    assert losses.tokens_of(job.folder, LENGTH, 3) == {}


def test_a_spike_that_runs_again_is_forgotten(tmp_path, sequence):
    """A resumed training judges it anew; a kill may also leave half an entry, or losses without a spike."""
    job = tiny_job(tmp_path, Spoilt(sequence), 40, **GUARDED, checkpoint_every=36)

    def stop(step, loss):
        if step == 39:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        Trainer(job, World()).train(stop)
    first = losses.rows_of(job.folder, BATCH, SPIKE)
    for name in (losses.SPIKE_ROWS, losses.SPIKE_TOKENS):
        with open(job.folder / name, "ab") as f:
            f.write(b"torn")
    again = Trainer(job, World())
    assert losses.tokens_of(job.folder, LENGTH, SPIKE) == {}
    assert (job.folder / losses.SPIKE_ROWS).stat().st_size == 0
    again.train(lambda step, loss: None)
    assert (job.folder / losses.SPIKE_ROWS).stat().st_size == 8 + 8 * BATCH
    np.testing.assert_array_equal(losses.rows_of(job.folder, BATCH, SPIKE).loss, first.loss)


def test_a_loss_that_is_not_finite_is_recorded_as_such(tmp_path, sequence):
    broken = Trainer(tiny_job(tmp_path, sequence, 3, record=EVERY, guard={"in_a_row": 9}), World())
    with torch.no_grad():
        broken.model.norm.weight[0] = float("nan")
    broken.train(lambda step, loss: None)
    found = losses.rows_of(broken.job.folder, BATCH, 2)
    assert (found.targets > 0).all()
    assert np.isnan(found.loss).all()
    tokens = losses.tokens_of(broken.job.folder, LENGTH, 2)
    carries = Loader(sequence, BATCH).at(BATCH).loss
    for told, mask in zip(tokens.values(), carries, strict=True):
        np.testing.assert_array_equal(np.isnan(told), mask)
        assert (told[~mask] == losses.NO_TARGET).all()


@settings(max_examples=examples(60), deadline=None)
@given(
    st.sets(st.integers(1, 40)),
    st.integers(1, 5),
    st.integers(1, 7),
    st.integers(0, 40),
    st.integers(0, 40),
    st.integers(0, 60),
)
def test_entries_are_found(tmp_path_factory, steps, batch, length, first, last, torn):
    """Whatever the steps between records, the sizes, and what a kill left behind."""
    folder = tmp_path_factory.mktemp("log")
    log, draw = losses.LossLog(folder, batch, length, {}), np.random.default_rng(len(steps))
    rows, tokens = {}, {}
    for step in sorted(steps):
        counts = draw.integers(0, 3, batch).astype(float)
        rows[step] = losses.RowLosses.of(draw.random(batch) * counts, counts)
        tokens[step] = draw.random((batch, length)).astype(np.float16)
        log.rows(step, rows[step])
        log.tokens(step, 100 * step + np.arange(batch), tokens[step])
        log.spike(step, rows[step], 100 * step + np.arange(batch)[:2], tokens[step][:2])
    assert sum(log.lengths().values()) == sum(path.stat().st_size for path in folder.glob("[rt]*.bin"))
    log.close()
    for path in folder.glob("*.bin"):
        with open(path, "ab") as f:
            f.write(b"\0" * min(torn, 7))
    for step in range(42):
        found = losses.rows_of(folder, batch, step)
        assert (found is not None) == (step in steps)
        if found is not None:
            np.testing.assert_array_equal(found.loss, rows[step].loss)
            np.testing.assert_array_equal(found.targets, rows[step].targets)
        each = losses.tokens_of(folder, length, step)
        assert losses.with_tokens(folder, length, step) == set(each)
        for row in [*each, 7]:
            [*one] = losses.tokens_of(folder, length, step, [row])
            assert one == ([row] if row in each else [])
        assert list(each) == ([100 * step + i for i in range(batch)] if step in steps else [])
        for i, told in enumerate(each.values()):
            np.testing.assert_array_equal(told, tokens[step][i])
    seen = [int(entry["step"]) for block in losses.blocks(folder, batch, first, last) for entry in block]
    assert seen == sorted(step for step in steps if first <= step <= last)
    kept = {step for step in steps if step % 2}
    for name in (losses.ROWS, losses.TOKENS):
        (folder / name).unlink(missing_ok=True)
    losses.forget(folder, batch, length, kept)
    for step in range(42):
        assert (losses.rows_of(folder, batch, step) is not None) == (step in kept)
        assert len(losses.tokens_of(folder, length, step)) == (min(batch, 2) if step in kept else 0)
