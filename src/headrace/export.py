"""Exports: what a run made, written in other people's formats to a folder that appears when it is finished.

An export is made as an artifact is, by the same coordinator and workers, in ``OUT.partial`` beside the folder: it goes
on where it stopped, and its bytes do not depend on workers or memory.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from headrace.environment import data_memory
from headrace.errors import UserError
from headrace.flow.artifact import MANIFEST, Artifact
from headrace.flow.damage import check_files
from headrace.flow.events import EventLog, Listener
from headrace.flow.executors.engine import LOCAL
from headrace.flow.notices import notices_to
from headrace.flow.step import Step
from headrace.flow.storage import SealError, explaining_os_errors, fsync_folder, local, read_sealed, write_sealed
from headrace.formats.corpus import FOLDERS, Corpus
from headrace.formats.document_export import DocumentExport
from headrace.formats.format import Exported
from headrace.formats.hub import Hub
from headrace.formats.layout import OPTION, folders
from headrace.formats.megatron import Megatron
from headrace.formats.opening import of_length, sequence_names
from headrace.formats.options import Options
from headrace.formats.registry import DOCUMENTS, SEQUENCES
from headrace.formats.run_card import RunCard
from headrace.formats.sequences import SequenceExport
from headrace.formats.tokenized import TokenCorpus, TokenExport
from headrace.model_export import FORMAT, ModelExport
from headrace.recipe.mistakes import suggest
from headrace.recipe.schema import HELD_OUT
from headrace.run_folder import RECIPE, artifact, licences, read_graph, read_recipe
from headrace.select.verdicts.splits import SPLITS

ExportStep = SequenceExport | DocumentExport | TokenExport | ModelExport

DTYPES = ("float32", "bfloat16")
REQUEST = "export.json"
GRAPH = "headrace.export:targets"


@dataclass(frozen=True)
class Wanted:
    """Which parts of a run to export.

    Attributes:
        stages: names of stages, or ``heldout``.
        documents: the documents.
        everything: all stages, the held-out sequence, and the documents where the format holds them beside sequences.
        splits, sources, removed: which documents; see :class:`headrace.formats.corpus.Corpus`. All splits and sources
            if empty.
        seq_len: targets of a row, for files that are one line of tokens.
        tokenizer: file of a tokenizer that spells the ids of files that come without one, for formats that hold text.
        model: the stage whose model it is.
        dtype: of the model's weights, ``float32`` or ``bfloat16``.
        layout: folders for the rows of sources; see :func:`headrace.formats.layout.folders`.
    """

    stages: Sequence[str] = ()
    documents: bool = False
    everything: bool = False
    splits: Sequence[str] = ()
    sources: Sequence[str] = ()
    removed: bool = False
    seq_len: int | None = None
    tokenizer: Path | None = None
    model: str | None = None
    dtype: str | None = None
    layout: str | None = None


def export(
    run: Path | str,
    out: Path | str,
    to: str,
    wanted: Wanted | None = None,
    options: Options | None = None,
    workers: int | None = None,
    memory: int | None = None,
    listener: Listener | None = None,
) -> Path:
    """Write the sequences or documents of a run in another format, or sequences that lie in files of a format that is
    read.

    Args:
        run: the run folder, or as for :func:`headrace.open_sequence`.
        out: the folder to be made.
        to: the format's name, one of :data:`headrace.formats.registry.SEQUENCES` or ``DOCUMENTS``.
        wanted: which parts of the run; the sequences of all stages by default.
        options: about the files.
        workers: worker processes; the processors of this process by default, 0 for none.
        memory: bytes for data in all workers together; half of what is free by default.
        listener: is given every event as it happens.

    Returns:
        The folder, with ``manifest.json`` beside the data.

    Raises:
        UserError: something the user can fix. What was finished stays and is not done again.
    """
    step = _step(Path(run), to, wanted or Wanted(), options or Options())
    return write(step, out, workers, memory, listener)


def write(
    step: ExportStep,
    out: Path | str,
    workers: int | None = None,
    memory: int | None = None,
    listener: Listener | None = None,
) -> Path:
    """Make the folder of an export, or go on with it, or see that it is there; arguments as for :func:`export`.

    Raises:
        UserError: something the user can fix.
    """
    out = local(out)
    step.check()
    with explaining_os_errors(out):
        if not _there(out, step):
            _make(step, out, workers, memory or data_memory(), listener)
    return out


def _step(run: Path, to: str, wanted: Wanted, options: Options) -> ExportStep:
    chosen = wanted.splits or wanted.sources or wanted.removed
    if (to == FORMAT) != (wanted.model is not None):
        raise UserError(
            f"{FORMAT} holds a model, and models are exported to it.",
            "--to, --model",
            f"Give --to {FORMAT} --model STAGE.",
        )
    if wanted.model is not None:
        if wanted != Wanted(model=wanted.model, dtype=wanted.dtype) or options != Options():
            raise UserError("A model is exported alone.", "--model", "Leave the other options out.")
        if wanted.dtype not in (None, *DTYPES):
            raise UserError(f"Weights are not written as {wanted.dtype}.", "--dtype", f"Use {' or '.join(DTYPES)}.")
        return ModelExport.of(run, wanted.model, wanted.dtype or DTYPES[0])
    if wanted.dtype is not None:
        raise UserError("The type is that of a model's weights.", "--dtype", "Give --model STAGE, or leave it out.")
    if wanted.layout is not None and (to in DOCUMENTS or wanted.documents):
        raise UserError("Folders are chosen for the rows of sequences.", OPTION, "Export documents apart.")
    if to in DOCUMENTS:
        if wanted.stages:
            raise UserError(f"{to} holds documents, no sequence.", "--stage", _others("sequences", SEQUENCES))
        if not wanted.documents and not wanted.everything:
            raise UserError(f"{to} holds documents, no sequence.", "--to", "Export them with --documents.")
        if options.rows_per_file is not None:
            raise UserError("Files of documents have a size, no rows.", "--rows-per-file", "Give --bytes-per-file.")
        card = RunCard.of(run, (), True) if DOCUMENTS[to].card() and not chosen else None
        return DocumentExport(to, _corpus(run, wanted), options, card)
    if to not in SEQUENCES:
        known = [*SEQUENCES, *DOCUMENTS, FORMAT]
        raise UserError(
            f"There is no format {to!r}.", "--to", suggest(to, known) or f"Choose one of {', '.join(known)}."
        )
    if to == Megatron.name and wanted.documents:
        if wanted.stages or wanted.everything or wanted.removed or options != Options():
            raise UserError(
                "Documents in Megatron's format are those that are kept, as tokens, a file a source and split.",
                "--documents",
                "Export stages apart, and leave --removed, --rows-per-file and --bytes-per-file out.",
            )
        return TokenExport(to, _tokens(run, wanted), options)
    both = SEQUENCES[to].document_format is not None
    if wanted.documents and not both:
        raise UserError(f"{to} holds sequences, no documents.", "--documents", _others("documents", DOCUMENTS))
    # Other files, and runs that train on such, have no documents.
    has_documents = (run / RECIPE).is_file() and bool(read_recipe(run).sources)
    documents = wanted.documents or (wanted.everything and both and has_documents)
    if (chosen or options.bytes_per_file is not None) and not documents:
        raise UserError(
            "Only sequences are exported; splits, sources and bytes in a file are chosen for documents.",
            "--split, --source, --removed, --bytes-per-file",
            "Add --documents, with a format that holds them.",
        )
    sequences = _sequences(run, wanted, to) if wanted.stages or wanted.everything or not documents else ()
    for one in sequences:
        of_length(one.open(), wanted.seq_len)
    if documents and (taken := {one.name for one in sequences} & set(FOLDERS)):
        raise UserError(
            f"A stage and the documents would both be called {taken.pop()!r}.", "--documents", "Export apart."
        )
    if wanted.tokenizer is not None:
        if "text" not in SEQUENCES[to].keeps or (run / RECIPE).is_file():
            raise UserError(
                "A tokenizer spells out rows of files that come without one, in a format that holds text.",
                "--tokenizer",
                f"Leave it out, or export such files to {Hub.name}.",
            )
        sequences = tuple(one.spelled_by(wanted.tokenizer) for one in sequences)
    card = None
    if to == Hub.name and has_documents and not chosen:
        card = RunCard.of(run, tuple(one.name for one in sequences if one.name != HELD_OUT), documents)
    return SequenceExport(to, sequences, options, _corpus(run, wanted) if documents else None, card)


def _others(what: str, formats: Mapping[str, object]) -> str:
    return f"For {what}, choose one of {', '.join(formats)}."


def _sequences(run: Path, wanted: Wanted, to: str) -> tuple[Exported, ...]:
    found = _opened(run, wanted, to)
    if wanted.layout is None:
        return found
    placed = tuple(replace(one, folders=folders(wanted.layout, one.name, one.open())) for one in found)
    taken: dict[str, str] = {}
    for one in placed:
        for name in one.folder_names:
            if name in taken:
                raise UserError(
                    f"The folder {name!r} is that of {taken[name]!r} and of {one.name!r}.", OPTION, "Give each its own."
                )
            taken[name] = one.name
    return placed


def _opened(run: Path, wanted: Wanted, to: str) -> tuple[Exported, ...]:
    if not (run / RECIPE).is_file():
        named: list[str | None] = [*(dict.fromkeys(wanted.stages) or sequence_names(run))]
        every_one = tuple(Exported.of(run, name, wanted.seq_len) for name in named or [None])
        if len({one.name for one in every_one}) < len(every_one):
            raise UserError("Two sequences have the same name.", str(run), "Export them apart, with --stage.")
        return every_one
    graph = read_graph(run)
    every = [name for name in graph.sequences if name != HELD_OUT]
    held_out = [HELD_OUT] if wanted.everything and HELD_OUT in graph.sequences else []
    names = [*(every if wanted.everything or not wanted.stages else dict.fromkeys(wanted.stages)), *held_out]
    if not names:
        raise UserError("This run's recipe has no stages.", str(run), "Export its documents, or add a stage.")
    found = [(name, artifact(run, "sequence", name)) for name in names]
    sequences = (Exported(name, str(one.path.absolute()), one.manifest.identity) for name, one in found)
    if to == Hub.name:
        sidecar = _license_sidecar(run)
        sequences = (replace(one, license_sidecar=sidecar) for one in sequences)
    return tuple(sequences)


def _corpus(run: Path, wanted: Wanted) -> Corpus:
    documents, verdicts = artifact(run, "documents"), artifact(run, "verdicts")
    splits, sources = _chosen(run, wanted)
    return Corpus(
        str(documents.path.absolute()),
        str(verdicts.path.absolute()),
        (documents.manifest.identity, verdicts.manifest.identity),
        splits,
        sources,
        wanted.removed,
        _license_sidecar(run),
    )


def _license_sidecar(run: Path) -> tuple[str, str] | None:
    found = licences(run)
    return None if found is None else (str(found.path.absolute()), found.manifest.identity)


def _tokens(run: Path, wanted: Wanted) -> TokenCorpus:
    store, tokenizer = artifact(run, "tokens"), artifact(run, "tokenizer")
    eod = tokenizer.manifest.extra["special"]["eod"]
    return TokenCorpus(str(store.path.absolute()), store.manifest.identity, eod, *_chosen(run, wanted))


def _chosen(run: Path, wanted: Wanted) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """The splits and sources of documents.

    Raises:
        UserError: the run has no such.
    """
    for names, known, option in (
        (wanted.splits, SPLITS, "--split"),
        (wanted.sources, list(read_recipe(run).sources), "--source"),
    ):
        for name in names:
            if name not in known:
                fix = suggest(name, list(known)) or f"Choose one of {', '.join(known)}."
                raise UserError(f"The run has no {option.strip('-')} {name!r}.", option, fix)
    splits = tuple(name for name in SPLITS if name in wanted.splits or not wanted.splits)
    return splits, tuple(sorted(set(wanted.sources)))


def _there(out: Path, step: Step) -> bool:
    """Whether the export is finished already.

    Raises:
        UserError: something else is in its place.
    """
    if not out.exists() or (out.is_dir() and not any(out.iterdir())):
        return False
    try:
        made = Artifact.open(out)
        if made.manifest.identity == step.identity:
            check_files(made, read=False)
            return True
        what = "holds another export"
    except UserError as error:
        what = "is not empty" if not (out / MANIFEST).exists() else f"is damaged ({error.what})"
    raise UserError(f"The folder to export to {what}.", str(out), "Choose another folder, or delete it.")


def _make(step: ExportStep, out: Path, workers: int | None, memory: int, listener: Listener | None) -> None:
    from headrace.flow.lock import lock
    from headrace.flow.runner import make

    work = out.with_name(f"{out.name}.partial")
    with lock(work):
        _begin(step, work)
        log = EventLog(work, listener)
        try:
            with notices_to(log.notice):
                if left := step.left_behind():
                    log.notice(left)
                with LOCAL.start(work, GRAPH, workers, memory, log) as start:
                    executor = start([step])
                    try:
                        make([step], work, executor, log, memory)
                    finally:
                        executor.close()
        finally:
            log.close()
        if out.is_dir():
            out.rmdir()
        os.replace(work / "artifacts" / step.name, out)
        fsync_folder(out.parent)
        shutil.rmtree(work)


def _begin(step: ExportStep, work: Path) -> None:
    """Write what the workers build the step from; what another export left is of no use to this one."""
    for folder in (work / "artifacts").glob("export-*"):
        if not folder.name.startswith(step.name):
            shutil.rmtree(folder)
    write_sealed(work / REQUEST, request(step))


def request(step: ExportStep) -> dict[str, Any]:
    """What :func:`requested` builds the step from: JSON."""
    if isinstance(step, ModelExport):
        return {"format": step.format, **asdict(step)}
    return {
        "format": step.format,
        "options": asdict(step.options),
        "sequences": [asdict(one) for one in step.sequences] if isinstance(step, SequenceExport) else None,
        "corpus": None if step.corpus is None else asdict(step.corpus),
        "tokenized": isinstance(step, TokenExport),
        "card": None if isinstance(step, TokenExport) or step.card is None else asdict(step.card),
    }


def requested(asked: Mapping[str, Any]) -> ExportStep:
    """The step that a request is for."""
    if asked["format"] == FORMAT:
        return ModelExport(
            asked["run"], asked["model"], tuple(asked["stages"]), tuple(asked["made_of"]), asked["dtype"]
        )
    options = Options(**asked["options"])
    if asked["tokenized"]:
        return TokenExport(asked["format"], TokenCorpus.from_json(asked["corpus"]), options)
    corpus = None if asked["corpus"] is None else Corpus.from_json(asked["corpus"])
    told = asked["card"]
    card = None if told is None else RunCard(**{**told, "stages": tuple(told["stages"])})
    if asked["sequences"] is not None:
        sequences = tuple(Exported(**one) for one in asked["sequences"])
        return SequenceExport(asked["format"], sequences, options, corpus, card)
    assert corpus is not None
    return DocumentExport(asked["format"], corpus, options, card)


def targets(work: Path) -> list[Step]:
    """The step of an export in the making, for workers."""
    try:
        return [requested(read_sealed(work / REQUEST))]
    except (FileNotFoundError, SealError):
        raise UserError("The request of this export is damaged.", str(work / REQUEST), "Export again.") from None
