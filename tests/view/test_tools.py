"""The pages as tools for programs, asked by the protocol's own client over a process's standard input and output."""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
from pathlib import Path

import orjson
import pytest
from mcp import Client
from mcp.client.stdio import StdioServerParameters

from headrace.view.registry import PAGES
from headrace.view.target import Target
from headrace.view.tools import fitting, tool_server

HEADRACE = str(Path(sys.executable).with_name("headrace"))


def test_a_program_asks_a_process(viewed, target, client):
    """What it answers is the JSON of the pages."""

    async def ask() -> None:
        process = StdioServerParameters(command=HEADRACE, args=["view", str(viewed), "--mcp"], env=dict(os.environ))
        async with Client(process) as server:
            tools = {tool.name: tool for tool in (await server.list_tools()).tools}
            served = {page.name: page for page in PAGES if page.serves(target)}
            assert tools.keys() == served.keys()
            for name, tool in tools.items():
                assert tool.description == served[name].page.about
                assert tool.annotations.read_only_hint
                assert tool.input_schema["type"] == "object"
                assert tool.input_schema["additionalProperties"] is False
            answer = await server.call_tool("overview", {})
            assert not answer.is_error
            told, page = orjson.loads(answer.content[0].text), client.get("/?format=json").json()
            assert told["sources"] == page["sources"]
            assert told["stages"] == page["stages"]
            row = await server.call_tool("sequence", {"stage": "stage2", "row": 1, "view": "text"})
            assert orjson.loads(row.content[0].text)["rows"][0]["row"] == 1

    asyncio.run(ask())


def test_mistakes_are_told(target):
    async def ask() -> None:
        async with Client(tool_server(Target(target.path))) as server:
            for name, arguments, said in (
                ("document", {"row": 10**9}, "There is no document"),
                ("document", {"row": -1}, "row: Input should be greater than or equal to 0"),
                ("document", {}, "row: Field required"),
                ("documents", {"zz": 1}, "zz: Extra inputs are not permitted"),
                ("removed", {"reason": "no such"}, "Nothing was removed for 'no such'"),
                ("query", {"sql": "DROP TABLE documents"}, "Only a single SELECT is answered"),
                ("no such", {}, "There is no tool 'no such'"),
            ):
                answer = await server.call_tool(name, arguments)
                assert answer.is_error, name
                assert said in answer.content[0].text

    asyncio.run(ask())


def test_answers_are_cut_where_they_are_long():
    value = {"rows": [{"text": "x" * 5000, "n": i} for i in range(400)], "few": [1, 2, 3], "word": "short"}
    told = fitting(orjson.dumps(value), 20_000)
    assert len(told) <= 20_000
    cut = orjson.loads(told)
    assert cut["few"] == [1, 2, 3]
    assert cut["word"] == "short"
    assert cut["rows"][0]["n"] == 0
    assert cut["rows"][-1].endswith("more)")
    assert "characters more" in cut["rows"][0]["text"]
    assert fitting(b'{"a": [1, 2]}') == '{"a": [1, 2]}'


def test_without_the_package_it_is_told(viewed):
    code = "import sys; sys.modules['mcp'] = None; from headrace.cli import main; main()"
    done = subprocess.run([sys.executable, "-c", code, "view", viewed, "--mcp"], capture_output=True, text=True)
    assert done.returncode == 2
    assert "needs the package mcp" in done.stderr
    assert "pip install 'headrace[view]'" in done.stderr


@pytest.mark.parametrize("options", [["--mcp", "--export", "out"]])
def test_one_way_to_view(viewed, options):
    done = subprocess.run([HEADRACE, "view", viewed, *options], capture_output=True, text=True)
    assert done.returncode == 2
    assert "Choose one of them" in done.stderr
