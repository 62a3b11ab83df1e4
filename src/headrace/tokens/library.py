"""The tokenizer engine that stands on the Hugging Face ``tokenizers`` library."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

import numpy as np
import orjson
from tokenizers import Tokenizer

from headrace.errors import UserError
from headrace.tokens.chunking import chunker
from headrace.tokens.engine import Encoded, Texts
from headrace.tokens.table_engine import TableEngine
from headrace.tokens.vocabulary import parts

# Text for one call of the library, whose results take some 100 bytes a token. Measured on 32 MB of code: 64 kB is as
# fast as 1 MB (5 MB/s) and peaks 45 MB lower.
_BATCH_BYTES = 1 << 16


def set_threads(threads: int) -> None:
    """Set how many threads the library uses in this process. Workers run side by side, so each takes one by default.

    The switch between one and many works at any time; the number beyond one only before the library's first use.
    """
    os.environ["TOKENIZERS_PARALLELISM"] = "true" if threads > 1 else "false"
    os.environ["RAYON_NUM_THREADS"] = str(threads)


def without_dummy(definition: dict[str, Any]) -> tuple[dict[str, Any], bool]:
    """The definition with its rule of a dummy space taken out, and whether it had one.

    The rule is spelled in three ways: a ``Prepend`` normaliser, ``Metaspace`` with a prepend scheme, and
    ``add_prefix_space`` of the byte level. The engine puts the space before first pieces itself, always, as
    SentencePiece does; the two last would leave it out before a text that begins with a space, and that text could
    then not be told from the one without.
    """
    value = orjson.loads(orjson.dumps({key: definition.get(key) for key in ("normalizer", "pre_tokenizer")}))
    dummy = False
    for part in parts(value, "pre_tokenizer"):
        if part["type"] == "Metaspace":
            dummy |= part.get("prepend_scheme", "always") != "never"
            part.pop("add_prefix_space", None)
            part["prepend_scheme"] = "never"
        elif part["type"] == "ByteLevel":
            dummy |= bool(part.get("add_prefix_space", True))
            part["add_prefix_space"] = False
    kept = [part for part in parts(value, "normalizer") if part["type"] != "Prepend"]
    dummy |= len(kept) < len(parts(value, "normalizer"))
    value["normalizer"] = {"type": "Sequence", "normalizers": kept} if kept else None
    return {**definition, **value, "post_processor": None, "truncation": None, "padding": None}, dummy


class LibraryEngine(TableEngine):
    """An :class:`~headrace.tokens.engine.Engine` on the ``tokenizers`` library.

    Args:
        definition: a tokenizers JSON, parsed.
        special: role -> id of the tokens with a duty.
        threads: processor threads that the library may use, for the whole process.
        chunk_bytes: texts longer than this are encoded in parts where that is exact.

    Raises:
        UserError: the definition is not one that the library accepts, or it does not keep every byte of a text.
    """

    def __init__(
        self,
        definition: dict[str, Any],
        special: Mapping[str, int],
        threads: int = 1,
        chunk_bytes: int = _BATCH_BYTES,
    ) -> None:
        set_threads(threads)
        super().__init__(definition, special)
        plain, self.dummy_prefix = without_dummy(definition)
        try:
            self._tokenizer = Tokenizer.from_str(orjson.dumps(plain).decode())
        except Exception as error:  # the library raises the bare class for every defect of a definition
            raise UserError(f"The tokenizer cannot be used: {error}.", "tokenizer.file") from None
        # Special tokens spelled out within a text are text: they must not become what only the pipeline may write.
        self._tokenizer.encode_special_tokens = True
        self._chunker = chunker(definition)
        self._chunk_bytes = chunk_bytes
        self.refuse_speakable(self.encode(self.spellings()))

    def encode(self, texts: Texts | Iterable[str], first: bool | np.ndarray = True) -> Encoded:
        """Encode a batch; see :meth:`headrace.tokens.engine.Engine.encode`."""
        batch = texts if isinstance(texts, Texts) else Texts.of(texts)
        leads = np.broadcast_to(np.asarray(first, dtype=bool), batch.count) & self.dummy_prefix
        counts = np.zeros(batch.count, dtype=np.int64)
        flat: list[np.ndarray] = []
        for owners, pieces in self._batches(batch, leads):
            for owner, encoding in zip(owners, self._tokenizer.encode_batch_fast(pieces, add_special_tokens=False),
                                       strict=True):  # fmt: skip
                ids = np.array(encoding.ids, dtype=np.uint32)
                counts[owner] += len(ids)
                flat.append(ids)
        offsets = np.zeros(batch.count + 1, dtype=np.int64)
        np.cumsum(counts, out=offsets[1:])
        return Encoded(np.concatenate(flat) if flat else np.empty(0, dtype=np.uint32), offsets)

    def _batches(self, batch: Texts, leads: np.ndarray) -> Iterator[tuple[list[int], list[str]]]:
        """Batches of strings with the number of the text that each is of; long texts come in parts."""
        owners: list[int] = []
        pieces: list[str] = []
        size = 0
        for index in range(batch.count):
            start, end = int(batch.offsets[index]), int(batch.offsets[index + 1])
            cuts: list[int] = []
            if self._chunker is not None and end - start > self._chunk_bytes:
                cuts = [start + cut for cut in self._chunker.cuts(batch.data[start:end], self._chunk_bytes)]
            for low, high in zip([start, *cuts], [*cuts, end], strict=True):
                if high == low:
                    continue
                text = batch.data[low:high].tobytes().decode("utf-8")
                pieces.append(" " + text if leads[index] and low == start else text)
                owners.append(index)
                size += high - low
                if size >= _BATCH_BYTES:
                    yield owners, pieces
                    owners, pieces, size = [], [], 0
        if pieces:
            yield owners, pieces
