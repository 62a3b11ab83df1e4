"""What a task sees: its inputs, its budget, and the only ways to write a file.

While an artifact is being made, its folder is ``<name>.partial``::

    plan/<phase>.json         the task specs of a phase
    done/<phase>/00007.json   written when task 7 is done: its counts and its files
    done/<phase>/taken.json   the same of tasks that were taken over from another artifact, by number
    scratch/<phase>/...       intermediate files
    shards/00007-000.parquet  published shards by (task, part)
    files/...                 further published files
    at/<process>              which document a worker is handling
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

from headrace.flow.artifact import Artifact
from headrace.flow.step import Phase, Step
from headrace.flow.storage import digest_file, read_json, replacing, write_json

TAKEN = "taken.json"
AT_BYTES = 512  # room for the note of which document a worker is handling


@dataclass
class Out:
    """A file being written: write to ``path``, set ``rows`` if it is a shard."""

    path: Path
    rows: int = 0


@dataclass
class TaskContext:
    """The surroundings of one task (or, with ``task`` -1, of the coordinator when it plans or finishes).

    Attributes:
        run: the run folder.
        step: whose artifact is being made.
        phase: the phase's name.
        task: the task's number in the phase.
        memory: bytes that the task may use for data.
        threads: processor threads that the task may use.
        careful: this is the retry of a task that killed its worker: handle one document at a time.
        report: receives ``{"rows": ..., "bytes": ...}`` as work proceeds.
    """

    run: Path
    step: Step
    phase: str = ""
    task: int = -1
    memory: int = 1 << 30
    threads: int = 1
    careful: bool = False
    report: Callable[[dict[str, Any]], None] | None = None
    files: list[dict[str, Any]] = field(default_factory=list)

    @property
    def artifacts(self) -> Path:
        """The folder of all artifacts of the run."""
        return self.run / "artifacts"

    @property
    def folder(self) -> Path:
        """The folder in which this artifact is being made."""
        return self.artifacts / f"{self.step.name}.partial"

    def input(self, role: str) -> Artifact:
        """The opened artifact of an input step.

        Raises:
            KeyError: the step has no such input.
        """
        name = self.step.inputs()[role].name
        if name not in self._opened:
            self._opened[name] = Artifact.open(self.artifacts / name)
        return self._opened[name]

    @cached_property
    def _opened(self) -> dict[str, Artifact]:
        return {}

    # What earlier phases left behind.

    def tasks(self, phase: str) -> int:
        """The number of tasks of an earlier phase."""
        plan = read_json(self.folder / "plan" / f"{phase}.json")
        assert isinstance(plan, list)
        return len(plan)

    def markers(self, phase: str) -> list[dict[str, Any]]:
        """``{"result", "files"}`` of each task of a finished phase, in task order."""
        folder, taken = self.folder / "done" / phase, self.taken(phase)
        return [taken.get(task) or read_json(folder / f"{task:05d}.json") for task in range(self.tasks(phase))]  # type: ignore[misc]

    def taken(self, phase: str) -> dict[int, dict[str, Any]]:
        """The markers of the tasks that were taken over from other artifacts, by number."""
        try:
            value = read_json(self.folder / "done" / phase / TAKEN)
        except FileNotFoundError:
            return {}
        assert isinstance(value, dict)
        return {int(task): marker for task, marker in value.items()}

    def done(self, phase: str) -> set[int]:
        """The numbers of the tasks of a phase that are done."""
        folder = self.folder / "done" / phase
        names = {entry.name for entry in os.scandir(folder)} if folder.is_dir() else set()
        return {int(name[:-5]) for name in names if name[:-5].isdigit()} | set(self.taken(phase))

    def results(self, phase: str) -> list[dict[str, Any]]:
        """What each task of a finished phase returned, in task order."""
        return [marker["result"] for marker in self.markers(phase)]

    def scratch(self, phase: str, name: str) -> Path:
        """An intermediate file of a phase."""
        return self.folder / "scratch" / phase / name

    # Ways to write.

    @contextmanager
    def shard(self, suffix: str = ".parquet", part: int = 0) -> Iterator[Out]:
        """Write a shard of the artifact. Shards are ordered by (task, part) when they are published."""
        with self._writing(f"shards/{{task}}-{part:05d}{suffix}", published=True) as out:
            yield out

    @contextmanager
    def file(self, name: str) -> Iterator[Out]:
        """Write a further file of the artifact under its final name, in which ``{task}`` is the task's number."""
        with self._writing(f"files/{name}", published=True) as out:
            yield out

    @contextmanager
    def intermediate(self, name: str) -> Iterator[Out]:
        """Write a scratch file of this phase; it goes when the artifact is published."""
        with self._writing(f"scratch/{self.phase}/{name}", published=False) as out:
            yield out

    @contextmanager
    def _writing(self, pattern: str, published: bool) -> Iterator[Out]:
        name = pattern.replace("{task}", f"{self.task:05d}")
        path = self.folder / name
        with replacing(path) as temporary:
            out = Out(temporary)
            yield out
        entry: dict[str, Any] = {"name": name, "rows": out.rows, "bytes": path.stat().st_size}
        if published:
            entry |= {"digest": digest_file(path), "as": pattern}
        self.files.append(entry)

    # Signs of life.

    def at(self, where: str) -> None:
        """Note which document is being handled: it is what is reported if the worker dies."""
        os.pwrite(self._at, where.encode("utf-8", "replace")[:AT_BYTES].ljust(AT_BYTES), 0)

    @cached_property
    def _at(self) -> int:
        path = self.folder / "at" / str(os.getpid())
        path.parent.mkdir(parents=True, exist_ok=True)
        return os.open(path, os.O_RDWR | os.O_CREAT, 0o644)

    def progress(self, rows: int = 0, bytes: int = 0) -> None:
        """Report work done since the last report, for the eyes of whoever waits."""
        if self.report is not None:
            self.report({"rows": rows, "bytes": bytes})

    def close(self) -> None:
        """Release the note of which document is being handled."""
        if "_at" in self.__dict__:
            os.close(self.__dict__.pop("_at"))
            (self.folder / "at" / str(os.getpid())).unlink(missing_ok=True)

    # Running.

    def marker(self) -> Path:
        """The file whose presence says that this task is done."""
        return self.folder / "done" / self.phase / f"{self.task:05d}.json"

    def execute(self) -> None:
        """Do the task and leave its marker. Called in a worker process."""
        specs = read_json(self.folder / "plan" / f"{self.phase}.json")
        assert isinstance(specs, list)
        self.files.clear()
        try:
            spec = specs[self.task]
            result = phase_named(self.step, self.phase).work(self, spec)
            key = {"key": spec["key"]} if "key" in spec else {}
            write_json(self.marker(), {"result": result, "files": self.files, **key})
        finally:
            self.close()


def phase_named(step: Step, name: str) -> Phase:
    """The phase of a step with the given name."""
    return next(phase for phase in step.phases() if phase.name == name)
