"""A store: a folder of artifacts that runs share, so that variants of a recipe make together what does not differ.

Artifacts are given to it when they are published and taken from it by their identity; where the identity is new,
finished tasks are taken over by their keys, as from the run's own earlier artifacts (:mod:`headrace.flow.reuse`). Files
are hard links where the file system has them. A folder appears whole or not at all, so that any number of runs may
share one; what is taken is checked against its digests first.
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
from headrace.flow.storage import digest_file, fsync_folder, refusal

if TYPE_CHECKING:
    from headrace.flow.step import Step


class Store:
    """The store in a folder; made if it is not there.

    Raises:
        UserError: the folder cannot be made.
    """

    def __init__(self, folder: Path) -> None:
        self.artifacts = folder.absolute() / "artifacts"
        try:
            self.artifacts.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            mend = "Choose another --store or fix its permissions."
            raise refusal(error, folder) or UserError(
                f"The store cannot be created: {error}.", str(folder), mend
            ) from None

    def take(self, step: Step, final: Path) -> bool:
        """Put the artifact of a step into a run, if the store has it whole; one that is damaged is set aside.

        Args:
            step: whose artifact is wanted.
            final: the folder that it gets.
        """
        held = self.artifacts / step.name
        incoming = final.with_name(f".{final.name}.incoming")
        shutil.rmtree(incoming, ignore_errors=True)
        try:
            manifest = Artifact.open(held).manifest
            if manifest.identity != step.identity:  # the first digits of two may be the same
                return False
            with ThreadPoolExecutor(THREADS) as pool:
                whole = all(pool.map(lambda entry: _link(held, entry, incoming), [*manifest.shards, *manifest.files]))
            if whole:
                place(held / MANIFEST, incoming / MANIFEST)
        except (UserError, FileNotFoundError):  # it is not there, or has no readable manifest
            whole = False
        if not whole:
            shutil.rmtree(incoming, ignore_errors=True)
            with suppress(FileNotFoundError):
                os.rename(held, self.artifacts / f".damaged-{step.name}-{os.getpid()}")
            return False
        fsync_folder(incoming)
        os.rename(incoming, final)
        fsync_folder(final.parent)
        shutil.rmtree(final.with_name(f"{final.name}.partial"), ignore_errors=True)
        return True

    def give(self, artifact: Path) -> None:
        """Have an artifact of a run in the store too, unless it is there."""
        held = self.artifacts / artifact.name
        if held.exists():
            return
        incoming = self.artifacts / f".{artifact.name}.{os.getpid()}.incoming"
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
    """Link a file of an artifact; whether its bytes are those that the manifest names."""
    place(held / entry["name"], incoming / entry["name"])
    return digest_file(incoming / entry["name"]) == entry["digest"]
