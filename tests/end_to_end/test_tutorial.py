"""The tutorial, block by block as a reader would type it."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

PAGE = Path(__file__).parents[2] / "docs" / "tutorial.md"


def test_the_tutorial_works_as_it_stands(tmp_path: Path) -> None:
    blocks = re.findall(r"```(sh|python)\n(.*?)```", PAGE.read_text(encoding="utf-8"), flags=re.DOTALL)
    assert len(blocks) == 7
    env = os.environ | {"PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"}
    said = []
    for language, code in blocks:
        command = ["sh", "-euc", code] if language == "sh" else [sys.executable, "-c", code]
        done = subprocess.run(command, cwd=tmp_path, env=env, capture_output=True, text=True)
        assert done.returncode == 0, f"{code}\n{done.stdout}\n{done.stderr}"
        said.append(done.stdout)
    _, _, plan, run, looked, _, batch = said
    assert "read: " in plan
    assert "report" in run
    assert "duplicate" in looked
    assert "json/decoder.py" in looked  # the copy that was kept
    assert "(8, 129) (8, 128)" in batch
