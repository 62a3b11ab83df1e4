"""The artifacts that a run builds: what each is built from, how long it takes, and how much disk it needs."""

from __future__ import annotations

from dataclasses import dataclass, replace

from headrace.graph import SEEDS
from headrace.planning.benchmarks import BenchmarkCounts
from headrace.planning.corpus import Corpus, corpora_of, documents_of
from headrace.planning.counts import SourceCounts
from headrace.planning.machine import START, Machine
from headrace.planning.rates import Work, value
from headrace.planning.references import ReferenceCounts
from headrace.planning.stages import Share, StagePlan
from headrace.planning.work import bands, grouping, near_of, row_bytes, selection, sequence, tokenising, writing
from headrace.recipe.quality import Trained
from headrace.recipe.schema import Recipe, Stage

# Zstandard at Parquet's default level, on SlimPajama as published: about 895 GB for 2,567 GB of text.
COMPRESSED = 0.35
# A tokenizer.json with 32 thousand tokens and their merges.
TOKENIZER_BYTES = 4 << 20
# An id and a length in the signatures sidecar, in addition to 8 bytes per band.
_SIGNED = 24
# Maximum that `headrace run` holds out for measuring loss.
HELD_OUT_TOKENS = 1_000_000
# Weights and AdamW's two moments in float32.
CHECKPOINT = 12
# A value of a user-defined measure, as a 64-bit number.
OWN_BYTES = 8
# A score; and the weights of a linear annotator.
SCORE_BYTES, ANNOTATOR_BYTES = 4, 4 << 20
LENGTH_BYTES = 8  # a count of tokens
# The key of a group and a place in it; the paths and imports of a file, as a share of its text (installed packages).
GROUP_BYTES, IMPORTS = 20, 0.03
_SEQUENCE_NEEDS = ("documents", "tokenizer", "tokens")


@dataclass(frozen=True)
class Node:
    """An artifact of the graph.

    Attributes:
        name: its kind, with the stage.
        inputs: the artifacts it is built from.
        disk: its size in bytes.
        seconds: the time to build it.
        done: whether it exists, so that ``disk`` and ``seconds`` were measured.
        scratch: maximum bytes of intermediate files, which are deleted when it is published.
    """

    name: str
    inputs: tuple[str, ...]
    disk: int
    seconds: float
    done: bool = False
    scratch: int = 0


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
    references: tuple[ReferenceCounts, ...] = (),
    benchmarks: BenchmarkCounts = BenchmarkCounts(0, 0),
    stored_held_out: tuple[Share, ...] = (),
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
        nodes += [] if corpus.is_first else _synthetic(recipe, sources, works, machine)
        nodes += _selected(corpus, works, machine)
    if not stages:
        return Graph(tuple(nodes), tuple(works))
    assert recipe.tokenizer is not None  # the schema requires it if there are stages
    width = 2 if vocabulary <= 1 << 16 else 4
    tokens = sum(source.tokens for source in sources)
    trained = ("documents", "verdicts") if recipe.tokenizer.train else ()
    nodes.append(Node("tokenizer", trained, TOKENIZER_BYTES, _seconds("tokenizer", works, machine)))
    if sources:
        needs = ("documents", "verdicts", "tokenizer")
        nodes.append(Node("tokens", needs, tokens * width, _seconds("tokens", works, machine)))
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


def _seconds(name: str, works: list[Work], machine: Machine) -> float:
    """Seconds to build an artifact: its work, and starting the workers."""
    return START + sum(work.seconds(machine.cores) for work in works if work.artifact == name)


def _selected(corpus: Corpus, works: list[Work], machine: Machine) -> list[Node]:
    """The nodes from the documents to the verdicts. Of what was done for seeds, files are linked."""
    recipe, new, node = corpus.recipe, corpus.documents, corpus.node

    def seconds(name: str) -> float:
        return _seconds(node(name), works, machine)

    documents, read = node("documents"), list[Node]()
    made = tuple(f"synthetic-{name}" for name in recipe.synthetic)
    nodes = [Node(documents, made, round(corpus.text * COMPRESSED), seconds("documents"))]
    nodes += _annotators(corpus, works, machine)
    own = [node(f"measure-{name}") for name in recipe.measures]
    nodes += [Node(name, (documents,), new * OWN_BYTES, START) for name in own]
    found = []
    if recipe.uses_measures:
        found.append(Node(node("measures"), (documents,), round(new * value("disk-measures")), seconds("measures")))
    if recipe.deduplicate is not None or recipe.split.check is not None:
        signed, read = _references(corpus, works, machine)
        nodes += [*read, *signed] if corpus.is_first else []
        size = new * (_SIGNED + 8 * bands(near_of(recipe)))
        nodes.append(Node(node("signatures"), (documents,), size, seconds("signatures")))
        needs = (documents, node("signatures"), *(one.name for one in (*signed, *read)))
        size, scratch = round(corpus.decided * value("disk-duplicates")), _duplicates_scratch(recipe, corpus.compared)
        found.append(Node(node("duplicates"), needs, size, seconds("duplicates"), scratch=scratch))
    if recipe.decontaminate is not None:
        name, size = node("contamination"), round(new * value("disk-contamination"))
        found.append(Node(name, (documents,), size, seconds("contamination")))
        nodes += [*found[-1:], *([] if corpus.seeds else [Node("hits", (documents, name), 0, START)])]
    if any(source.licenses is not None for source in recipe.sources.values()):
        found.append(Node(node("licences"), (documents,), corpus.decided, seconds("licences")))
    keep = recipe.quality.keep
    chosen = () if keep is None else (node(f"quality-{recipe.quality.named(keep.annotator)}"),)
    if keep is not None and keep.tokens is not None:
        found.append(Node(node("lengths"), (documents, "tokenizer"), new * LENGTH_BYTES, seconds("lengths")))
    needs = (documents, *(one.name for one in found), *own, *chosen, *(one.name for one in read))
    scratch = round(sum(work.amount for work in works if (work.artifact, work.figure) == (node("verdicts"), "verify")))
    size = round(corpus.decided * value("disk-verdicts"))
    nodes += [one for one in found if one not in nodes]
    return [*nodes, Node(node("verdicts"), needs, size, seconds("verdicts"), scratch=scratch)]


def _synthetic(
    recipe: Recipe, sources: tuple[SourceCounts, ...], works: list[Work], machine: Machine
) -> list[Node]:
    """The nodes of synthetic sources: what is written."""
    sizes = {source.name: source.bytes for source in sources}
    needs = (f"documents-{SEEDS}", f"verdicts-{SEEDS}")
    return [
        Node(made, needs, round(sizes[name] * COMPRESSED), _seconds(made, works, machine))
        for name in recipe.synthetic
        for made in [f"synthetic-{name}"]
    ]


def _annotators(corpus: Corpus, works: list[Work], machine: Machine) -> list[Node]:
    """The nodes of annotators, and of the scores they give."""
    nodes, documents = [], corpus.node("documents")
    for name, annotator in corpus.recipe.quality.annotators.items():
        trained, scored = f"annotator-{name}", corpus.node(f"quality-{name}")
        if name in corpus.trained:
            examples = [f"positive-documents-{name}-{k}" for k in range(len(annotator.positives.files))]
            nodes += [Node(one, (), 0, START) for one in examples]
            seconds = _seconds(trained, works, machine)
            nodes.append(Node(trained, (documents, *examples), ANNOTATOR_BYTES, seconds))
        needs = (documents, trained) if isinstance(annotator, Trained) else (documents,)
        nodes.append(Node(scored, needs, corpus.documents * SCORE_BYTES, _seconds(scored, works, machine)))
    return nodes


def _references(corpus: Corpus, works: list[Work], machine: Machine) -> tuple[list[Node], list[Node]]:
    """The nodes of reference documents: their signatures, and documents read from files."""
    signed, read = [], []
    for k, reference in enumerate(corpus.references):
        needs: tuple[str, ...] = ()
        if not reference.run:
            needs = (f"reference-documents-{k}",)
            read.append(Node(needs[0], (), round(reference.bytes * COMPRESSED), _seconds(needs[0], works, machine)))
        name, disk = f"reference-signatures-{k}", reference.documents * (_SIGNED + 8 * bands(near_of(corpus.recipe)) + 8)
        signed.append(Node(name, needs, disk, _seconds(name, works, machine)))
    return signed, read


def _duplicates_scratch(recipe: Recipe, documents: int) -> int:
    """Records of bands and ids, at most as many edges (another 16 bytes each), and three row numbers."""
    from headrace.select.duplicates.step import BAND, ID

    return documents * (bands(near_of(recipe)) * 2 * BAND.itemsize + ID.itemsize + 16 + 3 * row_bytes(documents))


def _groups(name: str, documents: int, works: list[Work], machine: Machine) -> Node:
    """Which files make a training document; as scratch, what they import."""
    scratch = round(sum(work.amount for work in works if work.artifact == name) * IMPORTS)
    return Node(name, ("documents",), documents * GROUP_BYTES, _seconds(name, works, machine), scratch=scratch)


def _sequence(stage: StagePlan, section: Stage, width: int, works: list[Work], machine: Machine, grouped: bool) -> Node:
    """A stage's sequence: rows with their segments; as scratch, every token once more and the records that move it."""
    from headrace.sequence.layout import CUT, GROUPED, MOVED, SAMPLED

    name = f"sequence-{stage.name}"
    masked = 1 / 8 if section.chat or section.sequence else 0
    row = (stage.sequence_length + 1) * (width + masked) + value("disk-segments")
    if section.sequence:
        # Whose row comes where in a mixture takes two bytes.
        mixed = 2 * stage.rows if section.sequence[0].weight is not None else 0
        return Node(name, ("tokenizer",), round(stage.rows * row), _seconds(name, works, machine), scratch=mixed)
    copies = sum(share.documents or 0 for share in stage.sources)
    again = sum(work.amount for work in works if work.artifact == name and work.figure == "rearranged")
    # A document is cut where rows end.
    segments = copies + stage.rows
    scratch = stage.tokens * width + again * width + copies * (SAMPLED.itemsize + grouped * GROUPED.itemsize)
    scratch += segments * (CUT.itemsize + MOVED.itemsize)
    seconds = _seconds(name, works, machine)
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
