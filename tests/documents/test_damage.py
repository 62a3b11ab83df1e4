"""Damaged tables: no process is ended by one that a run does not see, and every row is accounted for."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import mutants
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from documents_graph import build
from reading_helpers import listed

from headrace.documents.crashes import crashing_parts
from headrace.documents.readers.base import Part
from headrace.errors import UserError


@pytest.fixture(autouse=True)
def _workers_find_the_graph(monkeypatch):
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(Path(__file__).parent), *filter(None, sys.path)]))


def fates(folder: Path) -> tuple[dict[str, dict], list[str]]:
    """What became of the rows of each file, and the files that ended the process that read them."""
    found: dict[str, dict] = {}
    killers: list[str] = []
    while True:
        done = subprocess.run(
            [sys.executable, mutants.__file__, str(folder), *[*found, *killers][-1:]], capture_output=True, text=True
        )
        lines = [json.loads(line) for line in done.stdout.splitlines()]
        found |= {name["file"]: said for name, said in zip(lines[::2], lines[1::2], strict=False)}
        if done.returncode == 0:
            return found, killers
        assert done.returncode < 0, done.stderr
        killers.append(lines[-1]["file"])


SEVERAL = pytest.param(1000, marks=[pytest.mark.slow, pytest.mark.timeout(900)])


@pytest.mark.parametrize("count", [60, SEVERAL])
@pytest.mark.parametrize("kind", ["file", "stream", "parquet"])
def test_mutants(tmp_path, kind, count):
    mutants.mutants(tmp_path, kind, count, seed=count)
    found, killers = fates(tmp_path)
    assert len(found) + len(killers) == count
    # Of Parquet's footer pyarrow follows more than it checks; a run reads such files in a process of their own.
    assert len(killers) <= (count // 200 if kind == "parquet" else 0)
    for name, said in found.items():
        assert (
            said["error"] or said["lost_bytes"] or said["documents"] + said["bad"] + said["lost_rows"] == mutants.ROWS
        ), name


@pytest.fixture
def killer(tmp_path) -> Path:
    """A file at which pyarrow ends the process: a column whose histogram of levels has too few entries."""
    path = tmp_path / "killer.parquet"
    pq.write_table(pa.table({"text": ["x"] * 10, "list": [[1]] * 10}), path, compression="none")
    data = path.read_bytes()
    # SizeStatistics, field 3: definition_level_histogram, a list of four int64 for a list of nullable numbers.
    at = data.rindex(b"\x46\x00\x00\x00\x14")
    length = int.from_bytes(data[-8:-4], "little") - 1
    path.write_bytes(data[:at] + b"\x36\x00\x00\x14" + data[at + 5 : -8] + length.to_bytes(4, "little") + b"PAR1")
    return path


def test_a_file_that_ends_its_reader_is_lost_and_the_others_are_read(tmp_path, killer):
    pq.write_table(pa.table({"text": [f"text {i}" for i in range(100)]}), tmp_path / "a.parquet")
    pq.write_table(pa.table({"text": [f"other {i}" for i in range(100)]}), tmp_path / "z.parquet")
    file, source = listed(killer)
    (why,) = crashing_parts(source, [(file, Part())]).values()
    assert "SIGABRT" in why
    given = {"s": {"files": f"{tmp_path}/*.parquet"}}
    made = [build(tmp_path / f"run{n}", given, workers=n, max_quarantined=1) for n in (1, 2)]
    counts = made[0].manifest.counts["s"]
    assert (counts["documents"], counts["lost_bytes"]) == (200, killer.stat().st_size)
    assert made[0].manifest.to_json() == made[1].manifest.to_json()
    with pytest.raises(UserError, match=r"killer\.parquet.*ends the process: signal 6"):
        build(tmp_path / "strict", given)


@pytest.mark.parametrize("name", ["probe-segv.arrow", "probe-neg.arrow"])
def test_files_that_ended_a_reader(tmp_path, shared, name):
    path = shared / "cases" / name
    if not path.exists():
        pytest.skip("no such case")
    with pytest.raises(UserError, match=rf"its files are damaged: {name}.*200 rows lost"):
        build(tmp_path / "run", {"s": {"files": str(path)}})
