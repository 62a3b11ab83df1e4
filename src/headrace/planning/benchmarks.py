"""The size of the benchmarks that a corpus is searched for: read where that is quick, otherwise assumed."""

from __future__ import annotations

from dataclasses import dataclass

from headrace.errors import UserError
from headrace.recipe.schema import Recipe

# Text of a benchmark that is not read for a plan: HumanEval's items have 168 kB, MBPP's 253 kB.
TYPICAL = 250_000
# More than that, and tables, which may crash the process that reads them, are not read for a plan.
_MOST_READ = 16 << 20
_READ = ("jsonl", "json")


@dataclass(frozen=True)
class BenchmarkCounts:
    """What to search documents for.

    Attributes:
        number: benchmarks.
        bytes: bytes of the items' text.
    """

    number: int
    bytes: int


def count_benchmarks(recipe: Recipe) -> tuple[BenchmarkCounts, list[str]]:
    """The size of a recipe's benchmarks, and notes about missing files: as for sources, they need not exist yet.

    Raises:
        UserError: a benchmark is missing or damaged, and there are sources whose files are read.
    """
    config = recipe.decontaminate
    if config is None:
        return BenchmarkCounts(0, 0), []
    from headrace.select.contamination.benchmarks import list_benchmarks, read_items

    number = len(config.benchmarks)
    try:
        files = list_benchmarks(config)
        unread = {file.benchmark for file in files if file.file.format not in _READ}
        read = [file for file in files if file.benchmark not in unread]
        read = read if sum(file.file.size for file in read) <= _MOST_READ else []
        items = read_items(tuple(read), recipe.documents.normalise)
    except UserError as error:
        if not all(source.is_counted for source in recipe.sources.values()):
            raise
        return BenchmarkCounts(number, number * TYPICAL), [f"A benchmark is missing: {error.where}."]
    known = sum(len(text.encode()) for item in items for text in item.fields.values())
    assumed = number - len({file.benchmark for file in read})
    return BenchmarkCounts(number, known + assumed * TYPICAL), []
