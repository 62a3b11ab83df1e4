"""The artifacts from documents to verdicts, and the synthetic sources between those of seeds and those of all."""

from __future__ import annotations

from headrace.graph import SEEDS
from headrace.planning.corpus import Corpus
from headrace.planning.counts import SourceCounts
from headrace.planning.machine import START, Machine
from headrace.planning.node import Node, seconds_of
from headrace.planning.rates import Work, value
from headrace.planning.work import bands, near_of, row_bytes
from headrace.recipe.quality import Trained
from headrace.recipe.schema import Recipe

# Zstandard at Parquet's default level, on SlimPajama as published: about 895 GB for 2,567 GB of text.
COMPRESSED = 0.35
# An id and a length in the signatures sidecar, in addition to 8 bytes per band.
_SIGNED = 24
# A value of a user-defined measure, as a 64-bit number.
OWN_BYTES = 8
# A score; and the weights of a linear annotator.
SCORE_BYTES, ANNOTATOR_BYTES = 4, 4 << 20
LENGTH_BYTES = 8  # a count of tokens
LICENCE_BYTES = 4  # most licenses are one of few, which Parquet stores once


def selection_nodes(corpus: Corpus, works: list[Work], machine: Machine) -> list[Node]:
    """The nodes from the documents to the verdicts. Of what was done for seeds, files are linked."""
    recipe, new = corpus.recipe, corpus.documents
    nodes: list[Node] = []

    def add(kind: str, needs: tuple[str, ...], disk: float, scratch: float = 0) -> str:
        name = corpus.node(kind)
        nodes.append(Node(name, needs, round(disk), seconds_of(name, works, machine), scratch=round(scratch)))
        return name

    made = tuple(f"synthetic-{name}" for name in recipe.synthetic)
    documents = add("documents", made, corpus.text * COMPRESSED)
    needs = [documents]
    own = [add(f"measure-{name}", (documents,), new * OWN_BYTES) for name in recipe.measures]
    nodes += _annotators(corpus, works, machine)
    if recipe.uses_measures:
        needs.append(add("measures", (documents,), new * value("disk-measures")))
    signed, read = _references(corpus, works, machine)
    if recipe.deduplicate is not None or recipe.split.check is not None:
        signatures = add("signatures", (documents,), new * (_SIGNED + 8 * bands(near_of(recipe))))
        nodes += [*read, *signed] if corpus.is_first else []
        beside = (documents, signatures, *(node.name for node in (*signed, *read)))
        scratch = _duplicates_scratch(recipe, corpus.compared)
        needs.append(add("duplicates", beside, corpus.decided * value("disk-duplicates"), scratch))
    if recipe.decontaminate is not None:
        needs.append(add("contamination", (documents,), new * value("disk-contamination")))
        if not corpus.seeds:
            add("hits", (documents, needs[-1]), 0)
    if any(source.licenses is not None for source in recipe.sources.values()):
        needs.append(add("licences", (documents,), corpus.decided * LICENCE_BYTES))
    if (keep := recipe.quality.keep) is not None:
        needs.append(corpus.node(f"quality-{recipe.quality.named(keep.annotator)}"))
        if keep.tokens is not None:
            needs.append(add("lengths", (documents, "tokenizer"), new * LENGTH_BYTES))
    verified = sum(
        work.amount for work in works if work.figure == "verify" and work.artifact == corpus.node("verdicts")
    )
    needs += [*own, *(node.name for node in read)]
    add("verdicts", tuple(needs), corpus.decided * value("disk-verdicts"), verified)
    return nodes


def writing_nodes(recipe: Recipe, sources: tuple[SourceCounts, ...], works: list[Work], machine: Machine) -> list[Node]:
    """The nodes of synthetic sources: what is written."""
    sizes = {source.name: source.bytes for source in sources}
    needs = (f"documents-{SEEDS}", f"verdicts-{SEEDS}")
    return [
        Node(made, needs, round(sizes[name] * COMPRESSED), seconds_of(made, works, machine))
        for name in recipe.synthetic
        for made in [f"synthetic-{name}"]
    ]


def _annotators(corpus: Corpus, works: list[Work], machine: Machine) -> list[Node]:
    """The nodes of annotators, and of the scores they give."""
    nodes, documents = [], corpus.node("documents")
    for name, annotator in corpus.recipe.quality.annotators.items():
        trained, scored = f"annotator-{name}", corpus.node(f"quality-{name}")
        if isinstance(annotator, Trained) and name in corpus.trained:
            examples = [f"positive-documents-{name}-{k}" for k in range(len(annotator.positives.files))]
            nodes += [Node(one, (), 0, START) for one in examples]
            seconds = seconds_of(trained, works, machine)
            nodes.append(Node(trained, (documents, *examples), ANNOTATOR_BYTES, seconds))
        needs = (documents, trained) if isinstance(annotator, Trained) else (documents,)
        nodes.append(Node(scored, needs, corpus.documents * SCORE_BYTES, seconds_of(scored, works, machine)))
    return nodes


def _references(corpus: Corpus, works: list[Work], machine: Machine) -> tuple[list[Node], list[Node]]:
    """The nodes of reference documents: their signatures, and documents read from files."""
    signed, read = [], []
    for k, reference in enumerate(corpus.references):
        needs: tuple[str, ...] = ()
        if not reference.run:
            needs = (f"reference-documents-{k}",)
            read.append(Node(needs[0], (), round(reference.bytes * COMPRESSED), seconds_of(needs[0], works, machine)))
        name, each = f"reference-signatures-{k}", _SIGNED + 8 * bands(near_of(corpus.recipe)) + 8
        signed.append(Node(name, needs, reference.documents * each, seconds_of(name, works, machine)))
    return signed, read


def _duplicates_scratch(recipe: Recipe, documents: int) -> int:
    """Records of bands and ids, at most as many edges (another 16 bytes each), and three row numbers."""
    from headrace.select.duplicates.step import BAND, ID

    return documents * (bands(near_of(recipe)) * 2 * BAND.itemsize + ID.itemsize + 16 + 3 * row_bytes(documents))
