"""What all tokenizer engines share: facts of the vocabulary, decoding and spans by table."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from headrace.errors import UserError
from headrace.flow.exchange import gather
from headrace.tokens.definition import fingerprint
from headrace.tokens.engine import Encoded, Texts
from headrace.tokens.vocabulary import token_bytes


class TableEngine:
    """The part of an :class:`~headrace.tokens.engine.Engine` that does not depend on how texts are encoded.

    Args:
        definition: a tokenizers JSON, parsed.
        special: role -> id of the tokens with a duty.

    Raises:
        UserError: the tokenizer does not keep every byte of a text.
    """

    dummy_prefix: bool

    def __init__(self, definition: dict[str, Any], special: Mapping[str, int]) -> None:
        table = token_bytes(definition)
        self.vocab_size = len(table)
        self.fingerprint = fingerprint(definition)
        self.special: Mapping[str, int] = dict(special)
        added = [token["id"] for token in definition.get("added_tokens") or [] if token.get("special")]
        self.special_ids = np.unique(np.array([*added, *special.values()], dtype=np.uint32))
        self.lengths = np.array([len(value) for value in table], dtype=np.int64)
        self._starts = np.cumsum(self.lengths) - self.lengths
        self._bytes = np.frombuffer(b"".join(table), dtype=np.uint8)

    def refuse_speakable(self, spelled: Encoded) -> None:
        """Refuse special tokens whose spelling the model also learnt as a word: they would come out of text.

        Args:
            spelled: the spellings of :attr:`special_ids`, encoded as text.

        Raises:
            UserError: one of them yields a special id.
        """
        spoken = np.isin(spelled.tokens, self.special_ids)
        if spoken.any():
            which = int(np.searchsorted(spelled.offsets, np.argmax(spoken), side="right")) - 1
            raise UserError(
                f"The special token {self.spellings()[which]!r} also comes out of ordinary text.",
                "tokenizer.special",
                "Spell it so that it is no word, such as <|name|>.",
            )

    def spellings(self) -> list[str]:
        """The text of each special id."""
        return [self.decode(np.array([index]), first=False).decode("utf-8", "replace") for index in self.special_ids]

    def decode_batch(self, encoded: Encoded) -> Texts:
        """The bytes of each list; see :meth:`headrace.tokens.engine.Engine.decode_batch`."""
        lengths = self.lengths[encoded.tokens]
        ends = np.concatenate([[0], np.cumsum(lengths)])
        return Texts(gather(self._bytes, self._starts[encoded.tokens], lengths), ends[encoded.offsets])

    def decode(self, tokens: np.ndarray, first: bool = True) -> bytes:
        """The bytes of one list; see :meth:`headrace.tokens.engine.Engine.decode`."""
        tokens = np.asarray(tokens)
        data = gather(self._bytes, self._starts[tokens], self.lengths[tokens]).tobytes()
        return data[1:] if first and self.dummy_prefix and data[:1] == b" " else data
