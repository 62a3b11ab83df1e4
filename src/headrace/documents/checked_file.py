"""Open input files as streams in which every byte is checked against the fingerprint before anyone sees it.

A file may be rewritten in place while a run reads it, and have its size and times restored. So each block is read into
memory, hashed, compared with the hash in the inventory, and only then returned: what becomes a document is what the
identity was computed from, in every format and every part of a file.
"""

from __future__ import annotations

import io
import os
from pathlib import Path
from typing import IO, Any

import xxhash

from headrace.documents.remote import remote_errors
from headrace.documents.sources import InputFile
from headrace.errors import UserError
from headrace.flow.storage import cannot_read

# 16 hexadecimal digits in the inventory per MiB, 16 MB per terabyte. XXH3 takes about 60 microseconds per block.
BLOCK = 1 << 20


class ChangedInput(UserError):  # noqa: N818 - a state of the file, not of the program
    """An input file's content differs from its fingerprint."""

    def __init__(self, url: str) -> None:
        super().__init__(
            "The input file has changed since the run began.", url, "Run again: only what depends on it is redone."
        )


def fingerprint_file(path: Path | str) -> tuple[str, str]:
    """The fingerprint of a local file, in one read.

    Returns:
        The XXH3-128 of its bytes as 32 hexadecimal digits; and 16 digits per block of 1 MiB, the block's XXH3-64, or ''
        if there is only one block.
    """
    whole, blocks = xxhash.xxh3_128(), []
    with open(path, "rb", buffering=0) as f:
        while block := f.read(BLOCK):
            whole.update(block)
            blocks.append(xxhash.xxh3_64_hexdigest(block))
    return whole.hexdigest(), "".join(blocks) if len(blocks) > 1 else ""


def open_file(file: InputFile) -> IO[bytes]:
    """Open an input file, unbuffered.

    Raises:
        UserError: the file cannot be opened.
        ChangedInput: it is not the file that was fingerprinted; also raised while reading.
    """
    stream: Any  # quacks like IO[bytes]
    if file.remote:
        confirm(file)
        with remote_errors(file.url):
            import fsspec

            stream = _RemoteFile(fsspec.open(file.url, "rb").open(), file.url)
        return stream
    try:
        stream = open(file.url, "rb", buffering=0)  # noqa: SIM115 - the caller closes it
    except OSError as error:
        raise cannot_read("The input file", file.url, error) from None
    if os.fstat(stream.fileno()).st_size != file.size:
        stream.close()
        raise ChangedInput(file.url)
    if file.digest:
        stream = _CheckedFile(stream, file)
    return stream


def confirm(file: InputFile) -> None:
    """Check that a remote file is still the one that was fingerprinted, according to its store.

    Raises:
        UserError: it cannot be reached.
        ChangedInput: it is another one.
    """
    if file.remote and file.digest and remote_key(file.url, fresh=True) != file.digest:
        raise ChangedInput(file.url)


def remote_key(url: str, fresh: bool = False) -> str:
    """What a remote file's store uses to tell its versions apart: its own key, and what HTTP servers say.

    Args:
        url: the file's URL.
        fresh: ask the store, whatever an earlier listing said.

    Raises:
        UserError: the file is gone or cannot be reached.
    """
    with remote_errors(url):
        import fsspec

        fs, path = fsspec.core.url_to_fs(url)
        if fresh:
            fs.invalidate_cache()
        told = fs.info(path)
        marks = {name: str(told[name]) for name in ("size", "ETag", "Last-Modified", "Content-MD5") if told.get(name)}
        return "remote:" + xxhash.xxh3_128_hexdigest(f"{fs.ukey(path)} {sorted(marks.items())}".encode())


class _RemoteFile(io.RawIOBase):
    """A remote file whose failures are user-facing errors."""

    def __init__(self, stream: Any, url: str) -> None:
        self._stream, self._url = stream, url

    def read(self, size: int = -1) -> bytes:
        with remote_errors(self._url):
            return bytes(self._stream.read(size))

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return bool(self._stream.seekable())

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        with remote_errors(self._url):
            return int(self._stream.seek(offset, whence))

    def tell(self) -> int:
        return int(self._stream.tell())

    def close(self) -> None:
        self._stream.close()
        super().close()


class _CheckedFile(io.RawIOBase):
    """A local file that is read in whole blocks, each of them checked."""

    def __init__(self, stream: io.FileIO, file: InputFile) -> None:
        self._stream, self._file = stream, file
        self._at = 0
        self._held, self._block = -1, b""  # the block read last: most short reads stay within it

    def read(self, size: int = -1) -> bytes:
        left = max(0, self._file.size - self._at)
        left = left if size is None or size < 0 else min(size, left)
        pieces = []
        while left:
            number, first = divmod(self._at, BLOCK)
            block = self._checked(number)
            piece = block if first == 0 and left >= len(block) else block[first : first + left]
            pieces.append(piece)
            self._at += len(piece)
            left -= len(piece)
        return pieces[0] if len(pieces) == 1 else b"".join(pieces)

    def _checked(self, number: int) -> bytes:
        if number == self._held:
            return self._block
        start, file = number * BLOCK, self._file
        length = min(BLOCK, file.size - start)
        block = b""
        try:
            while len(block) < length:
                more = os.pread(self._stream.fileno(), length - len(block), start + len(block))
                if not more:
                    raise ChangedInput(file.url)
                block = block + more if block else more
        except OSError as error:  # the disk's error, which must not be taken for damage to the format
            raise cannot_read("The input file", file.url, error) from None
        if file.blocks:
            same = xxhash.xxh3_64_hexdigest(block) == file.blocks[16 * number : 16 * number + 16]
        else:
            same = xxhash.xxh3_128_hexdigest(block) == file.digest
        if not same:
            raise ChangedInput(file.url)
        self._held, self._block = number, block
        return block

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        base = {os.SEEK_SET: 0, os.SEEK_CUR: self._at, os.SEEK_END: self._file.size}[whence]
        self._at = max(0, base + offset)
        return self._at

    def tell(self) -> int:
        return self._at

    def close(self) -> None:
        self._stream.close()
        super().close()
