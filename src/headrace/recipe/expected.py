"""The recipe's `expect`: what its author knows in advance, so that a run can report where it differs."""

from __future__ import annotations

from typing import Annotated

from pydantic import AfterValidator, Field

from headrace.recipe.base import Count, Section, Size, wrong


def _ordered(value: tuple[float, float]) -> tuple[float, float]:
    if not 0 <= value[0] <= value[1]:
        raise wrong(f"[{value[0]:g}, {value[1]:g}] is not a range", "write [min, max], such as [0, 0.2]")
    return value


def _share(value: tuple[float, float]) -> tuple[float, float]:
    if value[1] > 1:
        raise wrong(f"{value[1]:g} is not a share", "write [min, max] from 0 to 1, such as [0, 0.2]")
    return value


Range = Annotated[tuple[float, float], AfterValidator(_ordered)]
"""The expected minimum and maximum."""

Shares = Annotated[Range, AfterValidator(_share)]
"""The expected minimum and maximum share, in [0, 1]."""


class Rates(Section):
    """Expected rates, each as [min, max]; a run reports departures."""

    quarantined: Shares | None = Field(default=None, description="Share of records that cannot be read.")
    kept: Shares | None = Field(default=None, description="Share of documents kept.")
    removed: dict[str, Shares] = Field(
        default={},
        description="Share of documents removed, by reason, such as `{duplicate: [0.05, 0.2]}`; `all` covers all "
        "reasons together.",
    )
    tokens_per_byte: Range | None = Field(default=None, description="Tokens per byte of text in kept documents.")


class Expected(Rates):
    """Expected rates over all sources, each as [min, max]; for one source use `sources.NAME.expect`.

    A run reports departures as they happen, at its end, in its report and in `headrace status`.
    """

    stop: bool = Field(
        default=False, description="Stop a run that departs from any expected rate, including those of single sources."
    )


class Amount(Section):
    """Some documents, and the bytes of their text; either may be left out."""

    documents: Count | None = Field(default=None, description="Documents.")
    bytes: Size | None = Field(default=None, description="Bytes of their text, such as `734.9GB`.")


class Expect(Rates):
    """Known facts about a source: rates as under `expect`, and counts.

    `headrace plan` uses the counts instead of the files, and a run compares them with what it finds.
    """

    documents: Count | None = Field(default=None, description="Documents in the source.")
    tokens: Count | None = Field(
        default=None, description="Tokens in the source after cleaning, including the ends of documents."
    )
    bytes: Size | None = Field(default=None, description="Bytes of text in the source, such as `820GB`.")
    cleaned: dict[str, Amount] = Field(
        default={},
        description="What cleaning leaves and removes, such as `{kept: {documents: 324_686_115, bytes: 734.9GB}, "
        "duplicate: {documents: 23_015_691}}`: `kept`, and reasons as under `removed`.",
    )
    tolerance: float = Field(
        default=0.01,
        ge=0,
        description="Deviation from a count, as a share of it, above which a run reports a departure.",
    )

    @property
    def gives_size(self) -> bool:
        """Whether a plan can do without reading the files."""
        return self.tokens is not None or self.bytes is not None
