"""What is viewed: a run (finished or underway), a recipe, a sequence in any format, or files of documents."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Hashable
from concurrent.futures import CancelledError, Future, ThreadPoolExecutor
from contextlib import suppress
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, Generic, TypeVar
from weakref import WeakSet

from headrace import run_folder
from headrace.errors import UserError
from headrace.flow.artifact import MANIFEST, Artifact
from headrace.recipe.schema import HELD_OUT, Recipe
from headrace.view.curves import CurveReader, Curves
from headrace.view.memory import trim

if TYPE_CHECKING:
    from headrace.graph import Graph
    from headrace.planning.plan import Plan
    from headrace.sequence.reader import SequenceReader
    from headrace.sequence.store import ArrowSequence
    from headrace.tokens.table_engine import Decoder
    from headrace.train.steps import Steps
    from headrace.train.trajectory import Trajectory
    from headrace.view.records import RecordFiles

T = TypeVar("T")
RECIPES = (".yaml", ".yml")
PATIENCE = 0.15  # seconds that a page waits for a figure before it is shown without
WATCHED = 256  # files of a sequence that are looked at before each page, 1 ms
MOST_KEPT = 500  # values: those of documents are a few kB each
_POOL = ThreadPoolExecutor(1, "figures")  # one at a time: they read whole sidecars
Key = tuple[str, str | None]


class Missing(UserError):  # noqa: N818 - it answers, it does not fail
    """There is no such page, row, step or document: answered with 404."""


class Wrong(UserError):  # noqa: N818 - it answers, it does not fail
    """What was asked makes no sense: answered with 400."""


class _Made(Generic[T]):
    """A value that is made once, by the first who wants it."""

    def __init__(self) -> None:
        self._lock = threading.RLock()
        self._made: list[T] = []

    def value(self, make: Callable[[], T]) -> T:
        """The value, made if it is not there."""
        with self._lock:
            if not self._made:
                self._made.append(make())
            return self._made[0]


class Target:
    """An opened target. All methods may be called from several threads.

    Args:
        path: a run folder, the file of a recipe, or a file or folder of a sequence or of documents.
        tokenizer: the file of the tokenizer, for sequences that come without one.
        seq_len: targets of a row, for files that are one line of tokens.
        other: another run or recipe, to compare this one with.

    Raises:
        UserError: nothing there can be viewed; says what was looked for.

    Attributes:
        path: as given.
        is_run: whether it is a run folder.
        is_recipe: whether it is a recipe's file.
        other: as given.
        records: documents in files that no run has read; None if it is something else.
        patience: seconds to wait for what :meth:`later` computes; None waits for all of it.
    """

    def __init__(
        self, path: Path, tokenizer: Path | None = None, seq_len: int | None = None, other: Target | None = None
    ) -> None:
        self.other = other
        self.patience: float | None = PATIENCE
        self.path, self._tokenizer, self._seq_len = path, tokenizer, seq_len
        self.is_run = (path / run_folder.RECIPE).is_file()
        self.is_recipe = path.suffix.lower() in RECIPES and path.is_file()
        for one in () if other is None else (self, other):
            if not (one.is_run or one.is_recipe):
                fix = "Give the --out folders of two `headrace run`, or recipes."
                raise UserError("Only runs and recipes are compared.", str(one.path), fix)
        self._lock = threading.RLock()
        self._kept: dict[Hashable, tuple[Hashable, Any]] = {}
        self._mapped: WeakSet[ArrowSequence] = WeakSet()
        self._curves = CurveReader()
        if tokenizer is not None:
            self._given  # noqa: B018 - a wrong file is said now
        self.records: RecordFiles | None = None
        self._files: list[Path] = []
        if self.is_recipe:
            self.recipe  # noqa: B018 - what is wrong with it is said now
        elif not self.is_run:
            self._open_files()

    def _open_files(self) -> None:
        """Open files that are no run: a sequence, or else documents."""
        from headrace.formats.opening import sequence_names
        from headrace.view.records import RecordFiles, holds_documents

        if holds_documents(self.path):
            self.records = RecordFiles(self.path)
            return
        failed: UserError | None = None
        opened = False
        for name in self.sequences:
            try:
                self._files += _files_of(self.sequence(name))
                opened = True
            except UserError as error:  # the others can be looked at
                failed = failed or error
        if opened or failed is None:
            return
        if sequence_names(self.path):  # an export: what lies beside its rows is not what was asked for
            raise failed
        try:
            records = RecordFiles(self.path)
        except UserError as error:
            raise UserError(failed.what, failed.where, f"{failed.fix} As documents: {error.what}") from None
        if not records.readable:
            raise failed
        self.records = records

    @property
    def name(self) -> str:
        """What the pages call it."""
        with suppress(UserError):  # a damaged recipe: the pages say so
            if self.is_run or self.is_recipe:
                return self.recipe.name
        return self.path.resolve().name

    @property
    def stamp(self) -> Hashable:
        """What changes whenever the target does: a run underway publishes artifacts, its recipe may be edited; other
        files may be replaced. What a run only begins, or logs, changes nothing that is finished."""
        if not self.is_run:
            return tuple(map(file_stamp, [self.path, *self._files[:WATCHED]]))
        return file_stamp(self.path / run_folder.RECIPE), _published(self.path / "artifacts")

    def kept(self, key: Hashable, make: Callable[[], T], also: Hashable = None) -> T:
        """What ``make`` gives, made again only when the target has changed. For small values that are not cheap.

        Args:
            key: its name.
            make: makes it; meanwhile others that want it wait, and nobody else.
            also: what else it depends on.
        """
        made: _Made[T] = self._held(key, also, _Made)
        return made.value(make)

    def later(self, key: Hashable, make: Callable[[], T], also: Hashable = None) -> T | None:
        """As :meth:`kept`, for what may take long: None until it is there. A page that shows it says so, and asks
        again (:func:`headrace.view.layout.pending`). ``also`` is what it depends on besides the target."""
        future: Future[T] = self._held(("later", key), also, lambda: _POOL.submit(_counted, make))
        try:
            return future.result(timeout=self.patience)
        except (TimeoutError, CancelledError):
            return None

    def _held(self, key: Hashable, also: Hashable, make: Callable[[], Any]) -> Any:
        """What is kept under a key, which now is the last to be forgotten; made if it is not of the target as it is."""
        stamp = self.stamp, also
        with self._lock:
            old = self._kept.pop(key, None)
            if old is None or old[0] != stamp:
                _forget(old)
                if len(self._kept) >= MOST_KEPT:
                    _forget(self._kept.pop(next(iter(self._kept))))
                old = stamp, make()
            self._kept[key] = old
            return old[1]

    @property
    def recipe(self) -> Recipe:
        """The recipe, or the run's, without paths of this machine.

        Raises:
            UserError: this is neither, or the recipe is wrong.
        """
        from headrace.recipe.load import load_recipe, published

        read = load_recipe if self.is_recipe else run_folder.read_recipe
        return self.kept("recipe", lambda: published(read(self.path)))

    @property
    def plan(self) -> Plan | None:
        """What a run of the recipe is expected to do; None while its sources are looked at.

        Raises:
            UserError: as :func:`headrace.planning.forecast.plan`.
        """
        from headrace.planning.forecast import plan
        from headrace.recipe.load import load_recipe

        return self.later("plan", lambda: plan(load_recipe(self.path)))

    @property
    def graph(self) -> Graph:
        """The run's graph of steps.

        Raises:
            UserError: this is not a run, or a record of its input is damaged.
        """
        # Records of the input are replaced by files of the same name.
        return self.kept("graph", lambda: run_folder.read_graph(self.path), file_stamp(self.path))

    @property
    def artifacts(self) -> dict[Key, Artifact]:
        """The run's finished artifacts that belong together, by kind and stage; empty if this is not a run."""
        from headrace.report.gather import present

        return self.kept("artifacts", lambda: present(self.path, self.recipe)) if self.is_run else {}

    def artifact(self, kind: str, stage: str | None = None) -> Artifact | None:
        """One of :attr:`artifacts`; None if it is not finished."""
        return self.artifacts.get((kind, stage))

    @property
    def documents(self) -> Artifact | None:
        """The documents; None if there are none (yet)."""
        return self.artifact("documents")

    @property
    def sources(self) -> list[str]:
        """The names of sources in the order of their colors."""
        if self.is_run:
            made = [self.artifact("sequence", name) for name in self.sequences]
            told = [name for one in made if one is not None for name in one.manifest.extra["sources"]]
            return list(dict.fromkeys([*self.recipe.sources, *told]))
        return list(dict.fromkeys(s for name in self.sequences for s in self._sources_of(name)))

    def _sources_of(self, name: str) -> list[str]:
        try:
            return self.sequence(name).sources
        except UserError:  # not built yet, or damaged: its own page says so
            return []

    @property
    def sequences(self) -> list[str]:
        """The names of the sequences, finished or not: stages in training order, then held-out rows. A sequence in
        files of one is called ``rows``."""
        if self.records is not None or self.is_recipe:
            return []
        if not self.is_run:
            from headrace.formats.opening import sequence_names

            return self.kept("names", lambda: sequence_names(self.path) or ["rows"])
        held_out = [HELD_OUT] if self.artifact("sequence", HELD_OUT) is not None else []
        return [stage.name for stage in self.recipe.stages] + held_out

    def sequence(self, name: str) -> SequenceReader:
        """A sequence, opened for reading.

        Raises:
            UserError: there is no such sequence, or it is not finished, or cannot be read.
        """
        return self.kept(("sequence", name), lambda: self._open(name))

    def let_go(self) -> None:
        """Give back the memory of what was read of sequences."""
        for sequence in list(self._mapped):
            sequence.let_go()

    def _open(self, name: str) -> SequenceReader:
        from headrace.recipe.mistakes import suggest

        if name not in self.sequences:
            fix = suggest(name, self.sequences) or f"Choose one of {', '.join(self.sequences)}."
            raise Missing(f"There is no sequence {name!r}.", str(self.path), fix)
        if self.is_run:
            opened = run_folder.stage_sequence(self.path, name, graph=self.graph)
            self._mapped.add(opened)
            return opened
        return run_folder.open_sequence(self.path, None if name == "rows" else name, seq_len=self._seq_len)

    @cached_property
    def _given(self) -> Decoder:
        from headrace.tokens.load import file_decoder

        assert self._tokenizer is not None
        return file_decoder(self._tokenizer)[0]

    def decoder(self, name: str) -> Decoder | None:
        """What turns a sequence's ids into text; None if its tokenizer is not at hand."""
        from headrace.sequence.provenance import beside
        from headrace.tokens.load import open_decoder

        if self._tokenizer is not None:
            return self._given
        try:
            return self.kept(("decoder", name), lambda: open_decoder(beside(self.sequence(name), "tokenizer")))
        except UserError:
            return None

    @property
    def file_sizes(self) -> list[int]:
        """The sizes of the files of sequences that are no run's; those that are gone are left out."""
        return [found[1] for found in map(file_stamp, self._files) if found is not None]

    def curves(self, stage: str) -> Curves | None:
        """What a stage's training has logged; None where it has not begun."""
        from headrace.train.metrics import FILE
        from headrace.train.trajectory import latest

        folder = latest(self.path, stage) if self.is_run else None
        model = self.artifact("model", stage)
        # Checkpoints may be gone, as the artifact's log is without times.
        if folder is not None and (folder / FILE).is_file():
            return self._curves.read(folder / FILE)
        return None if model is None else self._curves.read(model.file_path(FILE))

    def batch(self, name: str) -> int | None:
        """Rows of a step of a stage; None where nobody trains on it."""
        if not self.is_run or self.recipe.model is None:
            return None
        return next((stage.train.batch for stage in self.recipe.stages if stage.name == name), None)

    def steps(self, name: str, batch: int | None = None) -> Steps:
        """The steps of a stage's training, done and to come; where nobody trains, or a batch is given, those of whoever
        reads the rows in such batches, by default one by one.

        Raises:
            UserError: as :meth:`sequence`.
        """
        from headrace.train.steps import Steps

        sequence = self.sequence(name)
        trajectory = None
        if batch is None:
            begun = file_stamp(self.path / "checkpoints" / name)
            trajectory = self.kept(("trajectory", name), lambda: self._trajectory(name), begun)
        if trajectory is None:
            return Steps.untrained(len(sequence), batch or self.batch(name) or 1, sequence.seq_len)
        digest = None if sequence.fingerprint is None else sequence.fingerprint["digest"]
        return Steps.of(self.path, name, digest, trajectory, self.artifact("model", name))

    def _trajectory(self, name: str) -> Trajectory | None:
        from headrace.ledger import trained_as

        return trained_as(self.path, name) if self.is_run and self.recipe.model is not None else None


def _files_of(sequence: SequenceReader) -> list[Path]:
    from headrace.formats.files import FileSequence
    from headrace.sequence.store import ArrowSequence

    if isinstance(sequence, ArrowSequence):
        return [sequence.artifact.path / str(entry["name"]) for entry in sequence.artifact.entries]
    assert isinstance(sequence, FileSequence)
    return [path for file in sequence.files for path in (file.path, *file.beside)]


def _counted(make: Callable[[], T]) -> T:
    try:
        return make()
    finally:
        trim()


def _forget(old: tuple[Hashable, Any] | None) -> None:
    """What nobody wants any more is not begun."""
    if old is not None and isinstance(old[1], Future):
        old[1].cancel()


def _published(folder: Path) -> Hashable:
    """The finished artifacts, each with the stamp of its manifest: it is written last, and one may be made again."""
    try:
        names = [name for name in os.listdir(folder) if not name.endswith(".partial")]
    except OSError:
        return ()
    return frozenset((name, file_stamp(folder / name / MANIFEST)) for name in names)


def file_stamp(path: Path) -> tuple[int, int] | None:
    """What changes with a file: its time and size; None if it is not there."""
    try:
        found = path.stat()
    except OSError:
        return None
    return found.st_mtime_ns, found.st_size
