"""From a recipe to its graph of steps, and the run that makes them.

The graph is a pure function of the recipe and the inventory of its input, both kept in the run folder, so the
coordinator, its workers and ``status`` build the same one.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Any

import xxhash

import headrace
from headrace.errors import UserError
from headrace.flow.artifact import MANIFEST, Artifact, DamagedArtifact
from headrace.flow.events import EventLog, Listener, read_events
from headrace.flow.notices import notices_to
from headrace.flow.step import Step, topological
from headrace.flow.storage import Spoilt, digest_file, local, plainly, read_sealed, replacing, write_sealed
from headrace.recipe.functions import keep_copy
from headrace.recipe.load import load_sealed, sealed, with_filters
from headrace.recipe.mistakes import suggest
from headrace.recipe.schema import Recipe, Withdrawn

if TYPE_CHECKING:
    from headrace.documents.inventory import SourceFiles
    from headrace.flow.store import Store
    from headrace.sequence.store import SequenceReader

RECIPE = "recipe.yaml"
WITHDRAWN = "withdrawn.json"  # documents taken out of this run, beside those that its recipe names
GRAPH = "headrace.pipeline:targets"
HELD_OUT = "heldout"  # the sequence that measures held-out loss; also the name of its stage
# Of each source: a standard error of 0.001 nats where single tokens spread by 1 nat.
HELD_OUT_TOKENS = 1_000_000
# Of the memory that is free when the run starts; the rest is for the libraries, the page cache and others.
MEMORY_SHARE = 0.5


@dataclass
class Graph:
    """The steps of a recipe, by what they are for.

    Attributes:
        steps: single artifacts by kind, in the order of the flow.
        sequences: stage name -> its sequence, the held-out one included.
        models: stage name -> its model.
    """

    steps: dict[str, Step]
    sequences: dict[str, Step] = field(default_factory=dict)
    models: dict[str, Step] = field(default_factory=dict)

    def all(self) -> list[Step]:
        """Every step after its inputs."""
        return topological([*self.steps.values(), *self.sequences.values(), *self.models.values()])

    def until(self, target: str) -> list[Step]:
        """The steps that a target needs, and it: see :meth:`named`."""
        return topological(self.named(target, "--until"))

    def named(self, target: str, where: str) -> list[Step]:
        """The steps that a target names: a kind, ``sequence-stage1``, ``model-stage2``, in any case of letters.

        Raises:
            UserError: there is no such artifact in this recipe; ``where`` the user asked for it.
        """
        wanted = target.lower()
        chosen = [s for s in self.all() if wanted in (s.kind, f"{s.kind}-{s.stage}".lower(), s.name.lower())]
        if not chosen:
            names = dict.fromkeys(f"{s.kind}-{s.stage}" if s.stage else s.kind for s in self.all())
            raise UserError(
                f"The recipe makes no artifact {target!r}.",
                where,
                suggest(target, names) or f"Choose one of {', '.join(names)}.",
            )
        return chosen


def build_graph(recipe: Recipe, sources: tuple[SourceFiles, ...]) -> Graph:
    """The graph of a recipe over an inventory of its input."""
    from headrace.documents.step import Documents
    from headrace.select.contamination.step import Contamination
    from headrace.select.duplicates.step import Duplicates
    from headrace.select.measures.own import OwnMeasure
    from headrace.select.measures.step import Measures
    from headrace.select.verdicts.step import Verdicts

    documents = Documents(sources, recipe.documents)
    steps: dict[str, Step] = {"documents": documents}
    if recipe.measures_texts:
        steps["measures"] = Measures(documents)
    own: dict[str, Step] = {
        name: OwnMeasure(documents, measure, recipe.documents.max_quarantined, name)
        for name, measure in recipe.measures.items()
    }
    if recipe.deduplicate or recipe.split.check:
        steps["duplicates"] = Duplicates.of(recipe, documents)
    if recipe.decontaminate:
        steps["contamination"] = Contamination.of(recipe, documents)
    steps["verdicts"] = Verdicts.of(recipe, **steps, own=own)
    graph = Graph(steps)
    if recipe.stages:
        add_stages(graph, recipe)
    return graph


def add_stages(graph: Graph, recipe: Recipe) -> None:
    """The tokenizer, the tokens, and each stage's sequence and model."""
    from headrace.sequence.step import Sequence as StageSequence
    from headrace.tokens.step import Tokens
    from headrace.tokens.training import Tokenizer, needed_roles

    assert recipe.tokenizer is not None
    steps = graph.steps
    documents, verdicts = steps["documents"], steps["verdicts"]
    steps["tokenizer"] = Tokenizer(recipe.tokenizer, needed_roles(recipe), recipe.seed, documents, verdicts)
    steps["tokens"] = Tokens(documents, verdicts, steps["tokenizer"], tuple(recipe.sources))
    inputs = {"documents": documents, "tokenizer": steps["tokenizer"], "tokens": steps["tokens"]}
    for stage in recipe.stages:
        graph.sequences[stage.name] = StageSequence.of(recipe, stage, **inputs)
    if recipe.model is None:
        return
    from headrace.train.step import Model

    if recipe.split.validation:
        graph.sequences[HELD_OUT] = StageSequence.held_out(recipe, HELD_OUT, HELD_OUT_TOKENS, **inputs)
    before: Model | None = None
    for stage in recipe.stages:
        start = before if stage.start is None else graph.models.get(stage.start)
        before = graph.models[stage.name] = Model.of(
            recipe, stage, graph.sequences[stage.name], start, graph.sequences.get(HELD_OUT), steps["tokenizer"]
        )


def targets(run: Path) -> list[Step]:
    """The graph of a run folder, for workers and ``status``."""
    return read_graph(run).all()


def preload() -> None:
    """Import what workers need, for the process that they are forked from."""
    from headrace.documents import reading  # noqa: F401
    from headrace.select.contamination import matching  # noqa: F401
    from headrace.select.duplicates import fingerprints, labels  # noqa: F401
    from headrace.select.measures import text_statistics, visible_text  # noqa: F401
    from headrace.select.verdicts import settlement  # noqa: F401
    from headrace.sequence import order, pack, scatter  # noqa: F401
    from headrace.tokens import load  # noqa: F401


def read_recipe(run: Path) -> Recipe:
    """The recipe of a run folder, as resolved.

    Raises:
        UserError: it is no run folder, or its recipe is not as it was written.
    """
    if not (run / RECIPE).is_file():
        raise UserError(
            "This is no run folder: it holds no recipe.yaml.", str(run), "Name the --out folder of a `headrace run`."
        )
    return load_sealed(run / RECIPE)


def read_graph(run: Path) -> Graph:
    """The graph of a run folder.

    Raises:
        UserError: it is no run folder.
    """
    from headrace.documents.inventory import read_inventory

    recipe = read_recipe(run)
    return build_graph(recipe, read_inventory(recipe.sources, run))


def read_withdrawn(run: Path) -> Withdrawn:
    """What `headrace withdraw` has taken out of a run.

    Raises:
        UserError: the list is not as it was written.
    """
    try:
        return Withdrawn.model_validate(read_sealed(run / WITHDRAWN))
    except FileNotFoundError:
        return Withdrawn()
    except (Spoilt, ValueError):
        raise UserError(
            "The list of withdrawn documents is not as it was written.",
            str(run / WITHDRAWN),
            "Remove it and withdraw them again, or state them in the recipe, under `withdrawn`.",
        ) from None


def write_withdrawn(run: Path, withdrawn: Withdrawn) -> None:
    """Keep the list of a run."""
    write_sealed(run / WITHDRAWN, withdrawn.model_dump(mode="json"))


def with_withdrawn(recipe: Recipe, run: Path) -> Recipe:
    """A recipe as it holds in a run folder: what was withdrawn there is withdrawn."""
    more = read_withdrawn(run)
    return recipe.model_copy(update={"withdrawn": recipe.withdrawn.and_also(more)}) if more else recipe


def artifact(run: Path | str, kind: str, stage: str | None = None) -> Artifact:
    """The finished artifact of a kind in a run, as its recipe is now.

    Raises:
        UserError: the recipe makes none, or it is not finished.
    """
    run = Path(run)
    for step in read_graph(run).all():
        if step.kind == kind and step.stage == stage:
            folder = run / "artifacts" / step.name
            if folder.is_dir():
                return Artifact.open(folder)
            raise UserError(
                f"The run has not made {step.name} yet.", str(run), "Run the recipe to that artifact first."
            )
    name = f"{kind}-{stage}" if stage else kind
    others = [other.stage for other in read_graph(run).all() if other.kind == kind and other.stage is not None]
    mend = f"Its stages are {', '.join(others)}." if others else ""
    raise UserError(f"The recipe of this run makes no {name}.", str(run / RECIPE), suggest(stage or "", others) or mend)


def open_sequence(run: Path | str, stage: str) -> SequenceReader:
    """A stage's sequence, opened for reading.

    Args:
        run: the run folder.
        stage: the stage's name.

    Raises:
        UserError: there is no such stage, or its sequence is not finished.
    """
    from headrace.sequence.store import open_sequence as open_folder

    return open_folder(artifact(Path(run), "sequence", stage).path)


def run(
    recipe: Recipe,
    out: Path | str,
    workers: int | None = None,
    memory: int | None = None,
    until: str | None = None,
    listener: Listener | None = None,
    check_input: bool = False,
    verify: bool = False,
    store: Path | str | None = None,
    filters: Sequence[Callable[..., Any]] = (),
) -> Path | None:
    """Make everything that a recipe describes, doing only what is missing.

    Args:
        recipe: from :func:`headrace.load_recipe`, or built in code.
        out: the run folder.
        workers: worker processes; the processors of this process by default. With 0 everything is done in this one.
        memory: bytes for data in all workers together; half of what is free by default.
        until: the artifact to stop at, such as ``verdicts`` or ``sequence-stage1``.
        listener: is given every event as it happens.
        check_input: read all input again instead of taking files as known by size and time of change.
        verify: read the finished artifacts again and make anew those that are damaged; otherwise their files are only
            looked for, and each is read and compared when something is first made from it.
        store: a folder that runs share: what others have made is taken from there, and what is made is given to it.
        filters: functions of your own that say of a :class:`headrace.Document` whether to keep it; what they do not
            keep is removed as ``filter:<the function's name>``.

    Returns:
        The report, or None when the run stopped before the end of the recipe.

    Raises:
        UserError: what a user can mend. What was finished stays and is not done again.
        TaskFailed: a defect; the traceback is in the run's logs.
    """
    from headrace.flow.store import Store
    from headrace.report.build import write_report

    if filters:
        recipe = with_filters(recipe, filters)
    folder = local(out)
    workers = len(os.sched_getaffinity(0)) if workers is None else workers
    memory = memory or free_memory()
    with plainly(folder):
        shared = None if store is None else Store(local(store))
        log = _run(recipe, folder, workers, memory, until, listener, check_input, verify, shared)
        if until:
            return None
        with notices_to(log.notice):
            try:
                return write_report(folder)
            except Exception:
                try:
                    sound_artifacts(folder)
                except DamagedArtifact:
                    _run(recipe, folder, workers, memory, until, listener, check_input, True, shared)
                    return write_report(folder)
                raise


def _run(
    recipe: Recipe,
    folder: Path,
    workers: int,
    memory: int,
    until: str | None,
    listener: Listener | None,
    check_input: bool,
    verify: bool,
    store: Store | None,
) -> EventLog:
    """Make the artifacts; the log, closed."""
    from headrace.flow.damage import mending
    from headrace.flow.lock import lock
    from headrace.train.installed import check_installed

    if recipe.model is not None and (until is None or until.lower().startswith("model")):
        check_installed()
    notes = look_at_tokenizer(recipe, until)
    with lock(folder):
        log = EventLog(folder, listener)
        started = time.monotonic()
        try:
            log.emit("run", recipe=recipe.name, workers=workers, memory=memory, version=headrace.__version__)
            with notices_to(log.notice):
                for note in notes:
                    log.notice(note)
                wanted = _prepare(recipe, folder, until, check_input)
                mending(lambda: _make(recipe, wanted, folder, workers, memory, log, verify, store), folder, log)
            log.emit("finished", seconds=round(time.monotonic() - started, 3))
        except KeyboardInterrupt:
            log.emit("stopped", reason="interrupted")
            raise
        except Exception as error:
            with suppress(OSError):  # a full disk is told by the error itself
                log.emit("failed", message=str(error))
            raise
        finally:
            log.close()
    return log


def _prepare(recipe: Recipe, folder: Path, until: str | None, check_input: bool) -> list[Step]:
    """Write what the workers rebuild the graph from; the steps that are wanted."""
    from headrace.documents.inventory import take_inventory
    from headrace.rehearsal import rehearse

    recipe = with_withdrawn(recipe, folder)
    sources = take_inventory(recipe.sources, recipe.seed, Path.cwd(), folder, check_input)
    graph = build_graph(recipe, sources)
    wanted = graph.until(until) if until else graph.all()
    for _, function in recipe.functions():
        keep_copy(function, folder)
    with replacing(folder / RECIPE) as path:
        path.write_bytes(sealed(recipe))
    if recipe.functions() and any(not (folder / "artifacts" / step.name).exists() for step in wanted):
        rehearse(folder)
    return wanted


def _make(
    recipe: Recipe,
    wanted: list[Step],
    folder: Path,
    workers: int,
    memory: int,
    log: EventLog,
    verify: bool,
    store: Store | None,
) -> None:
    """Make what is wanted: models when all else is there, and it is known that they fit it."""
    from headrace.flow.executors.inline import InlineExecutor
    from headrace.flow.executors.local import LocalExecutor
    from headrace.flow.runner import make
    from headrace.train.step import Model

    executor = LocalExecutor(folder, GRAPH, workers, memory, log) if workers else InlineExecutor(folder, wanted, memory)
    try:
        models = [step for step in wanted if isinstance(step, Model)]
        for steps in by_expectation(recipe, [step for step in wanted if step not in models]):
            make(steps, folder, executor, log, memory, verify, store)
            compare(recipe, wanted, folder, log)
        for model in models:
            model.check_steps(folder)
        make(models, folder, executor, log, memory, verify, store)
    finally:
        executor.close()


def by_expectation(recipe: Recipe, steps: list[Step]) -> list[list[Step]]:
    """Steps in the order of the flow, cut behind each whose counts the recipe expects something of."""
    from headrace.report.departures import COUNTED, expects

    cuts = [i + 1 for i, step in enumerate(steps) if step.kind in COUNTED] if expects(recipe) else []
    return [steps[a:b] for a, b in pairwise([0, *cuts, len(steps)]) if a < b]


def compare(recipe: Recipe, steps: list[Step], folder: Path, log: EventLog) -> None:
    """Say where what is made so far is not as the recipe expects.

    Raises:
        UserError: there is such a place, and the recipe asks to stop then.
    """
    from headrace.report.corpus_facts import source_facts
    from headrace.report.departures import COUNTED, departures, expects

    if not expects(recipe):
        return
    finals = {step.kind: folder / "artifacts" / step.name for step in steps if step.kind in COUNTED}
    made = {kind: Artifact.open(path) for kind, path in finals.items() if path.is_dir()}
    if "documents" not in made:
        return
    said = departures(recipe, [source_facts(name, **made) for name in recipe.sources])
    for text in said:
        log.notice(text)
    if said and recipe.expect.stop:
        raise UserError(
            "The run is not as its recipe expects:\n" + "\n".join(f"  {text}" for text in said),
            "expect",
            "Mend the data or the recipe, widen the range, or leave out expect.stop to be told and go on.",
        )


def look_at_tokenizer(recipe: Recipe, until: str | None = None) -> list[str]:
    """Read the tokenizer's file, if it is one, before any work; what a user should know of it, in sentences.

    Args:
        recipe: the recipe.
        until: the artifact to stop at; those before the tokenizer need none.

    Raises:
        UserError: it cannot be used, lacks a token that is needed, or has more tokens than the model.
    """
    from headrace.model.presets import resolve
    from headrace.tokens.training import look_at_file

    if not recipe.stages or recipe.tokenizer is None or recipe.tokenizer.file is None:
        return []
    if until is not None and not until.lower().startswith(("token", "sequence", "model")):
        return []
    size, notes = look_at_file(recipe)
    if recipe.model is not None:
        resolve(recipe.model, size)
    return notes


def sound_artifacts(run: Path) -> None:
    """Read the finished artifacts of a run's recipe and compare them with their digests.

    Raises:
        DamagedArtifact: one is not as it was made.
        UserError: it is no run folder.
    """
    from headrace.flow.damage import sound

    for step in read_graph(run).all():
        if (run / "artifacts" / step.name).is_dir():
            sound(Artifact.open(run / "artifacts" / step.name), read=True)


def free_memory() -> int:
    """Half of the memory that is free now, in bytes."""
    import psutil

    return int(psutil.virtual_memory().available * MEMORY_SHARE)


def status(run: Path) -> dict[str, Any]:
    """What is done, running and missing in a run folder.

    Returns:
        ``{"recipe", "running", "artifacts": [{"name", "path", "state": done | partial | missing | damaged, "rows",
        "bytes", "seconds", "phases": [{"name", "tasks", "done"}]}], "last": the last event that says how it ended or
        None}``; the artifact of documents also has "quarantined", "lost_rows" and "lost_bytes".

    Raises:
        UserError: it is no run folder.
    """
    from headrace.flow.lock import locked

    steps = read_graph(run).all()
    seconds: dict[str, float] = {}
    last: dict[str, Any] | None = None
    for event in read_events(run):
        if event["event"] == "artifact" and event["state"] == "published":
            seconds[event["artifact"]] = event["seconds"]
        if event["event"] in ("finished", "failed", "stopped", "died"):
            last = event
        elif event["event"] == "run":
            last = None
    artifacts = [{**_state(run, step), "seconds": seconds.get(step.name)} for step in steps]
    return {"recipe": read_recipe(run).name, "running": locked(run), "artifacts": artifacts, "last": last}


def _state(run: Path, step: Step) -> dict[str, Any]:
    from headrace.flow.damage import sound
    from headrace.flow.task import TaskContext

    final, partial = run / "artifacts" / step.name, run / "artifacts" / f"{step.name}.partial"
    entry: dict[str, Any] = {"name": step.name, "kind": step.kind, "stage": step.stage}
    entry |= {"path": str(final), "state": "missing"}
    if final.is_dir():
        try:
            made = Artifact.open(final)
            sound(made, read=False)
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
            with suppress(FileNotFoundError, Spoilt):
                phases.append({"name": phase.name, "tasks": ctx.tasks(phase.name), "done": len(ctx.done(phase.name))})
        return entry | {"state": "partial", "phases": phases}
    return entry


def digest(run: Path) -> dict[str, Any]:
    """The digests of a run's finished artifacts: two runs of one recipe on the same input agree in all of them.

    Models are left out of the total: their bytes depend on the machine's arithmetic.

    Returns:
        ``{"total", "artifacts": {name: digest}}``; a digest covers the manifest, and so every shard's digest. Whether
        the shards still are of these digests is what ``headrace verify`` looks at.

    Raises:
        UserError: it is no run folder, or nothing is finished.
        DamagedArtifact: a manifest is damaged, or a file is missing or too short.
    """
    from headrace.flow.damage import sound

    digests = {}
    for step in read_graph(run).all():
        folder = run / "artifacts" / step.name
        if folder.is_dir():
            sound(Artifact.open(folder), read=False)
            digests[step.name] = digest_file(folder / MANIFEST)
    if not digests:
        raise UserError("Nothing is finished in this run yet.", str(run), "Run the recipe first.")
    data = [f"{name} {value}" for name, value in digests.items() if not name.startswith("model-")]
    return {"total": xxhash.xxh3_128_hexdigest("\n".join(data).encode()), "artifacts": digests}
