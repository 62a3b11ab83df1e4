"""A sequence at a URL: opened and read anywhere in two requests, from the cache ever after, also by forked workers."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import numpy as np
import pytest

from headrace import open_run, open_sequence
from headrace.flow.mirror import Mirror
from headrace.run_folder import stage_sequence
from headrace.sequence.loader import Loader
from object_store import Proxy, Server, environment

sys.path.insert(0, str(Path(__file__).parents[1] / "report"))

import small_pipeline


@pytest.fixture(scope="module")
def there(once, tmp_path_factory):
    """A run at a URL, and the same in a folder: its files were copied there as the storage's own tools would."""
    pytest.importorskip("obstore")
    folder = once("tiny", lambda made: small_pipeline.build(made / "corpus")) / "corpus" / "run"
    server = Server()
    server.bucket("bucket")
    proxy = Proxy(server.host, server.port)
    with environment(proxy.url, HEADRACE_CACHE=str(tmp_path_factory.mktemp("cache"))):
        remote = Mirror.at("s3://bucket/runs/x").remote
        for path in folder.rglob("*"):
            if path.is_file() and not any(part.startswith(".") for part in path.relative_to(folder).parts):
                remote.put(path.relative_to(folder).as_posix(), path)
        yield proxy, folder
    proxy.close()
    server.close()


@pytest.fixture
def empty_cache(monkeypatch, tmp_path):
    monkeypatch.setenv("HEADRACE_CACHE", str(tmp_path / "cache"))


def test_a_row_anywhere_takes_two_requests(there, empty_cache):
    proxy, folder = there
    expected = stage_sequence(folder, "second")
    proxy.asked.clear()
    sequence = open_sequence(f"s3://bucket/runs/x/artifacts/{expected.artifact.path.name}")
    row = len(sequence) - 1
    assert (sequence.rows(row, row + 1) == expected.rows(row, row + 1)).all()
    assert [one.path.split("/")[-1] for one in proxy.asked] == ["manifest.json", expected.artifact.shards[-1]["name"]]
    again = open_sequence(f"s3://bucket/runs/x/artifacts/{expected.artifact.path.name}")
    assert (again.rows(0, len(again)) == expected.rows(0, len(expected))).all()
    assert len(proxy.asked) <= 1 + len(expected.artifact.shards), "each file comes once"


def test_the_loader_gives_the_same_batches(there, empty_cache):
    _, folder = there
    name = stage_sequence(folder, "second").artifact.path.name
    for ours, theirs in zip(
        Loader(f"s3://bucket/runs/x/artifacts/{name}", 4), Loader(folder / "artifacts" / name, 4), strict=True
    ):
        assert (np.asarray(ours.tokens) == np.asarray(theirs.tokens)).all()


def test_a_forked_worker_reads_what_its_parent_opened(there, empty_cache):
    _, folder = there
    expected = stage_sequence(folder, "second")
    sequence = open_sequence(f"s3://bucket/runs/x/artifacts/{expected.artifact.path.name}")
    child = os.fork()
    if child == 0:
        code = 1
        try:
            code = int((sequence.rows(0, 1) != expected.rows(0, 1)).any())
        finally:
            os._exit(code)
    assert os.waitpid(child, 0)[1] == 0


def test_a_run_at_a_url_is_opened(there, empty_cache):
    _, folder = there
    opened = open_run("s3://bucket/runs/x")
    assert opened.stages == ["first", "second"]
    assert {one["state"] for one in opened.status()["artifacts"]} == {"done"}
    assert len(opened.documents()) == len(open_run(folder).documents())
    sequence = open_sequence("s3://bucket/runs/x", "first")
    assert sequence.fingerprint == stage_sequence(folder, "first").fingerprint
