"""The constants of ``headrace plan``, taken from what was measured.

    python -m bench steps                            what each step costs, into bench/results.json
    python -m bench.scale ... > FILE                 the deduplication index at size
    python -m bench.rates [--results F] [--scale F]  both into planning/rates.yaml, docs/planning.md, performance.md

Constants for which the files have no row keep what they have.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Any

import yaml

from bench.table import checked, compared, markdown
from headrace.planning.forecast import plan
from headrace.planning.plan import reckoning
from headrace.planning.rates import FILE, Figure, figures
from headrace.planning.text import span
from headrace.recipe.load import load_recipe
from headrace.report.numbers import short, size

ROOT = Path(__file__).resolve().parents[1]
PERFORMANCE, PLANNING = ROOT / "docs" / "performance.md", ROOT / "docs" / "planning.md"
CLEANING, TOKENS = ROOT / "recipes" / "slimpajama.yaml", ROOT / "recipes" / "slimpajama-tokens.yaml"
_NFC, _FAST = "documents.normalise=nfc", "deduplicate.near.signature=fast"
WAYS: tuple[tuple[str, Path, tuple[str, ...]], ...] = (
    ("cleaned as published: ftfy, `signature: datasketch`", CLEANING, ()),
    ("NFC instead of ftfy", CLEANING, (_NFC,)),
    ("NFC, `signature: fast`", CLEANING, (_NFC, _FAST)),
    ("NFC, `signature: fast`, `verify: true`", CLEANING, (_NFC, _FAST, "deduplicate.near.verify=true")),
    ("cleaned as published, tokenized, one shuffled pass", TOKENS, ()),
    ("NFC, `signature: fast`, tokenized, one shuffled pass", TOKENS, (_NFC, _FAST)),
)

# Constant -> the row of bench/results.json that sets it, its unit, and how many of it one of the row is.
ROWS = {
    "documents": ("step, documents", "bytes/s", 1e6),
    "documents-ftfy": ("step, documents, ftfy", "bytes/s", 1e6),
    "measures": ("step, measures", "bytes/s", 1e6),
    "signatures": ("step, signatures", "bytes/s", 1e6),
    "signatures-datasketch": ("step, signatures, datasketch", "bytes/s", 1e6),
    "contamination": ("step, contamination", "bytes/s", 1e6),
    "verify": ("step, verify", "bytes/s", 1e6),
    "tokens": ("step, tokens", "bytes/s", 1e6),
    "sequence": ("step, sequence", "tokens/s", 1e6),
    "rearranged": ("step, rearranged", "tokens/s", 1e6),
    "disk-measures": ("disk, measures", "bytes a document", 1),
    "disk-duplicates": ("disk, duplicates", "bytes a document", 1),
    "disk-contamination": ("disk, contamination", "bytes a document", 1),
    "disk-verdicts": ("disk, verdicts", "bytes a document", 1),
    "disk-segments": ("disk, segments", "bytes a row", 1),
    "memory-worker": ("memory, a worker", "bytes a worker", 1e6),
}
# Constant -> the phases of bench.scale that it counts, and whether workers share them.
PHASES = {
    "candidates": (("duplicates edges", "duplicates exact", "duplicates publish"), True),
    "components": (("duplicates components",), False),
    "verdicts": (("verdicts filter", "verdicts deduplicate", "verdicts publish"), True),
}
HEADER = """\
# Constants of `headrace plan`: rates of one core, bytes on disk, bytes in memory, each with its source.
# Written by `python -m bench.rates`; docs/planning.md has the same table, and a test compares them.
"""


def from_results(rows: list[dict[str, Any]]) -> Iterator[tuple[str, Figure]]:
    """The constants that rows of the benchmarks set."""
    by_name = {row["name"]: row for row in rows}
    for name, (row, unit, scale) in ROWS.items():
        if row in by_name:
            note = by_name[row]["note"]
            yield name, Figure(rounded(by_name[row]["ours"] * scale), unit, f"`bench steps`: {row} ({note})")


def from_scale(points: list[dict[str, Any]]) -> Iterator[tuple[str, Figure]]:
    """The constants that the largest run of ``bench.scale`` sets."""
    if not points:
        return
    point = max(points, key=lambda each: int(each["documents"]))
    documents, workers = point["documents"], point["workers"]
    for name, (phases, shared) in PHASES.items():
        seconds = sum(point["phases"][phase] for phase in phases) * (workers if shared else 1)
        where = f"{documents:,} documents, {workers} worker{'s' if workers > 1 else ''}, wall time"
        yield name, Figure(rounded(documents / seconds), "documents/s", f"`bench.scale`: {where}")


def rounded(value: float) -> float:
    """Three figures: more would say what was not measured."""
    return float(f"{value:.3g}")


def table(values: dict[str, Figure]) -> str:
    """The constants as they stand in the documentation."""
    lines = ["| constant | value | unit | set by |", "|---|--:|---|---|"]
    for name, figure in values.items():
        lines.append(f"| `{name}` | {short(figure.value)} | {figure.unit} | {figure.source} |")
    return "\n".join(lines)


def steps_table() -> str:
    """SlimPajama step by step, to the sequence."""
    made = plan(load_recipe(TOKENS), workers=1)
    lines = ["| step | amount | rate per core | core-hours |", "|---|--:|--:|--:|"]
    lines += [f"| {' | '.join(reckoning(work))} |" for work in made.work]
    return "\n".join(lines)


def cores_table() -> str:
    """SlimPajama in several ways, on several numbers of cores."""
    cores = (1, 16, 64)
    head = ["", "core-hours", *(f"{n} core{'s' * (n > 1)}" for n in cores), "disk at once", "memory, 64 workers"]
    lines = [f"| {' | '.join(head)} |", f"|---{'|--:' * (len(head) - 1)}|"]
    for what, path, overrides in WAYS:
        made = [plan(load_recipe(path, overrides), workers=n) for n in cores]
        hours = sum(work.core_seconds for work in made[0].work) / 3600
        cells = [f"{hours:,.0f}", *(span(each.seconds) for each in made)]
        cells += [size(made[0].disk_peak), size(made[-1].memory.total)]
        lines.append(f"| {what} | {' | '.join(cells)} |")
    return "\n".join(lines)


def replaced(text: str, name: str, body: str) -> str:
    """A page with what stands between two marks replaced."""
    begin, end = f"<!-- {name}: written by python -m bench.rates -->", f"<!-- end of {name} -->"
    before, rest = text.split(begin)
    return f"{before}{begin}\n\n{body}\n\n{end}{rest.split(end)[1]}"


def page_of(text: str, values: dict[str, Figure]) -> str:
    """The page on planning as it should be: constants, steps and cores."""
    for name, body in (("rates", table(values)), ("steps", steps_table()), ("cores", cores_table())):
        text = replaced(text, name, body)
    return text


def told(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """The rows that the page on performance has: on one core, and what a second worker gives to whole steps."""
    whole = [row for row in compared(rows) if row["cores"] == 1 or row["name"].startswith("scaling")]
    return [row for row in whole if not row["name"].endswith("M documents")]


def read_points(path: Path) -> list[dict[str, Any]]:
    """Runs of ``bench.scale``: a JSON list, or one JSON object a line as the program prints them."""
    if not path.exists():
        return []
    text = path.read_text(encoding="utf-8").strip()
    return json.loads(text) if text.startswith("[") else [json.loads(line) for line in text.splitlines()]


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(prog="python -m bench.rates", description=__doc__.split("\n")[0])
    parser.add_argument("--results", type=Path, default=ROOT / "bench" / "results.json")
    parser.add_argument("--scale", type=Path, default=ROOT / "bench" / "scale.json")
    options = parser.parse_args()
    values = dict(figures())
    rows = json.loads(options.results.read_text(encoding="utf-8"))
    values |= from_results(rows)
    values |= from_scale(read_points(options.scale))
    entries = {name: asdict(figure) for name, figure in values.items()}
    body = yaml.safe_dump(entries, sort_keys=False, width=1000, allow_unicode=True)
    FILE.write_text(HEADER + body, encoding="utf-8")
    figures.cache_clear()
    results = f"{markdown(told(rows))}\n{checked(rows)}".strip()
    PERFORMANCE.write_text(replaced(PERFORMANCE.read_text(encoding="utf-8"), "results", results), encoding="utf-8")
    PLANNING.write_text(page_of(PLANNING.read_text(encoding="utf-8"), values), encoding="utf-8")


if __name__ == "__main__":
    main()
