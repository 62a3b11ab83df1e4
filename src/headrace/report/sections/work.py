"""How long it took, and in how much memory."""

from __future__ import annotations

from headrace.report.facts import RunFacts
from headrace.report.markup import Markup, element, join
from headrace.report.numbers import counted, duration, size, whole
from headrace.report.tables import Column, bar, table, text


def work(facts: RunFacts) -> Markup | None:
    """A row for each artifact."""
    if not facts.work:
        return None
    longest = max((w.seconds or 0 for w in facts.work), default=0)
    columns = [
        text("artifact"),
        Column("time"),
        text(""),
        *map(Column, ("tasks", "work of all tasks", "rows", "size on disk", "peak memory")),
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
    said = []
    if facts.workers is not None:
        said.append(counted(facts.workers, "worker process", "worker processes"))
    if facts.memory is not None:
        said.append(f"a memory budget of {size(facts.memory)}")
    lead = f"Made with {' and '.join(said)}. " if said else ""
    if facts.base is not None:
        lead += f"A worker holds {size(facts.base)} before it does anything. "
    lead += "Peak memory is the highest resident memory that any worker had reached by the end of the artifact's tasks."
    return join([element("p", lead), table(columns, rows, total=total)])
