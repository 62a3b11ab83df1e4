"""Every example of docs/extending.md as a reader would try it, and the notebook as its kernel runs it."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path

from commands import HEADRACE

DOCS = Path(__file__).parents[2] / "docs"

# Cells are compiled under a name whose text Python's cache of lines knows, as Jupyter's kernel does.
KERNEL = """
import json, linecache, sys
for number, cell in enumerate(json.load(open(sys.argv[1]))["cells"]):
    if cell["cell_type"] == "code":
        text, name = "".join(cell["source"]), f"<cell {number}>"
        linecache.cache[name] = (len(text), None, text.splitlines(keepends=True), name)
        exec(compile(text, name, "exec"), globals())
"""


def test_every_example_of_the_page(tmp_path: Path) -> None:
    blocks = re.findall(r"^```(\w+)\n(.*?)^```$", (DOCS / "extending.md").read_text(), re.M | re.S)
    said = ""
    told = files = 0
    for kind, body in blocks:
        first, _, rest = body.partition("\n")
        if re.fullmatch(r"# [\w.]+\.\w+", first):
            (tmp_path / first[2:]).write_text(rest)
            files += 1
        elif kind == "sh":
            said = ""
            for command in body.splitlines():
                name, *arguments = command.split()
                tool = {"headrace": HEADRACE, "python": sys.executable}[name]
                done = subprocess.run([tool, *arguments], cwd=tmp_path, capture_output=True, text=True, timeout=300)
                assert done.returncode == 0, (command, done.stdout, done.stderr)
                said += done.stdout
        else:
            assert kind == "text"
            for line in body.splitlines():
                assert line.replace("${folder}", str(tmp_path)) in said
                told += 1
    assert (files, told) == (8, 6)


def test_the_notebook(tmp_path: Path) -> None:
    notebook = DOCS / "notebooks" / "extending.ipynb"
    assert not any(cell.get("outputs") for cell in json.loads(notebook.read_text())["cells"])
    command = [sys.executable, "-c", KERNEL, str(notebook)]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    assert re.search(r"^decoder\.py kept", done.stdout, re.M), done.stdout
    assert re.search(r"^__init__\.py filter:has_a_class .*'has_a_class': False", done.stdout, re.M), done.stdout
    assert "WORD = __import__('re').compile('[A-Za-z]+', 32)" in done.stdout
