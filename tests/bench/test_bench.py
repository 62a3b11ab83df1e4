"""Every benchmark runs from end to end on little text, agrees with its peer, and gives rows of the right form."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT))

from bench.harness import DisagreementError, Setting, Side, compare, require  # noqa: E402
from bench.registry import BENCHMARKS  # noqa: E402
from bench.table import markdown, merged, plot  # noqa: E402

FIELDS = {"name", "peer", "ours", "theirs", "unit", "ratio", "target", "cores", "versions"}
GPU = Path("/dev/nvidia0").exists()
PEERS = ("datasketch", "rensa", "datatrove", "tiktoken", "litdata")


def check_rows(rows):
    assert rows
    for row in rows:
        assert row.keys() >= FIELDS
        assert isinstance(row["name"], str)
        assert row["ours"] > 0
        assert row["cores"] >= 1
        assert row["versions"]["headrace"]
        if row["ratio"] is not None:
            assert 0 < row["ratio"]["min"] <= row["ratio"]["median"] <= row["ratio"]["max"]
        elif row["peer"] is not None:
            assert row["note"].startswith("unavailable")


@pytest.fixture
def setting(tmp_path):
    return Setting(1, 2, 1.0, tmp_path, tmp_path)


def slow_sum(n):
    return sum(range(n))


def test_a_comparison_gives_a_row_with_all_its_fields(setting):
    ours, theirs = Side(lambda: slow_sum(100_000), 1), Side(lambda: slow_sum(400_000), 1)
    row = compare(setting, "sums", "datasketch", "MB/s", ours, theirs, 2).to_json()
    check_rows([row])
    assert json.loads(json.dumps(row)) == row
    assert row["met"] in (True, False)


def test_a_wrong_answer_fails(setting):
    ours, theirs = Side(lambda: 1, 1), Side(lambda: 2, 1)
    with pytest.raises(DisagreementError, match="not equal"):
        compare(setting, "n", None, "s", ours, theirs, agree=lambda a, b: require(a == b, "not equal"))


def test_rows_of_a_second_run_take_the_place_of_the_first(setting, tmp_path):
    row = compare(setting, "decode", None, "s", Side(lambda: slow_sum(1000), 1), None).to_json()
    path = tmp_path / "results.json"
    path.write_text(json.dumps([row, {**row, "cores": 2}]))
    rows = merged(path, [{**row, "ours": 7.0}])
    assert [(r["ours"], r["cores"]) for r in rows] == [(7.0, 1), (row["ours"], 2)]


def test_the_table_and_the_plot_show_every_row(setting):
    ours, theirs = Side(lambda: slow_sum(1000), 1), Side(lambda: slow_sum(2000), 1)
    rows = [compare(setting, f"<{i}>", "datasketch", "s", ours, theirs, 3).to_json() for i in range(3)]
    assert markdown(rows).count("\n") == 5
    assert all(f"&lt;{i}&gt;" in plot(rows) for i in range(3))


@pytest.mark.slow
@pytest.mark.parametrize("name", BENCHMARKS)
def test_every_benchmark_runs(name, tmp_path_factory):
    missing = [peer for peer in PEERS if find_spec(peer) is None]
    if missing:
        pytest.skip(f"the bench extra is not installed: no {', '.join(missing)}")
    base = tmp_path_factory.getbasetemp()
    command = [sys.executable, "-m", "bench", name, "--json", "--cores", "1", "--rounds", "1", "--mb", "2"]
    command += ["--work", str(base / "bench-work"), "--out", str(base / "bench-out")]
    done = subprocess.run(command, cwd=ROOT, env=os.environ, capture_output=True, text=True, timeout=580)
    assert done.returncode == 0, done.stderr
    rows = json.loads(done.stdout)
    if name.endswith("-gpu") and not GPU:
        assert rows == []
    elif name not in ("scaling", "two-processes") or len(os.sched_getaffinity(0)) > 1:
        check_rows(rows)
    assert (base / "bench-out" / "results.svg").read_text().startswith("<svg")
