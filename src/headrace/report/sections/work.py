"""How long the run took, and how much memory."""

from __future__ import annotations

from collections import Counter

from headrace.report.facts import RunFacts
from headrace.report.markup import Markup, element, join
from headrace.report.numbers import duration, size, whole
from headrace.report.tables import Column, bar, table, text


def work(facts: RunFacts) -> Markup | None:
    """One row per artifact."""
    if not facts.work:
        return None
    longest = max((w.seconds or 0 for w in facts.work), default=0)
    columns = [
        text("artifact"),
        Column("time"),
        text(""),
        *map(Column, ("tasks", "total task time", "rows", "size on disk", "peak memory")),
    ]
    rows = [
        (
            element("span", w.artifact, class_="mono"),
            None if w.seconds is None else duration(w.seconds),
            bar(w.seconds or 0, longest),
            whole(w.tasks) + (f" ({w.died} died)" if w.died else ""),
            duration(w.busy),
            whole(w.rows) if w.rows else None,
            size(w.bytes),
            None if w.peak is None else size(w.peak),
        )
        for w in facts.work
    ]
    total = ("all", duration(facts.making or 0), "", whole(sum(w.tasks for w in facts.work)),
             duration(sum(w.busy for w in facts.work)), "", size(sum(w.bytes for w in facts.work)),
             size(max((w.peak or 0 for w in facts.work), default=0)))  # fmt: skip
    lead = ""
    if facts.base is not None:
        lead += f"A worker uses {size(facts.base)} before it starts any task. "
    lead += "Peak memory is the highest resident memory of any worker up to the end of the artifact's tasks."
    return join([element("p", lead), table(columns, rows, total=total), _environments(facts)])


def _environments(facts: RunFacts) -> Markup | None:
    """One row per property that a run records, one column per set of runs that agree."""
    if not facts.environments:
        return None
    told = [
        {
            "artifacts built": whole(e.artifacts),
            "processor": e.processor,
            "cores": None if e.cores is None else f"{e.cores} of {e.cores_in_all}",
            "memory": None if e.machine_memory is None else size(e.machine_memory),
            "GPUs": ", ".join(f"{n} x {name}" for name, n in Counter(e.gpus).items()) or None,
            "worker processes": None if e.workers is None else whole(e.workers),
            "memory budget": None if e.memory is None else size(e.memory),
            **e.versions,
        }
        for e in facts.environments
    ]
    names = [name for name in dict.fromkeys(name for column in told for name in column) if _any(told, name)]
    columns = [text(""), *(text(_runs(e.runs)) for e in facts.environments)]
    caption = "Recorded by the runs that built the artifacts in this folder."
    drawn = table(columns, [(name, *(column.get(name) for column in told)) for name in names], caption)
    return join([element("h3", "Hardware and versions"), drawn])


def _any(told: list[dict[str, str | None]], name: str) -> bool:
    return any(column.get(name) is not None for column in told)


def _runs(numbers: list[int]) -> str:
    return f"run{'s' if len(numbers) > 1 else ''} {', '.join(map(str, numbers))}"
