"""Gather the facts about a run from its folder. Nothing is measured here that the run did not measure."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from headrace.flow.artifact import Artifact
from headrace.recipe.load import dump, load_sealed, published
from headrace.recipe.schema import Recipe
from headrace.report.corpus_facts import corpus_facts, sources_read
from headrace.report.departures import departures
from headrace.report.facts import Pairs, RunFacts, SourceFacts, StageFacts
from headrace.report.found_counts import found_counts, needs_lengths
from headrace.report.hits import hits_of
from headrace.report.latest import Key, latest_artifacts
from headrace.report.length_facts import SIDECARS, with_lengths
from headrace.report.licence_facts import licence_facts
from headrace.report.long_facts import long_facts
from headrace.report.quality_facts import OF_ANNOTATORS, quality_facts
from headrace.report.stage_facts import stage_facts
from headrace.report.timing import environments, timing, work
from headrace.report.training_facts import training_facts


def gather(run: Path | str) -> RunFacts:
    """The facts about a run, finished or not; what has not been built is absent.

    Raises:
        UserError: the folder has no recipe, or an artifact cannot be read.
    """
    run = Path(run)
    recipe = published(load_sealed(run / "recipe.yaml"))
    artifacts = present(run, recipe)
    documents, verdicts = artifacts.get(("documents", None)), artifacts.get(("verdicts", None))
    tokens, tokenizer = artifacts.get(("tokens", None)), artifacts.get(("tokenizer", None))
    corpus = corpus_facts(documents, verdicts, tokens, list(recipe.sources))
    sources = corpus.sources
    if documents is not None:
        sources = with_lengths(sources, documents, verdicts, *(artifacts.get((kind, None)) for kind in SIDECARS))
    told = timing(run)
    page = run / "report" / "index.html"
    return RunFacts(
        run=str(run),
        name=recipe.name,
        recipe=dump(recipe),
        sources=sources,
        duplicates=corpus.duplicates,
        holdout=corpus.holdout,
        references=_named(corpus.references, recipe),
        contamination=corpus.contamination,
        examples=corpus.examples,
        vocabulary=None if tokenizer is None else tokenizer.manifest.extra["vocab_size"],
        stages=_stages(artifacts, recipe, run),
        licences=[]
        if documents is None or verdicts is None
        else licence_facts(documents, verdicts, tokens, artifacts.get(("licences", None)), declared(recipe)),
        work=work(told, list(artifacts.values())),
        environments=environments(told, list(artifacts.values())),
        base=told.base,
        seconds=told.seconds,
        report=str(page) if page.exists() else None,
        departures=departures(recipe, sources),
        hits=hits_of(hits) if (hits := artifacts.get(("hits", None))) is not None else None,
        counts=found_counts(recipe, sources),
        quality=quality_facts(
            artifacts, {name: one.kind for name, one in recipe.quality.annotators.items()}, documents, verdicts
        ),
        long=long_facts(run, {stage.name: stage.sequence_length for stage in recipe.stages}),
    )


def declared(recipe: Recipe) -> dict[str, str | None]:
    """The license that a recipe declares for each source."""
    return {name: source.license for name, source in recipe.sources.items()}


def records(run: Path) -> list[SourceFacts]:
    """What happened to each source's records so far; empty before they are read. Manifests say it, unless the recipe
    expects bytes removed for a reason."""
    recipe = load_sealed(run / "recipe.yaml")
    artifacts = latest_artifacts(run)
    documents = artifacts.get(("documents", None))
    if documents is None:
        return []
    verdicts, tokens = artifacts.get(("verdicts", None)), artifacts.get(("tokens", None))
    sources = sources_read(documents, verdicts, tokens, recipe.sources)
    return (
        with_lengths(sources, documents, verdicts, *(artifacts.get((kind, None)) for kind in SIDECARS))
        if needs_lengths(recipe)
        else sources
    )


def _named(references: Pairs | None, recipe: Recipe) -> Pairs | None:
    """Name sets of references by their place in the recipe rather than by number."""
    if references is None or not recipe.against:
        return None
    return {(source, recipe.against[int(k)].files[0].glob): n for (source, k), n in references.items()}


def present(run: Path, recipe: Recipe) -> dict[Key, Artifact]:
    """The artifacts of a run that belong together and to its recipe, by kind and stage."""
    return _wanted(latest_artifacts(run), recipe)


def _wanted(artifacts: dict[Key, Artifact], recipe: Recipe) -> dict[Key, Artifact]:
    """Leave out what an earlier version of the recipe built: removed stages, sidecars that no verdict used."""
    names = {stage.name for stage in recipe.stages}
    verdicts = artifacts.get(("verdicts", None))
    judged = None if verdicts is None else set(verdicts.manifest.inputs.values())
    duplicates = artifacts.get(("duplicates", None))
    compared = set() if duplicates is None else set(duplicates.manifest.inputs.values())
    held_out = {
        identity
        for (kind, stage), artifact in artifacts.items()
        if kind == "evaluation" and stage in names
        for identity in artifact.manifest.inputs.values()
    }
    documents = artifacts.get(("documents", None))
    apart = set() if documents is None else {documents.manifest.identity}
    wanted = {}
    for (kind, stage), artifact in artifacts.items():
        identity = artifact.manifest.identity
        if kind.startswith("reference-"):
            if identity in compared:
                wanted[kind, stage] = artifact
            continue
        if kind in OF_ANNOTATORS:
            if stage in recipe.quality.annotators:
                wanted[kind, stage] = artifact
            continue
        if stage is not None and kind != "measure" and stage not in names and identity not in held_out:
            continue
        if (
            kind in ("measures", "measure", "duplicates", "contamination")
            and judged is not None
            and identity not in judged
        ):
            continue
        if kind == "hits" and judged is not None and judged.isdisjoint(set(artifact.manifest.inputs.values()) - apart):
            continue
        if kind == "licences" and all(source.licenses is None for source in recipe.sources.values()):
            continue
        wanted[kind, stage] = artifact
    return wanted


def _stages(artifacts: dict[Key, Artifact], recipe: Recipe, run: Path) -> list[StageFacts]:
    """Facts about the stages whose sequence exists, in training order."""
    facts = []
    for stage in recipe.stages:
        sequence, model = artifacts.get(("sequence", stage.name)), artifacts.get(("model", stage.name))
        if sequence is None:
            continue
        batch = stage.train.batch if recipe.model is not None else None
        told = stage_facts(sequence, batch, artifacts.get(("tokenizer", None)), artifacts.get(("documents", None)))
        if model is not None:
            own, samples = artifacts.get(("evaluation", stage.name)), artifacts.get(("samples", stage.name))
            before = artifacts.get(("evaluation", recipe.begins_from(stage) or ""))
            told = replace(told, training=training_facts(model, run, own, before, samples))
        facts.append(told)
    return facts
