"""Which artifacts count, and what the event log says of them; on folders with manifests and nothing else."""

from __future__ import annotations

from headrace.flow.artifact import MANIFEST, Manifest
from headrace.flow.events import EventLog
from headrace.flow.storage import write_sealed
from headrace.report.latest import latest_artifacts
from headrace.report.timing import timing, work


def publish(run, name, kind, identity, inputs=(), stage=None):
    folder = run / "artifacts" / name
    folder.mkdir(parents=True)
    shards = [{"name": "00000.parquet", "rows": 5, "bytes": 100, "digest": "0"}]
    manifest = Manifest(kind, 1, identity, {}, {str(i): need for i, need in enumerate(inputs)}, shards, [], {}, stage)
    write_sealed(folder / MANIFEST, manifest.to_json())


def log(run, *events):
    written = EventLog(run)
    for event in events:
        written.emit(**event)
    written.close()


def made(name, state="published", **more):
    return {"event": "artifact", "artifact": name, "state": state, "seconds": 2.5, **more}


def test_the_last_used_version_of_each_kind_counts_with_what_was_made_from_it(tmp_path):
    publish(tmp_path, "documents-1", "documents", "d1")
    publish(tmp_path, "documents-2", "documents", "d2")
    publish(tmp_path, "verdicts-1", "verdicts", "v1", ["d1"])
    publish(tmp_path, "verdicts-2", "verdicts", "v2", ["d2"])
    publish(tmp_path, "sequence-a-1", "sequence", "s1", ["v1"], "a")
    log(
        tmp_path, made("documents-1"), made("verdicts-1"), made("sequence-a-1"), made("documents-2"), made("verdicts-2")
    )
    names = [artifact.path.name for artifact in latest_artifacts(tmp_path).values()]
    assert names == ["documents-2", "verdicts-2"]
    # Going back to the first version brings its sequence back.
    log(tmp_path, made("documents-1", "present"), made("verdicts-1", "present"))
    names = [artifact.path.name for artifact in latest_artifacts(tmp_path).values()]
    assert names == ["documents-1", "verdicts-1", "sequence-a-1"]


def test_a_folder_without_a_log_or_with_a_partial_artifact(tmp_path):
    assert latest_artifacts(tmp_path) == {}
    publish(tmp_path, "documents-1", "documents", "d1")
    publish(tmp_path, "verdicts-1.partial", "verdicts", "v1", ["d1"])
    assert [kind for kind, _ in latest_artifacts(tmp_path)] == ["documents"]


def test_timing(tmp_path):
    publish(tmp_path, "documents-1", "documents", "d1")
    publish(tmp_path, "verdicts-1", "verdicts", "v1", ["d1"])
    task = {"event": "task", "artifact": "documents-1", "phase": "read", "rows": 1, "bytes": 1}
    log(
        tmp_path,
        {"event": "run", "workers": 3, "memory": 10**9},
        {"event": "worker", "pid": 1, "base": 100},
        {"event": "worker", "pid": 2, "base": 120},
        made("documents-1", "started"),
        {**task, "task": 0, "seconds": 1.5, "peak": 300},
        {"event": "died", "artifact": "documents-1", "phase": "read", "task": 1, "reason": "signal 9", "at": "x"},
        {**task, "task": 1, "seconds": 0.5, "peak": 200},
        made("documents-1"),
        made("verdicts-1", seconds=1.0),
        {"event": "finished", "seconds": 4.0},
    )
    with open(tmp_path / "events.jsonl", "ab") as f:
        f.write(b'{"event": "cut short by a ki')
    told = timing(tmp_path)
    assert ([run["workers"] for run in told.runs], told.base, told.seconds) == ([3], 120, 4.0)
    documents, verdicts = work(told, list(latest_artifacts(tmp_path).values()))
    assert (documents.artifact, documents.kind, documents.rows, documents.bytes) == ("documents-1", "documents", 5, 100)
    assert (documents.seconds, documents.busy, documents.tasks) == (2.5, 2.0, 2)
    assert (documents.peak, documents.died) == (300, 1)
    assert (verdicts.tasks, verdicts.peak, verdicts.busy) == (0, None, 0)


def test_a_run_that_is_still_going_has_no_duration(tmp_path):
    log(tmp_path, {"event": "run", "workers": 1, "memory": 1}, {"event": "finished", "seconds": 4.0})
    log(tmp_path, {"event": "run", "workers": 2, "memory": 1})
    assert timing(tmp_path).seconds is None
    assert [run["workers"] for run in timing(tmp_path).runs] == [1, 2]
