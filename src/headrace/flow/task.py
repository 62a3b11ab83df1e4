"""What a task sees: its inputs, its budget, and the only ways to write files.

While an artifact is being built, its folder is ``<name>.partial``::

    plan/<phase>.jsonl        the task specs of a phase (:mod:`headrace.flow.plans`)
    done/<phase>.jsonl        the tasks that are done: their results and files (:mod:`headrace.flow.markers`)
    scratch/<phase>/...       intermediate files
    shards/00007-000.parquet  published shards by (task, part)
    files/...                 further published files
    at/<process>              the document that a worker is processing
    verified/<artifact>/...   an empty file for each input file that was compared with its digest
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any

from headrace.errors import UserError
from headrace.flow.artifact import Artifact, Entry, flaw, verify
from headrace.flow.identity import Identified
from headrace.flow.journal import Journal
from headrace.flow.markers import Marker, open_journal, read_markers
from headrace.flow.mirror import Mirror, here, mirror_of
from headrace.flow.mirrored_journals import have_journal
from headrace.flow.plans import Spec, read_plan
from headrace.flow.storage import digest_file, process_name, replacing

AT_BYTES = 512  # room for the name of the document being processed


@dataclass
class Out:
    """A file being written: write to ``path``; set ``rows`` if it is a shard."""

    path: Path
    rows: int = 0


@dataclass
class TaskContext:
    """The context of one task (or, with ``task`` -1, of the coordinator while planning or finishing).

    Attributes:
        run: the run folder.
        step: the step whose artifact is being built.
        phase: the phase's name.
        task: the task's number in the phase.
        memory: bytes that the task may use for data.
        threads: CPU threads that the task may use.
        careful: this is the retry of a task that killed its worker: process one document at a time.
        report: receives ``{"rows": ..., "bytes": ...}`` as work proceeds.
    """

    run: Path
    step: Identified
    phase: str = ""
    task: int = -1
    memory: int = 1 << 30
    threads: int = 1
    careful: bool = False
    report: Callable[[dict[str, Any]], None] | None = None
    files: list[dict[str, Any]] = field(default_factory=list)

    @cached_property
    def artifacts(self) -> Path:
        """The folder of all artifacts of the run."""
        return self.run / "artifacts"

    @cached_property
    def folder(self) -> Path:
        """The folder in which this artifact is being built."""
        return self.artifacts / f"{self.step.name}.partial"

    @cached_property
    def mirror(self) -> Mirror | None:
        """The mirror that the run folder is, if the run is at a URL."""
        return mirror_of(self.run)

    def input(self, role: str) -> Artifact:
        """The opened artifact of an input step. In a task, each file is compared with its digest before it is read.

        The first task that asks for a file checks it for all tasks. The coordinator reads only footers, so it leaves
        the check to them.

        Raises:
            KeyError: the step has no such input.
            DamagedArtifact: the manifest has changed since it was written.
        """
        name = self.step.inputs()[role].name
        if name not in self._opened:
            artifact = Artifact.open(self.artifacts / name)
            self._opened[name] = artifact if self.task < 0 else replace(artifact, check=self._verify)
        return self._opened[name]

    def _verify(self, artifact: Artifact, entry: Entry) -> None:
        mark = self.folder / "verified" / artifact.path.name / str(entry["name"])
        if not mark.exists():
            verify(artifact, entry)
            mark.parent.mkdir(parents=True, exist_ok=True)
            mark.touch()

    @cached_property
    def _opened(self) -> dict[str, Artifact]:
        return {}

    # Results of earlier phases.

    def tasks(self, phase: str) -> int:
        """The number of tasks of a planned phase; raises as :meth:`specs`."""
        return read_plan(self.plan(phase)).tasks

    def specs(self, phase: str) -> list[Spec]:
        """The task specs of a planned phase.

        Raises:
            FileNotFoundError: the phase has not been planned.
            SealError: the plan has changed since it was written.
        """
        plan = read_plan(self.plan(phase))
        return plan.specs(range(plan.tasks))

    def spec(self) -> Spec:
        """The spec of this task; raises as :meth:`specs`."""
        return read_plan(self.plan(self.phase)).specs([self.task])[0]

    def plan(self, phase: str) -> Path:
        """The file of a phase's task specs."""
        return here(self.folder / "plan" / f"{phase}.jsonl")

    def markers(self, phase: str) -> list[Marker]:
        """The markers of all tasks of a finished phase, in task order.

        Raises:
            KeyError: a task is not done.
        """
        count = self.tasks(phase)
        found = read_markers(self.journal(phase)) if count else None
        if self.mirror is not None and (found is None or len(found.tasks) < count):
            have_journal(self.mirror, self.journal(phase), anew=True)  # it was fetched before the phase was over
            found = read_markers(self.journal(phase))
        if count and found is None:
            raise KeyError(f"no task of phase {phase} is done")
        return [*found.read(range(count))] if found is not None else []

    def journal(self, phase: str) -> Path:
        """The file of the markers of a phase's finished tasks."""
        path = self.folder / "done" / f"{phase}.jsonl"
        if self.mirror is not None:
            have_journal(self.mirror, path)
        return path

    def done(self, phase: str) -> set[int]:
        """The numbers of the phase's finished tasks."""
        found = read_markers(self.journal(phase))
        return found.tasks if found is not None else set()

    def mark_done(self, phase: str, markers: Mapping[int, Marker]) -> None:
        """Record that tasks are done. Called by the coordinator only, which then calls :meth:`close`."""
        for task, marker in markers.items():
            self._appending(phase).add({"task": task, **marker})

    def mark_undone(self, phase: str, task: int) -> None:
        """Take that back."""
        self._appending(phase).add({"undone": task})

    def _appending(self, phase: str) -> Journal:
        if phase not in self._journals:
            path = self.journal(phase)
            if self.mirror is not None and self.mirror.journals is not None:
                self.mirror.journals.opened(path)
            self._journals[phase] = open_journal(path)
        return self._journals[phase]

    @cached_property
    def _journals(self) -> dict[str, Journal]:
        return {}

    def results(self, phase: str) -> list[dict[str, Any]]:
        """What each task of a finished phase returned, in task order."""
        return [marker["result"] for marker in self.markers(phase)]

    def scratch(self, phase: str, name: str) -> Path:
        """An intermediate file of a phase; that of an earlier one is fetched if it is not on this machine."""
        path = self.folder / "scratch" / phase / name
        if self.mirror is not None and phase != self.phase and not path.exists():
            entry = self._written(phase).get(f"scratch/{phase}/{name}")
            return path if entry is None else self.reach(entry)
        return path

    def reach(self, entry: Entry) -> Path:
        """The path of a file that a task of an earlier phase wrote, which is fetched if it is not on this machine.

        Args:
            entry: as the task's marker has it.

        Raises:
            UserError: it is gone, or not what was written.
        """
        path = self.folder / str(entry["name"])
        wrong = None if self.mirror is None or path.exists() else flaw(path, entry)
        if wrong is not None:
            fix = "Run the same command again: the task that wrote it is done again."
            raise UserError(f"An intermediate file {wrong}.", str(path), fix)
        return path

    def _written(self, phase: str) -> dict[str, Entry]:
        """What the tasks of an earlier phase wrote, by name; nothing if the step has no such phase now."""
        if phase not in self._files_of:
            markers = self.markers(phase) if self.plan(phase).exists() else []
            self._files_of[phase] = {entry["name"]: entry for marker in markers for entry in marker["files"]}
        return self._files_of[phase]

    @cached_property
    def _files_of(self) -> dict[str, dict[str, Entry]]:
        return {}

    def like(self) -> Path | None:
        """The file of a finished task that is like this one, if there is one: see :mod:`headrace.flow.reuse`."""
        path = self.folder / self.like_file(self.task)
        return path if path.exists() else None

    def like_file(self, task: int) -> Path:
        """The path of that file within the folder."""
        return Path("scratch", self.phase, f"like-{task:05d}")

    # Writing.

    @contextmanager
    def shard(self, suffix: str = ".parquet", part: int = 0) -> Iterator[Out]:
        """Write a shard of the artifact. Shards are ordered by (task, part) when published."""
        with self._writing(f"shards/{{task}}-{part:05d}{suffix}", published=True) as out:
            yield out

    @contextmanager
    def file(self, name: str) -> Iterator[Out]:
        """Write another file of the artifact under its final name, in which ``{task}`` is the task's number."""
        with self._writing(f"files/{name}", published=True) as out:
            yield out

    @contextmanager
    def intermediate(self, name: str) -> Iterator[Out]:
        """Write a scratch file of this phase; it is deleted when the artifact is published."""
        with self._writing(f"scratch/{self.phase}/{name}", published=False) as out:
            yield out

    def discard(self, path: Path) -> None:
        """Delete an intermediate file that is no longer needed; it will not be missed on resume."""
        path.unlink()
        name = str(path.relative_to(self.folder))
        self.files[:] = [entry for entry in self.files if entry["name"] != name]

    @contextmanager
    def _writing(self, pattern: str, published: bool) -> Iterator[Out]:
        name = pattern.replace("{task}", f"{self.task:05d}")
        path = self.folder / name
        # An intermediate file damaged by a power loss is found by its digest, and its task runs again.
        with replacing(path, durable=published) as temporary:
            out = Out(temporary)
            yield out
        entry = {"name": name, "rows": out.rows, "bytes": path.stat().st_size, "digest": digest_file(path)}
        self.files.append({**entry, "as": pattern} if published else entry)

    # Signs of life.

    def at(self, where: str) -> None:
        """Record which document is being processed, to be reported if the worker dies."""
        os.pwrite(self._at, where.encode("utf-8", "replace")[:AT_BYTES].ljust(AT_BYTES), 0)

    @cached_property
    def _at(self) -> int:
        path = self.folder / "at" / process_name()
        path.parent.mkdir(parents=True, exist_ok=True)
        return os.open(path, os.O_RDWR | os.O_CREAT, 0o644)

    def progress(self, rows: int = 0, bytes: int = 0, **within: float | str) -> None:
        """Report work done since the last report, for progress displays.

        Args:
            rows, bytes: the amount done.
            within: for a phase with a single task: ``step`` of ``steps``; in training ``loss``, otherwise a ``note``.
        """
        if self.report is not None:
            self.report({"rows": rows, "bytes": bytes, **within})

    def close(self) -> None:
        """Close the file of :meth:`at`, and the journals."""
        if "_at" in self.__dict__:
            os.close(self.__dict__.pop("_at"))
            (self.folder / "at" / process_name()).unlink(missing_ok=True)
        for phase in [*self._journals]:
            self._journals.pop(phase).close()
            if self.mirror is not None and self.mirror.journals is not None:
                self.mirror.journals.closed(self.journal(phase))

    # Running.

    @contextmanager
    def at_work(self) -> Iterator[None]:
        """Wraps the work of the task."""
        self.files.clear()
        try:
            yield
        finally:
            self.close()

    def marker(self, spec: Spec, result: dict[str, Any]) -> Marker:
        """The marker of this task: what it returned and wrote, and the keys under which it can be reused."""
        keys: dict[str, Any] = {name: spec[name] for name in ("key", "like") if name in spec}
        if self.mirror is not None:
            self.mirror.push_written(self.folder, self.files)
        return {"result": result, "files": self.files, **keys}


def final_names(files: Iterable[Entry]) -> dict[str, str]:
    """The final names of the published files that tasks wrote: shards are numbered by (task, part)."""
    names = sorted(entry["name"] for entry in files)
    shards = [name for name in names if name.startswith("shards/")]
    numbered = {name: f"{number:05d}{Path(name).suffix}" for number, name in enumerate(shards)}
    return numbered | {name: name.removeprefix("files/") for name in names if name.startswith("files/")}
