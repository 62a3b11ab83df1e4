"""Find control tokens in a text as transformers does: added tokens, the longest at each place, from the left."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any, NamedTuple

from headrace.tokens.dummy_prefix import dummy_prefix_rule
from headrace.tokens.vocabulary import added_tokens, parts


class Found(NamedTuple):
    """A control token in a text: the range of characters that it takes, and its id."""

    start: int
    end: int
    id: int


class ControlTokens:
    """The control tokens of a tokenizer: those that its definition calls special, and those with a role.

    Added tokens that are not special hide what they overlap, and stay text: the engine cuts them out of it.

    Args:
        definition: a tokenizers JSON, parsed.
        special: role -> id.

    Attributes:
        ids: spelling -> id.
        spaced: whether the tokenizer puts a dummy space before the text after each control token, as ``Prepend`` does,
            rather than only before the first.
    """

    def __init__(self, definition: dict[str, Any], special: Mapping[str, int]) -> None:
        roles = set(special.values())
        self._tokens = {token["content"]: token for token in added_tokens(definition) if token["content"]}
        self.ids: dict[str, int] = {
            text: token["id"] for text, token in self._tokens.items() if token.get("special") or token["id"] in roles
        }
        longest = sorted(self._tokens, key=len, reverse=True)
        self._pattern = re.compile("|".join(map(re.escape, longest)) or "(?!)")
        splits = parts(definition, "pre_tokenizer")
        first = any(part["type"] == "Metaspace" and part.get("prepend_scheme") == "first" for part in splits)
        self.spaced = dummy_prefix_rule(definition) != "none" and not first

    def find(self, text: str) -> list[Found]:
        """The control tokens in a text, in order."""
        found, at = [], 0
        for match in self._pattern.finditer(text):
            token, (start, end) = self._tokens[match[0]], match.span()
            if match[0] not in self.ids or start < at:
                continue
            if token.get("single_word") and (_in_word(text[start - 1 : start]) or _in_word(text[end : end + 1])):
                continue
            if token.get("lstrip"):
                start = at + len(text[at:start].rstrip())
            if token.get("rstrip"):
                end += len(text[end:]) - len(text[end:].lstrip())
            found.append(Found(start, end, token["id"]))
            at = end
        return found

    def spelled(self, text: str) -> list[tuple[int, int]]:
        """The ranges of characters in which a text spells a control token, or could begin or end one."""
        ranges = [match.span() for match in self._pattern.finditer(text) if match[0] in self.ids]
        for token in self.ids:
            # Whitespace at the ends may be stripped before the text is joined with another.
            left = len(text) - len(text.lstrip())
            right = len(text.rstrip())
            for n in range(1, len(token)):
                if text.startswith(token[-n:], left):
                    ranges.append((left, left + n))
                if text.endswith(token[:n], left, right):
                    ranges.append((right - n, right))
            if text.strip() and text.strip() in token:
                ranges.append((left, right))
        return ranges


def _in_word(character: str) -> bool:
    return character.isalnum() or character == "_"
