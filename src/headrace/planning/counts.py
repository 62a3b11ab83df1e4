"""The size of each source: measured in a run, stated under ``expect``, or estimated from its files."""

from __future__ import annotations

import atexit
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field, replace
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from headrace.planning.document_lengths import DocumentLengths
from headrace.recipe.schema import Recipe, Source

if TYPE_CHECKING:
    from headrace.documents.sources import InputFile
    from headrace.flow.isolation import Isolated

Basis = Literal["measured", "expected", "estimated"]

# SlimPajama: 2,567 GB of text were 690 B tokens with CrystalCoder's LLaMA tokenizer.
BYTES_PER_TOKEN = 3.72
# This much of a file, and files until both limits are reached, are read in well under a second; a smaller source is
# read completely, so its counts are exact.
SAMPLE_BYTES = 512 << 10
SAMPLE_FILES, SAMPLE_TOTAL = 16, 8 << 20
MOST_FILES = 1000  # maximum to open for a sample, however small they are


@dataclass(frozen=True)
class SourceCounts:
    """The size of a source.

    Attributes:
        name: the source.
        basis: where the counts come from; ``estimated`` if any of them is.
        files: input files, or None if not examined.
        documents: documents, or None if unknown.
        bytes: bytes of text.
        tokens: tokens, including ends of documents.
        lengths: how long its documents are; None if unknown.
        doubt: what is wrong with the source, as far as it was examined, in a sentence.
    """

    name: str
    basis: Basis
    files: int | None
    documents: int | None
    bytes: int
    tokens: int
    doubt: str = ""
    lengths: DocumentLengths | None = None

    def to_json(self) -> dict[str, Any]:
        """The attributes as a dict."""
        return asdict(self)


def kept_by_quality(recipe: Recipe, sources: tuple[SourceCounts, ...]) -> tuple[SourceCounts, ...]:
    """Sources with the tokens that ``quality.keep`` leaves, as far as these were estimated; a limit of the score leaves
    nobody knows how many."""
    keep = recipe.quality.keep
    if keep is None:
        return sources
    total = sum(source.tokens for source in sources)
    share = keep.share or (1.0 if keep.tokens is None else min(1.0, keep.tokens / max(1, total)))
    return tuple(
        replace(source, tokens=round(source.tokens * share)) if source.basis == "estimated" else source
        for source in sources
    )


def count_source(name: str, recipe: Recipe, base: Path) -> SourceCounts:
    """The size of one source before any work: as stated under ``expect``, otherwise estimated from its files.

    Args:
        name: the source.
        recipe: the recipe.
        base: the recipe's folder.

    Raises:
        UserError: its files are needed for the estimate but cannot be found or read.
    """
    source = recipe.sources[name]
    expect = source.expect
    if expect is not None and expect.gives_size:
        tokens = round(expect.bytes / BYTES_PER_TOKEN) if expect.tokens is None and expect.bytes else expect.tokens or 0
        size = round(tokens * BYTES_PER_TOKEN) if expect.bytes is None else expect.bytes
        basis: Basis = "estimated" if expect.tokens is None and recipe.stages else "expected"
        return SourceCounts(name, basis, None, expect.documents, size, tokens)
    return estimate(name, source, recipe, base)


def estimate(name: str, source: Source, recipe: Recipe, base: Path) -> SourceCounts:
    """Extrapolate from a keyed sample of a source's files.

    Raises:
        UserError: the files cannot be found or read.
    """
    from headrace.documents.sources import WHOLE, list_files
    from headrace.flow.keys import salt

    files = list_files(name, source, recipe.seed, base)
    order = sorted(files, key=lambda file: (salt(recipe.seed, "plan", name, file.name), file.name))
    read, opened, documents, size = 0.0, 0, 0, 0
    texts: list[str] = []
    lengths: list[int] = []
    wrong = ""
    for held in _samples(order[:MOST_FILES], source):
        if opened >= SAMPLE_FILES and read >= SAMPLE_TOTAL:
            break
        opened += 1
        wrong = wrong or held.wrong
        read += held.read
        documents += held.documents
        size += held.size
        texts += held.texts
        lengths += held.lengths
    # `take` is in bytes of text, sizes are those on disk.
    stored = read / size if size else 1.0
    total = sum(file.size if file.take is None else min(file.size, file.take * stored) for file in files)
    scale = total / read if read else 0.0
    expected = source.expect.documents if source.expect else None
    text = round(size * scale)
    # If a file is one document, the number of files says more than their size.
    counted = round(documents * (len(files) / opened if files[0].format in WHOLE else scale))
    each = _bytes_per_token(recipe, texts)
    tokens = round(text / each) + counted
    # Files with user-defined readers are not read for a plan: their size is known, but not their documents.
    nothing = not documents and not size
    doubt = f"Source {name!r} has no documents in the sample{wrong or ': it is empty'}." if nothing else ""
    of = DocumentLengths.of(np.array(lengths) / each)
    return SourceCounts(name, "estimated", len(files), expected or counted or None, text, tokens, doubt, of)


@dataclass(frozen=True)
class _Sample:
    """The start of a file: its bytes on disk, its documents, their bytes, text and lengths, and the first problem."""

    read: float
    documents: int
    size: int
    texts: list[str]
    wrong: str = ""
    lengths: list[int] = field(default_factory=list)


_sampler: Isolated | None = None  # started with the first table and kept for the next: it takes half a second


def _samples(files: list[InputFile], source: Source) -> Iterator[_Sample]:
    """Samples of files; tables are read in another process, which damaged ones may crash.

    Raises:
        UserError: a file crashes the process.
    """
    from headrace.documents.file_names import SUFFIXES, suffixes
    from headrace.errors import UserError
    from headrace.flow.isolation import Isolated, ProcessDied

    if not any(SUFFIXES.get(suffixes(file.name)[0], file.format) in ("parquet", "arrow") for file in files):
        yield from (_sample(file, source) for file in files)
        return
    global _sampler
    if _sampler is None or not _sampler.usable:
        _sampler = Isolated(f"{__name__}:sampled")
        atexit.register(_sampler.close)
    given = source.model_dump(mode="json", by_alias=True)
    for file in files:
        try:
            (held,) = _sampler.ask(asdict(file), given)
        except ProcessDied as death:
            raise UserError(
                f"Reading the file crashes the process: {death}.", file.url, "It is damaged: fix or exclude it."
            ) from None
        yield _Sample(**held)


def sampled(file: dict[str, Any], source: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """The sample of a file as JSON values, for another process."""
    from headrace.documents.sources import InputFile

    yield asdict(_sample(InputFile(**file), Source.model_validate(source)))


def _sample(file: InputFile, source: Source) -> _Sample:
    """Read the first documents of a file, up to ``SAMPLE_BYTES`` of text."""
    from headrace.documents.readers import reader
    from headrace.documents.readers.base import Bad, Lost, Part, Record, Tally
    from headrace.documents.readers.json_values import dump

    if file.format in source.readers:  # a plan runs no user code
        return _Sample(file.size, 0, file.size, [])
    documents = size = raw = 0
    texts: list[str] = []
    lengths: list[int] = []
    wrong = ""
    if file.format == "jsonl" and file.compression is None and not file.remote:
        part = Part(0, min(file.size, SAMPLE_BYTES), 0)
    else:
        part = Part()
    items = reader(file.format).read(file, part, source, Tally())
    for item in items:
        if not isinstance(item, Record):
            wrong = wrong or (f": {file.name}: {item.error}" if isinstance(item, Bad | Lost) else "")
            continue
        text = "\n\n".join(message.content for message in item.turns) if item.turns is not None else item.text
        length = len(text.encode("utf-8", "replace"))
        documents += 1
        size += length
        lengths.append(length)
        # Roughly how much of the file a record takes.
        raw += length + len(dump(item.fields, default=str)) + len(source.text) + 6
        texts.append(text[:20_000])
        if part.end is None and size >= SAMPLE_BYTES and next(iter(items), None) is not None:
            return _Sample(_on_disk(file, raw, documents), documents, size, texts[:40], wrong, lengths)
    return _Sample(file.size if part.end is None else part.end, documents, size, texts[:40], wrong, lengths)


def _on_disk(file: InputFile, raw: int, documents: int) -> float:
    """Bytes on disk of a file's first documents."""
    if file.format == "parquet":
        import fsspec
        import pyarrow.parquet as pq

        with fsspec.open(file.url, "rb") as stream:
            return float(file.size * documents / max(1, pq.ParquetFile(stream).metadata.num_rows))
    if file.compression is None:
        return min(file.size, raw)
    return min(file.size, raw * _compression(file))


def _compression(file: InputFile) -> float:
    """Bytes on disk per byte of content, at the start of a compressed file."""
    import fsspec

    from headrace.documents.readers.base import Tally
    from headrace.documents.readers.streams import decompressed

    with fsspec.open(file.url, "rb") as stream:
        content = sum(len(block) for block in islice(decompressed(file, stream, Tally().memory), 16))
        return float(min(stream.tell(), file.size) / max(1, content))


def _bytes_per_token(recipe: Recipe, texts: list[str]) -> float:
    """Measured on the sample if the recipe's tokenizer is an existing file, otherwise that of a common tokenizer."""
    path = recipe.tokenizer.file if recipe.tokenizer else None
    if recipe.tokenizer is None or path is None or not Path(path).exists() or not any(texts):
        return BYTES_PER_TOKEN
    from headrace.tokens.engine import Texts
    from headrace.tokens.load import open_file

    encoded = open_file(path, recipe.tokenizer.special, loses=recipe.tokenizer.loses).encode(Texts.of(texts))
    return sum(len(text.encode("utf-8", "replace")) for text in texts) / max(1, len(encoded.tokens))
