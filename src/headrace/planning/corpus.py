"""Whose documents the steps up to the verdicts look at: all, or those that inspire synthetic ones and then all."""

from __future__ import annotations

from dataclasses import dataclass

from headrace.graph import SEEDS
from headrace.planning.benchmarks import BenchmarkCounts
from headrace.planning.counts import SourceCounts
from headrace.planning.references import DOCUMENT_BYTES, ReferenceCounts
from headrace.recipe.quality import AnyAnnotator, Trained
from headrace.recipe.schema import Recipe

_ABOUT_ALL = ("reference", "annotator", "positive-documents", "synthetic")  # kinds that seeds have none of their own of


@dataclass(frozen=True)
class Corpus:
    """What the steps from documents to verdicts work on.

    Attributes:
        recipe: the recipe; of seeds, without what is synthetic.
        sources: the sources that are compared and decided about.
        new: those of which no earlier step has looked at the documents. What looks at one document at a time, or one
            shard, has been done for the others (:mod:`headrace.flow.reuse`).
        references: the size of each set of reference documents.
        benchmarks: what to search for.
        seeds: whether these are the documents that inspire synthetic ones.
        taught: annotators that have been trained already.
    """

    recipe: Recipe
    sources: tuple[SourceCounts, ...]
    new: tuple[SourceCounts, ...]
    references: tuple[ReferenceCounts, ...]
    benchmarks: BenchmarkCounts
    seeds: bool = False
    taught: frozenset[str] = frozenset()

    @property
    def is_first(self) -> bool:
        """Whether no other corpus comes before: what both need, such as reference documents, is made for the first."""
        return self.new == self.sources

    @property
    def text(self) -> int:
        """Bytes of text to read for the first time."""
        return sum(source.bytes for source in self.new)

    @property
    def documents(self) -> int:
        """Documents to look at for the first time."""
        return documents_of(self.new)

    @property
    def decided(self) -> int:
        """Documents to decide about."""
        return documents_of(self.sources)

    @property
    def compared(self) -> int:
        """Documents that are compared for duplicates."""
        return compared(self.sources, self.references)

    @property
    def trained(self) -> dict[str, AnyAnnotator]:
        """The annotators that are trained on these documents."""
        annotators = self.recipe.quality.annotators.items()
        return {name: one for name, one in annotators if isinstance(one, Trained) and name not in self.taught}

    def node(self, name: str) -> str:
        """An artifact's name in the graph: its kind, and as its stage that it is about seeds."""
        if not self.seeds or name.startswith(_ABOUT_ALL):
            return name
        kind, *stage = name.split("-", 1)
        return "-".join((kind, SEEDS, *stage))


def corpora_of(
    recipe: Recipe,
    sources: tuple[SourceCounts, ...],
    references: tuple[ReferenceCounts, ...],
    benchmarks: BenchmarkCounts,
) -> list[Corpus]:
    """The corpora of a recipe, in the order of the flow; as in :func:`headrace.graph.all_corpus_steps`."""
    if not sources:
        return []
    if not recipe.synthetic:
        return [Corpus(recipe, sources, sources, references, benchmarks)]
    read = tuple(source for source in sources if source.name not in recipe.synthetic)
    made = tuple(source for source in sources if source.name in recipe.synthetic)
    seeds = Corpus(recipe.without_synthetic(), read, read, references, benchmarks, seeds=True)
    taught = frozenset(seeds.recipe.quality.annotators)
    return [seeds, Corpus(recipe, sources, made, references, benchmarks, taught=taught)]


def documents_of(sources: tuple[SourceCounts, ...]) -> int:
    """Documents in all sources, estimated from their text if unknown."""
    return sum(source.documents or round(source.bytes / DOCUMENT_BYTES) for source in sources)


def compared(sources: tuple[SourceCounts, ...], references: tuple[ReferenceCounts, ...]) -> int:
    """Documents that are compared for duplicates."""
    return documents_of(sources) + sum(reference.documents for reference in references)
