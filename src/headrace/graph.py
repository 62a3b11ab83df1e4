"""From a recipe to its graph of steps: a pure function of the recipe and the inventory of its input."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

from headrace.errors import UserError
from headrace.flow.step import Step, topological
from headrace.recipe.columns import MEASURES
from headrace.recipe.expressions import columns
from headrace.recipe.mistakes import suggest
from headrace.recipe.schema import HELD_OUT, Recipe

if TYPE_CHECKING:
    from headrace.documents.inventory import SourceFiles
    from headrace.formats.imported import Taken
    from headrace.named_files import NamedFiles
    from headrace.select.duplicates.reference import EarlierRun
    from headrace.select.quality.training import Annotator
    from headrace.select.verdicts.quality import Selection
    from headrace.train.outside import Outside
    from headrace.train.step import Model

# Tokens per source: gives a standard error of 0.001 nats if the loss of single tokens varies by 1 nat.
HELD_OUT_TOKENS = 1_000_000
SEEDS = "seeds"  # the stage of artifacts about the documents that inspire synthetic ones


@dataclass
class Graph:
    """The steps of a recipe, by purpose.

    Attributes:
        steps: single artifacts by kind, in the order of the flow.
        sequences: stage name -> its sequence, including the held-out one.
        models: stage name -> its model.
        measures: steps about models: held-out loss and samples.
    """

    steps: dict[str, Step]
    sequences: dict[str, Step] = field(default_factory=dict)
    models: dict[str, Model] = field(default_factory=dict)
    measures: list[Step] = field(default_factory=list)

    def all(self) -> list[Step]:
        """All steps, each after its inputs."""
        return topological([*self.steps.values(), *self.sequences.values(), *self.models.values(), *self.measures])

    def until(self, target: str) -> list[Step]:
        """A target and the steps it needs: see :meth:`named`."""
        chosen = self.named(target, "--until")
        measured = [model.held_out for model in self.models.values() if model in chosen and model.train.held_out.every]
        return topological([*(one for one in measured if one is not None), *chosen])

    def named(self, target: str, where: str) -> list[Step]:
        """The steps that a target names: a kind, ``sequence-stage1`` or ``model-stage2``, in any case.

        Raises:
            UserError: the recipe has no such artifact; ``where`` is where the user asked for it.
        """
        wanted = target.lower()
        chosen = [s for s in self.all() if wanted in (s.kind, f"{s.kind}-{s.stage}".lower(), s.name.lower())]
        if not chosen:
            names = dict.fromkeys(f"{s.kind}-{s.stage}" if s.stage else s.kind for s in self.all())
            raise UserError(
                f"The recipe builds no artifact {target!r}.",
                where,
                suggest(target, names) or f"Choose one of {', '.join(names)}.",
            )
        return chosen


def build_graph(
    recipe: Recipe,
    sources: tuple[SourceFiles, ...],
    against: tuple[EarlierRun | SourceFiles, ...] = (),
    sequences: Mapping[str, tuple[Taken, ...]] = MappingProxyType({}),
    files: NamedFiles | None = None,
    starts: Mapping[str, Outside] = MappingProxyType({}),
    positives: Mapping[str, tuple[SourceFiles, ...]] = MappingProxyType({}),
    edits: Mapping[str, Mapping[str, Any]] = MappingProxyType({}),
) -> Graph:
    """Build the graph of a recipe over an inventory of its input.

    Args:
        recipe: the recipe.
        sources: its sources, with their files.
        against: the entries of ``deduplicate.against``, in order.
        sequences: the rows of stages that train on sequences in other files.
        files: the other files that it names, as the run found them; read now without them.
        starts: the checkpoints of stages that start from another run's.
        positives: the positives in other files of each annotator.
        edits: what models continue, after edits of the recipe (:mod:`headrace.train.edits`).
    """
    from headrace.named_files import NamedFiles

    files = files or NamedFiles.of(recipe)
    graph = Graph(all_corpus_steps(recipe, sources, against, files, positives) if recipe.sources else {})
    if recipe.stages:
        add_stages(graph, recipe, sequences, files, starts, edits)
    return graph


def all_corpus_steps(
    recipe: Recipe,
    sources: tuple[SourceFiles, ...],
    against: tuple[EarlierRun | SourceFiles, ...],
    files: NamedFiles,
    positives: Mapping[str, tuple[SourceFiles, ...]],
) -> dict[str, Step]:
    """The steps from raw files to verdicts, by kind; those of the documents that inspire synthetic ones come first.

    Synthetic documents then go the way of all others, together with them. What was done for the first is reused.
    """
    if not recipe.synthetic:
        return corpus_steps(recipe, sources, against, files, positives)
    from headrace.select.measures.step import Measures
    from headrace.select.quality.training import Annotator
    from headrace.select.verdicts.step import Verdicts
    from headrace.synthetic.step import SyntheticDocuments

    read = tuple(source for source in sources if source.source.synthetic is None)
    first = corpus_steps(recipe.without_synthetic(), read, against, files, positives)
    first.pop("hits", None)  # those of all documents have them
    documents, verdicts = first["documents"], first["verdicts"]
    assert isinstance(verdicts, Verdicts)
    made: dict[str, Step] = {}
    for source, section in recipe.synthetic.items():
        where = recipe.condition(section)
        names = columns(where) if where is not None else []
        beside = {f"measure-{name}": step for name, step in verdicts.own.items() if name in names}
        if not set(MEASURES).isdisjoint(names):
            beside["measures"] = first.setdefault("measures", Measures(documents))
        if (best := section.seeds.quality) is not None:
            beside["quality"] = first[f"quality-{recipe.without_synthetic().quality.named(best.annotator)}"]
        chosen = section.seeds.sources or tuple(recipe.read_from_files)
        recorded = files.answers.get(source, ())
        made[source] = SyntheticDocuments(
            section, recipe.seed, documents, verdicts, chosen, source, where, beside, recorded
        )
    # An annotator that has learned from the documents in files judges all documents.
    taught = {str(step.stage): step for step in first.values() if isinstance(step, Annotator)}
    steps = {f"{SEEDS}-{kind}" if mark_as_seeds(step, documents) else kind: step for kind, step in first.items()}
    steps |= {f"synthetic-{name}": step for name, step in made.items()}
    return steps | corpus_steps(recipe, sources, against, files, positives, made, taught)


def mark_as_seeds(step: Step, documents: Step) -> bool:
    """Name a step and its inputs, as far as they are about some documents, apart from those about all documents, which
    have the same kinds; returns whether it is one of them. Annotators are shared.
    """
    from headrace.select.quality.training import Annotator

    about = [mark_as_seeds(need, documents) for need in step.inputs().values()]
    if isinstance(step, Annotator) or not (any(about) or step is documents):
        return False
    if step.stage != SEEDS and not (step.stage or "").startswith(f"{SEEDS}-"):
        object.__setattr__(step, "stage", f"{SEEDS}-{step.stage}" if step.stage else SEEDS)
    return True


def corpus_steps(
    recipe: Recipe,
    sources: tuple[SourceFiles, ...],
    against: tuple[EarlierRun | SourceFiles, ...],
    files: NamedFiles,
    positives: Mapping[str, tuple[SourceFiles, ...]],
    made: Mapping[str, Step] = MappingProxyType({}),
    taught: Mapping[str, Annotator] = MappingProxyType({}),
) -> dict[str, Step]:
    """The steps from raw files, and what is made of synthetic sources, to verdicts, by kind."""
    from headrace.documents.step import Documents
    from headrace.select.contamination.hits import Hits
    from headrace.select.contamination.step import Contamination
    from headrace.select.duplicates.reference import Reference
    from headrace.select.duplicates.step import Duplicates
    from headrace.select.licences.step import Licences
    from headrace.select.measures.step import Measures
    from headrace.select.measures.user import UserMeasure
    from headrace.select.verdicts.step import Verdicts

    documents = Documents(sources, recipe.documents, made=made)
    steps: dict[str, Step] = {"documents": documents}
    if recipe.uses_measures:
        steps["measures"] = Measures(documents)
    own: dict[str, Step] = {
        name: UserMeasure(documents, measure, recipe.documents.max_quarantined, name)
        for name, measure in recipe.measures.items()
    }
    references = reference_steps(recipe, against)
    duplicates = None
    if recipe.deduplicate or recipe.split.check:
        sets = tuple(step for step in references.values() if isinstance(step, Reference))
        steps["duplicates"] = duplicates = Duplicates.of(recipe, documents, sets)
    if recipe.decontaminate:
        steps["contamination"] = contamination = Contamination.of(recipe, documents, files.benchmarks)
        steps["hits"] = Hits(contamination, recipe.decontaminate)
    if licences := Licences.of(recipe, documents):
        steps["licences"] = licences
    steps |= quality_steps(recipe, documents, duplicates, files, positives, taught)
    found = (steps.get("measures"), duplicates, steps.get("contamination"), own, licences, files.opt_out)
    chosen = selection(recipe, documents, steps, files)
    steps["verdicts"] = Verdicts.of(recipe, documents, *found, chosen)
    return steps | references


def quality_steps(
    recipe: Recipe,
    documents: Step,
    duplicates: Step | None,
    files: NamedFiles,
    positives: Mapping[str, tuple[SourceFiles, ...]],
    taught: Mapping[str, Annotator],
) -> dict[str, Step]:
    """The steps of annotators, by kind and the annotator's name."""
    if not recipe.quality.annotators:
        return {}
    from headrace.recipe.quality import Trained
    from headrace.select.quality.step import Quality
    from headrace.select.quality.training import Annotator, PositiveDocuments

    steps: list[Step] = []
    for name, config in recipe.quality.annotators.items():
        found = files.annotators.get(name, {})
        trained = taught.get(name)
        if isinstance(config, Trained) and trained is None:
            read = tuple(
                PositiveDocuments((entry,), recipe.documents, f"{name}-{k}")
                for k, entry in enumerate(positives.get(name, ()))
            )
            near = recipe.deduplicate is not None and recipe.deduplicate.near is not None
            copies = duplicates if near and config.positives.sources else None
            about = (config, tuple(recipe.sources), recipe.seed, found, name)
            trained = Annotator(documents, read, copies, *about)
            steps += [*read, trained]
        elif trained is not None:
            steps.append(trained)
        looked_at = (files.solutions, recipe.documents.normalise, recipe.seed)
        steps.append(Quality(documents, trained, config, found, *looked_at, name))
    return {f"{step.kind}-{step.stage}": step for step in steps}


def selection(recipe: Recipe, documents: Step, steps: dict[str, Step], files: NamedFiles) -> Selection | None:
    """Which documents are kept by quality; adds the step that counts their tokens, if that is needed."""
    keep = recipe.quality.keep
    if keep is None:
        return None
    from headrace.select.verdicts.quality import Selection
    from headrace.tokens.lengths import Lengths
    from headrace.tokens.training import Tokenizer, needed_roles

    name, lengths = recipe.quality.named(keep.annotator), None
    if keep.tokens is not None:
        assert recipe.tokenizer is not None  # the schema requires a file
        tokenizer = Tokenizer(recipe.tokenizer, needed_roles(recipe), recipe.seed, None, None, files.tokenizer)
        steps["lengths"] = lengths = Lengths(documents, tokenizer)
    identified = steps[f"quality-{keep.by}"] if keep.by in recipe.quality.annotators else None
    return Selection(keep, name, steps[f"quality-{name}"], lengths, identified)


def reference_steps(recipe: Recipe, against: tuple[EarlierRun | SourceFiles, ...]) -> dict[str, Step]:
    """The steps for reference documents, by kind and index in ``deduplicate.against``."""
    from headrace.documents.inventory import SourceFiles
    from headrace.documents.step import ReferenceDocuments
    from headrace.select.duplicates.reference import Reference

    near = recipe.deduplicate.near if recipe.deduplicate is not None else None
    steps: list[Step] = []
    for k, entry in enumerate(against):
        if isinstance(entry, SourceFiles):
            read = ReferenceDocuments((entry,), recipe.documents, str(k))
            steps += [read, Reference(near, read, None, (entry.name,), str(k))]
        else:
            steps.append(Reference(near, None, entry, entry.sources, str(k)))
    return {f"{step.kind}-{step.stage}": step for step in steps}


def _imported(stage: str, taken: tuple[Taken, ...], length: int, seed: int, tokenizer: Step, epochs: int = 1) -> Step:
    """A sequence from other files."""
    from headrace.formats.imported import ImportedSequence  # brings the formats, which other recipes do without

    return ImportedSequence(stage, taken, length, seed, tokenizer, epochs=epochs)


def add_stages(
    graph: Graph,
    recipe: Recipe,
    sequences: Mapping[str, tuple[Taken, ...]],
    files: NamedFiles,
    starts: Mapping[str, Outside],
    edits: Mapping[str, Mapping[str, Any]],
) -> None:
    """Add the tokenizer, the tokens, and each stage's sequence and model."""
    from headrace.sequence.step import Sequence as StageSequence
    from headrace.tokens.step import Tokens
    from headrace.tokens.training import Tokenizer, needed_roles

    assert recipe.tokenizer is not None
    steps = graph.steps
    documents, verdicts = steps.get("documents"), steps.get("verdicts")
    tokenizer = Tokenizer(recipe.tokenizer, needed_roles(recipe), recipe.seed, documents, verdicts, files.tokenizer)
    steps["tokenizer"] = tokenizer
    inputs: dict[str, Step] = {}
    if documents is not None and verdicts is not None:
        steps["tokens"] = Tokens(documents, verdicts, tokenizer, tuple(recipe.sources))
        inputs = {"documents": documents, "tokenizer": tokenizer, "tokens": steps["tokens"]}
    for stage in recipe.stages:
        if stage.sequence:
            taken = sequences[stage.name]
            seed = recipe.seed if stage.seed is None else stage.seed
            length = stage.sequence_length
            graph.sequences[stage.name] = _imported(stage.name, taken, length, seed, tokenizer, stage.epochs)
        else:
            scores = {name: steps[f"quality-{name}"] for name in recipe.quality.annotators}
            graph.sequences[stage.name] = StageSequence.of(recipe, stage, files.templates, **inputs, scores=scores)
    if recipe.model is None:
        return
    from headrace.evaluate.step import Evaluation, Samples
    from headrace.model.imported import ImportedModel
    from headrace.train.step import Model

    found = files.model
    imported = ImportedModel(found["folder"], found["files"], found["config"]) if found and found["files"] else None

    if recipe.held_out:
        length = recipe.sequences[HELD_OUT][1]
        graph.sequences[HELD_OUT] = _imported(HELD_OUT, sequences[HELD_OUT], length, recipe.seed, tokenizer)
    elif recipe.split.validation and recipe.sources:
        graph.sequences[HELD_OUT] = StageSequence.held_out(recipe, HELD_OUT, HELD_OUT_TOKENS, files.templates, **inputs)
    held_out = graph.sequences.get(HELD_OUT)
    before: Step | None = imported
    for stage in recipe.stages:
        start = before if stage.start is None else graph.models.get(stage.start)
        own = graph.sequences[stage.name]
        outside = starts.get(stage.name)
        described = Model.of(recipe, stage, own, start, tokenizer, outside, found and found["config"], held_out)
        edited = edits.get(described.name, described.after)
        model = replace(described, after=edited)
        before = graph.models[stage.name] = model
        about = stage.name, stage.train, recipe.seed, model
        if held_out is not None:
            graph.measures.append(Evaluation(*about, model.is_new, held_out, tokenizer, own))
        if stage.train.samples.tokens and recipe.tokenizer.ids is None:
            graph.measures.append(Samples(*about, tokenizer, own, held_out))
