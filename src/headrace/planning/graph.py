"""The artifacts that a run builds: what each is built from, how long it takes, and how much disk it needs."""

from __future__ import annotations

from dataclasses import dataclass, replace

from headrace.planning.benchmarks import BenchmarkCounts
from headrace.planning.corpus import corpora_of, documents_of
from headrace.planning.counts import SourceCounts
from headrace.planning.machine import Machine
from headrace.planning.node import Node, seconds_of
from headrace.planning.rates import Work, value
from headrace.planning.references import ReferenceCounts
from headrace.planning.selection import selection_nodes, writing_nodes
from headrace.planning.stages import Share, StagePlan
from headrace.planning.work import grouping, selection, sequence, tokenising, writing
from headrace.recipe.schema import Recipe, Stage

# A tokenizer.json with 32 thousand tokens and their merges.
TOKENIZER_BYTES = 4 << 20
# Maximum that `headrace run` holds out for measuring loss.
HELD_OUT_TOKENS = 1_000_000
# Weights and AdamW's two moments in float32.
CHECKPOINT = 12
# The key of a group and a place in it; the paths and imports of a file, as a share of its text (installed packages).
GROUP_BYTES, IMPORTS = 20, 0.03
_SEQUENCE_NEEDS = ("documents", "tokenizer", "tokens")


@dataclass(frozen=True)
class Graph:
    """The artifacts of a recipe, each after its inputs, and the work of building them."""

    nodes: tuple[Node, ...]
    work: tuple[Work, ...]


def graph_of(
    recipe: Recipe,
    sources: tuple[SourceCounts, ...],
    stages: tuple[StagePlan, ...],
    parameters: int | None,
    vocabulary: int,
    machine: Machine,
    references: tuple[ReferenceCounts, ...],
    benchmarks: BenchmarkCounts,
    stored_held_out: tuple[Share, ...],
) -> Graph:
    """The graph of a recipe.

    Args:
        recipe: the recipe.
        sources: the size of each source.
        stages: the stages, resolved.
        parameters: the model's number of parameters; None without a model.
        vocabulary: size of the tokenizer's vocabulary.
        machine: the machine to estimate times for.
        references: the size of each set of reference documents.
        benchmarks: what to search for.
        stored_held_out: rows in other files that loss is measured on.
    """
    corpora = corpora_of(recipe, sources, references, benchmarks)
    works: list[Work] = []
    for corpus in corpora:
        works += [*([] if corpus.is_first else writing(recipe)), *selection(corpus)]
    if stages:
        works += tokenising(recipe, sources)
    for stage, section in zip(stages, recipe.stages, strict=True):
        works += sequence(stage, section, recipe.groups(section))
    works += grouping(recipe, sources)
    nodes: list[Node] = []
    for corpus in corpora:
        nodes += [] if corpus.is_first else writing_nodes(recipe, sources, works, machine)
        nodes += selection_nodes(corpus, works, machine)
    if not stages:
        return Graph(tuple(nodes), tuple(works))
    assert recipe.tokenizer is not None  # the schema requires it if there are stages
    width = 2 if vocabulary <= 1 << 16 else 4
    tokens = sum(source.tokens for source in sources)
    trained = ("documents", "verdicts") if recipe.tokenizer.train else ()
    nodes.append(Node("tokenizer", trained, TOKENIZER_BYTES, seconds_of("tokenizer", works, machine)))
    if sources:
        needs = ("documents", "verdicts", "tokenizer")
        nodes.append(Node("tokens", needs, tokens * width, seconds_of("tokens", works, machine)))
    for stage, section in zip(stages, recipe.stages, strict=True):
        first = recipe.first_grouped(section)
        node = _sequence(stage, section, width, works, machine, first is not None)
        if first == section.name:
            nodes.append(_groups(f"groups-{first}", documents_of(sources), works, machine))
        nodes.append(node if first is None else replace(node, inputs=(*node.inputs, f"groups-{first}")))
    if parameters is not None:
        held_out = _held_out(recipe, tokens, stored_held_out, width)
        nodes += [*held_out, *_models(recipe, stages, parameters, tuple(node.name for node in held_out), machine)]
    return Graph(tuple(nodes), tuple(works))


def _groups(name: str, documents: int, works: list[Work], machine: Machine) -> Node:
    """Which files make a training document; as scratch, what they import."""
    scratch = round(sum(work.amount for work in works if work.artifact == name) * IMPORTS)
    return Node(name, ("documents",), documents * GROUP_BYTES, seconds_of(name, works, machine), scratch=scratch)


def _sequence(stage: StagePlan, section: Stage, width: int, works: list[Work], machine: Machine, grouped: bool) -> Node:
    """A stage's sequence: rows with their segments; as scratch, every token once more and the records that move it."""
    from headrace.sequence.layout import CUT, GROUPED, MOVED, SAMPLED

    name = f"sequence-{stage.name}"
    masked = 1 / 8 if section.chat or section.sequence else 0
    row = (stage.sequence_length + 1) * (width + masked) + value("disk-segments")
    if section.sequence:
        # Whose row comes where in a mixture takes two bytes.
        mixed = 2 * stage.rows if section.sequence[0].weight is not None else 0
        return Node(name, ("tokenizer",), round(stage.rows * row), seconds_of(name, works, machine), scratch=mixed)
    copies = sum(share.documents or 0 for share in stage.sources)
    again = sum(work.amount for work in works if work.artifact == name and work.figure == "rearranged")
    # A document is cut where rows end.
    segments = copies + stage.rows
    scratch = stage.tokens * width + again * width + copies * (SAMPLED.itemsize + grouped * GROUPED.itemsize)
    scratch += segments * (CUT.itemsize + MOVED.itemsize)
    seconds = seconds_of(name, works, machine)
    return Node(name, _SEQUENCE_NEEDS, round(stage.rows * row), seconds, scratch=round(scratch))


def _held_out(recipe: Recipe, tokens: int, stored: tuple[Share, ...], width: int) -> list[Node]:
    """The sequence that loss is measured on, if there is one."""
    if stored:
        return [Node("sequence-heldout", ("tokenizer",), sum(share.tokens for share in stored) * width, 0.0)]
    if recipe.split.validation and recipe.sources:
        return [Node("sequence-heldout", _SEQUENCE_NEEDS, min(tokens, HELD_OUT_TOKENS) * width, 0.0)]
    return []


def _models(
    recipe: Recipe, stages: tuple[StagePlan, ...], parameters: int, held_out: tuple[str, ...], machine: Machine
) -> list[Node]:
    """The models, each with the sequence that its loss is measured on."""
    nodes = []
    for stage, section in zip(stages, recipe.stages, strict=True):
        before = (f"model-{start}",) if (start := recipe.begins_from(section)) else ()
        disk = parameters * (4 + CHECKPOINT * section.train.keep)
        needs = (f"sequence-{stage.name}", *held_out, "tokenizer", *before)
        nodes.append(Node(f"model-{stage.name}", needs, disk, (stage.flops or 0) / machine.flops))
    return nodes
