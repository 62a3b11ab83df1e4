"""The table and the curve of :mod:`bench.longseq`: memory of a step over the row's length."""

from __future__ import annotations

from pathlib import Path
from typing import Any

Cases = dict[str, list[dict[str, Any]]]


def table(found: Cases) -> str:
    """One row a case, as ALST's ablation has it: memory at each length, its growth, and time beside the untiled."""
    lengths = sorted({one["length"] for ones in found.values() for one in ones})
    head = ["", *(f"GB at {length:,}" for length in lengths), "kB a token more", "resident, GB", "s a k token"]
    lines = [f"| {' | '.join(head)} |", "|---|" + "--:|" * (len(head) - 1)]
    for case, ones in found.items():
        at = {one["length"]: one for one in ones}
        cells = [case, *(f"{at[length]['device'] / 1e9:.2f}" if length in at else "" for length in lengths)]
        if len(ones) > 1:
            a, b = ones[-2:]
            cells.append(f"{(b['device'] - a['device']) / (b['length'] - a['length']) / 1e3:,.1f}")
        else:
            cells.append("")
        last = ones[-1] if ones else None
        cells.append(f"{last['resident'] / 1e9:.2f}" if last else "")
        cells.append(f"{1e3 * last['seconds'] / last['length']:.2f}" if last else "")
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines) + "\n"


def draw(found: Cases, path: Path) -> None:
    """Draw memory over length to a file."""
    import matplotlib

    matplotlib.use("svg")
    import matplotlib.pyplot as plt

    matplotlib.rcParams.update({"svg.hashsalt": "longseq", "font.size": 9, "svg.fonttype": "none"})
    figure, axes = plt.subplots(figsize=(7, 4.2), layout="constrained")
    for case, ones in found.items():
        style = "s--" if case.startswith("transformers") else "o-"
        axes.loglog([one["length"] for one in ones], [one["device"] / 1e9 for one in ones], style, label=case)
    axes.set_xlabel("tokens of the row")
    axes.set_ylabel("GB of tensors at the peak of a step")
    axes.legend(frameon=False)
    axes.spines[["top", "right"]].set_visible(False)
    figure.savefig(path, metadata={"Date": None})
