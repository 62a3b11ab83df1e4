"""The tokenizer engine built on the Hugging Face ``tokenizers`` library."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

import numpy as np
from tokenizers.normalizers import NFC

from headrace.errors import UserError
from headrace.tokens.chunking import chunker
from headrace.tokens.dummy_prefix import without_dummy_prefix
from headrace.tokens.engine import Encoded, Texts
from headrace.tokens.fidelity import FIX, library_errors, losses, read_by_library
from headrace.tokens.meta_space import META_SPACE
from headrace.tokens.table_engine import TableEngine
from headrace.tokens.vocabulary import parts

# Text per call of the library, whose results take about 100 bytes per token. Measured on 32 MB of code: 64 kB is as
# fast as 1 MB (5 MB/s) and peaks 45 MB lower.
_BATCH_BYTES = 1 << 16


def set_threads(threads: int) -> None:
    """Set the library's number of threads in this process. Workers run concurrently, so each uses one by default.

    Switching between one and several works at any time; the number of several only before the library's first use.
    """
    os.environ["TOKENIZERS_PARALLELISM"] = "true" if threads > 1 else "false"
    os.environ["RAYON_NUM_THREADS"] = str(threads)


# A text with every kind of thing that some part of a tokenizer may drop or change.
_PROBES = [
    *("".join(map(chr, range(low, low + 64))) for low in range(0, 256, 64)),
    *(" a", "  a", "a ", "a  ", "\ta\n", "\n\n", "a  b", "a \n b", "\u2003a\u3000", "a\u200b\u200d", "\u2581a"),
    *("Aa \xc9\xe9", "\ufb01\xb2\u2460\uff21", "12345 6", "a.b!?..", '\'s "x" ``y', "\r\n", "\ufffd\ufeff\xad"),
    *("\u6f22\u5b57\u304b", "\U0001f600\U000e0101", "\u0416\u0627\u0915\u094d\u0937", "<s></s><unk>"),
]


class LibraryEngine(TableEngine):
    """An :class:`~headrace.tokens.engine.Engine` built on the ``tokenizers`` library.

    Args:
        definition: a tokenizers JSON, parsed.
        special: role -> id of the special tokens.
        threads: CPU threads that the library may use, for the whole process.
        chunk_bytes: texts longer than this are encoded in parts, where that is exact.

    Raises:
        UserError: the library rejects the definition, or it loses text in a way that its parts do not show
            (:func:`~headrace.tokens.fidelity.losses`).
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
        self._exact = not losses(definition)
        plain = without_dummy_prefix(definition) if self._exact else definition
        self._tokenizer = read_by_library({**plain, "post_processor": None, "truncation": None, "padding": None})
        self._nfc = any(part["type"] == "NFC" for part in parts(definition, "normalizer"))
        # Special tokens spelled out in a text stay text: they must not become ids that only the pipeline may write.
        self._tokenizer.encode_special_tokens = True
        self._chunker = chunker(definition) if self._exact else None
        self._chunk_bytes = chunk_bytes
        self.encode(_PROBES)
        self.refuse_speakable(self.encode(self.spellings()))

    def encode(self, texts: Texts | Iterable[str], first: bool | np.ndarray = True) -> Encoded:
        """Encode a batch; see :meth:`headrace.tokens.engine.Engine.encode`."""
        batch = texts if isinstance(texts, Texts) else Texts.of(texts)
        prefixed = self.leading(batch, first)
        counts = np.zeros(batch.count, dtype=np.int64)
        flat: list[np.ndarray] = []
        for owners, pieces in self._batches(batch, prefixed):
            with library_errors():
                encodings = self._tokenizer.encode_batch_fast(pieces, add_special_tokens=False)
            for owner, encoding in zip(owners, encodings, strict=True):
                ids = np.array(encoding.ids, dtype=np.uint32)
                counts[owner] += len(ids)
                flat.append(ids)
        offsets = np.zeros(batch.count + 1, dtype=np.int64)
        np.cumsum(counts, out=offsets[1:])
        encoded = Encoded(np.concatenate(flat) if flat else np.empty(0, dtype=np.uint32), offsets)
        if self._exact:
            self._require_kept(batch, prefixed, encoded)
        return encoded

    def _require_kept(self, batch: Texts, prefixed: np.ndarray, encoded: Encoded) -> None:
        """Raise unless the tokens reproduce the texts: a definition may lose text in ways that its parts do not
        show."""
        got = self.decode_batch(encoded)
        for i in range(batch.count):
            text, back = b" " * bool(prefixed[i]) + batch.bytes_of(i), got.bytes_of(i)
            if self._meta_space:
                text = text.replace(META_SPACE.encode(), b" ")
            if back != text and not (self._nfc and _nfc(back) == _nfc(text)):
                shown, other = (value[:60].decode("utf-8", "replace") for value in (batch.bytes_of(i), back))
                raise UserError(
                    f"The tokenizer does not reproduce text: {shown!r} decodes to {other!r}.",
                    "tokenizer.file",
                    FIX,
                )

    def _batches(self, batch: Texts, prefixed: np.ndarray) -> Iterator[tuple[list[int], list[str]]]:
        """Batches of strings, each with the index of its text; long texts come in parts."""
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
                pieces.append(" " + text if prefixed[index] and low == start else text)
                owners.append(index)
                size += high - low
                if size >= _BATCH_BYTES:
                    yield owners, pieces
                    owners, pieces, size = [], [], 0
        if pieces:
            yield owners, pieces


def _nfc(text: bytes) -> str:
    """A text in normal form NFC; added tokens are cut out before and stay unchanged."""
    return NFC().normalize_str(text.decode("utf-8", "replace"))
