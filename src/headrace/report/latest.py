"""Choose the artifacts of a run folder that belong together: the latest of each kind and stage, built from each
other."""

from __future__ import annotations

from pathlib import Path

from headrace.flow.artifact import MANIFEST, Artifact
from headrace.flow.events import read_events

Key = tuple[str, str | None]


def latest_artifacts(run: Path) -> dict[Key, Artifact]:
    """The artifacts that the last run built or found, by (kind, stage), inputs first.

    A folder may hold artifacts from several versions of its recipe. The event log tells which were used last; an
    artifact whose inputs were superseded is left out too.
    """
    folder = run / "artifacts"
    last: dict[str, int] = {}
    for number, event in enumerate(read_events(run)):
        if event["event"] == "artifact" and event["state"] in ("published", "present"):
            last[event["artifact"]] = number
    published = sorted(
        path.parent for path in folder.glob(f"*/{MANIFEST}") if not path.parent.name.endswith(".partial")
    )
    latest: dict[Key, tuple[int, Artifact]] = {}
    for path in published:
        artifact = Artifact.open(path)
        key = (artifact.manifest.kind, artifact.manifest.stage)
        when = last.get(path.name, -1)
        if key not in latest or when > latest[key][0]:
            latest[key] = (when, artifact)
    return _consistent({key: artifact for key, (_, artifact) in latest.items()})


def _consistent(latest: dict[Key, Artifact]) -> dict[Key, Artifact]:
    """The artifacts whose inputs are all included, in topological order."""
    placed: dict[Key, Artifact] = {}
    identities: set[str] = set()
    left = dict(latest)
    while left:
        ready = [key for key, artifact in left.items() if set(artifact.manifest.inputs.values()) <= identities]
        if not ready:
            break
        for key in ready:
            placed[key] = left.pop(key)
            identities.add(placed[key].manifest.identity)
    return placed


def one(artifacts: dict[Key, Artifact], kind: str, stage: str | None = None) -> Artifact | None:
    """The artifact of a kind, if it exists."""
    return artifacts.get((kind, stage))
