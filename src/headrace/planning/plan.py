"""A plan: what can be said about a recipe before any work, as values, JSON and text."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from textwrap import wrap
from typing import Any

from headrace.planning.counts import SourceCounts
from headrace.planning.document_lengths import SHOWN
from headrace.planning.machine import EFFICIENCY, Machine
from headrace.planning.node import Node
from headrace.planning.rates import Work, figures
from headrace.planning.references import ReferenceCounts
from headrace.planning.stages import StagePlan
from headrace.planning.text import span, table, tokens_text
from headrace.recipe.lengths import lengths_range
from headrace.report.numbers import percent, short, size

WIDTH = 120  # width of sentences; tables take the width they need


@dataclass(frozen=True)
class Memory:
    """The memory of a run with a number of workers.

    Attributes:
        workers: worker processes.
        base: bytes that each process, including the coordinator, holds before its first task (measured).
        data: bytes of data in all workers together, the run's ``--memory``: as much as the phases need, and as much as
            union-find needs for its two arrays. With less, components are found on disk.
    """

    workers: int
    base: int
    data: int

    @property
    def total(self) -> int:
        """Total bytes."""
        return (self.workers + 1) * self.base + self.data


@dataclass(frozen=True)
class Plan:
    """Everything that can be said about a recipe before any work.

    Attributes:
        recipe: the recipe's name.
        sources: the size of each source.
        stages: the stages in training order.
        graph: the artifacts, each after its inputs.
        work: what must be done for artifacts that do not exist yet, step by step.
        memory: the memory of the run.
        parameters: the model's number of parameters; None without a model.
        machine: the machine that times are estimated for.
        notes: what the user should know before a run, in sentences.
        code: user-defined functions that will run: (place in the recipe, function, where its code is).
        references: the size of each set of reference documents.
    """

    recipe: str
    sources: tuple[SourceCounts, ...]
    stages: tuple[StagePlan, ...]
    graph: tuple[Node, ...]
    work: tuple[Work, ...]
    memory: Memory
    parameters: int | None
    machine: Machine
    notes: tuple[str, ...] = ()
    code: tuple[tuple[str, str, str], ...] = ()
    references: tuple[ReferenceCounts, ...] = ()

    @property
    def disk(self) -> int:
        """Total bytes of all artifacts."""
        return sum(node.disk for node in self.graph)

    @property
    def disk_peak(self) -> int:
        """Maximum bytes on disk at any time: what is finished, and what the next artifact needs while it is built."""
        held = peak = sum(node.disk for node in self.graph if node.done)
        for node in self.graph:
            if not node.done:
                peak = max(peak, held + node.disk + node.scratch)
                held += node.disk
        return peak

    @property
    def seconds(self) -> float:
        """Seconds for the artifacts that do not exist yet."""
        return sum(node.seconds for node in self.graph if not node.done)

    def to_json(self) -> dict[str, Any]:
        """The plan as JSON values. Sizes, times and whatever depends on estimates are estimates."""
        stages = [
            {
                **{key: value for key, value in asdict(stage).items() if key != "sources"},
                "trained_tokens": stage.trained,
                "sources": [{**asdict(share), "slice": list(share.slice)} for share in stage.sources],
            }
            for stage in self.stages
        ]
        return {
            "recipe": self.recipe,
            "notes": list(self.notes),
            "sources": [source.to_json() for source in self.sources],
            "references": [asdict(reference) for reference in self.references],
            "graph": [{**asdict(node), "inputs": list(node.inputs)} for node in self.graph],
            "stages": stages,
            "parameters": self.parameters,
            "code": [{"place": place, "function": label, "from": origin} for place, label, origin in self.code],
            "machine": {**asdict(self.machine), "efficiency": EFFICIENCY},
            "work": [work.to_json(self.machine.cores) for work in self.work],
            "rates": {name: asdict(figure) for name, figure in figures().items()},
            "core_seconds": sum(work.core_seconds for work in self.work),
            "memory": {**asdict(self.memory), "total": self.memory.total},
            "disk": self.disk,
            "disk_peak": self.disk_peak,
            "seconds": self.seconds,
        }

    def __str__(self) -> str:
        return render(self)


def render(plan: Plan) -> str:
    """The plan as text. Counts say where they come from; estimates start with ``~``."""
    notes = [line for note in plan.notes for line in wrap(note, WIDTH)]
    parts = [f"plan of {plan.recipe}", *notes, *(["", *_sources(plan)] if plan.sources else [])]
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


def _sources(plan: Plan) -> list[str]:
    rows = []
    for source in plan.sources:
        about = "~" if source.basis == "estimated" else ""
        documents = "?" if source.documents is None else f"{about}{source.documents:,}"
        row = [source.name, documents, f"{about}{size(source.bytes)}", f"{about}{tokens_text(source.tokens)}"]
        lengths = ["?" if source.lengths is None else percent(source.lengths.at_least(n)[1], 1) for n in SHOWN]
        rows.append([*row, *lengths, source.basis])
    header = ["source", "documents", "text", "tokens", *(f">= {n >> 10}k" for n in SHOWN), "basis"]
    if not plan.stages:
        header, rows = [*header[:3], "basis"], [[*row[:3], row[-1]] for row in rows]
    note = []
    if plan.stages:
        said = ", ".join(f"{n:,}" for n in SHOWN)
        note.append(f"  >=: share of the tokens in documents of at least {said} tokens, before files are grouped")
    if any(source.basis == "estimated" for source in plan.sources):
        note += ["  ~ estimated from a sample of the files, before filters and deduplication remove any"]
    for reference in plan.references:
        about, of = ("", "an earlier run's") if reference.run else ("~", "files")
        note.append(
            f"  compared with {about}{reference.documents:,} reference documents, ~{size(reference.bytes)} "
            f"({reference.place}, {of}: {reference.path})"
        )
    return table(header, rows) + note


def _stage(stage: StagePlan) -> list[str]:
    start = "" if stage.start is None else f", from {stage.start}"
    rows = []
    by_length = any(share.lengths is not None for share in stage.sources)
    for share in stage.sources:
        low, high = share.slice
        rows.append(
            [
                share.source,
                *([] if not by_length else ["" if share.lengths is None else lengths_range(share.lengths)]),
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
        head += f" ({tokens_text(stage.trained)} trained on)"
    header = ["source", *(["tokens each"] if by_length else []), "slice", "epochs", "documents", "tokens", "share"]
    if stage.stored:
        header, rows = ["sequence", *header[1:3], *header[4:]], [[*row[:3], *row[4:]] for row in rows]
    return [head, *table(header, rows)]


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
        total += f"\nmodel: {tokens_text(plan.parameters)} parameters, {flops:.2g} training FLOPs"
    return [head, *made, total]


def _code(plan: Plan) -> list[str]:
    """The user-defined functions, whose time nobody has measured."""
    lines = [f"  {place}: {label}, {origin}" for place, label, origin in plan.code]
    return ["your code that the run will execute (not included in the time estimates):", *lines]


def reckoning(work: Work) -> list[str]:
    """Step, amount, rate and core-hours of a piece of work."""
    step = f"{work.artifact}: {work.step}"
    if work.unit == "bytes":
        amount, rate = f"{size(work.amount)} of text", f"{size(work.rate)}/s"
    else:
        amount, rate = f"{short(work.amount)} {work.unit}", f"{short(work.rate)} {work.unit}/s"
    return [step, amount, rate, f"{work.core_seconds / 3600:,.2f}"]


def _arithmetic(plan: Plan) -> list[str]:
    """How the times are computed: amounts by rates, disk use, and what the memory is for."""
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
        "arithmetic: amount / rate = core-hours; rates are measured per core, see docs/planning.md",
        *table(["step", "amount", "rate", "core-hours", on], rows),
        *counted,
        f"disk: ~{size(plan.disk_peak)} at peak, not counting the input, including up to {size(largest.scratch)} of "
        f"intermediate files ({largest.name})",
        f"memory: ~{size(memory.total)} = {memory.workers + 1} processes x {size(memory.base)} + "
        f"{size(memory.data)} for data (--memory; less works but is slower)",
    ]
