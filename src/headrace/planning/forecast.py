"""The plan of a recipe: its graph, and documents, tokens, epochs, steps, disk and time, before any work."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from headrace.planning.counts import BYTES_PER_TOKEN, Basis, SourceCounts, count_source
from headrace.planning.machine import START, Machine
from headrace.planning.measured import Measured, measured
from headrace.recipe.schema import Recipe, Stage
from headrace.sequence.epochs import SourceCount, resolve

# Zstandard at Parquet's default level on SlimPajama: about 895 GB for 2,567 GB of text.
COMPRESSED = 0.35
# Verdicts, measures and duplicates hold a few short columns for a document; evidence only for those removed.
SIDECAR = 64
# A segment is 27 bytes of columns; concatenated rows hold little more than two of them in common mixtures.
SEGMENTS = 2 * 27
# Formats whose files are parsed as Python.
PARSED = frozenset({"docstrings", "docstring_chat", "pydoc_topics"})
# What `headrace run` holds out for measuring loss, at most.
HELD_OUT_TOKENS = 1_000_000
# Weights and AdamW's two moments in float32.
CHECKPOINT = 12
_SEQUENCE_NEEDS = ("documents", "tokenizer", "tokens")


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
class Node:
    """An artifact of the graph.

    Attributes:
        name: its kind, with the stage.
        inputs: the artifacts it is made from.
        disk: bytes.
        seconds: time to make it.
        done: whether it is there already, so that ``disk`` and ``seconds`` were measured.
    """

    name: str
    inputs: tuple[str, ...]
    disk: int
    seconds: float
    done: bool = False


@dataclass(frozen=True)
class Plan:
    """Everything that can be said of a recipe before any work.

    Attributes:
        recipe: the recipe's name.
        sources: what there is of each source.
        stages: the stages in training order.
        graph: the artifacts, each after its inputs.
        parameters: parameters of the model; None without one.
        machine: what times are estimated for.
    """

    recipe: str
    sources: tuple[SourceCounts, ...]
    stages: tuple[StagePlan, ...]
    graph: tuple[Node, ...]
    parameters: int | None
    machine: Machine

    @property
    def disk(self) -> int:
        """Bytes that all artifacts take."""
        return sum(node.disk for node in self.graph)

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
            "machine": asdict(self.machine),
            "disk": self.disk,
            "seconds": self.seconds,
        }

    def __str__(self) -> str:
        from headrace.planning.text import render

        return render(self)


def plan(recipe: Recipe, run: Path | None = None, base: Path | None = None) -> Plan:
    """Plan a recipe.

    Args:
        recipe: the recipe.
        run: a run folder; what has been measured there for exactly this recipe takes the place of estimates.
        base: the folder that ``${recipe}`` and relative paths refer to when the recipe was not read from a file.

    Raises:
        UserError: the files of a source without ``expect`` cannot be found.
    """
    known = Measured() if run is None else measured(recipe, run)
    sources = tuple(
        known.source(name, recipe) or count_source(name, recipe, base or Path.cwd()) for name in recipe.sources
    )
    machine = Machine.here()
    config = None
    if recipe.model is not None:
        from headrace.model.presets import resolve as resolve_model

        config = resolve_model(recipe.model, _vocabulary(recipe))
    stages = tuple(_stage(recipe, i, sources, config, known.ledger(s.name)) for i, s in enumerate(recipe.stages))
    parameters = None
    if config is not None:
        from headrace.model.config import parameter_count

        parameters = parameter_count(config)
    graph = tuple(_as_made(node, known) for node in _graph(recipe, sources, stages, parameters, machine))
    return Plan(recipe.name, sources, stages, graph, parameters, machine)


def _as_made(node: Node, known: Measured) -> Node:
    """The node with what was measured, if its artifact is there."""
    made = known.artifacts.get(node.name)
    return node if made is None else Node(node.name, node.inputs, made.bytes, known.seconds.get(node.name, 0.0), True)


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


def _graph(
    recipe: Recipe,
    sources: tuple[SourceCounts, ...],
    stages: tuple[StagePlan, ...],
    parameters: int | None,
    machine: Machine,
) -> tuple[Node, ...]:
    """The artifacts that a run of the recipe makes, each after its inputs."""
    text = sum(source.bytes for source in sources)
    documents = sum(source.documents or round(source.bytes / 4000) for source in sources)
    tokens = sum(source.tokens for source in sources)
    width = 2 if _vocabulary(recipe) <= 1 << 16 else 4
    nodes = [Node("documents", (), round(text * COMPRESSED), _reading(recipe, sources, machine))]
    sidecars = []
    for kind, wanted in (
        ("measures", recipe.filters.short is not None or recipe.filters.code is not None),
        ("duplicates", recipe.deduplicate is not None or recipe.split.check is not None),
        ("contamination", recipe.decontaminate is not None),
    ):
        if wanted:
            sidecars.append(kind)
            nodes.append(Node(kind, ("documents",), documents * SIDECAR, START + machine.seconds(kind, text)))
    nodes.append(
        Node("verdicts", ("documents", *sidecars), documents * SIDECAR, START + machine.seconds("verdicts", text))
    )
    if not stages:
        return tuple(nodes)
    assert recipe.tokenizer is not None  # the schema asks for it as soon as there are stages
    train = recipe.tokenizer.train
    read = 0 if train is None else min(text, train.sample or text)
    nodes.append(
        Node(
            "tokenizer", ("documents", "verdicts") if train else (), 4 << 20, START + machine.seconds("tokenizer", read)
        )
    )
    nodes.append(
        Node("tokens", ("documents", "verdicts", "tokenizer"), tokens * width, START + machine.seconds("tokens", text))
    )
    for stage, section in zip(stages, recipe.stages, strict=True):
        nodes.append(_sequence(stage, section, width, machine))
    if parameters is None:
        return tuple(nodes)
    held_out: tuple[str, ...] = ()
    if recipe.split.validation:
        held_out = ("sequence-heldout",)
        nodes.append(Node("sequence-heldout", _SEQUENCE_NEEDS, min(tokens, HELD_OUT_TOKENS) * width, 0.0))
    for stage, section in zip(stages, recipe.stages, strict=True):
        before = () if stage.start in (None, "scratch") else (f"model-{stage.start}",)
        disk = parameters * (4 + CHECKPOINT * section.train.keep)
        needs = (f"sequence-{stage.name}", *held_out, "tokenizer", *before)
        nodes.append(Node(f"model-{stage.name}", needs, disk, (stage.flops or 0) / machine.flops))
    return tuple(nodes)


def _reading(recipe: Recipe, sources: tuple[SourceCounts, ...], machine: Machine) -> float:
    """Seconds to read all sources; those that parse Python modules take most of it."""
    seconds = START
    for counts in sources:
        source = recipe.sources[counts.name]
        parsed = any((files.format or source.format) in PARSED for files in source.files)
        seconds += machine.seconds("syntax" if parsed else "documents", counts.bytes)
    return seconds


def _sequence(stage: StagePlan, section: Stage, width: int, machine: Machine) -> Node:
    """A stage's sequence: tokens are moved; what is rearranged or put in a template is encoded again."""
    masked = 1 / 8 if section.chat else 0
    row = (stage.sequence_length + 1) * (width + masked) + SEGMENTS
    again = 0.0
    for share in stage.sources:
        fim = section.sources[share.source].fim
        again += share.tokens * (1 if section.chat else fim.rate if fim else 0)
    seconds = START + machine.seconds("sequence", stage.tokens * width)
    seconds += machine.seconds("encode", round(again * BYTES_PER_TOKEN))
    return Node(f"sequence-{stage.name}", _SEQUENCE_NEEDS, round(stage.rows * row), seconds)
