"""The project's own tokenizer engine: Numba kernels over the texts' buffer, equal to the library token for token."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Any

import numpy as np
import pyarrow as pa

from headrace.errors import UserError
from headrace.tokens.before_split import changes_before_split
from headrace.tokens.copying import copy_pieces
from headrace.tokens.covered import NotCoveredError, fast_tables
from headrace.tokens.encoding import encode_texts
from headrace.tokens.engine import Encoded, Texts
from headrace.tokens.fidelity import losses
from headrace.tokens.pieces import Pieces, whole
from headrace.tokens.table_engine import TableEngine
from headrace.tokens.word_cache import new_cache, u64_view

# Texts are copied to a buffer of about this size, which stays in the second-level cache while it is read.
_BLOCK = 1 << 18
# Kernels look at the 88 bytes from a word's beginning on, and write 8 tokens where there may be one.
_PADDING = 96


class FastEngine(TableEngine):
    """An :class:`~headrace.tokens.engine.Engine` for BPE tokenizers, byte-level or of SentencePiece's kind.

    Args:
        definition: a tokenizers JSON, parsed.
        special: role -> id of the tokens with a duty.

    Raises:
        NotCoveredError: the definition is of a kind that this engine does not cover.
        UserError: the tokenizer does not keep every byte of a text, or a special token comes out of ordinary text.
    """

    def __init__(self, definition: dict[str, Any], special: Mapping[str, int]) -> None:
        lost = losses(definition)
        if lost:
            raise NotCoveredError(f"it loses text through {' and '.join(lost)}")
        super().__init__(definition, special)
        self._tables = fast_tables(definition, self.lengths)
        self._changes = changes_before_split(definition)
        self._caches = [new_cache()]
        self.refuse_speakable(self.encode(self.spellings()))

    def encode(self, texts: Texts | Iterable[str], first: bool | np.ndarray = True) -> Encoded:
        """Encode a batch; see :meth:`headrace.tokens.engine.Engine.encode`."""
        batch = texts if isinstance(texts, Texts) else Texts.of(texts)
        _require_utf8(batch)
        pieces, prefixed = self._pieces(batch, self.leading(batch, first))
        ends = np.zeros(len(pieces.ids) + 1, dtype=np.int64)
        # A token has a byte or more. What is never written to takes no memory.
        size = int(pieces.bounds[-1] - pieces.bounds[0]) + int(np.count_nonzero(prefixed))
        out = np.empty(size + _PADDING, dtype=np.uint32)
        # Taken and put back, so that two threads never write to one cache.
        cache = self._caches.pop() if self._caches else new_cache()
        for low, high in _blocks(pieces.bounds):
            data, bounds = _copied(pieces, prefixed, low, high, self._tables.scanner.cuts)
            ids, some = pieces.ids[low:high], ends[low + 1 : high + 1]
            encode_texts(data, u64_view(data), bounds, ids, *self._tables, cache, out, int(ends[low]), some)
        self._caches.append(cache)
        return Encoded(out[: ends[-1]], ends[pieces.firsts])

    def _pieces(self, batch: Texts, prefixed: np.ndarray) -> tuple[Pieces, np.ndarray]:
        """The texts as they are split, and bool[n_pieces]: which get a dummy space yet."""
        pieces = whole(batch)
        for change in self._changes.first:
            pieces = change(pieces)
        if not self.dummy_prefix:
            prefixed = np.zeros(len(pieces.ids), dtype=bool)
        if not self._changes.spaced:
            return pieces, prefixed
        # A tokenizer that puts a space before texts cuts nothing out of them first: a piece is a text.
        data, bounds = _copied(pieces, prefixed, 0, len(pieces.ids), meta_space=True)
        pieces = pieces._replace(data=data, bounds=bounds)
        for change in self._changes.spaced:
            pieces = change(pieces)
        return pieces, np.zeros(len(pieces.ids), dtype=bool)


def _require_utf8(batch: Texts) -> None:
    buffers = [None, pa.py_buffer(np.ascontiguousarray(batch.offsets)), pa.py_buffer(batch.data)]
    try:
        pa.Array.from_buffers(pa.large_string(), batch.count, buffers).validate(full=True)
    except pa.ArrowInvalid as error:
        raise UserError(f"The text is not UTF-8: {error}.", "tokens", "Read it as UTF-8 first.") from None


def _blocks(offsets: np.ndarray) -> Iterator[tuple[int, int]]:
    """Ranges of pieces of about a block's bytes each."""
    low = 0
    while low < len(offsets) - 1:
        high = int(np.searchsorted(offsets, offsets[low] + _BLOCK, side="right")) - 1
        high = max(high, low + 1)
        yield low, high
        low = high


def _copied(
    pieces: Pieces, prefixed: np.ndarray, low: int, high: int, meta_space: bool
) -> tuple[np.ndarray, np.ndarray]:
    """Pieces as the kernel reads them: dummy spaces put before, U+2581 made a space, and room after the end.

    Args:
        pieces: the pieces.
        prefixed: bool[n]: which get a dummy space.
        low: the first piece.
        high: the one after the last.
        meta_space: whether U+2581 is a space.

    Returns:
        uint8[bytes] and int64[high - low + 1], the bytes where pieces begin and end.
    """
    size = int(pieces.bounds[high] - pieces.bounds[low]) + int(np.count_nonzero(prefixed[low:high]))
    data = np.empty(size + _PADDING, dtype=np.uint8)
    bounds = np.empty(high - low + 1, dtype=np.int64)
    copy_pieces(pieces.data, pieces.bounds[low : high + 1], prefixed[low:high], meta_space, data, bounds)
    return data, bounds
