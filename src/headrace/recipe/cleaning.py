"""The recipe's second part: what is removed before tokenising, and which split a document is in."""

from __future__ import annotations

from typing import Annotated, ClassVar, Literal

from pydantic import BeforeValidator, Field, model_validator

from headrace.recipe.base import Count, Name, Section, listed, wrong
from headrace.recipe.functions import Rule


class ShortOverride(Section):
    """What one source does differently about short documents; null keys take the filter's own values."""

    min_characters: Count | None = Field(
        default=None, description="Fewest characters for this source; 0 keeps everything."
    )
    count_spaces: bool | None = Field(default=None, description="Whether spaces count for this source.")


class ShortFilter(Section):
    """Remove documents that are short once lower-cased, stripped of ASCII punctuation and of repeated white space.

    SlimPajama's filter: 200 characters removed 1.86 % of its documents.
    """

    min_characters: Count = Field(default=200, description="Fewest characters a cleaned document may have.")
    count_spaces: bool = Field(
        default=True,
        description="Count the single spaces between words, as SlimPajama's code does (its text says it does not).",
    )
    sources: dict[Name, ShortOverride] = Field(
        default={},
        description="Overrides per source. Conversations are left alone, unless their source is named here: "
        "`chat: {}` takes the values above.",
    )

    def of(self, source: str) -> tuple[int, bool]:
        """The fewest characters and whether spaces count, for one source."""
        override = self.sources.get(source, ShortOverride())
        least = self.min_characters if override.min_characters is None else override.min_characters
        spaces = self.count_spaces if override.count_spaces is None else override.count_spaces
        return least, spaces


class CodeFilter(Section):
    """StarCoder's filters for source code (Li et al. 2023, 2305.06161; Lozhkov et al. 2024, 2402.19173).

    Every limit may be null, which switches that rule off. Data-like formats (HTML, JSON, Markdown, TeX, XML, YAML,
    plain text) are exempt from the rules on line length and have `max_data_line` instead.
    """

    sources: tuple[Name, ...] | None = Field(
        default=None, description="Sources it looks at; null means all but conversations."
    )
    max_line: int | None = Field(default=1000, ge=1, description="Longest line, in characters.")
    mean_line: float | None = Field(default=100, gt=0, description="Longest mean line, in characters.")
    max_lines: int | None = Field(default=100_000, ge=1, description="Most lines.")
    max_data_line: int | None = Field(
        default=100_000, ge=1, description="Longest line of data-like formats, in characters."
    )
    min_alphanumeric: float | None = Field(default=0.25, ge=0, le=1, description="Least share of letters and digits.")
    min_alphabetic: float | None = Field(default=0.25, ge=0, le=1, description="Least share of letters.")
    generated: bool = Field(default=True, description="Remove files whose first lines say that a program wrote them.")
    max_encoded: float | None = Field(
        default=0.5,
        ge=0,
        le=1,
        description="Largest share of base64, hexadecimal or escaped data in long unbroken stretches.",
    )
    html_min_visible: float | None = Field(
        default=0.2, ge=0, le=1, description="HTML: least share of visible text, of which there must be 100 characters."
    )
    data_characters: tuple[int, int] | None = Field(
        default=(50, 5000), description="JSON and YAML: fewest and most characters of a file."
    )
    xml: bool = Field(default=True, description="Remove files of other languages that begin with an XML declaration.")

    @model_validator(mode="after")
    def _ordered(self) -> CodeFilter:
        if self.data_characters is not None and not 0 <= self.data_characters[0] <= self.data_characters[1]:
            raise wrong("data_characters is reversed", "write [fewest, most], such as [50, 5000]", "data_characters")
        return self


class Filters(Section):
    """Rules that look at one document at a time; null leaves a filter off."""

    short: ShortFilter | None = Field(default=None, description="Remove short documents; `{}` takes the defaults.")
    code: CodeFilter | None = Field(
        default=None, description="StarCoder's rules for source code; `{}` takes the defaults."
    )
    rules: tuple[Rule, ...] = Field(
        default=(), description="Rules of your own over measures and columns, after the filters above."
    )

    @model_validator(mode="after")
    def _named_once(self) -> Filters:
        seen: set[str] = set()
        for i, rule in enumerate(self.rules):
            if rule.name in seen or rule.name in CodeFilter.model_fields:
                raise wrong(f"the name {rule.name!r} of the rule is taken", "give it another", f"rules.{i}.name")
            seen.add(rule.name)
        return self


class Near(Section):
    """Near-duplicates by MinHash and banded locality-sensitive hashing (Broder 1997; Leskovec et al., ch. 3)."""

    # Bands are made for a threshold and a size of signature.
    alternatives: ClassVar = {"threshold": ("bands", "rows"), "values": ("bands", "rows")}

    unit: Literal["characters", "words"] = Field(default="characters", description="What a shingle is made of.")
    ngram: int = Field(default=13, ge=1, description="Units in a shingle; SlimPajama takes 13 characters.")
    signature: Literal["fast", "datasketch"] = Field(
        default="fast",
        description="`fast`: similarity sketching (Dahlgaard et al. 2017). `datasketch`: bit for bit the MinHash of "
        "datasketch 1.5.9 with seed 1 and sha1_hash32, which finds SlimPajama's duplicates to the document at a tenth "
        "of the speed; documents of fewer units than a shingle are then all candidates of each other.",
    )
    values: int = Field(default=128, ge=1, description="Hash values in a signature.")
    threshold: float = Field(
        default=0.8, gt=0, lt=1, description="Jaccard similarity at which two documents count as the same."
    )
    bands: int | None = Field(
        default=None,
        ge=1,
        description="Bands of the signature; null finds bands and rows for the threshold (9 x 13 at 0.8).",
    )
    rows: int | None = Field(default=None, ge=1, description="Values in a band; stated together with `bands`.")
    verify: bool = Field(
        default=False,
        description="Remove a document only if a candidate of it that is kept has a true Jaccard similarity of at "
        "least the threshold; without this a group of candidates keeps one document, as SlimPajama did.",
    )

    @model_validator(mode="after")
    def _fits(self) -> Near:
        if (self.bands is None) != (self.rows is None):
            missing = "rows" if self.rows is None else "bands"
            raise wrong(
                f"bands and rows go together, {missing} is missing", f"add {missing}, or leave both out", missing
            )
        if self.bands is not None and self.rows is not None and self.bands * self.rows > self.values:
            raise wrong(
                f"{self.bands} bands of {self.rows} rows need {self.bands * self.rows} values, there are {self.values}",
                "lower bands or rows, or raise values",
                "bands",
            )
        return self


class Deduplicate(Section):
    """Remove copies within and between all sources.

    Of a group the document is kept that no other verdict removes, whose source comes first, that is longest.
    """

    exact: bool = Field(default=True, description="Find documents whose normalised text is the same.")
    near: Near | None = Field(default=Near(), description="Find near-duplicates; null leaves this off.")
    keep: Literal["one", "none"] = Field(
        default="one",
        description="How many of a group of copies stay: with `none` a document that has copies is removed with them.",
    )
    priority: tuple[Name, ...] = Field(
        default=(),
        description="Sources in falling order of whose copy is kept; the others follow in the recipe's order.",
    )

    @model_validator(mode="after")
    def _unique(self) -> Deduplicate:
        if len(set(self.priority)) < len(self.priority):
            raise wrong("a source stands twice in the priority list", "name each source once", "priority")
        return self


class Benchmark(Section):
    """Files whose contents must not be trained on."""

    files: Annotated[tuple[str, ...], BeforeValidator(listed)] = Field(
        min_length=1,
        description="Path or glob of the benchmark's files, or a list of them; .jsonl, .json, .parquet, .gz, .zst.",
    )
    fields: Annotated[tuple[str, ...], BeforeValidator(listed)] = Field(
        min_length=1, description="Fields to look for, such as `[prompt, canonical_solution]`."
    )


class Decontaminate(Section):
    """Remove documents that hold items of a benchmark."""

    benchmarks: dict[Name, Benchmark] = Field(min_length=1, description="Benchmarks by name.")
    ngram: int = Field(default=10, ge=1, description="Units in an n-gram.")
    unit: Literal["words", "code"] = Field(
        default="words", description="What an n-gram is made of: words, or the tokens of a programming language."
    )
    overlap: float = Field(
        default=0.5, gt=0, le=1, description="Share of an item's n-grams that a document may not reach."
    )
    substring: bool = Field(
        default=True, description="Also remove documents that hold the exact text of an item's field."
    )


class Split(Section):
    """Which documents are held out: a keyed hash of their content decides, so copies fall on the same side."""

    validation: float = Field(default=0.01, ge=0, le=1, description="Share of documents held out for validation.")
    test: float = Field(default=0.0, ge=0, le=1, description="Share of documents held out for testing.")
    check: Literal["exact", "near"] | None = Field(
        default="exact", description="Remove from training what is a copy, or a near-duplicate, of a held-out document."
    )

    @model_validator(mode="after")
    def _leaves_something(self) -> Split:
        if self.validation + self.test >= 1:
            raise wrong(
                f"validation and test take {self.validation + self.test:g} of all documents: none are left to train on",
                "choose shares whose sum is below 1, such as 0.01",
            )
        return self


class Withdrawn(Section):
    """Documents that are taken out at the wish of those who wrote or own them.

    `headrace withdraw RUN` adds to it for one run, and lists the steps of training that saw them.
    """

    ids: tuple[Annotated[str, Field(pattern="^[0-9a-f]{32}$")], ...] = Field(
        default=(), description="Ids of documents, 32 digits each; all documents of that text."
    )
    repos: tuple[str, ...] = Field(default=(), description="Repositories, as documents name them.")
    licenses: tuple[str, ...] = Field(default=(), description="Licences, as documents name them.")

    def __bool__(self) -> bool:
        """Whether anything is withdrawn."""
        return bool(self.ids or self.repos or self.licenses)

    def in_order(self) -> Withdrawn:
        """The same, sorted and each once."""
        return self.and_also(Withdrawn())

    def and_also(self, other: Withdrawn) -> Withdrawn:
        """What either withdraws, sorted."""
        return Withdrawn(
            ids=tuple(sorted({*self.ids, *other.ids})),
            repos=tuple(sorted({*self.repos, *other.repos})),
            licenses=tuple(sorted({*self.licenses, *other.licenses})),
        )
