"""Reading batches of a sequence at a URL: from an empty cache, and from the cache against the same files in a folder.

The store is moto's S3 server in a process of its own, so what an empty cache costs says more of that server than of a
store; requests are what counts there.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from bench.built import sequence
from bench.harness import Result, Setting, Side, compare, result
from bench.loader import BATCH, consume
from headrace.flow.artifact import MANIFEST, Artifact
from headrace.flow.mirror import Mirror
from headrace.sequence.loader import Loader

GOAL = 100  # M tokens/s once cached
SERVER = """
import sys, time
from moto.server import ThreadedMotoServer
server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
server.start()
print(server.get_host_and_port()[1], flush=True)
sys.stdin.read()
"""


@contextmanager
def bucket(cache: Path) -> Iterator[str]:
    """A bucket on a server on loopback; yields its URL."""
    server = subprocess.Popen(
        [sys.executable, "-c", SERVER],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
    )
    try:
        assert server.stdout is not None
        endpoint = f"http://127.0.0.1:{int(server.stdout.readline())}"
        keys = {"AWS_ACCESS_KEY_ID": "none", "AWS_SECRET_ACCESS_KEY": "none", "AWS_REGION": "us-east-1"}
        os.environ.update({**keys, "AWS_ENDPOINT_URL": endpoint, "HEADRACE_CACHE": str(cache)})
        urllib.request.urlopen(urllib.request.Request(f"{endpoint}/bench", method="PUT")).close()
        yield "s3://bench"
    finally:
        server.kill()
        server.wait()


def upload(artifact: Artifact, url: str) -> str:
    """Copy a sequence to a store; returns its URL."""
    remote = Mirror.at(url).remote
    for name in (*(str(entry["name"]) for entry in artifact.entries), MANIFEST):
        remote.put(f"artifacts/{artifact.path.name}/{name}", artifact.path / name)
    return f"{url}/artifacts/{artifact.path.name}"


def measure(setting: Setting, artifact: Artifact) -> Iterator[Result]:
    """The rates of one sequence."""
    amount = artifact.rows * (artifact.manifest.extra["seq_len"] + 1) / 1e6
    cache = setting.work / "mirrors"
    shutil.rmtree(cache, ignore_errors=True)
    with bucket(cache) as url:
        place = upload(artifact, f"{url}/run")
        began = time.perf_counter()
        consume(batch.tokens for batch in Loader(place, BATCH, drop_last=False))
        first = amount / (time.perf_counter() - began)
        yield result(setting, "loader at a URL, nothing cached", None, "M tokens/s", [first], None)
        ours = Side(lambda: consume(batch.tokens for batch in Loader(place, BATCH, drop_last=False)), amount)
        local = Side(lambda: consume(b.tokens for b in Loader(artifact.path, BATCH, drop_last=False)), amount)
        yield compare(setting, "loader at a URL, cached", "itself in a folder", "M tokens/s", ours, local, GOAL, "ours")


def run(setting: Setting) -> Iterator[Result]:
    """A stage's sequence."""
    yield from measure(setting, sequence(setting))
