"""Pages of a training that met a corrupted document: its rows by loss, its tokens by loss, and the document that made
the spike."""

from __future__ import annotations

import json
import math
import re
import shutil

import numpy as np
import orjson
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from spiked_run import CORRUPTED
from starlette.testclient import TestClient

from commands import headrace
from headrace import spikes
from headrace.train import losses
from headrace.train.losses import LossLog, RowLosses
from headrace.train.steps import Leg, Steps
from headrace.train.trajectory import latest
from headrace.view.app import application
from headrace.view.publish import publish
from headrace.view.target import Target
from headrace.view.worst import DEVIATIONS, worst
from quick import examples

BATCH, LENGTH, SPIKE = 4, 128, 42


@pytest.fixture(scope="module")
def spike(spiked):
    target = Target(spiked)
    target.patience = None  # all figures are waited for
    with TestClient(application(target), base_url="http://localhost") as client:
        yield client


def test_a_step_has_its_rows_by_loss(spike, spiked):
    """Those of the file, highest first; the document that made it is the first of all."""
    told = spike.get(f"/stages/only/steps/{SPIKE}?format=json").json()
    recorded = losses.rows_of(latest(spiked, "only"), BATCH, SPIKE)
    first = told["rows"][0]
    assert told["fate"] == "skipped"
    assert sorted(one["row"] for one in told["recorded_rows"]) == list(range(first, first + BATCH))
    for one in told["recorded_rows"]:
        assert one["loss"] == pytest.approx(float(recorded.loss[one["row"] - first]))
        assert (one["targets"], one["tokens"]) == (recorded.targets[one["row"] - first], True)
    found = [one["loss"] for one in told["recorded_rows"]]
    assert found == sorted(found, reverse=True)
    assert found[0] > 2 * found[1]
    assert [row["row"] for row in told["batch"]] == [one["row"] for one in told["recorded_rows"]]
    corrupted = told["batch"][0]["segments"][0]
    assert (corrupted["path"], corrupted["license"]) == (CORRUPTED, "GPL-2.0-only")
    assert corrupted["loss"] > 2 * told["batch"][1]["segments"][0]["loss"]
    page = spike.get(f"/stages/only/steps/{SPIKE}").text
    shown = re.findall(r'/sequences/only\?row=(\d+)&amp;color=loss">', page)
    assert [int(row) for row in shown] == [one["row"] for one in told["recorded_rows"]]
    by_row = spike.get(f"/stages/only/steps/{SPIKE}?sort=row&format=json").json()
    assert [row["row"] for row in by_row["batch"]] == list(range(first, first + BATCH))
    assert spike.get(f"/stages/only/steps/{SPIKE}?sort=x").status_code == 400


def test_a_step_without_tokens_has_its_rows_all_the_same(spike):
    told = spike.get("/stages/only/steps/7?format=json").json()
    assert not any(one["tokens"] for one in told["recorded_rows"])
    assert told["batch"][0]["segments"][0]["loss"] is None
    page = spike.get("/stages/only/steps/7").text
    assert "Highest loss first" in page
    assert "color=loss" not in page


def test_a_rows_tokens_are_colored_by_their_loss(spike, spiked):
    """Each by its own, as recorded; those without loss by none."""
    folder = latest(spiked, "only")
    [row] = losses.rows_of(folder, BATCH, SPIKE).highest(1) + (SPIKE - 1) * BATCH
    recorded = losses.tokens_of(folder, LENGTH, SPIKE)[row]
    told = spike.get(f"/sequences/only?row={row}&color=loss&format=json").json()
    places = [
        (run["start"] + k, run["loss"], loss)
        for one in told["rows"][0]["segments"]
        for run in one["runs"]
        for k, loss in enumerate(run["losses"])
    ]
    assert [place for place, _, _ in places] == list(range(LENGTH + 1))
    assert places[0][2] is None
    for place, carries, loss in places[1:]:
        assert carries == (recorded[place - 1] != losses.NO_TARGET)
        assert loss == pytest.approx(float(recorded[place - 1]), abs=1e-4) if carries else loss is None
    assert told["losses"] == [pytest.approx(told["rows"][0]["segments"] and np.mean(recorded[recorded >= 0]), rel=1e-3)]
    page = spike.get(f"/sequences/only?row={row}&color=loss").text
    high = sum(loss is not None and loss >= 9 for _, _, loss in places)
    assert len(re.findall(r'class="t l7( here)?" title', page)) == high > 10
    assert f"· loss {places[-1][2]:.3g}" in page
    plain = spike.get(f"/sequences/only?row={row}").text
    assert 'class="t l7"' not in plain
    assert f"/sequences/only?row={row}&amp;color=loss" in plain
    assert "as-tokens by-loss" in spike.get(f"/sequences/only?row={row}&color=loss&view=text").text


def test_a_row_whose_tokens_were_not_recorded_says_so(spike):
    told = spike.get("/sequences/only?row=8&color=loss")
    assert "were not recorded" in told.text
    assert "colored by" not in spike.get("/sequences/only?row=8").text
    assert spike.get("/sequences/only?row=8&format=json").json()["losses"][0] > 3


def test_a_stage_has_its_outlying_rows(spike, spiked):
    """Against a plain look at the whole file."""
    told = spike.get("/stages/only?format=json").json()
    entries = np.fromfile(latest(spiked, "only") / losses.ROWS, losses.row_entry(BATCH))
    above = entries["loss"] - np.median(entries["loss"], axis=1)[:, None]
    order = np.argsort(-above.ravel())
    rows = told["worst"]["rows"]
    assert told["worst"]["recorded"] == entries["loss"].size
    assert [one["row"] for one in rows] == order[: len(rows)].tolist()
    assert [one["outlying"] for one in rows] == [
        value > above.mean() + DEVIATIONS * above.std() for value in above.ravel()[order[: len(rows)]]
    ]
    assert rows[0]["step"] == SPIKE
    assert rows[0]["outlying"]
    assert told["of_sources"][str(rows[0]["row"])] == ["forum"]
    page = spike.get("/stages/only").text
    assert f"row {rows[0]['row']} of step {SPIKE}: loss {rows[0]['loss']:.4g}" in page
    some = spike.get(f"/stages/only?first=1&last={SPIKE - 1}&format=json").json()["worst"]
    assert max(one["step"] for one in some["rows"]) < SPIKE


def test_a_document_tells_what_it_lost(spike):
    told = spike.get(f"/stages/only/steps/{SPIKE}?format=json").json()
    one = told["batch"][0]["segments"][0]
    shown = spike.get(f"/documents/{one['document']}?format=json").json()["trained"]["only"]["shown"]
    [place] = [place for place in shown if place["placement"]["row"] == told["batch"][0]["row"]]
    assert place["loss"] == pytest.approx(one["loss"])
    assert place["row_loss"] == pytest.approx(told["recorded_rows"][0]["loss"])


def test_the_command_tells_the_rows_that_made_a_spike(spiked):
    [told] = spikes.spikes(spiked)
    [one] = told["spikes"]
    found = [row["loss"] for row in one["seen"]]
    assert found == sorted(found, reverse=True)
    assert max(one["seen"][0]["segments"], key=lambda part: part["loss"])["origin"].startswith("forum.jsonl")
    said = headrace("spikes", spiked).stdout
    assert f"row {one['seen'][0]['row']} (forum), loss {found[0]:.4g}" in said
    lines = [line for line in said.splitlines() if line.startswith("    | ")]
    assert "forum.jsonl:33" in lines[0]
    assert "losses of 180 rows are recorded" in headrace("ledger", spiked).stdout


def test_a_record_that_does_not_fit_the_rows_is_found(spiked, tmp_path):
    """The ledger compares each row's targets."""
    run = shutil.copytree(spiked, tmp_path / "run")
    path = latest(run, "only") / losses.ROWS
    entries = np.fromfile(path, losses.row_entry(BATCH))
    entries["targets"][6, 2] -= 1
    entries.tofile(path)
    done = headrace("ledger", run, "--json", check=False)
    assert done.returncode == 1
    [stage] = json.loads(done.stdout)["stages"]
    assert stage["wrong"] == ["row 26: its record of losses has another number of targets"]


def test_published_pages_lead_from_a_spike_to_its_row(spiked, tmp_path):
    publish(Target(spiked), tmp_path / "out")
    [step] = [page for page in (tmp_path / "out").glob("step-*.html") if "Outlying" in page.read_text()]
    link = re.search(r'href="(sequence-\d+\.html)"[^>]*>164<', step.read_text())
    assert "by-loss" in (tmp_path / "out" / link[1]).read_text()


def test_where_nothing_was_recorded_nothing_is_claimed(spiked, tmp_path):
    run = shutil.copytree(spiked, tmp_path / "run")
    for path in run.rglob("*_losses.bin"):
        path.unlink()
    target = Target(run)
    target.patience = None
    with TestClient(application(target), base_url="http://localhost") as client:
        told = client.get(f"/stages/only/steps/{SPIKE}?format=json").json()
        assert told["recorded_rows"] is None
        assert [row["row"] for row in told["batch"]] == list(range(*told["rows"]))
        assert "were not recorded" in client.get(f"/stages/only/steps/{SPIKE}").text
        assert client.get("/stages/only?format=json").json()["worst"]["rows"] == []
        assert client.get("/sequences/only?row=164&format=json").json()["losses"] == [None]


@settings(max_examples=examples(80), deadline=None)
@given(st.data(), st.integers(1, 30), st.integers(1, 5), st.integers(1, 8))
def test_the_worst_rows_are_those_of_a_plain_look(tmp_path_factory, data, steps, batch, most):
    """With rows without targets, losses that are not finite, and any number of rows in a step."""
    folder = tmp_path_factory.mktemp("log")
    log, every = LossLog(folder, batch, 4, {}), []
    values = st.sampled_from([0.5, 1.0, 1.5, 2.0, 3.25, math.inf, math.nan])
    for step in range(1, steps + 1):
        sums = np.array(data.draw(st.lists(values, min_size=batch, max_size=batch)))
        targets = np.array(data.draw(st.lists(st.integers(0, 1), min_size=batch, max_size=batch)), dtype=float)
        log.rows(step, RowLosses.of(sums, targets))
        known = [math.inf if not math.isfinite(one) else one for one, n in zip(sums, targets, strict=True) if n]
        for i in range(batch):
            if targets[i]:
                loss = sums[i] if math.isfinite(sums[i]) else math.inf
                above = math.inf if loss == math.inf else loss - float(np.median(known))
                every.append((above, 7 + (step - 1) * batch + i))
    log.close()
    leg = Leg("x", folder, 1, steps, 7, batch, 4)
    found = worst(Steps((leg,), steps), 1, steps, most)
    finite = [above for above, _ in every if math.isfinite(above)]
    assert found.recorded == len(every)
    ordered = sorted((above for above, _ in every if above > -math.inf), reverse=True)[:most]
    told = [math.inf if one.above is None else one.above for one in found.rows]
    assert told == pytest.approx(ordered)
    where = {row: above for above, row in every}
    for one, above in zip(found.rows, told, strict=True):
        assert where[one.row] == pytest.approx(above)
        limit = np.mean(finite) + DEVIATIONS * np.std(finite) if finite else 0.0
        if abs(above - limit) > 1e-6:
            assert one.outlying == (above > 0 and above >= limit)


def test_steps_on_disk_count_from_0_and_elsewhere_from_1(spiked):
    """As docs/formats.md says of ``spikes.jsonl``."""
    [file] = (spiked / "checkpoints").rglob("spikes.jsonl")
    on_disk = [orjson.loads(line)["step"] for line in file.read_bytes().splitlines()]
    told = [spike["step"] for stage in spikes.spikes(spiked) for spike in stage["spikes"]]
    assert on_disk
    assert told == [step + 1 for step in on_disk]
