"""The recipe's rules about rights: which licenses are permitted, and who opted out."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import AfterValidator, BeforeValidator, Field, model_validator

from headrace import spdx
from headrace.recipe.base import Section, listed, suggest, wrong


def _pattern(text: str) -> str:
    """An identifier or pattern that covers at least one license of the SPDX list."""
    known = spdx.ids()
    if any(sign in text for sign in "*?["):
        if any(spdx.matches(text, name) for name in known):
            return text
        raise wrong(f"no SPDX license is like {text!r}", "see spdx.org/licenses")
    found = spdx.expression(text)
    if found is None:
        raise wrong(f"{text!r} is not an SPDX license", suggest(text, known) or "see spdx.org/licenses")
    if " OR " in found or " AND " in found:
        raise wrong(f"{text!r} is several licenses", "list each")
    return found


Pattern = Annotated[str, AfterValidator(_pattern)]
Patterns = Annotated[tuple[Pattern, ...], BeforeValidator(listed)]
"""SPDX identifiers, or patterns of them such as ``GPL-*``."""


class Licenses(Section):
    """Which licenses a source's documents may have; others are removed as `license`.

    With this section, even an empty one, each document's license is searched for. In order of precedence it is found
    in lines `SPDX-License-Identifier: ...` among its first lines; its record's field; the license file (`LICENSE`,
    `COPYING`, ...) next to it, or nearest above it, in its repository, if `repo` and `path` are known; the source's
    `license`. Of licenses joined by `OR` one must be permitted, of those joined by `AND` all; several license files in
    one folder count as `AND`.
    """

    allow: Patterns = Field(
        default=(),
        description="Licenses that are permitted, as SPDX identifiers or patterns such as `CC-BY-*`; none: all are.",
    )
    deny: Patterns = Field(
        default=(), description="Licenses that are not, such as `[GPL-*, AGPL-*]`; these take precedence over `allow`."
    )
    unknown: Literal["keep", "remove"] | None = Field(
        default=None,
        description="What to do with documents whose license is not known or not on the SPDX list; null removes them "
        "if there is an `allow` list, and keeps them otherwise.",
    )

    @property
    def removes_unknown(self) -> bool:
        """Whether documents without a known license are removed."""
        return bool(self.allow) if self.unknown is None else self.unknown == "remove"

    @property
    def restricts(self) -> bool:
        """Whether anything is removed at all."""
        return bool(self.allow or self.deny or self.removes_unknown)


Lists = Annotated[tuple[str, ...], BeforeValidator(listed)]


class OptOut(Section):
    """Lists of what must not be used, one entry per line; documents on them are removed as `opt_out`.

    Blank lines and lines that start with `#` are skipped. Entries are compared without regard to case.
    """

    repositories: Lists = Field(
        default=(),
        description="Files of repositories: `owner/name`, its URL, or `owner` for all of an owner's; compared with the "
        "column `repo`.",
    )
    paths: Lists = Field(
        default=(),
        description="Files of paths: `owner/name:path/to/file`, or `path/to/file` in any repository; a folder, which "
        "ends in `/`, covers everything below it. Compared with the columns `repo` and `path`.",
    )
    urls: Lists = Field(
        default=(),
        description="Files of URLs: a page, everything below an address that ends in `/`, or a domain with its "
        "subdomains. Compared with the record's field `url`.",
    )
    ids: Lists = Field(default=(), description="Files of document ids, 32 hexadecimal digits each.")

    @model_validator(mode="after")
    def _no_globs(self) -> OptOut:
        for kind in OptOut.model_fields:
            for i, name in enumerate(getattr(self, kind)):
                if not name.strip():
                    raise wrong("an empty path", "name a file", f"{kind}.{i}")
        return self

    def __bool__(self) -> bool:
        """Whether there are any lists."""
        return any(getattr(self, kind) for kind in OptOut.model_fields)
