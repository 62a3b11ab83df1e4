"""The first page waits for nothing that only others need."""

from __future__ import annotations

import subprocess
import sys

import orjson
import pytest

# Packages that take a tenth of a second and more, or much memory, and modules of pages that nobody has asked for.
HEAVY = ("duckdb", "h5py", "jinja2", "mcp", "pandas", "pyarrow.dataset", "pyarrow.flight", "scipy.stats", "torch")
OTHERS = ("copied", "compare", "corpus", "document", "documents", "query", "removed", "sequence", "stage", "stages")

# The server's own modules, then the page as a browser asks for it.
ASK = """
import asyncio, sys
from pathlib import Path
import orjson
from headrace.view import server
from headrace.view.target import Target

async def ask(application, path):
    sent = []
    async def receive():
        return {"type": "http.request", "body": b"", "more_body": False}
    async def send(message):
        sent.append(message)
    scope = {"type": "http", "method": "GET", "path": path, "raw_path": path.encode(), "query_string": b"",
             "headers": [(b"host", b"localhost")], "http_version": "1.1", "scheme": "http", "root_path": "",
             "client": ("127.0.0.1", 1), "server": ("localhost", 80)}
    await application(scope, receive, send)
    return sent[0]["status"], sum(len(one.get("body", b"")) for one in sent)

target = Target(Path(sys.argv[1]))
server.without_pandas(target.recipe)
application = server.application(target)
status, size = asyncio.run(ask(application, "/"))
first = sorted(sys.modules)
later, _ = asyncio.run(ask(application, "/corpus"))
sys.stdout.buffer.write(orjson.dumps({"status": status, "size": size, "first": first, "later": later,
                                      "modules": sorted(sys.modules)}))
"""


@pytest.fixture(scope="module")
def asked(viewed):
    done = subprocess.run([sys.executable, "-c", ASK, viewed], capture_output=True, check=True)
    return orjson.loads(done.stdout)


def test_it_imports_nothing_heavy_that_it_does_not_need(asked):
    assert asked["status"] == 200
    assert asked["size"] > 5000
    assert not set(HEAVY) & set(asked["first"])


def test_it_imports_no_other_page(asked):
    assert "headrace.view.pages.overview" in asked["first"]
    assert not {f"headrace.view.pages.{name}" for name in OTHERS} & set(asked["first"])
    assert not {"headrace.planning", "headrace.view.sql", "headrace.view.publish"} & set(asked["first"])


def test_what_is_heavy_comes_with_the_page_that_needs_it(asked):
    """Else the names above might be misspelled."""
    assert asked["later"] == 200
    assert {"duckdb", "headrace.view.pages.corpus", "headrace.view.sql"} <= set(asked["modules"])
