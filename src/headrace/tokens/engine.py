"""What every tokenizer engine offers: batches of texts to flat token ids and back, byte for byte."""

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
        """Texts from an Arrow string array (large strings without a copy), or from Python strings or UTF-8 bytes."""
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
    """A tokenizer that turns text into ids and ids into the same bytes again.

    Texts never yield special ids: a special token's spelling within a text is encoded as the plain text it is. No
    special token is added, nothing is truncated or padded.

    SentencePiece models put a dummy space before every text they encode. Pieces of one document that are encoded
    apart must therefore say which of them is ``first``: only that one gets the dummy space, so that the bytes of all
    pieces, decoded together, are the document's bytes again.

    Attributes:
        vocab_size: one more than the largest id.
        special: role (``eod``, ``pad``, ``bos``, ``fim_prefix``, ...) -> id.
        dummy_prefix: whether a first piece gets the dummy space.
        lengths: int64[vocab_size]: the bytes that each id decodes to.
        special_ids: uint32[m]: every id that stands for itself and not for text, ascending.
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
            first: for all, or bool[n] for each: the text begins a document (or stands alone), rather than going on
                from the piece before it. Matters for models with a dummy prefix only.

        Returns:
            uint32 ids and int64 offsets. An empty text has no tokens.
        """
        ...

    def count(self, texts: Texts | Iterable[str], first: bool | np.ndarray = True) -> np.ndarray:
        """int64[n]: how many tokens each text has; see :meth:`encode`."""
        ...

    def spans(
        self, encoded: Encoded, first: bool | np.ndarray = True, texts: Texts | Iterable[str] | None = None
    ) -> np.ndarray:
        """The bytes of its text that each token spells: the spans of a text's tokens lie side by side and tile it.

        A span may begin or end within a character, where a token spells a part of one. The dummy space of a first
        piece has no bytes. A tokenizer that changes text before it splits it (NFC, say) gives the spans in the changed
        text.

        Args:
            encoded: what :meth:`encode` gave.
            first: what it was given.
            texts: the texts, for tokenizers of SentencePiece's kind: to these U+2581 is a space, and counts as the one
                byte of it where the texts are not given.

        Returns:
            int64[n_tokens, 2]: the first byte of each token and the one after its last, from its own text's beginning.
        """
        ...

    def decode_batch(self, encoded: Encoded) -> Texts:
        """The bytes of each list, the dummy space of a first piece still in place; special ids give their spelling."""
        ...

    def decode(self, tokens: np.ndarray, first: bool = True) -> bytes:
        """The bytes of one list; with ``first`` and a dummy prefix its leading space is taken away."""
        ...


def special_id(engine: Engine, role: str) -> int:
    """The id of a special token by role.

    Raises:
        UserError: the tokenizer has none for that role.
    """
    if role not in engine.special:
        raise UserError(
            f"The tokenizer has no special token for {role!r}.",
            f"it has {', '.join(engine.special) or 'none'}",
            f"Name one under tokenizer.special.{role}, or remove what needs it.",
        )
    return engine.special[role]


def token_dtype(vocab_size: int) -> np.dtype:
    """uint16 where every id fits into it, else uint32."""
    return np.dtype(np.uint16 if vocab_size <= 1 << 16 else np.uint32)
