"""The results as a table and a plot."""

from __future__ import annotations

import json
import math
from html import escape
from pathlib import Path
from typing import Any

Row = dict[str, Any]

_WIDTH, _LINE, _LEFT, _TOP = 960, 22, 500, 46


def merged(path: Path, made: list[Row]) -> list[Row]:
    """The rows of a file with those of the same benchmark, peer and cores replaced."""
    old: list[Row] = json.loads(path.read_text()) if path.exists() else []
    new = {_key(row): row for row in made}
    kept = [new.pop(_key(row), row) for row in old]
    return sorted([*kept, *new.values()], key=lambda row: (_order(row["name"]), row["cores"]))


def write(rows: list[Row], folder: Path) -> None:
    """Write results.json, results.md and results.svg."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "results.json").write_text(json.dumps(rows, indent=1, ensure_ascii=False) + "\n")
    (folder / "results.md").write_text(markdown(rows))
    (folder / "results.svg").write_text(plot(rows))


def _key(row: Row) -> tuple[str, str | None, int]:
    return row["name"], row["peer"], row["cores"]


def _order(name: str) -> int:
    from bench.registry import BENCHMARKS

    starts = [*BENCHMARKS]
    return next((i for i, start in reversed([*enumerate(starts)]) if name.startswith(start)), len(starts))


def number(value: float | None) -> str:
    """Three significant digits."""
    if value is None:
        return ""
    digits = 0 if value == 0 else max(0, 2 - math.floor(math.log10(abs(value))))
    return f"{value:,.{min(digits, 4)}f}"


def compared(rows: list[Row]) -> list[Row]:
    """The rows that compare speeds; the others check something or set a constant of ``headrace plan``."""
    return [
        row for row in rows if not row["name"].startswith(("equality", "pathological", "step,", "disk,", "memory,"))
    ]


def checked(rows: list[Row]) -> str:
    """What the rows that check come to, in words."""
    equal = [row for row in rows if row["name"].startswith("equality")]
    awkward = [row for row in rows if row["name"].startswith("pathological")]
    lines = []
    if equal:
        size = sum(row["ours"] for row in equal if row["met"])
        tokenizers = len({row["name"].split(":")[0] for row in equal})
        lines.append(f"- **Equal tokens**: {number(size)} MB of texts with {tokenizers} tokenizers, 0 differences.\n")
    if awkward:
        worst = min(awkward, key=lambda row: float(row["ratio"]["median"]))
        name, times = worst["name"].removeprefix("pathological, "), 1 / worst["ratio"]["median"]
        lines.append(
            f"- **Pathological texts**: the slowest of {len(awkward)} takes {times:.1f} times as long a byte as "
            f"ordinary text ({name}); 20 are allowed.\n"
        )
    return "".join(lines)


def markdown(rows: list[Row]) -> str:
    """The table, one row a comparison."""
    head = "| benchmark | cores | ours | peer | theirs | times better | target | |\n|---|--:|--:|---|--:|--:|--:|---|\n"
    lines = []
    for row in rows:
        ratio = row["ratio"]
        times = f"{number(ratio['median'])} ({number(ratio['min'])} to {number(ratio['max'])})" if ratio else ""
        sign = "" if row["target_of"] == "ratio" else " " + row["unit"]
        target = f"{number(row['target'])}{sign or 'x'}" if row["target"] is not None else ""
        met = {True: "met", False: "missed", None: ""}[row["met"]]
        if row["note"].startswith("unavailable"):
            met = "peer unavailable"
        ours = f"{number(row['ours'])} {row['unit']}"
        theirs = f"{number(row['theirs'])}" if row["theirs"] is not None else ""
        cells = [row["name"], str(row["cores"]), ours, row["peer"] or "", theirs, times, target, met]
        lines.append(f"| {' | '.join(cells)} |\n")
    return head + "".join(lines)


def plot(rows: list[Row]) -> str:
    """How many times better ours is, on a logarithmic axis: a bar from 1 to the median, a tick where the target is."""
    shown = [row for row in compared(rows) if row["ratio"]]
    most = max([10.0, *(max(row["ratio"]["max"], row["target"] or 1) for row in shown)])
    decades = math.ceil(math.log10(most))
    scale = (_WIDTH - _LEFT - 70) / decades

    def x(value: float) -> float:
        return _LEFT + scale * max(0.0, math.log10(max(value, 1e-9)))

    height = _TOP + _LINE * len(shown) + 12
    out = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {_WIDTH} {height}" font-family="sans-serif" '
        'font-size="11"><rect width="100%" height="100%" fill="#fff"/>',
        '<text x="10" y="18" font-size="13">Times better than the peer (tick: target; '
        "line: least to most of the rounds)</text>",
    ]
    for decade in range(decades + 1):
        at = x(10**decade)
        out.append(f'<line x1="{at:.1f}" x2="{at:.1f}" y1="{_TOP - 6}" y2="{height - 10}" stroke="#ddd"/>')
        out.append(f'<text x="{at:.1f}" y="{_TOP - 10}" text-anchor="middle" fill="#555">{10**decade:,}x</text>')
    for i, row in enumerate(shown):
        y = _TOP + _LINE * i
        label = f"{row['name']} / {row['peer']}" + (f" ({row['cores']} cores)" if row["cores"] > 1 else "")
        ratio = row["ratio"]
        colour = "#b45f5f" if row["met"] is False or ratio["median"] < 1 else "#3b7a9e"
        middle = y + _LINE / 2
        out.append(f'<text x="{_LEFT - 8}" y="{middle + 3}" text-anchor="end">{escape(label[:90])}</text>')
        width = max(1.0, x(ratio["median"]) - _LEFT)
        out.append(f'<rect x="{_LEFT}" y="{y + 4}" width="{width:.1f}" height="{_LINE - 8}" fill="{colour}"/>')
        low, high = x(ratio["min"]), x(ratio["max"])
        out.append(f'<line x1="{low:.1f}" x2="{high:.1f}" y1="{middle}" y2="{middle}" stroke="#222"/>')
        if row["target"] is not None and row["target_of"] == "ratio":
            at = x(row["target"])
            out.append(
                f'<line x1="{at:.1f}" x2="{at:.1f}" y1="{y + 1}" y2="{y + _LINE - 1}" stroke="#d08a00" '
                'stroke-width="2"/>'
            )
        out.append(
            f'<text x="{max(high, x(ratio["median"])) + 6:.1f}" y="{middle + 3}">{number(ratio["median"])}</text>'
        )
    return "\n".join([*out, "</svg>\n"])
