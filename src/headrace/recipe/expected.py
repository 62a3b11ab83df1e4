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


class Expect(Rates):
    """Known facts about a source: counts for `headrace plan`, and rates as under `expect`."""

    documents: Count | None = Field(default=None, description="Documents in the source, for `headrace plan`.")
    tokens: Count | None = Field(default=None, description="Tokens in the source after cleaning, for `headrace plan`.")
    bytes: Size | None = Field(
        default=None, description="Bytes of text in the source, such as `820GB`, for `headrace plan`."
    )

    @property
    def counts(self) -> bool:
        """Whether a plan can do without reading the files."""
        return self.tokens is not None or self.bytes is not None
