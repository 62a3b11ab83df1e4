"""The documents that both sides work on: the corpus built beside the checkout, or this Python environment's files."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import sysconfig
from collections.abc import Iterator
from pathlib import Path

import orjson
import xxhash

from headrace.documents.readers.streams import zstd

SHARED = Path(os.environ.get("HEADRACE_SHARED", Path(__file__).resolve().parents[2] / "shared"))
SHARD_BYTES = 16 << 20
LARGEST_FILE = 1 << 20
SUFFIXES = (".py", ".md", ".rst", ".txt", ".html", ".css", ".js")


def prepare(work: Path, mb: float, given: Path | None) -> Path:
    """A folder ``SOURCE/*.jsonl.zst`` of about ``mb`` million bytes of text; made once.

    Args:
        work: where it is put.
        mb: how much text, in millions of bytes.
        given: a folder of the same form to take a share of, spread over all its files.
    """
    origin = str(given) if given else "built" if (SHARED / "corpus/build.py").is_file() else "environment"
    folder = work / f"corpus-{mb:g}-{xxhash.xxh3_64_hexdigest(origin.encode())[:8]}"
    if (folder / "done").exists():
        return folder
    if given:
        _take(given, folder, mb)
    elif origin == "built":
        command = [sys.executable, str(SHARED / "corpus/build.py"), str(folder), "--mb", str(mb), "--plant", "0.1"]
        subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
    else:
        _write(folder, _environment(mb))
    (folder / "done").touch()
    return folder


def files(folder: Path) -> list[Path]:
    """The files of a corpus."""
    return sorted(folder.glob("*/*.jsonl.zst"))


def texts(folder: Path) -> list[str]:
    """The texts of a corpus, file by file."""
    return [orjson.loads(line)["text"] for path in files(folder) for line in lines(path)]


def lines(path: Path) -> Iterator[bytes]:
    """The lines of a .jsonl.zst file."""
    with zstd.open(path) as stream:
        yield from stream


def _take(given: Path, folder: Path, mb: float) -> None:
    """Documents of another corpus by a hash of where they stand: a share of every file."""
    sizes = [sum(len(orjson.loads(line)["text"].encode()) for line in lines(path)) for path in files(given)]
    share = mb * 1e6 / max(1, sum(sizes))

    def chosen() -> Iterator[tuple[str, str]]:
        for path in files(given):
            for row, line in enumerate(lines(path)):
                if xxhash.xxh3_64_intdigest(f"{path.parent.name}/{path.name} {row}".encode()) < share * 2**64:
                    yield path.parent.name, orjson.loads(line)["text"]

    _write(folder, chosen())


def _environment(mb: float) -> Iterator[tuple[str, str]]:
    """Text files of the standard library and the installed packages, in the order of a hash of their names."""
    found = []
    for root in dict.fromkeys(sysconfig.get_paths()[name] for name in ("stdlib", "purelib")):
        for path in Path(root).rglob("*"):
            if path.suffix in SUFFIXES and path.is_file() and path.stat().st_size <= LARGEST_FILE:
                found.append(path)
    total = 0
    for path in sorted(set(found), key=lambda p: xxhash.xxh3_64_intdigest(str(p).encode())):
        try:
            text = path.read_bytes().decode("utf-8")
        except UnicodeDecodeError:
            continue
        if text.strip():
            yield ("python" if path.suffix == ".py" else "docs"), text
            total += len(text.encode())
        if total >= mb * 1e6:
            return


def _write(folder: Path, documents: Iterator[tuple[str, str]]) -> None:
    """Write (source, text) as shards by source; every hundredth is written twice, so that there are duplicates."""
    held: dict[str, list[str]] = {}
    sizes: dict[str, int] = {}
    numbers: dict[str, int] = {}

    def flush(source: str) -> None:
        path = folder / source / f"{numbers.get(source, 0):05d}.jsonl.zst"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(zstd.compress("".join(held.pop(source)).encode()))
        numbers[source] = numbers.get(source, 0) + 1
        sizes[source] = 0

    for number, (source, text) in enumerate(documents):
        line = json.dumps({"text": text, "meta": {"source": source}}, ensure_ascii=False) + "\n"
        held.setdefault(source, []).extend([line, line] if number % 100 == 99 else [line])
        sizes[source] = sizes.get(source, 0) + len(line)
        if sizes[source] > SHARD_BYTES:
            flush(source)
    for source in list(held):
        flush(source)
