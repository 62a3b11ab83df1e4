"""Long texts: which documents of a source have enough tokens, and a keyed sample of them."""

from __future__ import annotations

import heapq
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
import xxhash
from torch import Tensor

from headrace.documents.readers import reader_of
from headrace.documents.readers.base import Bad, Lost, Part, Record, Tally
from headrace.documents.sources import list_files
from headrace.errors import UserError
from headrace.evaluate.language import Language
from headrace.flow.keys import keyed, salt
from headrace.recipe.schema import Source

# Characters of a text, for each token wanted, that are tokenized at first: code has 3 to 4 a token, and prose 4 to 5.
_AHEAD = 8


@dataclass(frozen=True)
class LongTexts:
    """The beginnings of long documents.

    Attributes:
        tokens: int64 [n, T + 1]: of each, as a model reads a document from its start.
        long_enough: how many documents had as many tokens.
        read: how many there were.
    """

    tokens: Tensor
    long_enough: int
    read: int

    @property
    def digest(self) -> str:
        """A hash of the tokens."""
        return xxhash.xxh3_128_hexdigest(self.tokens.numpy().tobytes())


def texts_of_files(pattern: str, option: str) -> Iterator[str]:
    """The texts of files in any format that a recipe's source may have; rows that are no text are passed over.

    Args:
        pattern: the file; a pattern or URL as in a recipe's ``files``.
        option: what the user gave it as, for errors.

    Raises:
        UserError: there is no such file, it cannot be read, or it has no column of text.
    """
    source = Source.model_validate({"files": [pattern]})
    try:
        for file in list_files("texts", source, 0, Path.cwd()):
            for item in reader_of(file, "texts", source, Path.cwd(), None).read(file, Part(), source, Tally()):
                if isinstance(item, Record) and item.turns is None:
                    yield item.text
                elif isinstance(item, Lost) or (isinstance(item, Bad) and item.rows > 1):
                    raise UserError(f"The file cannot be read: {item.error}.", file.url, "Mend it.")
    except UserError as error:
        raise UserError(error.what, error.where.replace("sources.texts.files", option), error.fix) from None


def choose(texts: Iterable[str], language: Language, length: int, most: int, seed: int) -> LongTexts:
    """Choose documents with at least ``length`` + 1 tokens, the one that starts a document included.

    Which are chosen is drawn with keys of their texts: it depends neither on their order nor on the model.

    Args:
        texts: the documents; those that are not chosen are not kept.
        language: what tokenizes.
        length: T, the tokens whose losses are wanted.
        most: how many documents.
        seed: of the draws.
    """
    drawn, read, enough = salt(seed, "long texts"), 0, 0
    kept: list[tuple[int, int, np.ndarray]] = []
    for text in texts:
        read += 1
        if len(text) + 1 < length / 4:  # a character has at most four bytes, and a token has one at least
            continue
        ids = _beginning(text, language, length + 1)
        if ids is None:
            continue
        enough += 1
        name = np.array([xxhash.xxh3_64_intdigest(text.encode("utf-8", errors="surrogatepass"))], dtype=np.uint64)
        heapq.heappush(kept, (-int(keyed(drawn, name)[0]), -read, ids))
        if len(kept) > most:
            heapq.heappop(kept)
    chosen = [ids for *_, ids in sorted(kept, key=lambda one: one[:2], reverse=True)]
    tokens = np.stack(chosen) if chosen else np.zeros((0, length + 1), dtype=np.int64)
    return LongTexts(torch.from_numpy(tokens), enough, read)


def _beginning(text: str, language: Language, count: int) -> np.ndarray | None:
    """The first tokens of a text; None if it has fewer."""
    ahead = text[: _AHEAD * count]
    ids = language.encode(ahead)
    if len(ids) < count + count // 2 and len(ahead) < len(text):  # the cut must not show in them
        ids = language.encode(text)
    return np.array(ids[:count], dtype=np.int64) if len(ids) >= count else None
