"""The recipe's first part: where documents come from and how to read them."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import BeforeValidator, Discriminator, Field, Tag, model_validator

from headrace.recipe.base import Section, Size, listed, wrong
from headrace.recipe.expected import Expect
from headrace.recipe.functions import Map, Reader
from headrace.recipe.grouping import Group
from headrace.recipe.licences import Licenses

Format = Literal[
    "auto", "jsonl", "json", "csv", "parquet", "arrow", "text", "docstrings", "pydoc_topics", "chat", "docstring_chat"
]
AnyFormat = Annotated[
    Annotated[Format, Tag("[name]")] | Annotated[Reader, Tag("[function]")],
    Discriminator(lambda value: "[name]" if isinstance(value, str) else "[function]"),
]
"""One of headrace's formats, or a user-defined reader."""

CHAT_FORMATS: frozenset[str] = frozenset({"chat", "docstring_chat"})


class FileSet(Section):
    """Some files of a source: a path or glob, and their format if it differs from the source's."""

    glob: str = Field(
        min_length=1,
        description="Path, glob (`**` crosses folders) or fsspec URL. `${recipe}` is the recipe's folder, `${stdlib}`"
        " Python's standard library, `${site}` the installed packages; other `${NAME}` come from the "
        "environment.",
    )
    format: AnyFormat | None = Field(default=None, description="Format of these files; null uses the source's.")


def _filesets(value: object) -> object:
    return [{"glob": item} if isinstance(item, str) else item for item in value] if isinstance(value, list) else value


class Fields(Section):
    """Fields of the data that fill the columns of Documents."""

    license: str | None = Field(default=None, description="Field that holds a document's license.")
    repo: str | None = Field(default=None, description="Field that holds a document's repository.")
    path: str | None = Field(default=None, description="Field that holds a document's path inside its repository.")
    language: str | None = Field(default=None, description="Field that holds a document's language.")


class Source(Section):
    """A named corpus: its files, their format, and metadata that applies to all its documents."""

    files: Annotated[tuple[FileSet, ...], BeforeValidator(_filesets), BeforeValidator(listed)] = Field(
        default=(),
        description="One path, glob or URL, or a list of them; each may be `{glob: ..., format: ...}`. Required, "
        "unless a section `synthetic` of the same name makes the documents.",
    )
    synthetic: Literal["text", "chat"] | None = Field(
        default=None, description="What the section `synthetic` of the same name makes; filled in automatically."
    )
    exclude: Annotated[tuple[str, ...], BeforeValidator(listed)] = Field(
        default=(), description="Globs of files to exclude."
    )
    format: AnyFormat = Field(
        default="auto",
        description="How to read the files. `auto` goes by the suffix, also compressed (.gz, .zst, .xz, .bz2), and "
        "skips files not known to be records or text. `docstrings` extracts the docstrings of Python "
        "modules as prose, `pydoc_topics` the topics of Python's help; `chat` finds conversations like ShareGPT's, "
        "Alpaca's, OpenAI's, OASST's and guanaco's, `docstring_chat` turns functions and their docstrings into "
        "conversations; `{python: FILE:FUNCTION}` is your own reader.",
    )
    text: str = Field(
        default="text",
        min_length=1,
        description="Field that holds the text; `doc.text` is the field `text` inside the field `doc`, unless a field"
        " has that literal name.",
    )
    paths: Literal["best", "all"] = Field(
        default="best",
        description="Of message trees (OASST): the conversation that takes the best-ranked reply at every step, or "
        "every path to a last answer.",
    )
    fields: Fields = Field(
        default=Fields(),
        description="Fields of the data that hold license, repository, path and language; dots reach nested fields.",
    )
    license: str | None = Field(default=None, description="License (SPDX) for documents whose data give none.")
    licenses: Licenses | None = Field(
        default=None,
        description="Search each document's license, and remove documents whose license is not permitted; null takes "
        "licenses as the records and `license` state them, and removes none.",
    )
    repo: str | None = Field(default=None, description="Repository for documents whose data give none.")
    group: Group | None = Field(
        default=None,
        description="Join the files of a repository into one training document, in every stage; `{}` takes the "
        "defaults.",
    )
    language: str | None = Field(default=None, description="Language for documents whose data give none.")
    limit: Size | None = Field(
        default=None,
        description="Read at most this much, such as `8MB`, in bytes of the files (of decompressed text for "
        "compressed files): whole files or rows, in keyed order of file names.",
    )
    expect: Expect | None = Field(
        default=None,
        description="Known facts: counts and rates, for `headrace plan` and to compare the run with.",
    )

    @property
    def is_counted(self) -> bool:
        """Whether the recipe states how much text there is, so that a plan needs no files."""
        return self.expect is not None and self.expect.gives_size

    @property
    def is_chat(self) -> bool:
        """Whether the documents are conversations."""
        return self.synthetic == "chat" or any(self.format_of(files) in CHAT_FORMATS for files in self.files)

    def format_of(self, files: FileSet) -> str:
        """The name of the reader for some files: a format, or the key of a user-defined reader."""
        asked = files.format or self.format
        return asked.key if isinstance(asked, Reader) else asked

    @property
    def readers(self) -> dict[str, Reader]:
        """User-defined readers, by key."""
        asked = [files.format or self.format for files in self.files]
        return {reader.key: reader for reader in asked if isinstance(reader, Reader)}

    @model_validator(mode="after")
    def _one_kind(self) -> Source:
        if self.synthetic is None and not self.files:
            raise wrong("the source has no files", "name one path, glob or URL, or several", "files")
        if self.synthetic is not None and (self.files or self.limit is not None):
            key = "files" if self.files else "limit"
            raise wrong("a synthetic source is not read from files", "remove it, or rename one of the two", key)
        kinds = {self.format_of(files) in CHAT_FORMATS for files in self.files}
        if len(kinds) > 1:
            raise wrong(
                "a source contains either conversations or plain documents, but this one has both",
                "split it into two sources",
                "files",
            )
        if self.group is not None and self.is_chat:
            raise wrong("conversations are not grouped", "remove it", "group")
        if self.limit == 0:
            raise wrong("a limit of 0 bytes reads nothing", "remove the source, or raise the limit", "limit")
        return self


def _sources(value: object) -> object:
    return [{"files": item} if isinstance(item, str) else item for item in value] if isinstance(value, list) else value


Elsewhere = Annotated[tuple[Source, ...], BeforeValidator(_sources), BeforeValidator(listed)]
"""Documents that are not part of the corpus: a path, the keys of a source, or a list of these."""

# GitHub accepts no larger file (100 MiB); the rest allows for JSON escapes.
MAX_DOCUMENT = 128 << 20
# Parquet stores the size of a value, and of its pages, as int32.
LARGEST_VALUE = (1 << 31) - (1 << 20)


class DocumentsConfig(Section):
    """How raw text becomes documents."""

    normalise: Literal["nfc", "ftfy", "none"] = Field(
        default="nfc",
        description="Unicode normalization: `nfc`; `ftfy` also fixes mojibake, quotes and line endings as SlimPajama "
        "did (alters code and HTML; needs `pip install 'headrace[faithful]'`); `none` leaves text "
        "unchanged.",
    )
    map: tuple[Map, ...] = Field(
        default=(), description="Your own maps, applied to documents in order, before ids are computed."
    )
    max_document: Size = Field(
        default=MAX_DOCUMENT,
        gt=0,
        le=LARGEST_VALUE,
        description="Maximum document size, both as stored in its file (a line, a row, a file) and as text; larger "
        "ones go to quarantine unread. A smaller document that does not fit in --memory stops the run.",
    )
    max_quarantined: float = Field(
        default=0.01,
        ge=0,
        le=1,
        description="The run stops if more than this share of a source is bad or lost: records, or bytes that damaged"
        " files promised but did not deliver.",
    )
