"""A run folder: its stored recipe and inventory, the graph that follows from them, and the artifacts built from it.

The coordinator, its workers and every command about a run build the same graph from here.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Container, Mapping
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import xxhash

from headrace.errors import UserError
from headrace.flow.artifact import MANIFEST, Artifact
from headrace.flow.events import read_events
from headrace.flow.mirror import here, working_folder
from headrace.flow.step import Step
from headrace.flow.storage import SealError, digest_file, read_sealed, write_sealed
from headrace.graph import Graph, build_graph
from headrace.recipe.load import load_sealed, sealed
from headrace.recipe.mistakes import suggest
from headrace.recipe.schema import Recipe, Source, Withdrawn

if TYPE_CHECKING:
    from headrace.documents.inventory import SourceFiles
    from headrace.formats.imported import Taken
    from headrace.named_files import NamedFiles
    from headrace.select.duplicates.reference import EarlierRun
    from headrace.sequence.reader import SequenceReader
    from headrace.sequence.store import ArrowSequence
    from headrace.train.outside import Outside

RECIPE = "recipe.yaml"
WITHDRAWN = "withdrawn.json"  # documents withdrawn from this run, besides those named in its recipe
AGAINST = "deduplicate.against"
POSITIVES = "quality.positives"  # the source of documents that are only examples for annotators
REFERENCES = "references.json"  # the runs among `deduplicate.against`
SEQUENCES = "sequences.json"  # the sequences in other files that stages train on
FILES = "files.json"  # the other files that the recipe names
STARTS = "starts.json"  # the checkpoints of other runs that stages start from
SILENT = 60  # seconds without a sign of life after which a coordinator on another machine does not count as running
ENDS = ("finished", "failed", "stopped", "died")  # events that say how a run ended
GRAPH = "headrace.run_folder:targets"


def targets(run: Path) -> list[Step]:
    """The graph of a run folder, for workers and ``status``."""
    return read_graph(run).all()


def preload(run: Path) -> None:
    """Import what workers need and make the tables that most use, in the process that they are forked from."""
    from numba.np import arrayobj  # noqa: F401 - what a kernel that makes arrays names

    from headrace.documents import reading  # noqa: F401
    from headrace.select import code_points
    from headrace.select.contamination import matching  # noqa: F401
    from headrace.select.duplicates import fingerprints, labels  # noqa: F401
    from headrace.select.measures import text_statistics, visible_text  # noqa: F401
    from headrace.select.verdicts import deduplication  # noqa: F401
    from headrace.sequence import packing, repartition, shuffle  # noqa: F401
    from headrace.tokens import load  # noqa: F401

    with suppress(UserError):  # whoever builds the graph says it
        recipe = read_recipe(run)
        without_pandas(recipe)
        if recipe.uses_measures or recipe.decontaminate:
            code_points.classes()
        if recipe.decontaminate:
            code_points.lower_case()


def without_pandas(recipe: Recipe | None) -> None:
    """Keep Arrow from importing pandas, unless the recipe has functions of the user's own, which may use both.

    Arrow asks of whatever it is given whether it is of pandas, and imports it for that where it is installed: 0.4 s and
    40 MB in each process. It asks once.
    """
    import pyarrow as pa

    class Absent:
        @staticmethod
        def find_spec(name: str, *_: Any) -> None:
            if name == "pandas":
                raise ModuleNotFoundError(name)

    if recipe is None or not recipe.functions():
        sys.meta_path.insert(0, Absent)
        pa.array([0])
        sys.meta_path.remove(Absent)


def read_recipe(run: Path) -> Recipe:
    """The resolved recipe of a run folder.

    Raises:
        UserError: the folder is not a run, or its recipe has changed since it was written.
    """
    if not (run / RECIPE).is_file():
        raise UserError(
            "This is not a run folder: it has no recipe.yaml.", str(run), "Give the --out folder of a `headrace run`."
        )
    return load_sealed(run / RECIPE)


def read_graph(run: Path) -> Graph:
    """The graph of a run folder.

    Raises:
        UserError: the folder is not a run.
    """
    from headrace.train.edits import read_edits

    recipe = read_recipe(run)
    return build_graph(recipe, *read_input(recipe, run), edits=read_edits(run))


Input = tuple[
    "tuple[SourceFiles, ...]",
    "tuple[EarlierRun | SourceFiles, ...]",
    "Mapping[str, tuple[Taken, ...]]",
    "NamedFiles | None",
    "Mapping[str, Outside]",
    "Mapping[str, tuple[SourceFiles, ...]]",
]
"""The sources of a recipe with their files, what ``deduplicate.against`` names, the rows of stages that train on
sequences in other files, the other files that it names, the checkpoints of other runs that stages start from, and the
positives in other files of each annotator."""


def read_input(recipe: Recipe, run: Path) -> Input:
    """What the coordinator found for a recipe's input.

    Raises:
        UserError: it found nothing, or input of another recipe, or its record has changed since it was written.
    """
    from headrace.documents.inventory import read_inventory
    from headrace.select.duplicates.reference import EarlierRun

    runs: dict[int, EarlierRun] = {}
    if recipe.against:
        try:
            told = read_sealed(run / REFERENCES)["runs"]
            runs = {int(k): EarlierRun(**{**value, "sources": tuple(value["sources"])}) for k, value in told.items()}
        except (FileNotFoundError, SealError):
            raise UserError(
                "The record of what `deduplicate.against` names is missing or damaged.",
                str(run / REFERENCES),
                "Run `headrace run` again to recreate it.",
            ) from None
    taken = read_inventory(listed(recipe, runs), run)
    found = with_references(recipe, runs, taken)
    files = read_files(recipe, run)
    return *found, read_sequences(recipe, run), files, read_starts(recipe, run), with_positives(recipe, taken)


def read_starts(recipe: Recipe, run: Path) -> dict[str, Outside]:
    """What the coordinator found of the checkpoints that stages start from.

    Raises:
        UserError: it found nothing, or other stages, or its record has changed since it was written.
    """
    from headrace.train.outside import Outside

    if not recipe.starts:
        return {}
    try:
        told = read_sealed(run / STARTS)["stages"]
        return {name: Outside(**told[name]) for name in recipe.starts}
    except (FileNotFoundError, SealError, KeyError):
        raise UserError(
            "The record of the checkpoints that stages start from is missing or damaged.",
            str(run / STARTS),
            "Run `headrace run` again to recreate it.",
        ) from None


def read_sequences(recipe: Recipe, run: Path) -> dict[str, tuple[Taken, ...]]:
    """What the coordinator found of the sequences that stages name.

    Raises:
        UserError: it found nothing, or other stages, or its record has changed since it was written.
    """
    names = list(recipe.sequences)
    if not names:
        return {}
    from headrace.formats.format import Exported
    from headrace.formats.imported import Taken

    try:
        told = read_sealed(run / SEQUENCES)["stages"]
        return {
            name: tuple(Taken(**{**one, "sequence": Exported(**one["sequence"])}) for one in told[name])
            for name in names
        }
    except (FileNotFoundError, SealError, KeyError):
        raise UserError(
            "The record of the sequences that stages train on is missing or damaged.",
            str(run / SEQUENCES),
            "Run `headrace run` again to recreate it.",
        ) from None


def write_files(recipe: Recipe, run: Path, files: NamedFiles) -> None:
    """Record what the coordinator found of the other files that a recipe names."""
    write_sealed(run / FILES, {"recipe": _seal(recipe), "files": files.to_json()})


def read_files(recipe: Recipe, run: Path) -> NamedFiles | None:
    """What the coordinator found of them; None if it looked for those of another recipe, or not at all.

    Raises:
        UserError: its record has changed since it was written.
    """
    from headrace.named_files import NamedFiles

    try:
        told = read_sealed(run / FILES)
        return NamedFiles.from_json(recipe, told["files"]) if told["recipe"] == _seal(recipe) else None
    except FileNotFoundError:
        return None
    except (SealError, KeyError):
        raise UserError(
            "The record of the files that the recipe names is damaged.",
            str(run / FILES),
            "Run `headrace run` again to recreate it.",
        ) from None


def _seal(recipe: Recipe) -> str:
    return xxhash.xxh3_128_hexdigest(sealed(recipe))


def listed(recipe: Recipe, runs: Container[int]) -> dict[str, Source]:
    """The sources of a recipe, the entries of ``deduplicate.against`` that are not runs, and the positives of
    annotators, each under its place there."""
    files = {f"{AGAINST}.{k}": source for k, source in enumerate(recipe.against) if k not in runs}
    for name, positives in recipe.quality.positives.items():
        files |= {f"{positives_of(name)}.{k}": source for k, source in enumerate(positives)}
    return {**recipe.sources, **files}


def positives_of(annotator: str) -> str:
    """The place in the recipe of an annotator's positives in other files."""
    return f"quality.annotators.{annotator}.positives.files"


def with_positives(recipe: Recipe, taken: tuple[SourceFiles, ...]) -> dict[str, tuple[SourceFiles, ...]]:
    """The positives in the inventory of :func:`listed`, by annotator. Their place does not affect any document."""
    found = {one.name: one for one in taken}
    return {
        name: tuple(replace(found[f"{positives_of(name)}.{k}"], name=POSITIVES) for k in range(len(files)))
        for name, files in recipe.quality.positives.items()
    }


def with_references(
    recipe: Recipe, runs: Mapping[int, EarlierRun], taken: tuple[SourceFiles, ...]
) -> tuple[tuple[SourceFiles, ...], tuple[EarlierRun | SourceFiles, ...]]:
    """Combine the inventory of :func:`listed` and the runs. The place of a reference does not affect any document."""
    files = iter(taken[len(recipe.sources) :])
    against = tuple(runs[k] if k in runs else replace(next(files), name=AGAINST) for k in range(len(recipe.against)))
    return taken[: len(recipe.sources)], against


def reference_documents(run: Path, number: int) -> Artifact:
    """The documents of one set of references.

    Raises:
        UserError: they are gone, or not part of the run.
    """
    from headrace.select.duplicates.reference import EarlierRun

    recipe = read_recipe(run)
    entry = read_input(recipe, run)[1][number]
    if isinstance(entry, EarlierRun):
        return entry.open("documents")
    step = read_graph(run).steps[f"reference-documents-{number}"]
    return Artifact.open(run / "artifacts" / step.name, verify=True)


def read_withdrawn(run: Path) -> Withdrawn:
    """What `headrace withdraw` has withdrawn from a run.

    Raises:
        UserError: the list has changed since it was written.
    """
    try:
        return Withdrawn.model_validate(read_sealed(run / WITHDRAWN))
    except FileNotFoundError:
        return Withdrawn()
    except (SealError, ValueError):
        raise UserError(
            "The list of withdrawn documents is damaged.",
            str(run / WITHDRAWN),
            "Delete it and withdraw them again, or list them in the recipe under `withdrawn`.",
        ) from None


def write_withdrawn(run: Path, withdrawn: Withdrawn) -> None:
    """Write the list of a run."""
    write_sealed(run / WITHDRAWN, withdrawn.model_dump(mode="json"))


def with_withdrawn(recipe: Recipe, run: Path) -> Recipe:
    """A recipe as it applies in a run folder, with that folder's withdrawals."""
    more = read_withdrawn(run)
    return recipe.model_copy(update={"withdrawn": recipe.withdrawn.combined_with(more)}) if more else recipe


def artifact(run: Path | str, kind: str, stage: str | None = None, graph: Graph | None = None) -> Artifact:
    """The finished artifact of a kind in a run, for its current recipe.

    Args:
        run: the run folder.
        kind: of the artifact.
        stage: its stage, if it has one.
        graph: the run's, if it is read already.

    Raises:
        UserError: the recipe builds none, or it is not finished.
    """
    run = Path(run)
    graph = graph or read_graph(run)
    for step in graph.all():
        if step.kind == kind and step.stage == stage:
            folder = run / "artifacts" / step.name
            if folder.is_dir():
                return Artifact.open(folder)
            raise UserError(
                f"The run has not built {step.name} yet.", str(run), "Run the recipe up to that artifact first."
            )
    name = f"{kind}-{stage}" if stage else kind
    others = [other.stage for other in graph.all() if other.kind == kind and other.stage is not None]
    fix = f"Its stages are {', '.join(others)}." if others else ""
    raise UserError(f"This run's recipe builds no {name}.", str(run / RECIPE), suggest(stage or "", others) or fix)


def licences(run: Path | str) -> Artifact | None:
    """The licenses of a run's documents; None if its recipe does not look for them.

    Raises:
        UserError: they are not finished.
    """
    return artifact(run, "licences") if "licences" in read_graph(Path(run)).steps else None


def stage_sequence(run: Path | str, stage: str, verify: bool = False, graph: Graph | None = None) -> ArrowSequence:
    """A stage's sequence, opened for reading.

    Args:
        run: the run folder.
        stage: the stage's name.
        verify: compare each shard with its digest when it is first mapped.
        graph: the run's, if it is read already.

    Raises:
        UserError: there is no such stage, or its sequence is not finished.
    """
    from headrace.sequence.store import open_sequence as open_folder

    return open_folder(artifact(Path(run), "sequence", stage, graph).path, verify)


def open_sequence(
    path: Path | str, stage: str | None = None, *, seq_len: int | None = None, verify: bool = False
) -> SequenceReader:
    """A sequence, opened for reading: of a run, of an export, or in files that somebody else wrote.

    Args:
        path: a run folder, the folder of a sequence or of an export, a file, or a folder of files in a format that is
            read (:data:`headrace.formats.registry.SEQUENCES`); of runs, their sequences and exports also a URL.
        stage: the stage's name, where there are several.
        seq_len: targets of a row, for files that are one line of tokens.
        verify: compare each file with its digest before it is first read.

    Raises:
        UserError: there is no such sequence, or it cannot be read; says which file and row.
    """
    from headrace.formats.opening import of_length, open_files

    path = working_folder(path)
    here(path / MANIFEST)
    if (path / RECIPE).is_file():
        names = [stage] if stage else [one.name for one in read_recipe(path).stages]
        if len(names) != 1:
            raise UserError("Which stage?", str(path), f"The run has {', '.join(names) or 'none'}.")
        return of_length(stage_sequence(path, names[0], verify), seq_len)
    reader = of_length(open_files(path, stage, seq_len=seq_len), seq_len)
    return reader.verified() if verify else reader


def status(run: Path, graph: Graph | None = None) -> dict[str, Any]:
    """What is done, running and missing in a run folder.

    Args:
        run: the run folder.
        graph: its graph, if it is read already.

    Returns:
        ``{"recipe", "running", "owner": {"host", "process", "since", "time" of its last sign of life} of the
        coordinator, or None, "artifacts": [{"name", "path", "state": done | partial | missing | damaged, "rows",
        "bytes", "seconds", "phases": [{"name", "tasks", "done"}]}], "last": the last event that says how the run ended,
        or None}``; the documents artifact also has "quarantined", "lost_rows" and "lost_bytes".

    Raises:
        UserError: the folder is not a run.
    """
    from headrace.flow.coordinating import holder
    from headrace.flow.lock import locked

    steps = (graph or read_graph(run)).all()
    seconds: dict[str, float] = {}
    last: dict[str, Any] | None = None
    for event in read_events(run, "artifact", "run", *ENDS):
        if event["event"] == "artifact" and event["state"] == "published":
            seconds[event["artifact"]] = event["seconds"]
        if event["event"] in ENDS:
            last = event
        elif event["event"] == "run":
            last = None
    artifacts = [{**_state(run, step), "seconds": seconds.get(step.name)} for step in steps]
    owner = holder(run)
    # Of another machine only its clock says when it last gave a sign of life; nothing but this word depends on it.
    running = locked(run) or (owner is not None and abs(time.time() - owner["time"]) < SILENT)
    return {"recipe": read_recipe(run).name, "running": running, "owner": owner, "artifacts": artifacts, "last": last}


def _state(run: Path, step: Step) -> dict[str, Any]:
    from headrace.flow.damage import check_files
    from headrace.flow.task import TaskContext

    final, partial = run / "artifacts" / step.name, run / "artifacts" / f"{step.name}.partial"
    entry: dict[str, Any] = {"name": step.name, "kind": step.kind, "stage": step.stage}
    entry |= {"path": str(final), "state": "missing"}
    if final.is_dir():
        try:
            made = Artifact.open(final)
            check_files(made, read=False)
        except UserError:
            return entry | {"state": "damaged"}
        entry |= {"state": "done", "rows": made.rows, "bytes": made.bytes}
        if step.kind == "documents":
            counts = made.manifest.counts.values()
            entry |= {key: sum(c[key] for c in counts) for key in ("quarantined", "lost_rows", "lost_bytes")}
        return entry
    if partial.is_dir():
        phases, ctx = [], TaskContext(run, step)
        for phase in step.phases():
            with suppress(FileNotFoundError, SealError):
                phases.append({"name": phase.name, "tasks": ctx.tasks(phase.name), "done": len(ctx.done(phase.name))})
        return entry | {"state": "partial", "phases": phases}
    return entry


def digest(run: Path) -> dict[str, Any]:
    """The digests of a run's finished artifacts: two runs of a recipe on the same input agree in all of them.

    Models are not part of the total: their bytes depend on the machine's arithmetic.

    Returns:
        ``{"total", "artifacts": {name: digest}}``; a digest covers the manifest, and so every shard's digest. Whether
        the shards still have those digests is checked by ``headrace verify``.

    Raises:
        UserError: the folder is not a run, or nothing is finished.
        DamagedArtifact: a manifest is damaged, or a file is missing or truncated.
    """
    from headrace.flow.damage import check_files

    digests = {}
    for step in read_graph(run).all():
        folder = run / "artifacts" / step.name
        if folder.is_dir():
            check_files(Artifact.open(folder), read=False)
            digests[step.name] = digest_file(folder / MANIFEST)
    if not digests:
        raise UserError("Nothing is finished in this run yet.", str(run), "Run the recipe first.")
    data = [f"{name} {value}" for name, value in digests.items() if not name.startswith("model-")]
    return {"total": xxhash.xxh3_128_hexdigest("\n".join(data).encode()), "artifacts": digests}
