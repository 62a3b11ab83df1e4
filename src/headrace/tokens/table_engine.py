"""What all tokenizer engines share: vocabulary facts, and table-based decoding and spans."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np

from headrace.errors import UserError
from headrace.tokens.decoding import bytes_of, token_table
from headrace.tokens.dummy_prefix import DummyPrefix, dummy_prefix_rule, leading
from headrace.tokens.engine import Encoded, Texts
from headrace.tokens.fidelity import losses
from headrace.tokens.spans import walk_spans, widen_meta_spaces
from headrace.tokens.vocabulary import is_meta_space, token_bytes


class Decoder:
    """The part of an :class:`~headrace.tokens.engine.Engine` that turns ids into text; needs no preparation.

    Args:
        definition: a tokenizers JSON, parsed.
        special: role -> id of the special tokens.

    Raises:
        UserError: the tokenizer's tokens are not text.
    """

    def __init__(self, definition: dict[str, Any], special: Mapping[str, int]) -> None:
        table = token_bytes(definition)
        self.vocab_size = len(table)
        self.special: Mapping[str, int] = dict(special)
        added = [token["id"] for token in definition.get("added_tokens") or [] if token.get("special")]
        self.special_ids = np.unique(np.array([*added, *special.values()], dtype=np.uint32))
        self.lengths = np.array([len(value) for value in table], dtype=np.int64)
        self._table = token_table(table)
        self._meta_space = is_meta_space(definition)
        # One that loses text by design runs as it is; for all others every text can be recovered.
        self._dummy: DummyPrefix = "none" if losses(definition) else dummy_prefix_rule(definition)
        self.dummy_prefix = self._dummy != "none"

    def decode_batch(self, encoded: Encoded) -> Texts:
        """The bytes of each list; see :meth:`headrace.tokens.engine.Engine.decode_batch`."""
        return Texts(*bytes_of(encoded.tokens, encoded.offsets, self._table))

    def decode(self, tokens: np.ndarray, first: bool = True) -> bytes:
        """The bytes of one list; see :meth:`headrace.tokens.engine.Engine.decode`."""
        tokens = np.asarray(tokens)
        data = bytes_of(tokens, np.array([0, len(tokens)]), self._table)[0].tobytes()
        return data[1:] if first and self.dummy_prefix and data[:1] == b" " else data

    def spellings(self) -> list[str]:
        """The text of each special id."""
        return [self.decode(np.array([index]), first=False).decode("utf-8", "replace") for index in self.special_ids]


class TableEngine(Decoder, ABC):
    """The part of an :class:`~headrace.tokens.engine.Engine` that does not depend on how texts are encoded."""

    def refuse_speakable(self, spelled: Encoded) -> None:
        """Reject special tokens whose spelling is also a word in the vocabulary: ordinary text would produce them.

        Args:
            spelled: the spellings of :attr:`special_ids`, encoded as text.

        Raises:
            UserError: one of them encodes to a special id.
        """
        spoken = np.isin(spelled.tokens, self.special_ids)
        if spoken.any():
            which = int(np.searchsorted(spelled.offsets, np.argmax(spoken), side="right")) - 1
            raise UserError(
                f"The special token {self.spellings()[which]!r} also occurs as a token of ordinary text.",
                "tokenizer.special",
                "Choose a spelling that is not a word, such as <|name|>.",
            )

    def count(self, texts: Texts | Iterable[str], first: bool | np.ndarray = True) -> np.ndarray:
        """int64[n]: the number of tokens in each text."""
        return np.diff(self.encode(texts, first).offsets)

    def spans(
        self, encoded: Encoded, first: bool | np.ndarray = True, texts: Texts | Iterable[str] | None = None
    ) -> np.ndarray:
        """The range of bytes in its text that each token stands for; see
        :meth:`headrace.tokens.engine.Engine.spans`."""
        batch = texts if texts is None or isinstance(texts, Texts) else Texts.of(texts)
        if batch is None:
            prefixed = np.broadcast_to(np.asarray(first, dtype=bool), encoded.count) & self.dummy_prefix
        else:
            prefixed = self.leading(batch, first)
        out = np.empty((len(encoded.tokens), 2), dtype=np.int64)
        walk_spans(encoded.tokens, encoded.offsets, self.lengths, prefixed, out)
        if batch is not None and self._meta_space:
            widen_meta_spaces(batch.data, batch.offsets, encoded.offsets, out)
        return out

    def leading(self, batch: Texts, first: bool | np.ndarray) -> np.ndarray:
        """bool[n]: which texts get a dummy space."""
        return leading(batch, first, self._dummy, self._meta_space)

    @abstractmethod
    def encode(self, texts: Texts | Iterable[str], first: bool | np.ndarray = True) -> Encoded:
        """Encode a batch; see :meth:`headrace.tokens.engine.Engine.encode`."""
