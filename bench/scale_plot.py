"""The curve of deduplication at scale: time and memory over the number of documents."""

from __future__ import annotations

from pathlib import Path
from typing import Any


def draw(rows: list[dict[str, Any]], path: Path) -> None:
    """Draw rows of :mod:`bench.scale` to a file."""
    import matplotlib

    matplotlib.use("svg")
    import matplotlib.pyplot as plt

    matplotlib.rcParams.update({"svg.hashsalt": "scale", "font.size": 9, "svg.fonttype": "none"})
    sizes = [row["documents"] / 1e6 for row in rows]
    figure, (time, rate, memory) = plt.subplots(1, 3, figsize=(11, 3.4), layout="constrained")
    time.loglog(sizes, [row["seconds"] for row in rows], "o-", color="#1b6ca8", label="measured")
    per = rows[-1]["seconds"] / sizes[-1]
    time.loglog(sizes, [per * size for size in sizes], ":", color="#888", label="in proportion to the last")
    time.set_ylabel("seconds")
    time.legend(frameon=False)
    rate.semilogx(sizes, [row["documents_per_second"] / 1e6 for row in rows], "o-", color="#1b6ca8")
    rate.axhline(0.5, color="#c0392b", linestyle="--", linewidth=1)
    rate.annotate("target", (sizes[0], 0.5), color="#c0392b", xytext=(0, 3), textcoords="offset points")
    rate.set_ylabel("million documents a second")
    rate.set_ylim(bottom=0)
    memory.semilogx(sizes, [row["peak_rss"] / 1e9 for row in rows], "o-", color="#1b6ca8", label="sum of resident sets")
    memory.semilogx(sizes, [row["peak_pss"] / 1e9 for row in rows], "s--", color="#6aa84f", label="proportional")
    memory.axhline(2.5, color="#c0392b", linestyle="--", linewidth=1)
    memory.set_ylabel("GB at the peak, all processes")
    memory.set_ylim(bottom=0)
    memory.legend(frameon=False)
    for axes in (time, rate, memory):
        axes.set_xlabel("million documents")
        axes.set_xticks(sizes, [f"{size:g}" for size in sizes])
        axes.minorticks_off()
        axes.spines[["top", "right"]].set_visible(False)
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, metadata={"Date": None})
