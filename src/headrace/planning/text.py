"""A plan as a page of text."""

from __future__ import annotations

from headrace.planning.forecast import Plan
from headrace.planning.machine import EFFICIENCY
from headrace.planning.stages import StagePlan
from headrace.planning.work import Work
from headrace.report.numbers import duration, short, size

_YEAR = 365.25 * 86400


def render(plan: Plan) -> str:
    """The plan for a person. Counts carry where they come from, estimates begin with ``~``."""
    parts = [f"plan of {plan.recipe}", *plan.notes, "", *_sources(plan)]
    for stage in plan.stages:
        parts += ["", *_stage(stage)]
    if len(plan.stages) > 1:
        steps, tokens = sum(s.steps for s in plan.stages), sum(s.trained for s in plan.stages)
        parts += ["", f"all stages: {tokens_text(tokens)} tokens trained on in {steps:,} steps"]
    parts += ["", *_graph(plan)]
    if plan.code:
        parts += ["", *_code(plan)]
    if plan.work:
        parts += ["", *_arithmetic(plan)]
    return "\n".join(parts)


_UNITS = ((1e12, "T"), (1e9, "B"), (1e6, "M"), (1e3, "k"))


def tokens_text(n: float, beside: float = 0) -> str:
    """A count with one digit after the point: 344.8 B, 12.3 M, 987.

    Args:
        n: the count.
        beside: a larger count of the same column, whose unit is taken if it leaves a digit to show.
    """
    for unit, name in _UNITS:
        if abs(n) >= unit * 0.99995 or (beside >= unit and abs(n) >= unit / 10):
            return f"{n / unit:.1f} {name}"
    return f"{n:.0f}"


def span(seconds: float) -> str:
    """A span of time, in days or years when it is that long."""
    if seconds < 2 * 86400:
        return duration(seconds)
    if seconds < 10 * 86400:
        return f"{seconds / 86400:.2g} days"
    return f"{seconds / 86400:,.0f} days" if seconds < 2 * _YEAR else f"{seconds / _YEAR:,.0f} years"


def table(header: list[str], rows: list[list[str]]) -> list[str]:
    """Lines of a table: the first column to the left, all others to the right."""
    widths = [max(len(row[i]) for row in [header, *rows]) for i in range(len(header))]
    lines = []
    for first, *others in [header, *rows]:
        cells = [first.ljust(widths[0]), *(cell.rjust(w) for cell, w in zip(others, widths[1:], strict=True))]
        lines.append("  " + "  ".join(cells).rstrip())
    return lines


def _sources(plan: Plan) -> list[str]:
    rows = []
    for source in plan.sources:
        about = "~" if source.basis == "estimated" else ""
        documents = "?" if source.documents is None else f"{about}{source.documents:,}"
        row = [source.name, documents, f"{about}{size(source.bytes)}", f"{about}{tokens_text(source.tokens)}"]
        rows.append([*row, source.basis])
    header = ["source", "documents", "text", "tokens", "basis"]
    if not plan.stages:
        header, rows = [*header[:3], "basis"], [[*row[:3], row[4]] for row in rows]
    note = []
    if any(source.basis == "estimated" for source in plan.sources):
        note = ["  ~ estimated from a sample of the files, before filters and deduplication remove any"]
    return table(header, rows) + note


def _stage(stage: StagePlan) -> list[str]:
    start = "" if stage.start is None else f", from {stage.start}"
    rows = []
    for share in stage.sources:
        low, high = share.slice
        rows.append(
            [
                share.source,
                "all" if (low, high) == (0, 1) else f"{low:g} to {high:g}",
                f"{share.epochs:.3g}",
                "?" if share.documents is None else f"{share.documents:,}",
                tokens_text(share.tokens, stage.tokens),
                f"{share.tokens / max(1, stage.tokens):.1%}",
            ]
        )
    about = "~" if stage.basis == "estimated" else ""
    head = (
        f"{stage.name}{start}: {about}{tokens_text(stage.tokens)} tokens, "
        f"{stage.steps:,} steps of {stage.batch:,} x {stage.sequence_length:,}"
    )
    if stage.steps < stage.rows // stage.batch:
        head += f" ({tokens_text(stage.trained)} of them trained on)"
    return [head, *table(["source", "slice", "epochs", "documents", "tokens", "share"], rows)]


def _graph(plan: Plan) -> list[str]:
    rows = []
    for node in plan.graph:
        about = "" if node.done else "~"
        rows.append(
            [node.name, f"{about}{size(node.disk)}", f"{about}{span(node.seconds)}", "done" if node.done else ""]
        )
    head, *lines = table(["artifact", "disk", "time", ""], rows)
    made = [
        f"{line}  <- {', '.join(node.inputs)}" if node.inputs else line
        for line, node in zip(lines, plan.graph, strict=True)
    ]
    left = "left " if any(node.done for node in plan.graph) else ""
    cores = f"{plan.machine.cores} core{'' if plan.machine.cores == 1 else 's'}"
    total = f"all: ~{size(plan.disk)} on disk, ~{span(plan.seconds)} {left}on {cores} like this machine's"
    if plan.parameters is not None:
        flops = sum(stage.flops or 0 for stage in plan.stages)
        total += (
            f"\nmodel: {tokens_text(plan.parameters)} parameters, {flops:.2g} floating-point operations of training"
        )
    return [head, *made, total]


def _code(plan: Plan) -> list[str]:
    """The functions of the user's own, whose time nobody has measured."""
    lines = [f"  {place}: {label}, {origin}" for place, label, origin in plan.code]
    return ["code of yours that the run will execute (its time is in none of the estimates):", *lines]


_UNITS_OF = {
    "bytes": ("B of text", "B/s"),
    "documents": (" documents", " documents/s"),
    "tokens": (" tokens", " tokens/s"),
}


def reckoning(work: Work) -> list[str]:
    """Step, amount, rate and core-hours of a piece of work."""
    amount, rate = _UNITS_OF[work.unit]
    step = f"{work.artifact}: {work.step}"
    return [step, short(work.amount) + amount, short(work.rate) + rate, f"{work.core_seconds / 3600:,.2f}"]


def _arithmetic(plan: Plan) -> list[str]:
    """How the times come about: amounts by rates, what lies on disk at once, and what memory is for."""
    cores, rows = plan.machine.cores, []
    for work in plan.work:
        alone = " alone" if work.serial else ""
        rows.append([*reckoning(work), f"{span(work.seconds(cores))}{alone}"])
    total = sum(work.core_seconds for work in plan.work)
    rows.append(["all", "", "", f"{total / 3600:,.2f}", span(sum(work.seconds(cores) for work in plan.work))])
    on = f"on {cores} core{'' if cores == 1 else 's'}"
    counted = [] if cores == 1 else [f"  {cores} cores count as {cores * EFFICIENCY:g}: {EFFICIENCY:g} each is assumed"]
    largest = max(plan.graph, key=lambda node: node.scratch)
    memory = plan.memory
    return [
        "arithmetic: amount / rate = core-hours; the rates are a core's as measured, see docs/performance.md",
        *table(["step", "amount", "rate", "core-hours", on], rows),
        *counted,
        f"disk: ~{size(plan.disk_peak)} at once at most beside the input, of it at most {size(largest.scratch)} of "
        f"intermediate files ({largest.name})",
        f"memory: ~{size(memory.total)} = {memory.workers + 1} processes x {size(memory.base)} + "
        f"{size(memory.data)} for data (--memory; less is enough, more slowly)",
    ]
