"""A store: a folder of artifacts shared by runs, so that variants of a recipe build only what differs.

Published artifacts are added to it and found there by identity; if an identity is new, finished tasks are reused by
their keys, as from the run's own earlier artifacts (:mod:`headrace.flow.reuse`). Files are hard links where the file
system supports them. A folder appears whole or not at all, so any number of runs can share a store; what is taken from
it is checked against its digests first.
"""

from __future__ import annotations

import os
import shutil
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

from headrace.errors import UserError
from headrace.flow.artifact import MANIFEST, Artifact
from headrace.flow.reuse import THREADS, place
from headrace.flow.storage import digest_file, explain_os_error, fsync_folder, process_name

if TYPE_CHECKING:
    from headrace.flow.step import Step


class Store:
    """The store in a folder, which is created if missing.

    Args:
        folder: the store's folder.
        run: the run that uses it: neither may be among the other's artifacts, or deleting one would harm the other.

    Raises:
        UserError: the folder cannot be created, or is the run's or inside it.
    """

    def __init__(self, folder: Path, run: Path) -> None:
        self.artifacts = folder.absolute() / "artifacts"
        one, other = run.resolve(), self.artifacts.resolve()
        if other.is_relative_to(one) or one.is_relative_to(other):
            inside = "the store is inside the run" if other.is_relative_to(one) else "the run is inside the store"
            fix = "Choose another --store, outside --out."
            raise UserError(f"A run and a store must be separate folders; {inside}.", str(folder), fix)
        try:
            self.artifacts.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            fix = "Choose another --store or fix its permissions."
            raise explain_os_error(error, folder) or UserError(
                f"The store cannot be created: {error}.", str(folder), fix
            ) from None

    def take(self, step: Step, final: Path) -> bool:
        """Link a step's artifact into a run, if the store holds it intact; a damaged one is set aside.

        Args:
            step: the step whose artifact is wanted.
            final: the folder to create.
        """
        held = self.artifacts / step.name
        incoming = final.with_name(f".{final.name}.incoming")
        shutil.rmtree(incoming, ignore_errors=True)
        try:
            manifest = Artifact.open(held).manifest
            if manifest.identity != step.identity:  # two identities may share their first digits
                return False
            with ThreadPoolExecutor(THREADS) as pool:
                whole = all(pool.map(lambda entry: _link(held, entry, incoming), [*manifest.shards, *manifest.files]))
            if whole:
                place(held / MANIFEST, incoming / MANIFEST)
        except (UserError, FileNotFoundError):  # it does not exist, or has no readable manifest
            whole = False
        if not whole:
            shutil.rmtree(incoming, ignore_errors=True)
            with suppress(FileNotFoundError):
                os.rename(held, self.artifacts / f".damaged-{step.name}-{process_name()}")
            return False
        fsync_folder(incoming)
        os.rename(incoming, final)
        fsync_folder(final.parent)
        shutil.rmtree(final.with_name(f"{final.name}.partial"), ignore_errors=True)
        return True

    def give(self, artifact: Path) -> None:
        """Add an artifact of a run to the store, unless it is there already."""
        held = self.artifacts / artifact.name
        if held.exists():
            return
        incoming = self.artifacts / f".{artifact.name}.{process_name()}.incoming"
        shutil.rmtree(incoming, ignore_errors=True)
        for path in sorted(artifact.rglob("*")):
            if path.is_file():
                place(path, incoming / path.relative_to(artifact))
        fsync_folder(incoming)
        try:
            os.rename(incoming, held)
        except OSError:  # another run was first
            shutil.rmtree(incoming)


def _link(held: Path, entry: dict[str, Any], incoming: Path) -> bool:
    """Link a file of an artifact; returns whether its bytes match the manifest."""
    place(held / entry["name"], incoming / entry["name"])
    return digest_file(incoming / entry["name"]) == entry["digest"]
