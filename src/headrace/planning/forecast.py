"""The plan of a recipe: its graph, and documents, tokens, epochs, steps, disk and time, before any work."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from headrace.planning.counts import Basis, SourceCounts, count_source
from headrace.planning.graph import Node, graph_of
from headrace.planning.machine import EFFICIENCY, Machine
from headrace.planning.measured import Measured, measured
from headrace.planning.rates import figures, value
from headrace.planning.work import Work, documents_of, row_bytes
from headrace.recipe.schema import Recipe, Stage
from headrace.sequence.epochs import SourceCount, resolve

# The share of the budget that union-find's arrays may fill: ``labels.UNION_SHARE``, whose module would compile kernels.
UNION_SHARE = 0.75


@dataclass(frozen=True)
class Share:
    """What a stage takes of a source.

    Attributes:
        source: the source's name.
        slice: the part of it, between 0 and 1.
        epochs: passes over the slice.
        documents: documents, copies counted; None when nobody knows.
        tokens: tokens, copies counted.
    """

    source: str
    slice: tuple[float, float]
    epochs: float
    documents: int | None
    tokens: int


@dataclass(frozen=True)
class StagePlan:
    """A stage before it is made.

    Attributes:
        name: the stage.
        basis: ``measured`` once its sequence is made, else ``estimated``, or ``expected`` from stated counts.
        start: the stage it starts from, or ``scratch``; None without a model.
        sequence_length: tokens that a row trains on.
        batch: rows of a step.
        tokens: tokens in its sequence.
        rows: rows in its sequence.
        steps: steps it is trained for.
        sources: what it takes.
        flops: floating-point operations of its training; None without a model.
    """

    name: str
    basis: Basis
    start: str | None
    sequence_length: int
    batch: int
    tokens: int
    rows: int
    steps: int
    sources: tuple[Share, ...]
    flops: float | None

    @property
    def trained(self) -> int:
        """Tokens it is trained on: whole batches."""
        return self.steps * self.batch * self.sequence_length


@dataclass(frozen=True)
class Memory:
    """What a run of so many workers takes.

    Attributes:
        workers: worker processes.
        base: bytes that a process holds before its first task (measured); the coordinator is one too.
        data: bytes for data in all workers together, the run's ``--memory``: as much as the phases ask for, and as much
            as union-find needs to hold its two arrays. With less the components are found on disk.
    """

    workers: int
    base: int
    data: int

    @property
    def total(self) -> int:
        """Bytes in all."""
        return (self.workers + 1) * self.base + self.data


@dataclass(frozen=True)
class Plan:
    """Everything that can be said of a recipe before any work.

    Attributes:
        recipe: the recipe's name.
        sources: what there is of each source.
        stages: the stages in training order.
        graph: the artifacts, each after its inputs.
        work: what there is to do for artifacts that are not there yet, step by step.
        memory: what the run takes.
        parameters: parameters of the model; None without one.
        machine: what times are estimated for.
    """

    recipe: str
    sources: tuple[SourceCounts, ...]
    stages: tuple[StagePlan, ...]
    graph: tuple[Node, ...]
    work: tuple[Work, ...]
    memory: Memory
    parameters: int | None
    machine: Machine

    @property
    def disk(self) -> int:
        """Bytes that all artifacts take."""
        return sum(node.disk for node in self.graph)

    @property
    def disk_peak(self) -> int:
        """Bytes that lie there at once at most: what is finished, and what the next artifact needs on its way."""
        held = peak = sum(node.disk for node in self.graph if node.done)
        for node in self.graph:
            if not node.done:
                peak = max(peak, held + node.disk + node.scratch)
                held += node.disk
        return peak

    @property
    def seconds(self) -> float:
        """Seconds that the artifacts take which are not there yet."""
        return sum(node.seconds for node in self.graph if not node.done)

    def to_json(self) -> dict[str, Any]:
        """The plan as JSON values. Sizes, times and what is based on estimates are estimates."""
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
            "sources": [source.to_json() for source in self.sources],
            "graph": [{**asdict(node), "inputs": list(node.inputs)} for node in self.graph],
            "stages": stages,
            "parameters": self.parameters,
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
        from headrace.planning.text import render

        return render(self)


def plan(recipe: Recipe, run: Path | None = None, base: Path | None = None, workers: int | None = None) -> Plan:
    """Plan a recipe.

    Args:
        recipe: the recipe.
        run: a run folder; what has been measured there for exactly this recipe takes the place of estimates.
        base: the folder that ``${recipe}`` and relative paths refer to when the recipe was not read from a file.
        workers: worker processes, each on a core like this machine's; as many as it has if not given.

    Raises:
        UserError: the files of a source without ``expect`` cannot be found.
    """
    known = Measured() if run is None else measured(recipe, run)
    sources = tuple(
        known.source(name, recipe) or count_source(name, recipe, base or Path.cwd()) for name in recipe.sources
    )
    machine = Machine.here(workers)
    config = None
    if recipe.model is not None:
        from headrace.model.presets import resolve as resolve_model

        config = resolve_model(recipe.model, _vocabulary(recipe))
    stages = tuple(_stage(recipe, i, sources, config, known.ledger(s.name)) for i, s in enumerate(recipe.stages))
    parameters = None
    if config is not None:
        from headrace.model.config import parameter_count

        parameters = parameter_count(config)
    graph = graph_of(recipe, sources, stages, parameters, _vocabulary(recipe), machine)
    nodes = tuple(_as_made(node, known) for node in graph.nodes)
    done = {node.name for node in nodes if node.done}
    work = tuple(entry for entry in graph.work if entry.artifact not in done)
    memory = _memory(recipe, documents_of(sources), machine.cores)
    return Plan(recipe.name, sources, stages, nodes, work, memory, parameters, machine)


def _as_made(node: Node, known: Measured) -> Node:
    """The node with what was measured, if its artifact is there."""
    made = known.artifacts.get(node.name)
    return node if made is None else Node(node.name, node.inputs, made.bytes, known.seconds.get(node.name, 0.0), True)


def _memory(recipe: Recipe, documents: int, workers: int) -> Memory:
    """What a run takes: the phase that asks most of each worker, and the arrays of union-find if there are any."""
    from headrace.documents.step import TASK_MEMORY

    data = workers * TASK_MEMORY
    if recipe.deduplicate is not None or recipe.split.check is not None:
        data = max(data, round(2 * documents * row_bytes(documents) / UNION_SHARE))
    return Memory(workers, round(value("memory-worker")), data)


def _vocabulary(recipe: Recipe) -> int:
    """The tokenizer's size: as trained, as in its file, or LLaMA's when the file is not there yet."""
    tokenizer = recipe.tokenizer
    if tokenizer is None or tokenizer.train is not None:
        return tokenizer.train.vocab_size if tokenizer and tokenizer.train else 32_000
    path = Path(tokenizer.file or "")
    if not path.exists():
        return 32_000
    from headrace.tokens.load import open_file

    return open_file(path, tokenizer.special).vocab_size


def _stage(
    recipe: Recipe, index: int, sources: tuple[SourceCounts, ...], config: Any, ledger: dict[str, Any] | None
) -> StagePlan:
    """A stage resolved against the counts, or as its finished sequence's ledger has it."""
    stage = recipe.stages[index]
    if ledger is not None:
        basis: Basis = "measured"
        shares = tuple(
            Share(name, tuple(s["slice"]), s["epochs"], s["copies"], s["tokens_in"] + s["added"] + s["ends"])
            for name, s in ledger["sources"].items()
        )
        tokens, rows = sum(share.tokens for share in shares), int(ledger["rows"])
    else:
        bases = {source.basis for source in sources if source.name in stage.sources}
        basis = "expected" if bases == {"expected"} else "estimated"
        shares, total = _resolved(stage, sources)
        # Shares of a stated total are rounded one by one; the total itself is exact.
        tokens = total if stage.tokens is None else stage.tokens
        rows = tokens // stage.sequence_length
    batch, length = stage.train.batch, stage.sequence_length
    steps = rows // batch if stage.train.steps is None else min(rows // batch, stage.train.steps)
    flops = None
    if config is not None:
        from headrace.model.config import flops_per_token

        flops = float(flops_per_token(config, length)) * steps * batch * length
    start = _start(recipe, index) if recipe.model is not None else None
    return StagePlan(stage.name, basis, start, length, batch, tokens, rows, steps, shares, flops)


def _resolved(stage: Stage, sources: tuple[SourceCounts, ...]) -> tuple[tuple[Share, ...], int]:
    """What a stage takes of each source, and its tokens."""
    documents = {source.name: source.documents for source in sources}
    # `SourceCount.tokens` leaves out the ends of documents, which the counts of a plan include.
    counts = {s.name: SourceCount(max(0, s.tokens - (s.documents or 0)), s.documents or 0) for s in sources}
    resolved = resolve(stage, counts)
    shares = tuple(
        Share(s.name, s.slice, s.epochs, None if documents[s.name] is None else s.documents, s.tokens)
        for s in resolved.sources
    )
    return shares, resolved.tokens


def _start(recipe: Recipe, index: int) -> str:
    """The stage whose last checkpoint a stage starts from, or ``scratch``."""
    return recipe.stages[index].start or (recipe.stages[index - 1].name if index else "scratch")
