"""Being a run's coordinator: the only one, on this machine and on all others.

On one machine the system's lock answers at once, also after a kill (:mod:`headrace.flow.lock`); between machines the
lease does (:mod:`headrace.flow.lease`).
"""

from __future__ import annotations

import uuid
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from headrace.errors import UserError
from headrace.flow.lease import InFolder, InStore, Lease, Told, owner
from headrace.flow.lock import lock, locked
from headrace.flow.mirror import mirror_of
from headrace.flow.mirrored_journals import Journals
from headrace.flow.refreshing import forget, push_rest, renew


@contextmanager
def coordinating(run: Path) -> Iterator[Lease]:
    """Hold a run, because two coordinators at once would undo each other's work. Of a run at a URL, what other machines
    have done is known from then on.

    Raises:
        UserError: the folder cannot be created or written, or another run holds it.
    """
    with lock(run):
        mirror = mirror_of(run)
        if mirror is None:
            with Lease(InFolder(run), str(run), _machine()) as lease:
                yield lease
            return
        with Lease(InStore(mirror), mirror.url, mirror.kin) as lease:
            if not lease.follows:
                forget(mirror)
                renew(mirror)
            mirror.lease = lease
            try:
                with Journals(mirror, lease.fence):
                    yield lease
            finally:
                with suppress(UserError):  # the lease is lost, or the storage out of reach, which was told already
                    push_rest(mirror)
                mirror.lease = None


def holder(run: Path) -> Told | None:
    """Who is at work in a run, on whatever machine: ``host``, ``process``, ``since``, and ``time``, the last sign of
    life by its own clock; None if nobody is. One on another machine that died is named until another takes over."""
    mirror = mirror_of(run)
    told = owner(InFolder(run) if mirror is None else InStore(mirror))
    here = _machine() if mirror is None else mirror.kin
    return None if told is None or (told["kin"] == here and not locked(run)) else told


def _machine() -> str:
    """This machine since it was started: the lock of a file tells its processes apart, and no others for sure."""
    with suppress(OSError):
        return Path("/proc/sys/kernel/random/boot_id").read_text("ascii").strip()
    return str(uuid.getnode())
