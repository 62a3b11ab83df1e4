"""A client of object stores: S3 and what speaks like it, Google Cloud Storage, Azure.

Each object carries the XXH3-128 of its bytes as metadata, because stores check at most what was sent, and some not even
that. Whatever is read whole is compared with it. A request that fails is repeated with growing pauses. Where a put is
conditional and its answer was lost, the object is looked at before it is put again.

Credentials and endpoints come from the environment (``AWS_ACCESS_KEY_ID``, ``AWS_ENDPOINT_URL``, ``AWS_REGION``, ...;
the machine's role; with boto3 installed also profiles) and go nowhere else.
"""

from __future__ import annotations

import os
import random
import subprocess
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

import xxhash

from headrace.errors import UserError
from headrace.flow.cloud import beginning, connect, explain, library, normal, says
from headrace.flow.storage import digest_file

DIGEST = "xxh3-128"
# Requests are bounded, so that one can be repeated: larger files go and come in pieces, some at a time.
PIECE = 16 << 20
AT_ONCE = 4
DELETED_AT_ONCE = 1000  # keys in one request; the most that S3 takes
TRIES = 6  # on top of the library's own, which do not cover bodies that end early or hold other bytes
PAUSE = 0.2  # seconds before the second try; doubled for each one after it
# What stores that do not know conditional puts answer.
_UNKNOWN = ("501", "NotImplemented", "not implemented", "not supported")

T = TypeVar("T")


class Head(NamedTuple):
    """What a store says about an object: its size in bytes, its version there, and the digest it was written with."""

    bytes: int
    etag: str
    digest: str | None


class Spoilt(OSError):  # noqa: N818 - a state of what was read
    """What was read is not what was written, however often it is asked for."""


class Unconditional(Exception):  # noqa: N818 - a property of the store
    """The store does not know conditional puts."""


class Remote:
    """The objects under a URL. Keys are relative to it.

    Args:
        url: such as ``s3://bucket/runs/x``.

    Attributes:
        url: as :func:`normal` has it.

    Raises:
        UserError: the URL is none of an object store, the library is missing, or there are no credentials. Every method
            raises it for what the user can fix: no such bucket, another region, no permission, a store out of reach.
    """

    def __init__(self, url: str) -> None:
        self.url = normal(url)
        self._conditions = True  # as far as is known
        self._client: Any = None
        self._process = 0

    @property
    def _store(self) -> Any:
        # The library's threads do not survive a fork: a call in the child would wait forever.
        if self._client is None or self._process != os.getpid():
            if _forked():
                raise RuntimeError("object stores cannot be used in a process forked from one that used them")
            self._client, self._process = connect(self.url), os.getpid()
        return self._client

    # Reading.

    def head(self, key: str) -> Head | None:
        """What the store says about an object; None if there is none."""
        with suppress(FileNotFoundError):
            return self._trying(key, lambda lib: _head(lib.get(self._store, key, options={"head": True})))
        return None

    def read(self, key: str) -> tuple[bytes, Head]:
        """A small object, whole.

        Raises:
            FileNotFoundError: there is none.
            Spoilt: its bytes do not match its digest.
        """

        def get(lib: Any) -> tuple[bytes, Head]:
            answer = lib.get(self._store, key)
            head = _head(answer)
            return self._whole(key, answer, head), head

        return self._trying(key, get)

    def fetch(self, key: str, path: Path, size: int | None = None, digest: str | None = None) -> None:
        """Write an object to a file.

        Args:
            key: the object.
            path: the file, which is written in place: give a temporary name.
            size: its bytes, if known.
            digest: the XXH3-128 that it must have; by default the one that it was written with.

        Raises:
            FileNotFoundError: there is no such object.
            Spoilt: it does not match its size or digest.
        """
        if _forked():
            _in_a_process_of_its_own(self.url, key, path, size, digest)
            return
        if size is None or digest is None:
            head = self._fetch_small(key, path)
            if head is None:
                return
            size, digest = head.bytes, digest or head.digest
        whole = size

        def get(lib: Any) -> None:
            with open(path, "wb") as made:
                made.truncate(whole)
            spans = [(start, min(start + PIECE, whole)) for start in range(0, whole, PIECE)]
            with open(path, "rb+", buffering=0) as file, ThreadPoolExecutor(AT_ONCE) as pool:

                def piece(span: tuple[int, int]) -> None:
                    os.pwrite(file.fileno(), memoryview(self.ranges(key, [span])[0]), span[0])

                list(pool.map(piece, spans))
            if digest is not None and digest_file(path) != digest:
                raise Spoilt(f"{self.url}/{key} does not hold what was written: its digest differs")

        self._trying(key, get)

    def _fetch_small(self, key: str, path: Path) -> Head | None:
        """Fetch an object of which nothing is known in one request, unless it is large: then says what it is."""

        def get(lib: Any) -> Head | None:
            answer = lib.get(self._store, key)
            head = _head(answer)
            if head.bytes > PIECE:
                return head
            path.write_bytes(self._whole(key, answer, head))
            return None

        return self._trying(key, get)

    def _whole(self, key: str, answer: Any, head: Head) -> bytes:
        data = bytes(answer.bytes())
        if len(data) != head.bytes or head.digest not in (None, xxhash.xxh3_128_hexdigest(data)):
            raise Spoilt(f"{self.url}/{key} does not hold what was written: its digest differs")
        return data

    def ranges(self, key: str, spans: Sequence[tuple[int, int]]) -> list[Any]:
        """Parts of an object, as buffers: bytes ``start`` to ``stop`` for each span; neighbors in one request.

        Raises:
            FileNotFoundError: there is no such object.
            Spoilt: it ends before.
        """

        def get(lib: Any) -> list[Any]:
            starts, ends = [a for a, _ in spans], [b for _, b in spans]
            if len(spans) == 1:
                found = [lib.get_range(self._store, key, start=starts[0], end=ends[0])]
            else:
                found = lib.get_ranges(self._store, key, starts=starts, ends=ends)
            if [len(one) for one in found] != [b - a for a, b in spans]:
                raise Spoilt(f"{self.url}/{key} ends early")
            return found

        return self._trying(key, get) if spans else []

    def names(self, prefix: str = "") -> Iterator[tuple[str, Head]]:
        """The objects under a prefix: a request for each thousand. A store may list what is new only after a while, so
        nothing may depend on an object's absence here."""
        found = self._trying(prefix, lambda lib: [one for page in lib.list(self._store, prefix) for one in page])
        for one in found:
            yield one["path"], Head(one["size"], one["e_tag"] or "", None)

    def folders(self, prefix: str = "") -> tuple[list[str], list[tuple[str, Head]]]:
        """The names directly under a prefix: those of folders, and objects with what is said about them."""
        told = self._trying(prefix, lambda lib: lib.list_with_delimiter(self._store, prefix or None))
        objects = [(one["path"], Head(one["size"], one["e_tag"] or "", None)) for one in told["objects"]]
        return [path.rstrip("/") for path in told["common_prefixes"]], objects

    # Writing.

    def put(self, key: str, data: bytes | Path, digest: str | None = None) -> str:
        """Write an object, whatever is there; returns its version.

        Args:
            key: the object.
            data: its bytes, or the file that holds them.
            digest: their XXH3-128, if known.
        """
        digest = digest or (digest_file(data) if isinstance(data, Path) else xxhash.xxh3_128_hexdigest(data))
        large = isinstance(data, Path) and data.stat().st_size > PIECE
        body = data if large else _bytes(data)
        more = {"use_multipart": large, "chunk_size": PIECE, "max_concurrency": AT_ONCE}
        return self._trying(
            key, lambda lib: str(lib.put(self._store, key, body, attributes={DIGEST: digest}, **more)["e_tag"])
        )

    def create(self, key: str, data: bytes) -> str | None:
        """Write a small object unless there is one; returns its version, or None if there is another with other bytes.

        Raises:
            Unconditional: the store does not know conditional puts.
        """
        return self._conditional(key, data, "create")

    def swap(self, key: str, data: bytes, etag: str) -> str | None:
        """Replace a small object if it is still that version; returns its new one, or None if somebody was faster.

        Raises:
            Unconditional: the store does not know conditional puts.
        """
        return self._conditional(key, data, {"e_tag": etag})

    def _conditional(self, key: str, data: bytes, mode: Any) -> str | None:
        from obstore import exceptions

        if not self._conditions:  # asking again would take the library's many tries each time
            raise Unconditional
        digest = xxhash.xxh3_128_hexdigest(data)

        def attempt(lib: Any) -> str | None:
            try:
                told = lib.put(self._store, key, data, attributes={DIGEST: digest}, mode=mode, use_multipart=False)
                return str(told["e_tag"])
            except (exceptions.AlreadyExistsError, exceptions.PreconditionError, FileNotFoundError) as refusal:
                if says(refusal, "NoSuchBucket"):
                    raise
                found = self.head(key)  # refused, or an earlier try whose answer was lost
                return found.etag if found is not None and found.digest == digest else None
            except Exception as error:
                if says(error, *_UNKNOWN):
                    self._conditions = False
                    raise Unconditional from error
                found = self.head(key)
                if found is not None and found.digest == digest:
                    return found.etag
                raise

        return self._trying(key, attempt)

    def copy(self, source: str, target: str) -> None:
        """Copy an object within the store.

        Raises:
            FileNotFoundError: there is no such object.
        """
        self._trying(source, lambda lib: lib.copy(self._store, source, target))

    def delete(self, keys: Iterable[str]) -> None:
        """Delete objects, which need not exist."""
        listed = list(keys)
        for start in range(0, len(listed), DELETED_AT_ONCE):
            some = listed[start : start + DELETED_AT_ONCE]
            with suppress(FileNotFoundError):  # not every store takes the absence lightly
                self._trying(some[0], partial(self._delete, some))

    def _delete(self, keys: list[str], lib: Any) -> None:
        lib.delete(self._store, keys)

    def _trying(self, key: str, request: Callable[[Any], T]) -> T:
        """Make a request until it succeeds or is known not to.

        Raises:
            UserError: for what the user can fix.
        """
        lib = library(self.url)
        where = f"{self.url}/{key}".rstrip("/")
        for attempt in range(TRIES):
            try:
                return request(lib)
            except (UserError, Unconditional):
                raise
            except Exception as error:
                told = explain(error, where)
                if told is not None:
                    raise told from None
                if isinstance(error, FileNotFoundError) or not _passing(error):
                    raise
                if attempt == TRIES - 1:
                    if isinstance(error, Spoilt):
                        raise
                    fix = "Check the network and the endpoint, then run the same command again."
                    raise UserError(f"The storage does not answer: {beginning(error)}", where, fix) from None
                time.sleep(PAUSE * 2**attempt * (0.5 + random.random()))
        raise AssertionError("unreachable")


def _passing(error: BaseException) -> bool:
    """Whether an error may be gone at the next try: everything the network and the store do, no error of ours."""
    return isinstance(error, OSError) or type(error).__module__.startswith("obstore")


def _head(answer: Any) -> Head:
    meta, said = answer.meta, {str(name).lower(): value for name, value in answer.attributes.items()}
    return Head(meta["size"], meta["e_tag"] or "", said.get(DIGEST))


def _bytes(data: bytes | Path) -> bytes:
    return data.read_bytes() if isinstance(data, Path) else data


# Forks.

_USED: set[int] = set()  # processes that have used the library: this one, or those it was forked from


def _forked() -> bool:
    """Whether this process was forked from one that has used the library."""
    if not _USED:
        _USED.add(os.getpid())
    return os.getpid() not in _USED


def _in_a_process_of_its_own(url: str, key: str, path: Path, size: int | None, digest: str | None) -> None:
    """Fetch an object in a new process, as workers of a DataLoader must, which are forked."""
    told = ["" if size is None else str(size), digest or ""]
    done = subprocess.run(
        [sys.executable, "-m", __name__, url, key, str(path), *told], capture_output=True, text=True, check=False
    )
    if done.returncode == 3:
        raise FileNotFoundError(f"{url}/{key}")
    if done.returncode:
        last = done.stderr.strip().splitlines()
        raise Spoilt(last[-1] if last else f"{url}/{key} cannot be read")


if __name__ == "__main__":  # python -m headrace.flow.remote URL KEY PATH SIZE DIGEST
    _url, _key, _path, _size, _digested = sys.argv[1:]
    try:
        Remote(_url).fetch(_key, Path(_path), int(_size) if _size else None, _digested or None)
    except FileNotFoundError:
        sys.exit(3)
    except (UserError, Spoilt) as failure:
        sys.exit(str(failure).replace("\n", " "))
