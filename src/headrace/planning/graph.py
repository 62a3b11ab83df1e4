"""The artifacts that a run of a recipe makes: what each is made from, how long it takes, and what lies on disk."""

from __future__ import annotations

from dataclasses import dataclass

from headrace.planning.counts import SourceCounts
from headrace.planning.machine import START, Machine
from headrace.planning.rates import value
from headrace.planning.references import ReferenceCounts
from headrace.planning.stages import StagePlan
from headrace.planning.work import Work, compared, documents_of, near_of, row_bytes, selection, sequence, tokenising
from headrace.recipe.schema import Recipe, Stage

# Zstandard at Parquet's default level on SlimPajama, as published: about 895 GB for 2,567 GB of text.
COMPRESSED = 0.35
# A tokenizer.json of 32 thousand tokens and their merges.
TOKENIZER_BYTES = 4 << 20
# An id and a length in the sidecar of signatures, beside 8 bytes a band.
_SIGNED = 24
# What `headrace run` holds out for measuring loss, at most.
HELD_OUT_TOKENS = 1_000_000
# Weights and AdamW's two moments in float32.
CHECKPOINT = 12
# A value of a measure of the user's own, as a number of 64 bits.
OWN_BYTES = 8
_SEQUENCE_NEEDS = ("documents", "tokenizer", "tokens")


@dataclass(frozen=True)
class Node:
    """An artifact of the graph.

    Attributes:
        name: its kind, with the stage.
        inputs: the artifacts it is made from.
        disk: bytes.
        seconds: time to make it.
        done: whether it is there already, so that ``disk`` and ``seconds`` were measured.
        scratch: bytes of intermediate files at most, which go when it is published.
    """

    name: str
    inputs: tuple[str, ...]
    disk: int
    seconds: float
    done: bool = False
    scratch: int = 0


@dataclass(frozen=True)
class Graph:
    """The artifacts of a recipe, each after its inputs, and the work of making them."""

    nodes: tuple[Node, ...]
    work: tuple[Work, ...]


def graph_of(
    recipe: Recipe,
    sources: tuple[SourceCounts, ...],
    stages: tuple[StagePlan, ...],
    parameters: int | None,
    vocabulary: int,
    machine: Machine,
    references: tuple[ReferenceCounts, ...] = (),
) -> Graph:
    """The graph of a recipe.

    Args:
        recipe: the recipe.
        sources: what there is of each source.
        stages: the stages, resolved.
        parameters: those of the model; None without one.
        vocabulary: tokens of the tokenizer.
        machine: what times are estimated for.
        references: what there is of reference documents.
    """
    works = selection(recipe, sources, references)
    if stages:
        works += tokenising(recipe, sources)
    for stage, section in zip(stages, recipe.stages, strict=True):
        works += sequence(stage, section)
    nodes = _selected(recipe, sources, references, works, machine)
    if not stages:
        return Graph(tuple(nodes), tuple(works))
    assert recipe.tokenizer is not None  # the schema asks for it as soon as there are stages
    width = 2 if vocabulary <= 1 << 16 else 4
    tokens = sum(source.tokens for source in sources)
    trained = ("documents", "verdicts") if recipe.tokenizer.train else ()
    nodes.append(Node("tokenizer", trained, TOKENIZER_BYTES, _seconds("tokenizer", works, machine)))
    needs = ("documents", "verdicts", "tokenizer")
    nodes.append(Node("tokens", needs, tokens * width, _seconds("tokens", works, machine)))
    for stage, section in zip(stages, recipe.stages, strict=True):
        nodes.append(_sequence(stage, section, width, works, machine))
    if parameters is not None:
        nodes += _models(recipe, stages, parameters, min(tokens, HELD_OUT_TOKENS) * width, machine)
    return Graph(tuple(nodes), tuple(works))


def _seconds(name: str, works: list[Work], machine: Machine) -> float:
    """Seconds to make an artifact: its work, and the start of the workers."""
    return START + sum(work.seconds(machine.cores) for work in works if work.artifact == name)


def _selected(
    recipe: Recipe,
    sources: tuple[SourceCounts, ...],
    references: tuple[ReferenceCounts, ...],
    works: list[Work],
    machine: Machine,
) -> list[Node]:
    """The nodes from the documents to the verdicts."""
    text, documents = sum(source.bytes for source in sources), documents_of(sources)
    verify = any(work.figure == "verify" for work in works)
    nodes = [Node("documents", (), round(text * COMPRESSED), _seconds("documents", works, machine))]
    sidecars = [kind for kind in ("measures", "duplicates", "contamination") if any(w.artifact == kind for w in works)]
    scratch = {
        "duplicates": _duplicates_scratch(recipe, compared(sources, references)),
        "verdicts": text if verify else 0,
    }
    own = [f"measure-{name}" for name in recipe.measures]
    nodes += [Node(name, ("documents",), documents * OWN_BYTES, START) for name in own]
    signed, read = _references(recipe, references, works, machine)
    names = tuple(node.name for node in (*signed, *read))
    needs = {"duplicates": ("documents", "signatures", *names)}
    needs["verdicts"] = ("documents", *sidecars, *own, *(node.name for node in read))
    for kind in [*sidecars, "verdicts"]:
        if kind == "duplicates":
            disk = documents * (_SIGNED + 8 * _bands(recipe))
            nodes.append(Node("signatures", ("documents",), disk, _seconds("signatures", works, machine)))
            nodes += [*read, *signed]
        disk, seconds = round(documents * value(f"disk-{kind}")), _seconds(kind, works, machine)
        nodes.append(Node(kind, needs.get(kind, ("documents",)), disk, seconds, scratch=scratch.get(kind, 0)))
    return nodes


def _references(
    recipe: Recipe, references: tuple[ReferenceCounts, ...], works: list[Work], machine: Machine
) -> tuple[list[Node], list[Node]]:
    """The nodes of reference documents: their signatures, and what is read from files."""
    signed, read = [], []
    for k, reference in enumerate(references):
        needs: tuple[str, ...] = ()
        if not reference.run:
            needs = (f"reference-documents-{k}",)
            read.append(Node(needs[0], (), round(reference.bytes * COMPRESSED), _seconds(needs[0], works, machine)))
        name, disk = f"reference-signatures-{k}", reference.documents * (_SIGNED + 8 * _bands(recipe) + 8)
        signed.append(Node(name, needs, disk, _seconds(name, works, machine)))
    return signed, read


def _bands(recipe: Recipe) -> int:
    """The bands of a signature; 0 where near-duplicates are not looked for."""
    near = near_of(recipe)
    if near is None:
        return 0
    from headrace.select.duplicates.fingerprints import bands_of

    return bands_of(near)[0]


def _duplicates_scratch(recipe: Recipe, documents: int) -> int:
    """Records of bands and ids, the edges that they give at most (another 16 bytes each), and three row numbers."""
    from headrace.select.duplicates.step import BAND, ID

    return documents * (_bands(recipe) * 2 * BAND.itemsize + ID.itemsize + 16 + 3 * row_bytes(documents))


def _sequence(stage: StagePlan, section: Stage, width: int, works: list[Work], machine: Machine) -> Node:
    """A stage's sequence: rows with their segments; on the way, every token once more and the records that move it."""
    from headrace.sequence.layout import CUT, MOVED, SAMPLED

    name = f"sequence-{stage.name}"
    masked = 1 / 8 if section.chat else 0
    row = (stage.sequence_length + 1) * (width + masked) + value("disk-segments")
    copies = sum(share.documents or 0 for share in stage.sources)
    again = sum(work.amount for work in works if work.artifact == name and work.figure == "rearranged")
    # A document is cut where rows end.
    segments = copies + stage.rows
    scratch = stage.tokens * width + again * width + copies * SAMPLED.itemsize
    scratch += segments * (CUT.itemsize + MOVED.itemsize)
    seconds = _seconds(name, works, machine)
    return Node(name, _SEQUENCE_NEEDS, round(stage.rows * row), seconds, scratch=round(scratch))


def _models(
    recipe: Recipe, stages: tuple[StagePlan, ...], parameters: int, held_out_disk: int, machine: Machine
) -> list[Node]:
    """The models, and the sequence that measures their loss."""
    nodes = []
    held_out: tuple[str, ...] = ()
    if recipe.split.validation:
        held_out = ("sequence-heldout",)
        nodes.append(Node("sequence-heldout", _SEQUENCE_NEEDS, held_out_disk, 0.0))
    for stage, section in zip(stages, recipe.stages, strict=True):
        before = () if stage.start in (None, "scratch") else (f"model-{stage.start}",)
        disk = parameters * (4 + CHECKPOINT * section.train.keep)
        needs = (f"sequence-{stage.name}", *held_out, "tokenizer", *before)
        nodes.append(Node(f"model-{stage.name}", needs, disk, (stage.flops or 0) / machine.flops))
    return nodes
