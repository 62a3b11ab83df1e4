"""What became of each row of a stage's sequence: trained on, left, left out, skipped, or in no step; and its tokens by
source, checked against what the training itself counted and recorded."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from headrace.errors import UserError
from headrace.flow.artifact import Artifact
from headrace.flow.storage import SealError, read_sealed
from headrace.sequence.batch import read as read_batch
from headrace.sequence.overlap import covered, documents, placed, stretches
from headrace.sequence.reader import SequenceReader
from headrace.sequence.store import ArrowSequence
from headrace.sequence.target_sources import target_sources
from headrace.train import guard, losses, metrics
from headrace.train.steps import chain
from headrace.train.trajectory import STATE, Trajectory

FATES = ("trained", "left", "left_out", "skipped", "unused", "before", "passed", "elsewhere")
"""What can become of a target: trained on; still to come; left out by the recipe; skipped, because its step was
outlying; in no step: after the last whole batch or step, or before the first row. When a recipe was edited and the
sequence with it, training went on at the next row, and the rows before were passed over: their targets were trained on
before, in the sequence that this one replaced, or not (passed); elsewhere: nobody knows which."""

COUNTED = 1 << 30  # targets that are counted from the rows, about a minute's work
BLOCK = 1 << 20  # targets in memory at once

Rows = list[tuple[int, int]]
"""Rows, as ranges ``[first, stop)``."""


@dataclass
class Consumption:
    """What became of a sequence's rows.

    Attributes:
        step: steps done.
        steps: the number of the last step.
        trajectories: the identities of the trajectories so far, each going on from the one before.
        rows: fate -> rows.
        tokens: fate -> int64[S + 1], targets that carry loss, by source; the last entry is for no source.
        counted: targets trained on by source, as the training counted them; None if it is not known.
        exact: whether all tokens were counted from the rows, so that the training's own count is a check.
        replaced: what became of what was trained on in sequences that this one replaced; None if there were none, or
            they are not known.
        recorded: the rows whose losses were recorded; None where rows were not counted.
    """

    step: int
    steps: int
    trajectories: list[str]
    rows: dict[str, Rows]
    tokens: dict[str, np.ndarray] = field(default_factory=dict)
    counted: np.ndarray | None = None
    exact: bool = True
    replaced: Replaced | None = None
    recorded: Recorded | None = None

    def differences(self, sources: list[str]) -> list[str]:
        """Where the training's counts depart from the rows', in words."""
        other = [] if self.recorded is None else [_other(row) for row in self.recorded.other]
        if self.counted is None or not self.exact:
            return other
        trained = self.tokens["trained"] + (0 if self.replaced is None else self.replaced.trained)
        told = zip([*sources, "no source"], trained, self.counted, strict=True)
        counts = [
            f"{name}: the rows have {rows:,} targets, the training counted {own:,}"
            for name, rows, own in told
            if rows != own
        ]
        return [*counts, *other]


def _other(row: int) -> str:
    return f"row {row:,}: its record of losses has another number of targets"


@dataclass
class Recorded:
    """The rows whose losses were recorded, compared with the sequence's.

    Attributes:
        stretches: trajectories on these rows, their folders, and the last step of each.
        rows: how many were recorded.
        other: the first of those with another number of targets than the sequence has.
    """

    stretches: list[tuple[Trajectory, Path, int]]
    rows: int = 0
    other: list[int] = field(default_factory=list)

    def look(self, first: int, targets: np.ndarray) -> None:
        """Compare the rows from ``first`` on with their targets that carry loss, int64[n]."""
        stop = first + len(targets)
        for link, folder, until in self.stretches:
            batch = int(link.train["batch"])
            begin, end = (link.first_step + (row - link.first_row) // batch + 1 for row in (first, stop - 1))
            for block in losses.blocks(folder, batch, max(begin, link.first_step + 1), min(end, until)):
                at = (link.first_row + (block["step"].astype(np.int64) - 1 - link.first_step) * batch)[:, None]
                rows = at + np.arange(batch)
                mine = (rows >= first) & (rows < stop)
                rows, told = rows[mine], block["targets"][mine]
                self.rows += len(rows)
                self.other += rows[targets[rows - first] != told].tolist()[: MOST_OTHER - len(self.other)]


MOST_OTHER = 8  # rows told


@dataclass
class Replaced:
    """What became of the targets trained on in sequences that another replaced.

    Attributes:
        trained: int64[S + 1], all of them, by source of the new sequence; the last entry is for no source of it.
        again: fate -> targets of the new sequence that are the same tokens of the same copies of documents.
        gone: those that are not in the new sequence.
    """

    trained: np.ndarray
    again: dict[str, int]
    gone: int


def consumption(run: Path, stage: str, sequence: SequenceReader, trajectory: Trajectory | None) -> Consumption:
    """What became of a stage's rows so far.

    Of a sequence of more than :data:`COUNTED` targets, those trained on are as the training counted, all are as the
    sequence's own ledger has them, and of those left and unused the fewer are counted; if these are too many as well,
    both are estimated from the number of their rows.

    Args:
        run: the run folder.
        stage: the stage's name.
        sequence: its sequence.
        trajectory: its training; None if it trains no model.
    """
    found, replaced, recorded = _rows(run, stage, sequence, trajectory)
    counted = found.tokens
    if len(sequence) * sequence.seq_len <= COUNTED:
        found.recorded = recorded
        for fate, ranges in found.rows.items():
            counted[fate] = tally(sequence, ranges, recorded.look if fate in ("trained", "skipped") else None)
        if replaced:
            _compare(found, sequence, replaced)
        return found
    found.exact = False
    for fate in ("left_out", "skipped", "elsewhere"):
        counted[fate] = tally(sequence, found.rows[fate])
    counted["before"] = counted["passed"] = tally(sequence, [])
    counted["trained"] = tally(sequence, []) if found.counted is None else found.counted
    rest = _told(sequence) - sum(counted[fate] for fate in ("trained", "left_out", "skipped", "elsewhere"))
    sizes = {fate: sum(stop - first for first, stop in found.rows[fate]) for fate in ("left", "unused")}
    fewer, more = sorted(sizes, key=lambda fate: sizes[fate])
    if sizes[fewer] * sequence.seq_len <= COUNTED:
        counted[fewer] = tally(sequence, found.rows[fewer])
    else:  # the order of rows is a uniform shuffle
        counted[fewer] = rest * sizes[fewer] // max(1, sizes[fewer] + sizes[more])
    counted[more] = rest - counted[fewer]
    return found


def _compare(found: Consumption, sequence: SequenceReader, replaced: dict[Path | None, Rows]) -> None:
    """Find out what of a sequence was trained on in those that it replaced, if they are still there."""
    found.exact = False
    if None in replaced:
        return
    fates = [fate for fate in FATES if found.rows[fate]]
    olds = [(ArrowSequence(Artifact.open(path)), rows) for path, rows in replaced.items() if path is not None]
    readers = [*(sequence for _ in fates), *(reader for reader, _ in olds)]
    looked = map(stretches, readers, [*(found.rows[fate] for fate in fates), *(rows for _, rows in olds)])
    parts = [part for part in looked if part is not None]
    numbers = documents(readers, parts) if len(parts) == len(readers) else None
    if numbers is None:
        return
    at, new = placed(numbers, parts), len(fates)
    first, length = np.concatenate(at[new:]), np.concatenate([part.length for part in parts[new:]])
    again = {fate: covered(at[i], parts[i].length, first, length) for i, fate in enumerate(fates)}
    gone = length - covered(first, length, np.concatenate(at[:new]), np.concatenate([p.length for p in parts[:new]]))
    names = {name: i for i, name in enumerate(sequence.sources)}
    trained, before = np.zeros((2, len(names) + 1), dtype=np.int64)
    for reader, rows in olds:
        np.add.at(trained, [*(names.get(name, -1) for name in reader.sources), -1], tally(reader, rows))
    if "elsewhere" in again:
        np.add.at(before, parts[fates.index("elsewhere")].source, again["elsewhere"])
    found.tokens |= {"before": before, "passed": found.tokens["elsewhere"] - before, "elsewhere": 0 * before}
    sums = {fate: int(same.sum()) for fate, same in again.items()}
    found.replaced, found.exact = Replaced(trained, sums, int(gone.sum())), True


def _rows(
    run: Path, stage: str, sequence: SequenceReader, trajectory: Trajectory | None
) -> tuple[Consumption, dict[Path | None, Rows], Recorded]:
    """What became of each row; of the sequences that this one replaced, the rows trained on, by the sequence's folder,
    or None for those that are gone; and where losses were recorded."""
    rows: dict[str, Rows] = {fate: [] for fate in FATES}
    replaced: dict[Path | None, Rows] = {}
    recorded = Recorded([])
    if trajectory is None:
        rows["left"] = [(0, len(sequence))]
        return Consumption(0, 0, [], rows), replaced, recorded
    links = chain(run, stage, trajectory)
    step, counted = _reached(links[-1][1], trajectory, sequence)
    rows["unused"].append((0, links[0][0].first_row))
    for i, (link, folder) in enumerate(links):
        until = step if i == len(links) - 1 else int(links[i + 1][0].after["step"])  # type: ignore[index]
        same = link.sequence["digest"] == trajectory.sequence["digest"]
        if not same:
            rows["elsewhere"].append((link.first_row, min(link.row(until), len(sequence))))
            old: dict[str, Rows] = {fate: [] for fate in FATES}
            _sort(old, link, folder, until)
            replaced.setdefault(_made_from(run, stage, link), []).extend(_joined(old)["trained"])
            continue
        _sort(rows, link, folder, until)
        recorded.stretches.append((link, folder, until))
    out = trajectory.passed()
    for one in range(step, trajectory.steps):
        rows["left_out" if one in out else "left"].append((trajectory.row(one), trajectory.row(one + 1)))
    rows["unused"].append((trajectory.row(trajectory.steps), len(sequence)))
    names = [link.identity for link, _ in links]
    return Consumption(step, trajectory.steps, names, _joined(rows), counted=counted), replaced, recorded


def _made_from(run: Path, stage: str, link: Trajectory) -> Path | None:
    """The folder of the sequence that a trajectory was trained on; None if it is not there any more."""
    for folder in sorted((run / "artifacts").glob(f"sequence-{stage}-*")):
        if folder.is_dir() and not folder.name.endswith(".partial"):
            with suppress(UserError):
                sequence = ArrowSequence(Artifact.open(folder))
                if sequence.fingerprint["digest"] == link.sequence["digest"]:
                    return folder
    return None


def _sort(rows: dict[str, Rows], link: Trajectory, folder: Path, until: int) -> None:
    """Sort the rows of the steps of a trajectory that are done."""
    out, spikes = link.passed(), {spike["step"] for spike in guard.spikes(folder)}
    for step in range(link.first_step, until):
        fate = "left_out" if step in out else "skipped" if step in spikes else "trained"
        rows[fate].append((link.row(step), link.row(step + 1)))


def _reached(folder: Path, trajectory: Trajectory, sequence: SequenceReader) -> tuple[int, np.ndarray | None]:
    """The steps done by the newest checkpoint and the lines of the log after it, and the targets they counted."""
    step, totals = trajectory.first_step, _start(folder, trajectory)
    for path in sorted(folder.glob("step-*")) if folder.is_dir() else ():
        state = _state(path)
        if state is not None and int(state["step"]) >= step:
            step, totals = int(state["step"]), state["totals"]
    sums = None if totals is None else _vector(totals["sources"], int(totals["tokens"]), sequence)
    for line in metrics.read(folder / metrics.FILE):
        if line["step"] == step + 1:
            step += 1
            if sums is not None and "skipped" not in line:
                told = {name: source["tokens"] for name, source in line["sources"].items()}
                sums = sums + _vector(told, line["loss_tokens"], sequence)
    return step, sums


def _start(folder: Path, trajectory: Trajectory) -> dict[str, Any] | None:
    """The totals that a trajectory begins with."""
    after = trajectory.after
    if after is None:
        return {"tokens": 0, "sources": {}}
    state = _state(folder.with_name(str(after["trajectory"])) / f"step-{int(after['step']):08d}")
    return None if state is None else state["totals"]


def _state(checkpoint: Path) -> dict[str, Any] | None:
    try:
        found: dict[str, Any] = read_sealed(checkpoint / STATE)
        return found
    except (FileNotFoundError, NotADirectoryError, SealError):
        return None


def _vector(sources: Mapping[str, int], tokens: int, sequence: SequenceReader) -> np.ndarray:
    by_source = [int(sources.get(name, 0)) for name in sequence.sources]
    return np.array([*by_source, tokens - sum(by_source)], dtype=np.int64)


def _told(sequence: SequenceReader) -> np.ndarray:
    """Targets by source as the sequence's own ledger has them."""
    ledger = sequence.manifest.get("ledger", {}).get("sources", {})
    return np.array([*(int(ledger.get(name, {}).get("loss_tokens", 0)) for name in sequence.sources), 0])


def tally(
    sequence: SequenceReader,
    ranges: Iterable[tuple[int, int]],
    look: Callable[[int, np.ndarray], None] | None = None,
) -> np.ndarray:
    """int64[S + 1]: the targets of rows that carry loss, by source; ``look`` is told of those of each row."""
    count = len(sequence.sources) + 1
    out, most = np.zeros(count, dtype=np.int64), max(1, BLOCK // sequence.seq_len)
    for first, stop in ranges:
        for row in range(first, stop, most):
            end = min(row + most, stop)
            loss = read_batch(sequence, row, end, sequence.dtype, False).loss
            if look is not None:
                look(row, loss.sum(axis=1))
            out += np.bincount(target_sources(sequence, row, end)[loss], minlength=count)
    return out


def _joined(rows: dict[str, Rows]) -> dict[str, Rows]:
    """Ranges that touch, as one; none without rows."""
    out: dict[str, Rows] = {}
    for fate, ranges in rows.items():
        joined: Rows = []
        for first, stop in sorted(ranges):
            if joined and joined[-1][1] == first:
                joined[-1] = (joined[-1][0], stop)
            elif stop > first:
                joined.append((first, stop))
        out[fate] = joined
    return out
