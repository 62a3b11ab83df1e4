"""The lease of a run: which coordinator may publish in it, on any kind of storage, wherever the coordinators are.

A lease is a file ``.lease/<fencing number>.json`` that its owner rewrites every few seconds. To take one over is to
create the file of the next number, which storage grants to one alone: an object by a conditional put, a file by a link.
Clocks are never compared: whoever waits watches on its own clock whether the file still changes, and an owner that
could not rewrite it gives up on its own clock well before another could believe it dead. This is the lease of Gray and
Cheriton (1989) with the fencing numbers of Burrows's Chubby (2006); what a coordinator that lost its lease still has
under way does no harm, because artifacts are the same bytes whoever builds them.
"""

from __future__ import annotations

import os
import socket
import threading
import time
import uuid
from contextlib import suppress
from pathlib import Path
from typing import Any, Protocol

import orjson

from headrace.errors import UserError
from headrace.flow.mirror import Mirror
from headrace.flow.remote import Unconditional

FOLDER = ".lease"
BEAT = 6.0  # seconds between two signs of life
GIVE_UP = 20.0  # after so long without one that was written, its owner stops
LAPSE = 30.0  # after so long without one, another may take over
LOOK = 1.0  # seconds between two looks of whoever waits
SETTLE = 2.0  # on stores without conditional puts, a claim counts if it is still there after so long

Told = dict[str, Any]


class Place(Protocol):
    """Where leases are kept."""

    def last(self) -> int:
        """The highest fencing number; 0 if there is none. May be behind."""

    def read(self, fence: int) -> Told | None:
        """A lease; None if there is none, or it cannot be read yet."""

    def create(self, fence: int, told: Told) -> bool:
        """Create a lease; False if somebody has."""

    def write(self, fence: int, told: Told) -> None:
        """Rewrite a lease."""

    def delete(self, fence: int) -> None:
        """Delete a lease."""


class InFolder:
    """Leases in a folder, on any file system that several machines share."""

    def __init__(self, run: Path) -> None:
        self._folder = run / FOLDER

    def last(self) -> int:
        """See :class:`Place`."""
        with suppress(FileNotFoundError):
            return max((int(name[:-5]) for name in os.listdir(self._folder) if name[:-5].isdigit()), default=0)
        return 0

    def read(self, fence: int) -> Told | None:
        """See :class:`Place`."""
        with suppress(FileNotFoundError, orjson.JSONDecodeError):
            return dict(orjson.loads(self._path(fence).read_bytes()))
        return None

    def create(self, fence: int, told: Told) -> bool:
        """See :class:`Place`."""
        self._folder.mkdir(exist_ok=True)
        temporary = self._folder / f".{uuid.uuid4().hex}"
        temporary.write_bytes(orjson.dumps(told))
        try:
            os.link(temporary, self._path(fence))  # as atomic as O_EXCL, and the file appears whole
        except FileExistsError:
            return False
        except OSError:  # no links here
            with suppress(FileExistsError), open(self._path(fence), "xb") as file:
                file.write(orjson.dumps(told))
                return True
            return False
        finally:
            temporary.unlink()
        return True

    def write(self, fence: int, told: Told) -> None:
        """See :class:`Place`."""
        temporary = self._folder / f".{fence}.{uuid.uuid4().hex}"
        temporary.write_bytes(orjson.dumps(told))
        os.replace(temporary, self._path(fence))

    def delete(self, fence: int) -> None:
        """See :class:`Place`."""
        self._path(fence).unlink(missing_ok=True)

    def _path(self, fence: int) -> Path:
        return self._folder / f"{fence:08d}.json"


class InStore:
    """Leases among the objects of a run."""

    def __init__(self, mirror: Mirror) -> None:
        self._remote, self._conditional = mirror.remote, True

    def last(self) -> int:
        """See :class:`Place`."""
        names = (Path(key).stem for key, _ in self._remote.names(FOLDER))
        return max((int(name) for name in names if name.isdigit()), default=0)

    def read(self, fence: int) -> Told | None:
        """See :class:`Place`."""
        with suppress(FileNotFoundError, orjson.JSONDecodeError):
            return dict(orjson.loads(self._remote.read(self._key(fence))[0]))
        return None

    def create(self, fence: int, told: Told) -> bool:
        """See :class:`Place`."""
        key = self._key(fence)
        try:
            if self._remote.create(key, orjson.dumps(told)) is None:
                return False
            if self._remote.create(key, orjson.dumps({**told, "again": True})) is None:
                return True
        except Unconditional:
            there = self.read(fence)
            if there is not None and there["claim"] != told["claim"]:
                return False
        # The store grants it to everybody: who wrote last has it.
        self._remote.put(key, orjson.dumps(told))
        time.sleep(SETTLE)
        return (self.read(fence) or {}).get("claim") == told["claim"]

    def write(self, fence: int, told: Told) -> None:
        """See :class:`Place`."""
        self._remote.put(self._key(fence), orjson.dumps(told))

    def delete(self, fence: int) -> None:
        """See :class:`Place`."""
        self._remote.delete([self._key(fence)])

    def _key(self, fence: int) -> str:
        return f"{FOLDER}/{fence:08d}.json"


class Lease:
    """A lease that this process holds: a context manager that gives it back.

    Args:
        place: where it is kept.
        where: the run, for messages.
        kin: names those who may take over from each other at once, because another lock says that only one of them is
            alive.

    Attributes:
        fence: its fencing number.
        follows: whether the last one to hold it was of the same kin.

    Raises:
        UserError: somebody else holds it, and is alive.
    """

    def __init__(self, place: Place, where: str, kin: str) -> None:
        self._place, self._where, self._beats = place, where, 0
        self._told: Told = {
            "claim": uuid.uuid4().hex,
            "kin": kin,
            "host": socket.gethostname(),
            "process": os.getpid(),
            "since": round(time.time(), 3),
            "released": False,
        }
        self._over = threading.Event()
        self._lost = False
        self.fence, before = self._take()
        self.follows = before is not None and before["kin"] == kin
        self._thread = threading.Thread(target=self._renew, daemon=True)
        self._thread.start()

    def _take(self) -> tuple[int, Told | None]:
        last = self._place.last()
        watched, since = None, now()
        while True:
            before = self._place.read(last) if last else None
            free = last == 0 or (before is not None and (before["released"] or before["kin"] == self._told["kin"]))
            if not free and before != watched:
                if watched is not None and before is not None:
                    raise _held(before, self._where)
                watched, since = before, now()
            self._wrote = now()
            if (free or now() - since > LAPSE) and self._place.create(last + 1, self._said()):
                if last > 1:
                    self._place.delete(last - 1)
                return last + 1, before
            if free or now() - since > LAPSE:  # somebody was faster, or the list was behind
                last, watched, since = last + 1, None, now()
            else:
                time.sleep(LOOK)

    def _said(self) -> Told:
        self._beats += 1
        return {**self._told, "beat": self._beats, "time": round(time.time(), 3)}

    def _renew(self) -> None:
        while not self._over.wait(BEAT):
            at = now()
            try:
                if self._place.read(self.fence + 1) is not None:
                    self._lost = True
                    return
                self._place.write(self.fence, self._said())
                self._wrote = at
            except Exception:  # it may work the next time; if it does not, check() says so
                continue

    def check(self) -> None:
        """Whether it is still held: to be asked before anything is published.

        Raises:
            UserError: it is not, or it is not known.
        """
        if self._lost or now() - self._wrote > GIVE_UP:
            self._lost = True
            raise UserError(
                "This coordinator has lost the run to another one, or could not reach its storage for too long.",
                self._where,
                "`headrace status` says who is at work. To go on here, run the same command again.",
            )

    def __enter__(self) -> Lease:
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        self._thread.join(GIVE_UP)  # or it might write a sign of life after the last word
        if not self._lost and now() - self._wrote <= GIVE_UP:
            with suppress(Exception):  # it lapses
                self._place.write(self.fence, {**self._said(), "released": True})


def now() -> float:
    """Seconds on a clock of this machine that also runs while it sleeps, where there is one."""
    return time.clock_gettime(time.CLOCK_BOOTTIME) if hasattr(time, "CLOCK_BOOTTIME") else time.monotonic()


def owner(place: Place) -> Told | None:
    """Who holds the lease, or held it and is silent: ``host``, ``process``, ``since`` and ``time`` of the last sign of
    life, by the owner's clock; None if it was given back."""
    last = place.last()
    told = place.read(last) if last else None
    return None if told is None or told["released"] else told


def _held(told: Told, where: str) -> UserError:
    return UserError(
        f"Another headrace run (process {told['process']} on {told['host']}) is using this folder.",
        where,
        "Wait for it to finish, or stop it first.",
    )
