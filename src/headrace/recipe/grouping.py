"""Grouping: the files of a repository joined into one training document."""

from __future__ import annotations

import string
from typing import Any, Literal, NamedTuple

from pydantic import Field, model_validator

from headrace.errors import UserError
from headrace.recipe.base import Count, Section, wrong


class Joining(NamedTuple):
    """What joins files.

    Attributes:
        start: precedes the first file.
        header: precedes every file.
        separator: stands between files.
        tokens: the control tokens that a format needs.
    """

    start: str
    header: str
    separator: str
    tokens: tuple[str, ...] = ()


# StarCoder2: Lozhkov et al. 2024 (2402.19173), section 5. Qwen2.5-Coder: Hui et al. 2024 (2409.12186).
FORMATS = {
    "plain": Joining("", "", "\n"),
    "starcoder2": Joining("<repo_name>{repo}", "<file_sep>{path}\n", "", ("<repo_name>", "<file_sep>")),
    "qwen2.5-coder": Joining("<|repo_name|>{repo}\n", "<|file_sep|>{path}\n", "\n", ("<|repo_name|>", "<|file_sep|>")),
}
_FIELDS = {"start": ("repo", "language"), "header": ("repo", "path", "language")}


class Group(Section):
    """Join the files of a repository into one training document (StarCoder2, DeepSeek-Coder, Arctic-SnowCoder).

    The files keep their own provenance. Documents of no repository stay alone. A slice, an epoch or a weight takes or
    leaves a group as a whole.
    """

    by: Literal["repo", "folder"] = Field(
        default="repo",
        description="What makes a group: the same `repo`, or the same first folder of the path, for trees of projects.",
    )
    within: Literal["language"] | None = Field(
        default="language",
        description="Files of different languages make groups of their own, as in Arctic-SnowCoder; null joins them.",
    )
    order: Literal["shuffled", "path", "dependencies"] = Field(
        default="shuffled",
        description="Order of the files: shuffled anew for every copy (Arctic-SnowCoder), by path, or files after "
        "those that they import (DeepSeek-Coder; a cycle of imports as a whole).",
    )
    format: Literal["plain", "starcoder2", "qwen2.5-coder"] = Field(
        default="plain",
        description="What joins files: `plain` a newline; `starcoder2` and `qwen2.5-coder` as these models were "
        "trained, with the names of repository and files. The keys below change parts of it.",
    )
    start: str | None = Field(
        default=None,
        description="Text before the first file, in which `{repo}` and `{language}` are filled in. Where it spells one "
        "of the tokenizer's control tokens, it is that token; what is filled in never is.",
    )
    header: str | None = Field(
        default=None,
        description="Text before every file, likewise, with `{path}`: `#{path}\\n` is DeepSeek-Coder's. It is "
        "tokenized, and rearranged by FIM, together with the file.",
    )
    separator: str | None = Field(default=None, description="Text between files, likewise.")
    metadata: float = Field(
        default=1.0,
        ge=0,
        le=1,
        description="Share of groups with the names of repository and files; StarCoder2 used 0.5. The others have only "
        "the control tokens of the header.",
    )
    limit: Count | None = Field(
        default=None,
        ge=2,
        description="Tokens after which a group goes on as another training document, cut between files. A longer file "
        "stands alone. A document never has more than 65,536 files or 2^30 tokens.",
    )

    @property
    def joined(self) -> Joining:
        """What joins files: the format, with the parts that the recipe changes."""
        given = {key: value for key in ("start", "header", "separator") if (value := getattr(self, key)) is not None}
        return FORMATS[self.format]._replace(**given)

    @property
    def tokens(self) -> list[str]:
        """The control tokens that the format needs, and that no key has replaced."""
        start, header, separator, tokens = self.joined
        return [text for text in tokens if text in start + header + separator]

    def lacking(self, missing: list[str]) -> UserError:
        """The error that a tokenizer lacks some of :attr:`tokens`."""
        return UserError(
            f"The tokenizer has no control tokens for files of repositories: {', '.join(missing)}.",
            f"group.format: {self.format}",
            f"Add them: `tokenizer: {{special: {{add: [{', '.join(map(repr, missing))}]}}}}`.",
        )

    @property
    def rule(self) -> dict[str, Any]:
        """What decides groups and the order of their files, for every stage alike."""
        order = None if self.order == "shuffled" else self.order
        return {"by": self.by, "within": self.within, "order": order}

    @model_validator(mode="after")
    def _sensible(self) -> Group:
        for key, fields in _FIELDS.items():
            text = getattr(self, key)
            if text is None:
                continue
            try:
                parts = list(string.Formatter().parse(text))
            except ValueError as error:
                raise wrong(f"{text!r} is no text to fill in: {error}", "write `{{` for a brace", key) from None
            for _, name, how, conversion in parts:
                if name is not None and (name not in fields or how or conversion):
                    allowed = ", ".join(f"`{{{field}}}`" for field in fields)
                    raise wrong(f"{{{name}}} is not filled in here", f"use {allowed}; write `{{{{` for a brace", key)
        return self
