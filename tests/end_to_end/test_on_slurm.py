"""A run on a real Slurm cluster of two nodes on this machine: the same bytes as on this one."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from commands import HEADRACE, headrace
from headrace import Engine, UserError, load_recipe, run
from headrace.flow.events import read_events
from headrace.flow.executors import slurm
from headrace.run_folder import digest
from slurm_cluster import Cluster, missing

sys.path.insert(0, str(Path(__file__).parents[1] / "report"))
sys.path.insert(0, str(Path(__file__).parents[1] / "flow"))

from small_pipeline import copied

from object_store import Server

pytestmark = [
    pytest.mark.slow,
    pytest.mark.timeout(600),
    pytest.mark.skipif(bool(missing()), reason=missing() or "-"),
]


@pytest.fixture(scope="module")
def cluster() -> Iterator[Cluster]:
    with Cluster() as up:
        yield up


@pytest.fixture(autouse=True)
def _quick_looks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(slurm, "LOOK_SECONDS", 1.0)


def test_begun_here_finished_on_whole_nodes_though_one_is_cancelled(cluster, once, tmp_path: Path) -> None:
    local = copied(once, tmp_path / "corpus")
    recipe, out, struck = load_recipe(tmp_path / "corpus" / "recipe.yaml"), tmp_path / "a run, 100 %j", []
    run(recipe, out, workers=1, memory=500_000_000, until="documents")

    def strike(event):
        if event["event"] == "task" and not struck:
            struck.append(event["node"])
            cluster.call("scancel", event["node"].rpartition("/")[2].replace("-", "_"))
        if event["event"] == "worker" and len(struck) == 1 and event["node"] != struck[0]:
            struck.append(event["node"])
            os.kill(event["pid"], signal.SIGKILL)

    run(recipe, out, listener=strike, engine=Engine("slurm", nodes=2))
    assert digest(out) == digest(local)
    events = list(read_events(out))
    nodes = [event for event in events if event["event"] == "node"]
    assert {event["workers"] for event in nodes if event["state"] == "joined"} == {2}
    lost = [event["reason"] for event in nodes if event["state"] == "lost"]
    assert lost[0] in ("it left", "Slurm has ended its job")
    assert any(path.name.startswith("slurm-") for path in (out / "logs").iterdir())
    assert [event["reason"] for event in events if event["event"] == "died"] == ["signal 9 (SIGKILL)"]
    run(recipe, out, engine=Engine("slurm", sbatch=("--partition=none",)))  # nothing is left to do: no jobs are needed
    assert not cluster.elements("RUNNING,PENDING")


def test_the_command_and_its_options(cluster, once, tmp_path: Path) -> None:
    local = copied(once, tmp_path / "corpus")
    recipe, out = tmp_path / "corpus" / "recipe.yaml", tmp_path / "run"
    command = ["run", recipe, "--out", out, "--executor", "slurm"]
    options = ["--nodes", 2, "--workers", 2, "--memory", "500MB", "--watch", "--metrics", 0]
    headrace(*command, *options, "--sbatch", "--time=10", "--sbatch", "--comment=a comment")
    assert digest(out) == digest(local)
    refused = headrace("run", recipe, "--out", out, "--sbatch", "--time=10", check=False)
    assert (refused.returncode, "--executor slurm" in refused.stderr) == (2, True)
    with pytest.raises(UserError, match="Slurm does not take the job"):
        run(load_recipe(recipe), tmp_path / "other", engine=Engine("slurm", sbatch=("--time=never",)))


def test_a_run_in_an_object_store_with_its_mirror_on_the_shared_file_system(cluster, once, tmp_path, monkeypatch):
    local = copied(once, tmp_path / "corpus")
    server = Server()
    secret = "a-secret-that-nothing-writes-down"
    told = {"ENDPOINT_URL": server.url, "ACCESS_KEY_ID": "key", "SECRET_ACCESS_KEY": secret, "REGION": "us-east-1"}
    for name, value in told.items():
        monkeypatch.setenv(f"AWS_{name}", value)
    monkeypatch.setenv("AWS_ALLOW_HTTP", "true")
    monkeypatch.setenv("HEADRACE_CACHE", str(tmp_path / "cache"))
    url = f"s3://{server.bucket('bucket')}/run"
    try:
        run(load_recipe(tmp_path / "corpus" / "recipe.yaml"), url, workers=2, engine=Engine("slurm", nodes=2))
        assert headrace("digest", url).stdout == headrace("digest", local).stdout
    finally:
        server.close()
    files = [path for path in (tmp_path / "cache").rglob("*") if path.is_file()]
    assert files
    assert not [path for path in files if secret.encode() in path.read_bytes()]


def test_the_coordinator_in_a_job_of_its_own(cluster, once, tmp_path: Path) -> None:
    copied(once, tmp_path / "corpus")
    recipe, out = tmp_path / "corpus" / "recipe.yaml", tmp_path / "run"
    command = f"{HEADRACE} run {recipe} --out {out} --until documents --executor slurm --nodes 2 --workers 1"
    job = ["sbatch", "--wait", "--cpus-per-task=1", "--mem=1G", f"--output={tmp_path}/log", f"--wrap={command}"]
    done = subprocess.run(job, check=False)
    assert done.returncode == 0, (tmp_path / "log").read_text()
    assert all("node" in event for event in read_events(out) if event["event"] == "task")


MODEL = """
model: {layers: 1, width: 32, heads: 2, ffn: 48}
defaults: {train: {batch: 4, precision: fp32}}
"""


def test_a_stage_is_trained_on_two_nodes_by_srun(cluster, once, tmp_path: Path) -> None:
    copied(once, tmp_path / "corpus")
    recipe, out = tmp_path / "corpus" / "recipe.yaml", tmp_path / "run"
    recipe.write_text(recipe.read_text() + MODEL)
    headrace("run", recipe, "--out", out, "--until", "sequence-first", "--executor", "slurm", "--workers", 2)
    script = f"""#!/bin/bash
export MASTER_ADDR=127.0.0.1 MASTER_PORT=29517
srun {HEADRACE} train {out} --stage first
"""
    done = subprocess.run(
        ["sbatch", "--wait", "--nodes=2", "--ntasks-per-node=1", f"--output={tmp_path}/log"], input=script, text=True
    )
    told = (tmp_path / "log").read_text()
    assert done.returncode == 0, told
    assert "Stage first is trained." in told
    assert next((out / "artifacts").glob("model-first-*/manifest.json"), None) is not None
    [told] = [json.loads(path.read_text()) for path in out.rglob("training.json")]
    assert [span["processes"] for span in told["spans"]] == [2]
    headrace("run", recipe, "--out", out, "--executor", "slurm")  # the other stage, in one process of a node
    trained = {event["artifact"]: event.get("node") for event in read_events(out) if event["event"] == "task"}
    [second] = [node for name, node in trained.items() if name.startswith("model-second-")]
    assert second.startswith("n")
    assert (out / "report" / "index.html").exists()
