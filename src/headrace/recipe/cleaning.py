"""The recipe's second part: what to remove before tokenizing, and which split a document belongs to."""

from __future__ import annotations

from typing import Annotated, ClassVar, Literal

from pydantic import BeforeValidator, Field, model_validator

from headrace.recipe.base import Count, Name, Section, listed, suggest, wrong
from headrace.recipe.benchmarks import PARTS, BenchmarkKind, known_as
from headrace.recipe.functions import Rule
from headrace.recipe.sources import Elsewhere


class ShortOverride(Section):
    """Overrides of the short filter for one source; null keys use the filter's own values."""

    min_characters: Count | None = Field(
        default=None, description="Minimum characters for this source; 0 keeps everything."
    )
    count_spaces: bool | None = Field(default=None, description="Whether spaces count for this source.")


class ShortFilter(Section):
    """Remove documents that are short after lowercasing, removing ASCII punctuation and collapsing whitespace.

    SlimPajama's filter: 200 characters removed 1.86 % of its documents.
    """

    min_characters: Count = Field(default=200, description="Minimum characters in a cleaned document.")
    count_spaces: bool = Field(
        default=True,
        description="Count the single spaces between words, as SlimPajama's code does (its paper says it does not).",
    )
    sources: dict[Name, ShortOverride] = Field(
        default={},
        description="Overrides per source. Conversations are exempt unless their source is named here: `chat: {}` "
        "applies the values above.",
    )

    def of(self, source: str) -> tuple[int, bool]:
        """The minimum characters for a source, and whether spaces count."""
        override = self.sources.get(source, ShortOverride())
        least = self.min_characters if override.min_characters is None else override.min_characters
        spaces = self.count_spaces if override.count_spaces is None else override.count_spaces
        return least, spaces


class CodeFilter(Section):
    """StarCoder's filters for source code (Li et al. 2023, 2305.06161; Lozhkov et al. 2024, 2402.19173).

    Set a limit to null to turn that rule off. Data-like formats (HTML, JSON, Markdown, TeX, XML, YAML, plain text) are
    exempt from the line length rules and use `max_data_line` instead.
    """

    sources: tuple[Name, ...] | None = Field(
        default=None, description="Sources to filter; null means all except conversations."
    )
    max_line: int | None = Field(default=1000, ge=1, description="Maximum line length, in characters.")
    mean_line: float | None = Field(default=100, gt=0, description="Maximum mean line length, in characters.")
    max_lines: int | None = Field(default=100_000, ge=1, description="Maximum number of lines.")
    max_data_line: int | None = Field(
        default=100_000, ge=1, description="Maximum line length in data-like formats, in characters."
    )
    min_alphanumeric: float | None = Field(default=0.25, ge=0, le=1, description="Minimum share of letters and digits.")
    min_alphabetic: float | None = Field(default=0.25, ge=0, le=1, description="Minimum share of letters.")
    generated: bool = Field(
        default=True, description="Remove files whose first lines say that a program generated them."
    )
    max_encoded: float | None = Field(
        default=0.5,
        ge=0,
        le=1,
        description="Maximum share of base64, hexadecimal or escaped data in long unbroken runs.",
    )
    html_min_visible: float | None = Field(
        default=0.2,
        ge=0,
        le=1,
        description="HTML: minimum share of visible text, which must also have at least 100 characters.",
    )
    data_characters: tuple[int, int] | None = Field(
        default=(50, 5000), description="JSON and YAML: minimum and maximum characters of a file."
    )
    xml: bool = Field(default=True, description="Remove files in other languages that begin with an XML declaration.")

    @model_validator(mode="after")
    def _ordered(self) -> CodeFilter:
        if self.data_characters is not None and not 0 <= self.data_characters[0] <= self.data_characters[1]:
            raise wrong("data_characters is reversed", "write [min, max], such as [50, 5000]", "data_characters")
        return self


class Filters(Section):
    """Filters that look at one document at a time; null turns a filter off."""

    short: ShortFilter | None = Field(default=None, description="Remove short documents; `{}` uses the defaults.")
    code: CodeFilter | None = Field(
        default=None, description="StarCoder's rules for source code; `{}` uses the defaults."
    )
    rules: tuple[Rule, ...] = Field(
        default=(), description="Your own rules over measures and columns, applied after the filters above."
    )

    @model_validator(mode="after")
    def _named_once(self) -> Filters:
        seen: set[str] = set()
        for i, rule in enumerate(self.rules):
            if rule.name in seen or rule.name in CodeFilter.model_fields:
                raise wrong(f"the rule name {rule.name!r} is taken", "choose another", f"rules.{i}.name")
            seen.add(rule.name)
        return self


class Near(Section):
    """Near-duplicates by MinHash and banded locality-sensitive hashing (Broder 1997; Leskovec et al., ch. 3)."""

    # Bands are chosen for a threshold and a signature size.
    alternatives: ClassVar = {"threshold": ("bands", "rows"), "values": ("bands", "rows")}

    unit: Literal["characters", "words"] = Field(default="characters", description="Unit of a shingle.")
    ngram: int = Field(default=13, ge=1, description="Units per shingle; SlimPajama uses 13 characters.")
    signature: Literal["fast", "datasketch"] = Field(
        default="fast",
        description="`fast`: similarity sketching (Dahlgaard et al. 2017). `datasketch`: MinHash bit-identical to "
        "datasketch 1.5.9 with seed 1 and sha1_hash32; it finds exactly SlimPajama's duplicates at a "
        "tenth of the speed, and treats all documents shorter than one shingle as candidates of each "
        "other.",
    )
    values: int = Field(default=128, ge=1, description="Hash values per signature.")
    threshold: float = Field(
        default=0.8, gt=0, lt=1, description="Jaccard similarity at which two documents count as near-duplicates."
    )
    bands: int | None = Field(
        default=None,
        ge=1,
        description="Bands per signature; null chooses bands and rows for the threshold (9 x 13 at 0.8).",
    )
    rows: int | None = Field(default=None, ge=1, description="Values per band; set together with `bands`.")
    verify: bool = Field(
        default=False,
        description="Remove a document only if its true Jaccard similarity to a kept candidate is at least the "
        "threshold. Without this, a group of candidates keeps one document, as in SlimPajama.",
    )

    @model_validator(mode="after")
    def _fits(self) -> Near:
        if (self.bands is None) != (self.rows is None):
            missing = "rows" if self.rows is None else "bands"
            raise wrong(f"bands and rows go together; {missing} is missing", f"add {missing}, or remove both", missing)
        if self.bands is not None and self.rows is not None and self.bands * self.rows > self.values:
            raise wrong(
                f"{self.bands} bands of {self.rows} rows need {self.bands * self.rows} values; there are {self.values}",
                "lower bands or rows, or raise values",
                "bands",
            )
        return self


class Deduplicate(Section):
    """Remove duplicates within and across all sources, and copies of reference documents outside the corpus.

    Each group keeps one document that no other verdict removes: from the source that comes first, then the longest. A
    group with a reference document keeps none: all its documents are removed as `reference`, held-out ones included,
    whatever `keep` and `priority` say, even those that resemble the reference only through others. With `near.verify`,
    only documents that match a reference document themselves are removed for it.
    """

    exact: bool = Field(default=True, description="Find documents whose normalized text is identical.")
    near: Near | None = Field(default=Near(), description="Find near-duplicates; null turns this off.")
    keep: Literal["one", "none"] = Field(
        default="one",
        description="How many documents of a duplicate group to keep; `none` removes them all.",
    )
    priority: tuple[Name, ...] = Field(
        default=(),
        description="Sources in order of preference for the copy to keep; the others follow in recipe order.",
    )
    against: Elsewhere = Field(
        default=(),
        description="Reference documents: documents like them are removed, never the other way round. Each entry is "
        "the folder of a finished run, for the documents it kept (their text is not read again if that run used the "
        "same `near`), or other documents: a path, or the keys of a source. `documents` applies to these too.",
    )

    @model_validator(mode="after")
    def _agrees(self) -> Deduplicate:
        if len(set(self.priority)) < len(self.priority):
            raise wrong("a source appears twice in the priority list", "name each source once", "priority")
        if self.against and self.near is None and not self.exact:
            fix = "set `exact: true`, or give `near`"
            raise wrong("nothing says what is like a reference document", fix, "against")
        for i, reference in enumerate(self.against):
            if reference.licenses is not None:
                raise wrong("reference documents have no licenses to judge", "remove it", f"against.{i}.licenses")
            if reference in self.against[:i]:
                raise wrong("a reference appears twice in the list", "name each once", f"against.{i}")
        return self


class Benchmark(Section):
    """Files whose content must stay out of the training data.

    A benchmark with the name of a published one (`humaneval`, `mbpp`, `apps`, `ds1000`, `gsm8k`, `bigcodebench`,
    `evoeval`, `livecodebench`) needs only its `files`, in any layout in which they are published: its fields are known.
    """

    files: Annotated[tuple[str, ...], BeforeValidator(listed)] = Field(
        min_length=1,
        description="Path or glob of the benchmark's files, or a list of them: .jsonl, .json, .parquet, .gz, .zst; or "
        "the folder of APPS or DS-1000 as first published.",
    )
    kind: BenchmarkKind | None = Field(
        default=None,
        description="Which published benchmark these files are; null means the one of that name, unless `fields` are "
        "given. HumanEval+ and MBPP+ have the fields of `humaneval` and `mbpp`.",
    )
    fields: Annotated[tuple[str, ...], BeforeValidator(listed)] = Field(
        default=(),
        description="Fields to search for, such as `[prompt, canonical_solution]`. With `kind`, the parts of its items "
        "to search for: see [the how-to](howto.md).",
    )
    code: Annotated[tuple[str, ...], BeforeValidator(listed)] = Field(
        default=(),
        description="Fields that, one after the other, are a program, for `shapes`. A `kind` knows its own.",
    )

    @model_validator(mode="after")
    def _has_parts(self) -> Benchmark:
        if self.kind is None:
            return self
        if self.code:
            raise wrong(f"{self.kind} knows which of its fields are code", "remove it, or `kind`", "code")
        parts = PARTS[self.kind].every
        for name in self.fields:
            if name not in parts:
                fix = suggest(name, parts) or f"choose from {', '.join(parts)}"
                raise wrong(f"the items of {self.kind} have no part {name!r}", fix, "fields")
        return self


LEAST_SHAPE = 0.5  # of a program's n-grams: less is not recorded


class Shapes(Section):
    """Find copies of programs in which names, numbers, strings, comments and the layout were changed.

    Programs are compared by the n-grams of their tokens, in which names and literals count as equal; keywords, built-in
    functions and the names of methods stay.
    """

    ngram: int = Field(default=8, ge=2, le=64, description="Tokens per n-gram.")
    overlap: float = Field(
        default=0.9,
        ge=LEAST_SHAPE,
        le=1,
        description="Share of a program's n-grams, within one stretch of the document, at which it is removed.",
    )
    least: int = Field(
        default=12,
        ge=1,
        description="Programs with fewer distinct n-grams are not searched for: others come to the same shape.",
    )


class Decontaminate(Section):
    """Remove documents that contain benchmark items."""

    benchmarks: dict[Name, Benchmark] = Field(min_length=1, description="Benchmarks, by name.")
    ngram: int = Field(default=10, ge=1, description="Units per n-gram.")
    unit: Literal["words", "code"] = Field(
        default="words", description="Unit of an n-gram: words, or tokens of a programming language."
    )
    overlap: float = Field(
        default=0.5, gt=0, le=1, description="Share of an item's n-grams at which a document is removed."
    )
    substring: bool | Literal["bigcode"] = Field(
        default=True,
        description="Also remove documents that contain the exact text of an item's field, of 50 characters or more, "
        "whatever its whitespace. `bigcode`: as bigcode-dataset's find_substrings.py (StarCoder, Magicoder): "
        "docstrings, questions and solutions of any length but three trivial ones, of MBPP tasks 11 to 510, whitespace "
        "as it is.",
    )
    shapes: Shapes | None = Field(
        default=None,
        description="Also remove documents that contain a program under other names; `{}` uses the defaults.",
    )

    def kind_of(self, name: str) -> BenchmarkKind | None:
        """Which published benchmark one is; None if its fields are given."""
        benchmark = self.benchmarks[name]
        return benchmark.kind or (None if benchmark.fields or benchmark.code else known_as(name))

    def parts_of(self, name: str) -> tuple[str, ...]:
        """The fields of one to search for, or the parts of a published one."""
        kind, fields = self.kind_of(name), self.benchmarks[name].fields
        return PARTS[kind].searched if kind is not None and not fields else fields

    @property
    def limits(self) -> float | dict[str, float]:
        """The limits that verdicts depend on."""
        return self.overlap if self.shapes is None else {"overlap": self.overlap, "shapes": self.shapes.overlap}

    @model_validator(mode="after")
    def _fields_known(self) -> Decontaminate:
        for name, benchmark in self.benchmarks.items():
            if self.kind_of(name) is None and not benchmark.fields:
                known = ", ".join(PARTS)
                fix = f"give `fields`, or with `kind` one of {known}"
                raise wrong(
                    f"nothing says what to search for: {name!r} is no known benchmark", fix, f"benchmarks.{name}"
                )
        return self


class Split(Section):
    """Which documents to hold out. A keyed hash of the content decides, so copies fall on the same side."""

    validation: float = Field(default=0.01, ge=0, le=1, description="Share of documents held out for validation.")
    test: float = Field(default=0.0, ge=0, le=1, description="Share of documents held out for testing.")
    check: Literal["exact", "near"] | None = Field(
        default="exact", description="Remove exact copies, or near-duplicates, of held-out documents from training."
    )

    @model_validator(mode="after")
    def _leaves_something(self) -> Split:
        if self.validation + self.test >= 1:
            raise wrong(
                f"validation and test take {self.validation + self.test:g} of all documents, leaving none to train on",
                "choose shares that sum to less than 1, such as 0.01",
            )
        return self


class Withdrawn(Section):
    """Documents to remove at the request of their authors or owners.

    `headrace withdraw RUN` adds to this list for one run, and shows the training steps that saw the documents.
    """

    ids: tuple[Annotated[str, Field(pattern="^[0-9a-f]{32}$")], ...] = Field(
        default=(), description="Document ids, 32 hexadecimal digits each; removes every document with that text."
    )
    repos: tuple[str, ...] = Field(default=(), description="Repositories, spelled as in the documents.")
    licenses: tuple[str, ...] = Field(default=(), description="Licenses, spelled as in the documents.")

    def __bool__(self) -> bool:
        """Whether anything is withdrawn."""
        return bool(self.ids or self.repos or self.licenses)

    def in_order(self) -> Withdrawn:
        """The same entries, sorted and without repeats."""
        return self.combined_with(Withdrawn())

    def combined_with(self, other: Withdrawn) -> Withdrawn:
        """Both lists combined, sorted."""
        return Withdrawn(
            ids=tuple(sorted({*self.ids, *other.ids})),
            repos=tuple(sorted({*self.repos, *other.repos})),
            licenses=tuple(sorted({*self.licenses, *other.licenses})),
        )
