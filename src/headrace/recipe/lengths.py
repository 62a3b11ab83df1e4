"""Amounts by the length of documents: for each least length in tokens, what a stage takes of those that have it."""

from __future__ import annotations

from collections.abc import Mapping
from itertools import pairwise
from typing import Annotated, Any, NamedTuple

from pydantic import BeforeValidator

from headrace.recipe.base import parse_count, wrong

Lengths = tuple[int, int | None]
"""A range of tokens: the first number of them, and the one after the last; None has no end."""

_EXAMPLE = "write `{0: 0.5, 32k: 4}`: what to take of documents from each length on, up to the next"


class Bucket(NamedTuple):
    """How much a stage takes of a source's documents of some lengths.

    Attributes:
        lengths: their tokens; None for documents of any length.
        epochs: passes; None if a weight decides.
        weight: share of the stage's tokens, relative to the other weights.
    """

    lengths: Lengths | None
    epochs: float | None
    weight: float | None


def bucket_name(source: str, lengths: Lengths | None) -> str:
    """A name for a source's documents of some lengths: the source's own for any length."""
    return source if lengths is None else f"{source}@{lengths[0]}"


def lengths_text(lengths: Lengths) -> str:
    """``of 8,000 to 63,999 tokens``, or ``of 64,000 tokens or more``."""
    low, high = lengths
    return f"of {low:,} tokens or more" if high is None else f"of {low:,} to {high - 1:,} tokens"


def lengths_range(lengths: Lengths) -> str:
    """The same for tables: ``8,000–63,999``, or ``64,000 or more``."""
    low, high = lengths
    return f"{low:,} or more" if high is None else f"{low:,}–{high - 1:,}"


def buckets(epochs: ByLength | None, weight: ByLength | None) -> tuple[Bucket, ...]:
    """What to take, from the shortest documents to the longest; those of which nothing is taken are left out.

    Args:
        epochs: passes, by least length if they differ.
        weight: likewise; replaces ``epochs``.
    """
    given = epochs if weight is None else weight
    if not isinstance(given, Mapping):
        amount = 1.0 if given is None else given
        return (Bucket(None, amount, None) if weight is None else Bucket(None, None, amount),)
    ranges = pairwise([*given.items(), (None, 0.0)])
    return tuple(
        Bucket((low, high), amount, None) if weight is None else Bucket((low, high), None, amount)
        for (low, amount), (high, _) in ranges
        if amount and low is not None
    )


def _parsed(value: Any) -> Any:
    """A mapping with lengths as numbers, in order; anything else as is.

    Raises:
        PydanticCustomError: a length or an amount is none.
    """
    if not isinstance(value, Mapping):
        return value
    found: dict[int, float] = {}
    for key, amount in value.items():
        length = parse_count(key)
        if isinstance(length, bool) or not isinstance(length, int):
            raise wrong(f"{key!r} is not a number of tokens", _EXAMPLE)
        if isinstance(amount, bool) or not isinstance(amount, int | float) or not 0 <= amount < float("inf"):
            raise wrong(f"{amount!r} for documents from {length:,} tokens on is not a number from 0", _EXAMPLE)
        if length in found:
            raise wrong(f"the length {length:,} is there twice", "keep one of them")
        found[length] = float(amount)
    if not any(found.values()):
        raise wrong("no documents of any length are taken", _EXAMPLE)
    return dict(sorted(found.items()))


ByLength = Annotated[float | dict[int, float], BeforeValidator(_parsed)]
"""A number, or one for each least length of documents in tokens."""
