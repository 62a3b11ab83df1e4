"""Plan a recipe: its graph, and documents, tokens, epochs, steps, disk and time, before any work."""

from __future__ import annotations

from pathlib import Path

from headrace.errors import UserError
from headrace.planning import annotators, synthetic
from headrace.planning.benchmarks import count_benchmarks
from headrace.planning.corpus import compared
from headrace.planning.counts import SourceCounts, count_source, kept_by_quality
from headrace.planning.graph import graph_of
from headrace.planning.machine import Machine
from headrace.planning.measured import Measured, measured
from headrace.planning.node import Node
from headrace.planning.plan import Memory, Plan
from headrace.planning.rates import value
from headrace.planning.references import count_references
from headrace.planning.sequences import count_sequences
from headrace.planning.stages import doubts, resolve_stage, ungrouped
from headrace.planning.work import row_bytes
from headrace.recipe.schema import HELD_OUT, Recipe

# The share of the budget for union-find's arrays: equals ``labels.UNION_SHARE``, whose module would compile kernels.
UNION_SHARE = 0.75


def plan(recipe: Recipe, run: Path | None = None, base: Path | None = None, workers: int | None = None) -> Plan:
    """Plan a recipe.

    Args:
        recipe: the recipe.
        run: a run folder; measurements there for exactly this recipe replace estimates.
        base: the folder that ``${recipe}`` and relative paths refer to if the recipe was not read from a file.
        workers: worker processes, each on a core like this machine's; by default as many as it has.

    Raises:
        UserError: the files of a source without ``expect``, or of a sequence, cannot be found or read.
    """
    from headrace.tokens.expected import expected_size

    known = Measured() if run is None else measured(recipe, run)
    sources = tuple(known.source(name, recipe) or _counted(name, recipe, base or Path.cwd()) for name in recipe.sources)
    sources = kept_by_quality(recipe, sources)
    references = count_references(recipe, run, base or Path.cwd())
    machine = Machine.here(workers)
    vocabulary, notes = expected_size(recipe)
    config = None
    if recipe.model is not None:
        from headrace.model.presets import resolve as resolve_model

        config = resolve_model(recipe.model, vocabulary)
    stored = count_sequences(recipe, run)
    lengths_known = [ungrouped(recipe, stage, sources) for stage in recipe.stages]
    stages = tuple(
        resolve_stage(recipe, i, lengths_known[i], config, known.ledger(stage.name), stored.get(stage.name))
        for i, stage in enumerate(recipe.stages)
    )
    for stage, section, of in zip(stages, recipe.stages, lengths_known, strict=True):
        notes += doubts(stage, section, of)
    notes += [source.doubt for source in sources if source.doubt]
    benchmarks, missing = count_benchmarks(recipe)
    notes += missing
    notes += [*annotators.notes(recipe), *synthetic.notes(recipe)]
    if recipe.model is not None:
        from headrace.train.installed import check_installed
        from headrace.train.possible import check_possible

        try:
            check_installed(stage.train for stage in recipe.stages)
            check_possible(recipe)
        except UserError as error:
            notes.append(f"{error.what} {error.fix}")
    parameters = None
    if config is not None:
        from headrace.model.config import parameter_count

        parameters = parameter_count(config)
    searched = references, benchmarks, stored.get(HELD_OUT, ())
    graph = graph_of(recipe, sources, stages, parameters, vocabulary, machine, *searched)
    nodes = tuple(_as_made(node, known) for node in graph.nodes)
    done = {node.name for node in nodes if node.done}
    work = tuple(entry for entry in graph.work if entry.artifact not in done)
    memory = _memory(recipe, compared(sources, references), machine.cores)
    if run is not None:
        notes = [*notes, *_as_before(recipe, run, base or Path.cwd())]
    code = tuple((place, function.label, function.origin) for place, function in recipe.functions())
    return Plan(recipe.name, sources, stages, nodes, work, memory, parameters, machine, tuple(notes), code, references)


def _counted(name: str, recipe: Recipe, base: Path) -> SourceCounts:
    """The size of a source before any work.

    Raises:
        UserError: as for :func:`headrace.planning.counts.count_source`.
    """
    if name in recipe.synthetic and not recipe.sources[name].is_counted:
        return synthetic.count_synthetic(name, recipe)
    return count_source(name, recipe, base)


def _as_before(recipe: Recipe, run: Path, base: Path) -> list[str]:
    """What the run would assume to be unchanged, in a sentence."""
    from headrace.documents.fingerprint import trusted
    from headrace.documents.inventory import FINGERPRINTS, assumed_unchanged, list_sources

    if not (run / FINGERPRINTS).exists():
        return []
    try:
        listed = list_sources(recipe.sources, recipe.seed, base)
    except UserError:  # planned from `expect`, before the files exist
        return []
    count, size = trusted([file for files in listed.values() for file in files], run / FINGERPRINTS)
    return [assumed_unchanged(count, size)] if count else []


def _as_made(node: Node, known: Measured) -> Node:
    """The node with measured values, if its artifact exists."""
    made = known.artifacts.get(node.name)
    return node if made is None else Node(node.name, node.inputs, made.bytes, known.seconds.get(node.name, 0.0), True)


def _memory(recipe: Recipe, documents: int, workers: int) -> Memory:
    """Memory of a run: the phase that needs most per worker, and union-find's arrays if there are any."""
    from headrace.documents.step import TASK_MEMORY

    data = workers * TASK_MEMORY
    if recipe.deduplicate is not None or recipe.split.check is not None:
        data = max(data, round(2 * documents * row_bytes(documents) / UNION_SHARE))
    return Memory(workers, round(value("memory-worker")), data)
