"""An error that nobody expected may come from a file that has changed since the run wrote it: that is said instead."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import pyarrow as pa
from pydantic import ValidationError
from starlette.exceptions import HTTPException

from headrace.errors import UserError
from headrace.flow.artifact import Artifact
from headrace.flow.damage import check_files
from headrace.view.target import Target

MOST_READ = 1 << 30  # bytes that are compared with their digests before an error is answered, in a second or so


@contextmanager
def telling_damage(target: Target) -> Iterator[None]:
    """When the body raises an unexpected error, look whether files of the run are damaged.

    Raises:
        UserError: one is, or cannot be read; otherwise the original error is raised.
    """
    try:
        yield
    except (UserError, ValidationError, HTTPException):
        raise
    except Exception as error:
        artifacts = [made for one in (target, target.other) if one is not None for made in one.artifacts.values()]
        for artifact in artifacts:
            check_files(artifact, read=False)
        left = MOST_READ
        for artifact in sorted(artifacts, key=_bytes):
            left -= _bytes(artifact)
            if left < 0:
                break
            check_files(artifact, read=True)
        if isinstance(error, pa.ArrowException):
            fix = "See which with `headrace verify RUN`."
            raise UserError(f"A file cannot be read: {str(error)[:300]}.", str(target.path), fix) from None
        raise


def _bytes(artifact: Artifact) -> int:
    return sum(int(entry["bytes"]) for entry in artifact.entries)
