"""What joins the files of a group, as tokens."""

from __future__ import annotations

import string
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from headrace.recipe.grouping import Group
from headrace.tokens.control import ControlTokens
from headrace.tokens.engine import Engine, Texts

Parts = tuple[int | str, ...]
"""Control tokens, and texts to fill in."""


def deciding(group: Group) -> dict[str, Any]:
    """What decides a stage's rows, beside the groups themselves: what the keys come to, not how they are written."""
    about = {"metadata": group.metadata, "limit": group.limit, "shuffled": group.order == "shuffled"}
    return {**dict(zip(("start", "header", "separator"), group.joined, strict=False)), **about}


@dataclass(frozen=True)
class Joiner:
    """What joins the files of the groups of a source.

    Attributes:
        start: precedes the first file.
        before: of the header, what ends with its last control token.
        header: the rest of it, which is tokenized with the file.
        separator: stands between files.
        eod: the token that ends documents.
    """

    start: Parts
    before: Parts
    header: str
    separator: Parts
    eod: int

    @staticmethod
    def of(group: Group, control: ControlTokens, eod: int) -> Joiner:
        """What a recipe asks for.

        Raises:
            UserError: the tokenizer lacks a control token of the format.
        """
        joined = group.joined
        if missing := [text for text in group.tokens if text not in control.ids]:
            raise group.lacking(missing)
        header = _parts(joined.header, control)
        text = header[-1] if header and isinstance(header[-1], str) else ""
        before = header[:-1] if text else header
        separator = tuple(_filled(part, {}) for part in _parts(_escaped(joined.separator), control))
        return Joiner(_parts(joined.start, control), before, str(text), separator, eod)

    def between(self, engine: Engine) -> tuple[np.ndarray, np.ndarray]:
        """The tokens between two files, of which the first is as it was, or rearranged by FIM.

        A model learns where a rearranged file's middle ends from the token that follows, so that must be none that text
        could go on with: without a control token there, the end of a document stands for the separator.

        Returns:
            uint32[n] and uint32[m].
        """
        plain = encode_parts([list(self.separator)], engine)[0]
        if self.separator and isinstance(self.separator[0], int):
            return plain, plain
        return plain, np.array([] if self.before and isinstance(self.before[0], int) else [self.eod], dtype=np.uint32)

    def headed(
        self, texts: list[bytes], fields: Sequence[Mapping[str, str | None]], named: np.ndarray, engine: Engine
    ) -> tuple[Texts, list[np.ndarray], np.ndarray]:
        """Files with their headers.

        Args:
            texts: the files' text.
            fields: their ``repo``, ``path`` and ``language``; a header without a value for one of its names is left
                out.
            named: bool[n], whether they get names.
            engine: the tokenizer.

        Returns:
            the texts to tokenize, the tokens before each, and int64[n] how many of these only a first file has.
        """
        whole, lists = [], []
        for text, values, full in zip(texts, fields, named.tolist(), strict=True):
            whole.append((_filled(self.header, values) or "").encode() + text if full else text)
            parts = [*self.start, None, *self.before] if full else [None, *self.before]
            lists.append([_filled(part, values) if full else part for part in parts])
        starts = [one[: one.index(None)] for one in lists]
        befores = [[part for part in one[one.index(None) + 1 :] if full or isinstance(part, int)]
                   for one, full in zip(lists, named.tolist(), strict=True)]  # fmt: skip
        # A start whose name is not known is left out as a whole, with its control tokens.
        starts = [[] if "" in one else one for one in starts]
        encoded = encode_parts([*starts, *befores], engine)
        leads, rest = encoded[: len(texts)], encoded[len(texts) :]
        tokens = [np.concatenate(pair) for pair in zip(leads, rest, strict=True)]
        return Texts.of(whole), tokens, np.array([len(lead) for lead in leads], dtype=np.int64)


def encode_parts(lists: list[list[Any]], engine: Engine) -> list[np.ndarray]:
    """The tokens of lists of control tokens and texts: uint32 each."""
    texts = [part for parts in lists for part in parts if isinstance(part, str)]
    encoded = engine.encode(Texts.of(texts), False)
    out, at = [], 0
    for parts in lists:
        pieces = [np.empty(0, dtype=np.uint32)]
        for part in parts:
            if isinstance(part, str):
                pieces.append(encoded.of(at))
                at += 1
            else:
                pieces.append(np.array([part], dtype=np.uint32))
        out.append(np.concatenate(pieces))
    return out


def _escaped(text: str) -> str:
    return text.replace("{", "{{").replace("}", "}}")


def _parts(text: str, control: ControlTokens) -> Parts:
    """A text of the recipe, cut at the control tokens that it spells."""
    parts: list[int | str] = []
    at = 0
    for found in control.find(text):
        parts += [text[at : found.start], found.id]
        at = found.end
    return tuple(part for part in (*parts, text[at:]) if part != "")


def _filled(part: int | str | None, values: Mapping[str, str | None]) -> Any:
    """A text with its names filled in; '' if one of them has no value."""
    if not isinstance(part, str):
        return part
    out = []
    for literal, name, _, _ in string.Formatter().parse(part):
        out.append(literal)
        if name is not None:
            value = values.get(name)
            if not value:
                return ""
            out.append(value)
    return "".join(out)
