"""The page of a step against the loader, the log and the ledger; spikes."""

from __future__ import annotations

import html
import json
import re
import shutil

import numpy as np
import orjson
import pytest
from starlette.testclient import TestClient
from typer.testing import CliRunner

from headrace import run_folder
from headrace.cli.app import app
from headrace.flow.storage import write_sealed
from headrace.flow.task import TaskContext
from headrace.sequence.loader import Loader
from headrace.sequence.target_sources import target_sources
from headrace.train import guard
from headrace.train.edits import FILE as EDITS
from headrace.train.metrics import FILE, read
from headrace.train.trajectory import begin, latest
from headrace.view.app import application
from headrace.view.target import Target


def test_every_step_is_as_logged(client, target, viewed):
    """Loss, learning rate, gradient norm and targets by source are the log's; rows and tokens the sequence's."""
    sequence = target.sequence("stage2")
    for line in read(latest(viewed, "stage2") / FILE):
        told = client.get(f"/stages/stage2/steps/{line['step']}?format=json").json()
        assert told["log"] == line
        first, stop = told["rows"]
        assert (first, stop) == (4 * line["step"] - 4, 4 * line["step"])
        assert (told["fate"], told["recorded"], told["last"]) == ("trained", 1, 6)
        for one in told["sources"]:
            index = sequence.sources.index(one["name"])
            in_rows = [s for row in range(first, stop) for s in sequence.segments(row)]
            assert one["tokens"] == sum(int(s["length"]) for s in in_rows if s["kind"] != 255 and s["source"] == index)
            assert one["loss"] == line["sources"][one["name"]]["loss"]
            loss = sequence.targets(first, stop)
            assert one["targets"] == int((loss & (target_sources(sequence, first, stop) == index)).sum())
        page = client.get(f"/stages/stage2/steps/{line['step']}").text
        assert f"step {line['step']} of 6" in page
        assert all(f"/sequences/stage2?row={row}" in page or row == 0 for row in range(first, stop))


def test_ranks_saw_the_loaders_shares(client, target):
    """For any number of ranks."""
    for ranks in (1, 2, 3, 4, 5, 7):
        page = client.get(f"/stages/stage2/steps/2?ranks={ranks}&sort=row").text
        told = r'row=(\d+)">\d+</a></th><td class="n">[0-9.]+<svg[^>]*>.*?</svg></td><td class="n">\d+</td>'
        shown = re.findall(told + r'<td class="n">(\d+)</td>', page)
        assert [int(row) for row, _ in shown] == [4, 5, 6, 7]
        for row, rank in shown:
            first, stop = Loader(target.sequence("stage2"), 4, rank=int(rank), world_size=ranks, even=False).share(4)
            assert first <= int(row) < stop


def test_wrong_steps(client):
    for step, query, status in ((0, "", 400), ("x", "", 400), (7, "", 404), (1, "around=0", 400), (1, "batch=0", 400)):
        assert client.get(f"/stages/stage2/steps/{step}?{query}&format=json").status_code == status
    assert client.get("/stages/stage9/steps/1?format=json").status_code == 404
    told = client.get("/stages/stage2/steps/7?format=json").json()
    assert "1 to 6" in told["fix"]


def test_rows_that_nobody_trains_on(client, target):
    """Held-out rows have steps for whoever reads them in batches."""
    told = client.get("/stages/heldout/steps/2?batch=2&format=json").json()
    assert (told["rows"], told["trained"], told["log"]) == ([2, 4], False, None)
    assert told["last"] == len(target.sequence("heldout")) // 2
    page = client.get("/stages/heldout/steps/2?batch=2").text
    assert "Nobody trains on these rows here" in page
    links = {html.unescape(one) for one in re.findall(r'href="([^"]+)"', page)}
    assert "/stages/heldout/steps/1?batch=2" in links


@pytest.fixture
def spiked(viewed, tmp_path):
    """The run with two outlying steps, one of them without a finite loss."""
    run = tmp_path / "run"
    shutil.copytree(viewed, run)
    folder = latest(run, "stage2")
    guard.record(folder, {"step": 2, "rows": [8, 11], "reason": "loss", "action": "skip", "loss": 88.25,
                          "grad_norm": 5.5, "sources": {"code": 99.5}})  # fmt: skip
    guard.record(folder, {"step": 4, "rows": [16, 19], "reason": "not finite", "action": "rollback", "loss": None,
                          "grad_norm": None, "sources": {"<b>": None}})  # fmt: skip
    lines = [line for line in (folder / FILE).read_bytes().splitlines() if orjson.loads(line)["step"] != 5]
    (folder / FILE).write_bytes(b"\n".join(lines))
    with TestClient(application(Target(run)), base_url="http://localhost") as client:
        yield client


def test_spikes(spiked):
    """They are told on their pages and marked on the time line of others."""
    told = spiked.get("/stages/stage2/steps/3?format=json").json()
    assert (told["fate"], told["spike"]["loss"], told["spike"]["step"]) == ("skipped", 88.25, 3)
    assert told["outlying"] == {"3": [88.25, "loss, skipped"], "5": [None, "not finite, rolled back"]}
    page = spiked.get("/stages/stage2/steps/3").text
    assert "Outlying (loss): skipped." in page
    assert "88.25" in page
    other = spiked.get("/stages/stage2/steps/1").text
    assert "step 3: loss, skipped" in other
    page = spiked.get("/stages/stage2/steps/5").text
    assert "Outlying (not finite): rolled back." in page
    assert "&lt;b&gt;" in page
    assert "<b>" not in page
    rows = spiked.get("/sequences/stage2?row=9&format=json").json()
    assert rows["taken"] == [{"row": 9, "step": 3, "fate": "skipped"}]
    assert np.isfinite(spiked.get("/stages/stage2/steps/4?format=json").json()["log"]["loss"])


def test_an_edited_training(viewed, tmp_path):
    """Each step says which trajectory it belongs to, and takes the rows after those of the one before."""
    run = tmp_path / "run"
    shutil.copytree(viewed, run)
    model = run_folder.read_graph(run).models["stage2"]
    before = model.trajectory(TaskContext(run, model))
    write_sealed(run / EDITS, {"models": {model.name: {"trajectory": before.identity, "step": 3, "rows": 12}}})
    edited = run_folder.read_graph(run).models["stage2"]
    now = edited.trajectory(TaskContext(run, edited))
    begin(now.folder(run, "stage2"), now, None)
    with TestClient(application(Target(run)), base_url="http://localhost") as client:
        for step, mine in ((3, before), (4, now)):
            told = client.get(f"/stages/stage2/steps/{step}?format=json").json()
            assert [(one["trajectory"], one["first"], one["last"]) for one in told["stretches"]] == [
                (before.identity, 1, 3),
                (now.identity, 4, 6),
            ]
            assert (told["rows"], told["done"]) == ([4 * step - 4, 4 * step], 3)
            replayed = CliRunner().invoke(app, ["replay", str(run), "--stage", "stage2", "--step", str(step), "--json"])
            assert [row["row"] for row in json.loads(replayed.stdout)["rows"]] == list(range(*told["rows"]))
            assert told["fate"] == ("trained" if mine is before else "left")
            assert (told["recorded_rows"] is not None) == (mine is before)
            page = client.get(f"/stages/stage2/steps/{step}").text
            assert "The recipe was edited while this stage was trained" in page
            assert f"{mine.identity}</code>, which this step belongs to" in page
