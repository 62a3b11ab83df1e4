"""``python -m bench [NAME ...]``: run benchmarks, each in a process of its own; write the table, JSON and plot."""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

HERE = Path(__file__).resolve().parent
THREADS = (
    "OMP_NUM_THREADS",
    "MKL_NUM_THREADS",
    "OPENBLAS_NUM_THREADS",
    "NUMBA_NUM_THREADS",
    "RAYON_NUM_THREADS",
    "POLARS_MAX_THREADS",
)


def options() -> argparse.Namespace:
    """The command line."""
    from bench.registry import BENCHMARKS

    parser = argparse.ArgumentParser(prog="python -m bench", description=__doc__)
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"all, or some of: {', '.join(BENCHMARKS)}")
    parser.add_argument("--json", action="store_true", help="print the rows as JSON instead of the table")
    parser.add_argument("--cores", type=int, help="processors to use; one and then all if not given")
    parser.add_argument("--rounds", type=int, default=3, help="how often ours and the peer take turns (3)")
    parser.add_argument("--mb", type=float, help="millions of bytes of text; if not given, each benchmark's own")
    parser.add_argument("--corpus", type=Path, help="a folder SOURCE/*.jsonl.zst to take the documents from")
    parser.add_argument("--work", type=Path, default=HERE.parent / "runs" / "bench", help="where to put what is made")
    parser.add_argument("--out", type=Path, default=HERE, help="folder of results.json, results.md and results.svg")
    chosen = parser.parse_args()
    unknown = [name for name in chosen.names if name not in BENCHMARKS]
    if unknown:
        parser.error(f"there is no benchmark {', '.join(unknown)}; choose from {', '.join(BENCHMARKS)}")
    return chosen


def run_one(
    name: str, cores: int, asked: argparse.Namespace, mb: float, corpus: Path
) -> tuple[list[dict[str, Any]], bool]:
    """The rows of one benchmark, and whether it came to its end."""
    # Whoever wants one core means the libraries too. Numba and Arrow read these when they are first imported.
    threads = dict.fromkeys(THREADS, str(cores)) | {"TOKENIZERS_PARALLELISM": "true" if cores > 1 else "false"}
    # This checkout's own code, wherever another may be installed.
    path = os.pathsep.join([str(HERE.parent / "src"), str(HERE.parent)])
    environment = {**os.environ, **threads, "PYTHONPATH": path, "HF_HUB_OFFLINE": "1"}
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder) / "rows.json"
        spec = {"name": name, "cores": cores, "rounds": asked.rounds, "mb": mb, "corpus": str(corpus)}
        spec |= {"work": str(asked.work.absolute()), "out": str(out), "free": name in ("scaling", "two-processes")}
        command = [sys.executable, "-m", "bench.child", json.dumps(spec)]
        done = subprocess.run(command, env=environment, stdout=sys.stderr)
        return (json.loads(out.read_text()) if out.exists() else []), done.returncode == 0


def main() -> int:
    """Run what was asked for; 1 if a benchmark failed, as one does whose results disagree."""
    from bench.corpus import prepare
    from bench.registry import BENCHMARKS
    from bench.table import merged, write

    asked = options()
    asked.work.mkdir(parents=True, exist_ok=True)
    every = len(os.sched_getaffinity(0))
    rows: list[dict[str, Any]] = []
    failed = []
    for name in asked.names or BENCHMARKS:
        benchmark = BENCHMARKS[name]
        mb = asked.mb or benchmark.mb
        corpus = prepare(asked.work, mb, asked.corpus)
        wanted = [asked.cores] if asked.cores else [*[1] * benchmark.one_core, *[every] * benchmark.all_cores]
        for cores in dict.fromkeys(wanted):
            print(f"{name}, {cores} core{'s' * (cores > 1)} ...", file=sys.stderr, flush=True)
            made, ended = run_one(name, cores, asked, mb, corpus)
            rows += made
            if not ended:
                failed.append(f"{name} on {cores}")
            write(merged(asked.out / "results.json", made), asked.out)
    if asked.json:
        print(json.dumps(rows, indent=1))
    else:
        print((asked.out / "results.md").read_text())
    if failed:
        print(f"failed: {', '.join(failed)}", file=sys.stderr)
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
