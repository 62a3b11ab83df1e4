"""What became of every token of a run's sequences, at any time: by stage and by source, across edits of the recipe."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from headrace import run_folder
from headrace.sequence.reader import ELSEWHERE, SequenceReader
from headrace.sequence.windows import PADDING
from headrace.train.consumption import COUNTED, FATES, Consumption, Replaced, consumption
from headrace.train.trajectory import Trajectory, latest, read_trajectory

if TYPE_CHECKING:
    from headrace.train.step import Model


def ledger(run: Path) -> dict[str, Any]:
    """The ledger of a run.

    Returns:
        ``{"stages": [...], "sources": {name: {fate: targets, "repeated"}}, "total": {fate: targets}}``. A stage has
        ``stage``, ``state`` (``missing``: its sequence is not built; ``waiting``, ``underway``, ``done``), ``step``,
        ``steps``, ``trajectories``, ``rows`` by fate, ``sources`` as above with ``epochs``, ``recorded``: how many rows
        have a record of their loss, whose targets were compared; and ``checked``: whether the training's own count was
        compared, source by source; ``wrong`` says where either departs. ``replaced`` is of
        the sequences that an edit replaced, if it is known: targets ``trained`` on in them, those that the new one has
        ``again`` by fate (``elsewhere``: in the rows passed over), ``gone`` ones, and ``more``, trained on more than
        once. Fates are those of
        :data:`headrace.train.consumption.FATES`; all are targets that carry loss, which ``sequence`` sums up.
        ``repeated`` are tokens of copies of documents that were in the rows before, in this or an earlier stage; None
        where it is not known.

    Raises:
        UserError: the folder is not a run.
    """
    graph = run_folder.read_graph(run)
    seen: dict[str, np.ndarray] = {}
    stages = []
    for stage in run_folder.read_recipe(run).stages:
        step = graph.sequences[stage.name]
        if not (run / "artifacts" / step.name).is_dir():
            stages.append({"stage": stage.name, "state": "missing"})
            continue
        sequence = run_folder.stage_sequence(run, stage.name)
        trajectory = trajectory_of(run, stage.name, graph.models.get(stage.name))
        stages.append(_stage(stage.name, sequence, consumption(run, stage.name, sequence, trajectory), seen))
    return {"stages": stages, **_totals(stages)}


def trained_as(run: Path, stage: str) -> Trajectory | None:
    """The training of a stage; None where nobody trains on it.

    Raises:
        UserError: the folder is not a run.
    """
    model = run_folder.read_graph(run).models.get(stage)
    return None if model is None else trajectory_of(run, stage, model)


def trajectory_of(run: Path, stage: str, model: Model | None) -> Trajectory | None:
    """The training of a stage: as the recipe describes it, unless it was last trained as something else."""
    folder = None if model is None else model.folder(run)
    if folder is None or not folder.is_dir():
        last = latest(run, stage)
        if last is not None:
            return read_trajectory(last)
    if model is None or folder is None:
        return None
    from headrace.flow.task import TaskContext

    return model.trajectory(TaskContext(run, model))


def _stage(name: str, sequence: SequenceReader, found: Consumption, seen: dict[str, np.ndarray]) -> dict[str, Any]:
    told, again = sequence.manifest.get("ledger", {}).get("sources", {}), repeated(sequence, seen)
    names = [*sequence.sources, *([None] if any(found.tokens[fate][-1] for fate in FATES) else [])]
    sources, wrong = {}, found.differences(sequence.sources)
    for i, source in enumerate(names):
        fates = {fate: int(found.tokens[fate][i]) for fate in FATES}
        written = told.get(source, {}).get("loss_tokens")
        if written is not None and written != sum(fates.values()):
            wrong.append(f"{source}: the rows have {sum(fates.values()):,} targets, {written:,} were written")
        sources[source or "no source"] = {
            "sequence": sum(fates.values()),
            **fates,
            "epochs": told.get(source, {}).get("epochs"),
            "repeated": None if again is None or source is None else int(again[i]),
        }
    state = "waiting" if not found.step else "done" if found.step == found.steps else "underway"
    return {
        "stage": name,
        "state": state,
        "step": found.step,
        "steps": found.steps,
        "trajectories": found.trajectories,
        "rows": {fate: sum(stop - first for first, stop in found.rows[fate]) for fate in FATES},
        "sources": sources,
        "replaced": None if found.replaced is None else _replaced(found.replaced),
        "recorded": None if found.recorded is None else found.recorded.rows,
        "checked": found.exact and found.counted is not None,
        "wrong": wrong,
    }


def _replaced(found: Replaced) -> dict[str, Any]:
    trained, again = int(found.trained.sum()), sum(found.again.values())
    more = trained - again - found.gone  # the same in several of those sequences
    return {"trained": trained, "again": found.again, "gone": found.gone, "more": more}


def repeated(sequence: SequenceReader, seen: dict[str, np.ndarray]) -> np.ndarray | None:
    """int64[S]: tokens of a sequence's rows that are of a second or later copy of a document.

    Args:
        sequence: the sequence.
        seen: source -> bool by document row, of earlier sequences; this one's documents are added.

    Returns:
        None if the files do not tell, or there are too many rows to look at.
    """
    count, most = len(sequence.sources), 1 << 16
    if not count or len(sequence) * sequence.seq_len > COUNTED:
        return None
    out, documents = np.zeros(count, dtype=np.int64), []
    for row in range(0, len(sequence), most):
        segments = sequence.segments_in(row, min(row + most, len(sequence)))
        if segments is None or "row" not in segments.columns:
            return None
        part = slice(int(segments.bounds[0]), int(segments.bounds[-1]))
        own, source, kind, epoch, length = (
            segments.columns[name][part] for name in ("row", "source", "kind", "epoch", "length")
        )
        if (own[kind != PADDING] == ELSEWHERE).any():
            return None
        for i, name in enumerate(sequence.sources):
            mine = (kind != PADDING) & (source == i)
            of = own[mine].astype(np.int64)
            before = seen.get(name, np.zeros(0, dtype=bool))
            known = np.zeros(len(of), dtype=bool)
            inside = of < len(before)
            known[inside] = before[of[inside]]
            out[i] += int(length[mine][known | (epoch[mine] > 0)].sum())
            documents.append((name, np.unique(of)))
    for name, of in documents:
        before = seen.get(name, np.zeros(0, dtype=bool))
        longer = np.zeros(max(len(before), int(of.max(initial=-1)) + 1), dtype=bool)
        longer[: len(before)] = before
        longer[of] = True
        seen[name] = longer
    return out


def _totals(stages: list[dict[str, Any]]) -> dict[str, Any]:
    keys = ("sequence", *FATES)
    sources: dict[str, dict[str, Any]] = {}
    for stage in stages:
        for name, told in stage.get("sources", {}).items():
            total = sources.setdefault(name, dict.fromkeys((*keys, "repeated"), 0))
            for key in keys:
                total[key] += told[key]
            known = total["repeated"] is not None and told["repeated"] is not None
            total["repeated"] = total["repeated"] + told["repeated"] if known else None
    return {"sources": sources, "total": {key: sum(one[key] for one in sources.values()) for key in keys}}
