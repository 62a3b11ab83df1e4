"""The rows of stages that train on sequences in other files: known from the files, of which only headers are read."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from headrace.planning.stages import Share
from headrace.recipe.schema import Recipe

if TYPE_CHECKING:
    from headrace.formats.imported import Taken


def count_sequences(recipe: Recipe, run: Path | None) -> dict[str, tuple[Share, ...]]:
    """What each stage takes from other files, by stage; the held-out sequence too.

    Args:
        recipe: the recipe.
        run: the run folder, whose own sequences cannot be taken.

    Raises:
        UserError: there is no such sequence, it has no rows, or they are not as long as the stage's.
    """
    if not recipe.sequences:
        return {}
    from headrace.formats.imported import groups, shares  # brings kernels, which other plans do without
    from headrace.references import open_sequences

    epochs = {stage.name: stage.epochs for stage in recipe.stages}
    found = {}
    for name, taken in open_sequences(recipe, run, lambda paths: [""] * len(paths)).items():
        length, times, parts = recipe.sequences[name][1], epochs.get(name, 1), groups(taken)
        found[name] = tuple(
            _share(one, read * times, length)
            for part, n in zip(parts, shares(parts), strict=True)
            for one, read in _read(part, n)
        )
    return found


def _read(part: list[Taken], rows: int) -> Iterator[tuple[Taken, int]]:
    """How many of the next rows come from each of the sequences that follow one another, again from the first."""
    passes, left = divmod(rows, sum(one.rows for one in part))
    for one in part:
        yield one, passes * one.rows + min(left, one.rows)
        left -= min(left, one.rows)


def _share(one: Taken, rows: int, length: int) -> Share:
    held = len(one.sequence.open())
    return Share(one.sequence.name, (one.start / held, one.stop / held), rows / one.rows, None, rows * length)
