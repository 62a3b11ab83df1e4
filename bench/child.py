"""One benchmark in a process of its own, with its processors and threads limited before anything is imported."""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path


def main(arguments: list[str]) -> None:
    """Run what a JSON object asks for and write the rows to its ``out``."""
    asked = json.loads(arguments[0])
    allowed = sorted(os.sched_getaffinity(0))
    # The scaling benchmark gives one and two processors to its workers in turn.
    os.sched_setaffinity(0, allowed[-asked["cores"] :] if not asked["free"] else allowed)
    from bench.harness import Setting
    from bench.registry import runner

    setting = Setting(asked["cores"], asked["rounds"], asked["mb"], Path(asked["corpus"]), Path(asked["work"]))
    rows = []
    for row in runner(asked["name"])(setting):
        rows.append(row.to_json())
        Path(asked["out"]).write_text(json.dumps(rows))


if __name__ == "__main__":
    main(sys.argv[1:])
