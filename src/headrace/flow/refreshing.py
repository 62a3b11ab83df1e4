"""What may have changed in a run at a URL since this machine last looked."""

from __future__ import annotations

import os
from contextlib import suppress
from pathlib import Path
from shutil import rmtree

import orjson

from headrace.flow.lease import InStore
from headrace.flow.mirror import ARTIFACTS, MANIFEST, PARTIAL, Mirror
from headrace.flow.remote import Head

SYNCED = ".synced.json"  # the version in the store of each file that may change, when it was last fetched
LARGE = (".safetensors",)  # of checkpoints: they come when they are asked for


def forget(mirror: Mirror) -> None:
    """Forget what is here of what may have changed: another machine has gone on with the run since."""
    (mirror.folder / SYNCED).unlink(missing_ok=True)
    for name in ("plan", "done"):
        for path in mirror.folder.glob(f"{ARTIFACTS}/*{PARTIAL}/{name}"):
            rmtree(path)
    for path in mirror.folder.iterdir():
        if path.is_file() and not path.name.startswith("."):
            path.unlink()


def refresh(mirror: Mirror) -> None:
    """:func:`renew`, unless the last coordinator was one of this mirror: then what is here is newer than what is there.

    Raises:
        UserError: the storage cannot be read.
    """
    place = InStore(mirror)
    last = place.last()
    told = place.read(last) if last else None
    if told is None or told["kin"] != mirror.kin:
        renew(mirror)


def renew(mirror: Mirror) -> None:
    """Fetch the run's own files that have changed, and the manifests of artifacts that are new.

    Raises:
        UserError: the storage cannot be read.
    """
    folders, objects = mirror.remote.folders()
    for name in folders:
        if name != ARTIFACTS and not name.startswith("."):
            objects += [one for one in mirror.remote.names(name) if not one[0].endswith(LARGE)]
    known = _synced(mirror)
    changed = [(key, head) for key, head in objects if not key.startswith(".")]
    changed = [(k, h) for k, h in changed if known.get(k) != h.etag or not (mirror.folder / k).exists()]
    mirror.all(lambda one: _renew(mirror, *one), changed)
    if changed:
        temporary = mirror.folder / f"{SYNCED}.{os.getpid()}"
        temporary.write_bytes(orjson.dumps(known | {key: head.etag for key, head in changed}))
        os.replace(temporary, mirror.folder / SYNCED)
    if ARTIFACTS in folders:
        _refresh_artifacts(mirror)


def _synced(mirror: Mirror) -> dict[str, str]:
    with suppress(FileNotFoundError, orjson.JSONDecodeError):
        return dict(orjson.loads((mirror.folder / SYNCED).read_bytes()))
    return {}


def _renew(mirror: Mirror, key: str, head: Head) -> None:
    path = mirror.folder / key
    with mirror.fetching(path) as temporary, suppress(FileNotFoundError):
        mirror.remote.fetch(key, temporary, head.bytes)
        path.parent.mkdir(parents=True, exist_ok=True)
        os.replace(temporary, path)


def _refresh_artifacts(mirror: Mirror) -> None:
    there = {Path(key).name for key in mirror.remote.folders(ARTIFACTS)[0]}
    base = mirror.folder / ARTIFACTS
    base.mkdir(exist_ok=True)
    mirror.all(mirror.have, [base / name / MANIFEST for name in there if not name.endswith(PARTIAL)])
    for name in there:
        if name.endswith(PARTIAL):
            (base / name).mkdir(exist_ok=True)
    for folder in base.iterdir():
        if folder.name not in there and not mirror.remote.head(mirror.key(folder / MANIFEST)):
            rmtree(folder, ignore_errors=True)  # another machine has published it, set it aside or deleted it


def push_rest(mirror: Mirror) -> None:
    """Push what was written beside the artifacts and has changed since it was last pushed: logs, records of training.

    Raises:
        UserError: the storage cannot be written, or this coordinator has lost the run.
    """
    mirror.check()
    paths = [path for path in mirror.folder.iterdir() if path.name != ARTIFACTS and not path.name.startswith(".")]
    files = [one for path in paths for one in (path.rglob("*") if path.is_dir() else [path]) if one.is_file()]
    pushed = mirror.pushed

    def one(path: Path) -> None:
        if any(part.startswith(".") for part in path.relative_to(mirror.folder).parts):
            return
        with suppress(FileNotFoundError):
            stat = path.stat()
            if pushed.get(path) != (stat.st_size, stat.st_mtime_ns):
                mirror.remote.put(mirror.key(path), path)
                pushed[path] = stat.st_size, stat.st_mtime_ns

    mirror.all(one, files)
