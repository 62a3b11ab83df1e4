"""OLMo-core's token files: ids and nothing else in files named ``.npy``, which have no header of NumPy's.

Names are those that OLMo-core's fine-tuning looks for: ``token_ids_part_00000.npy``, the loss in
``labels_mask_part_00000.npy``, and where documents lie in ``token_ids_part_00000.csv.gz``, as dolma writes it: start,
end, id, source, place. (OLMo-core 3.0, ``data/numpy_dataset.py`` and ``data/utils.py``; dolma,
``tokenizer/memmap_writer.py``.)
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.csv

from headrace.flow.task import TaskContext
from headrace.formats.flat import Documents, FlatFormat, Points
from headrace.formats.format import Part, files_below
from headrace.formats.placed import size_of, unreadable
from headrace.sequence.reader import ELSEWHERE, SequenceReader
from headrace.sequence.windows import PADDING

TOKENS, MASK = "token_ids", "labels_mask"
CSV_BLOCK = 1 << 20  # bytes of text at a time; a longer line is refused
COLUMNS = {"start": pa.int64(), "end": pa.int64(), "id": pa.uint64(), "src": pa.string(), "loc": pa.int32()}


class OLMoCore(FlatFormat):
    """OLMo-core's ``.npy`` files of ids."""

    name = "olmo-core"
    about = "OLMo-core's .npy files of ids with label masks and .csv.gz of documents"
    suffix = ".npy"
    file_tokens = 1 << 27  # 256 MB of uint16: several files, for several workers, from 500 MB on

    def file(self, stage: str, number: int) -> str:
        """As OLMo-core's fine-tuning names it."""
        return f"{stage}/{TOKENS}_part_{number:05d}{self.suffix}"

    def loss_file(self, file: Path) -> Path:
        """As OLMo-core's fine-tuning names it."""
        return file.with_name(file.name.replace(TOKENS, MASK)) if TOKENS in file.name else file.with_suffix(".mask.npy")

    def segments_file(self, file: Path) -> Path:
        """headrace's own."""
        return file.with_suffix(".segments")

    @contextmanager
    def documents(self, ctx: TaskContext, sequence: SequenceReader, part: Part) -> Iterator[Documents]:
        """Write where documents lie, which they are if that is known (id: the document's row), and at which of a
        document's tokens the segment begins (place). Padding is no document."""
        sources, schema = np.array(sequence.sources, dtype=object), pa.schema(COLUMNS)
        options = pa.csv.WriteOptions(include_header=False, quoting_style="none")
        file = _metadata(Path(part.file))
        with (
            ctx.file(file.as_posix()) as out,
            pa.CompressedOutputStream(pa.OSFile(str(out.path), "wb"), "gzip") as text,
            pa.csv.CSVWriter(text, schema, write_options=options) as csv,
        ):

            def write(segments: Mapping[str, np.ndarray], begins: np.ndarray) -> None:
                real = segments["kind"] != PADDING
                some, begin = {name: column[real] for name, column in segments.items()}, begins[real]
                nothing = [None] * len(begin)
                src = sources[some["source"]] if "source" in some and len(sources) else nothing
                row = pa.array(some["row"], mask=some["row"] == ELSEWHERE) if "row" in some else nothing
                rest = [row, src, some.get("offset", nothing)]
                columns = zip([begin, begin + some["length"], *rest], schema.types, strict=True)
                csv.write_table(pa.table([pa.array(column, type) for column, type in columns], schema=schema))

            yield write

    def find(self, path: Path) -> list[Path]:
        """Files named .npy, but for masks."""
        return [file for file in files_below(path, self.suffix) if "mask" not in file.name]

    def beside(self, file: Path) -> tuple[Path, ...]:
        """The loss, the segments, the metadata."""
        return *super().beside(file), _metadata(file)

    def points(self, file: Path, tokens: int) -> Points | None:
        """From the metadata, if there are any."""
        metadata = _metadata(file)
        if not metadata.exists():
            return None
        bounds = _bounds(metadata, tokens)
        return lambda first, end: bounds[bounds.searchsorted(first) : bounds.searchsorted(end)]


def _metadata(file: Path) -> Path:
    return file.with_suffix(".csv.gz")


def _bounds(path: Path, tokens: int) -> np.ndarray:
    """int64, in order: where documents begin or end.

    Raises:
        UserError: the file is damaged, or tells of other tokens than there are.
    """
    size_of(path)
    read = pa.csv.ReadOptions(block_size=CSV_BLOCK, autogenerate_column_names=True, use_threads=False)
    convert = pa.csv.ConvertOptions(include_columns=["f0", "f1"], column_types={"f0": pa.int64(), "f1": pa.int64()})
    found, last = [np.zeros(0, dtype=np.int64)], 0
    try:
        with pa.CompressedInputStream(pa.OSFile(str(path)), "gzip") as text:
            if not text.read(1):
                return found[0]
        with pa.CompressedInputStream(pa.OSFile(str(path)), "gzip") as text:
            for batch in pa.csv.open_csv(text, read, convert_options=convert):
                start, end = (batch.column(i).to_numpy(zero_copy_only=False) for i in (0, 1))
                line = np.stack([start, end], axis=1).reshape(-1)
                if start.dtype != np.int64 or end.dtype != np.int64 or (np.diff(line, prepend=last) < 0).any():
                    raise unreadable(path, "its documents overlap or go back")
                last = int(line[-1]) if line.size else last
                if last > tokens:
                    raise unreadable(path, f"a document ends at token {last:,} of {tokens:,}")
                found.append(np.unique(line))
    except (pa.ArrowInvalid, OSError) as error:
        raise unreadable(path, " ".join(str(error).split())[:200]) from None
    return np.unique(np.concatenate(found))
