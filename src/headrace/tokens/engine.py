"""The interface of all tokenizer engines: batches of texts to flat token ids and back, byte for byte."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import pyarrow as pa

from headrace.documents.store import text_buffers
from headrace.errors import UserError


@dataclass(frozen=True, eq=False)
class Texts:
    """A batch of texts as one buffer.

    Attributes:
        data: uint8[n_bytes], UTF-8. Bytes before ``offsets[0]`` and after ``offsets[-1]`` belong to no text.
        offsets: int64[n + 1]; text i is ``data[offsets[i]:offsets[i + 1]]``.
    """

    data: np.ndarray
    offsets: np.ndarray

    @staticmethod
    def of(texts: pa.Array | Iterable[str] | Iterable[bytes]) -> Texts:
        """Texts from an Arrow string array (without a copy for large strings), or from Python strings or UTF-8
        bytes."""
        if isinstance(texts, pa.Array):
            return Texts(*text_buffers(texts.cast(pa.large_string())))
        parts = [text.encode() if isinstance(text, str) else text for text in texts]
        at = np.zeros(len(parts) + 1, dtype=np.int64)
        np.cumsum([len(part) for part in parts], out=at[1:])
        return Texts(np.frombuffer(b"".join(parts), dtype=np.uint8), at)

    @property
    def count(self) -> int:
        """The number of texts."""
        return len(self.offsets) - 1

    def bytes_of(self, index: int) -> bytes:
        """The UTF-8 bytes of one text."""
        return self.data[self.offsets[index] : self.offsets[index + 1]].tobytes()


@dataclass(frozen=True, eq=False)
class Encoded:
    """A batch of token lists as one buffer.

    Attributes:
        tokens: uint32[n_tokens].
        offsets: int64[n + 1]; list i is ``tokens[offsets[i]:offsets[i + 1]]``.
    """

    tokens: np.ndarray
    offsets: np.ndarray

    @property
    def count(self) -> int:
        """The number of lists."""
        return len(self.offsets) - 1

    def of(self, index: int) -> np.ndarray:
        """uint32[k]: one list, a view."""
        return self.tokens[self.offsets[index] : self.offsets[index + 1]]


class Engine(Protocol):
    """A tokenizer that turns text into ids, and ids back into the same bytes.

    Text never yields special ids: a special token's spelling within a text is encoded as plain text. No special tokens
    are added, and nothing is truncated or padded.

    SentencePiece models insert a dummy space before each text they encode. For pieces of one document that are encoded
    separately, ``first`` must therefore say which is the first: only that one gets the dummy space, so that the bytes
    of all pieces, decoded together, are the document's bytes.

    Attributes:
        vocab_size: one more than the largest id.
        special: role (``eod``, ``pad``, ``bos``, ``fim_prefix``, ...) -> id.
        dummy_prefix: whether first pieces get a dummy space.
        lengths: int64[vocab_size]: the number of bytes that each id decodes to.
        special_ids: uint32[m]: the ids that stand for themselves rather than text, ascending.
    """

    vocab_size: int
    special: Mapping[str, int]
    dummy_prefix: bool
    lengths: np.ndarray
    special_ids: np.ndarray

    def encode(self, texts: Texts | Iterable[str], first: bool | np.ndarray = True) -> Encoded:
        """Encode a batch.

        Args:
            texts: UTF-8 texts.
            first: whether each text begins a document (or stands alone) rather than continuing the previous piece: one
                value or bool[n]. Matters only for models with a dummy prefix.

        Returns:
            uint32 ids and int64 offsets. An empty text has no tokens.
        """
        ...

    def count(self, texts: Texts | Iterable[str], first: bool | np.ndarray = True) -> np.ndarray:
        """int64[n]: the number of tokens in each text; see :meth:`encode`."""
        ...

    def spans(
        self, encoded: Encoded, first: bool | np.ndarray = True, texts: Texts | Iterable[str] | None = None
    ) -> np.ndarray:
        """The range of bytes in its text that each token stands for; the spans of a text's tokens tile it.

        A span may start or end within a character, if a token stands for part of one. A first piece's dummy space has
        no bytes. For a tokenizer that changes text before splitting it (such as NFC), spans refer to the changed text.

        Args:
            encoded: the result of :meth:`encode`.
            first: as passed to it.
            texts: the texts, for SentencePiece-like tokenizers, which treat U+2581 as a space: without the texts it
                counts as one byte.

        Returns:
            int64[n_tokens, 2]: each token's first byte and the one after its last, from the start of its own text.
        """
        ...

    def decode_batch(self, encoded: Encoded) -> Texts:
        """The bytes of each list, including a first piece's dummy space; special ids become their spelling."""
        ...

    def decode(self, tokens: np.ndarray, first: bool = True) -> bytes:
        """The bytes of one list; with ``first`` and a dummy prefix, the leading space is removed."""
        ...


def special_id(engine: Engine, role: str) -> int:
    """The id of a special token by role.

    Raises:
        UserError: the tokenizer has none with that role.
    """
    if role not in engine.special:
        raise UserError(
            f"The tokenizer has no special token for {role!r}.",
            f"it has {', '.join(engine.special) or 'none'}",
            f"Name one under tokenizer.special.{role}, or remove what needs it.",
        )
    return engine.special[role]


def token_dtype(vocab_size: int) -> np.dtype:
    """uint16 if every id fits, else uint32."""
    return np.dtype(np.uint16 if vocab_size <= 1 << 16 else np.uint32)
