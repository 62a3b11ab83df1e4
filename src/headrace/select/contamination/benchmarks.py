"""Benchmark files, and the items in them."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from headrace.documents.checked_file import confirm
from headrace.documents.fields import find
from headrace.documents.fingerprint import fingerprinted
from headrace.documents.normalise import Normaliser, normaliser
from headrace.documents.readers.base import Bad, Lost, Part, Record, Tally
from headrace.documents.readers.base import Item as Row
from headrace.documents.sources import InputFile, list_files
from headrace.errors import UserError
from headrace.flow.storage import cannot_read
from headrace.recipe.schema import Decontaminate, Source

# Names of id fields: HumanEval, MBPP, EvalPlus and BigCodeBench use task_id; DS-1000 and GSM8K-like ones the others.
ID_FIELDS = ("task_id", "id", "question_id", "problem_id")


@dataclass(frozen=True)
class BenchmarkFile:
    """One file of a benchmark, with its fingerprint."""

    benchmark: str
    fields: tuple[str, ...]
    file: InputFile


@dataclass(frozen=True)
class Item:
    """One item of a benchmark.

    Attributes:
        name: ``<benchmark>:<item's id>``, or ``<benchmark>:<file>:<row>`` if it has no id.
        fields: field name -> text, in the recipe's order.
    """

    name: str
    fields: dict[str, str]


def list_benchmarks(config: Decontaminate) -> tuple[BenchmarkFile, ...]:
    """The files of all benchmarks with their fingerprints, benchmarks by name.

    Args:
        config: the recipe's section, with absolute paths (as loaded).

    Raises:
        UserError: a file is missing or unreadable, or a glob matches nothing.
    """
    found = []
    for name, benchmark in sorted(config.benchmarks.items()):
        where = f"decontaminate.benchmarks.{name}"
        source = Source.model_validate({"files": list(benchmark.files)})
        try:
            listing = list_files(name, source, 0, Path.cwd())
            for file in listing:
                found.append(BenchmarkFile(name, benchmark.fields, fingerprinted(file)))
        except UserError as error:
            raise UserError(error.what, error.where.replace(f"sources.{name}", where, 1), error.fix) from None
        except OSError as error:
            raise cannot_read("The file", f"{where}.files", error) from None
    return tuple(found)


def read_items(
    files: tuple[BenchmarkFile, ...], normalise: str, at: Callable[[str], None] = lambda where: None
) -> list[Item]:
    """All items of the files, in order.

    Args:
        files: from :func:`list_benchmarks`.
        normalise: the recipe's ``documents.normalise``, so that items and documents are comparable.
        at: called with the name of the file being read.

    Raises:
        UserError: a file has changed since it was listed, contains a row that is not an item, or lacks a field.
    """
    normal = normaliser(normalise)
    items = []
    for file in files:
        at(file.file.url)
        rows = list(rows_of(file.file))
        confirm(file.file)
        if not rows:
            raise UserError("The benchmark file has no items.", file.file.url, "Fix it, or remove it.")
        items += [_item(file, row, normal) for row in rows]
    return items


def rows_of(file: InputFile) -> Iterator[Row]:
    """The rows of a file, with all of their fields in ``fields``."""
    tally = Tally()

    def shape(row: int, value: Any) -> Row:
        return Record(row, "", value) if isinstance(value, dict) else Bad(row, "the row is not an object with fields")

    if file.format == "parquet":
        from headrace.documents.readers.parquet import parquet_items

        return parquet_items(file, Part(), tally, shape, lambda schema: None)
    if file.format == "json":
        from headrace.documents.readers.json import json_items

        return json_items(file, tally, shape)
    if file.format == "jsonl":
        from headrace.documents.readers.jsonl import line_items

        return line_items(file, Part(), tally, shape)
    raise UserError("Benchmarks must be .jsonl, .json or .parquet files (or .gz, .zst).", file.url, "Convert it.")


def fault(row: Row) -> str:
    """Why a row has no fields."""
    return row.error if isinstance(row, Bad | Lost) else "the line is blank"


def _item(file: BenchmarkFile, row: Row, normal: Normaliser) -> Item:
    where = f"{file.file.url}, row {row.row + 1}"
    if not isinstance(row, Record):
        raise UserError(
            f"A row of the benchmark {file.benchmark!r} cannot be used: {fault(row)}.", where, "Fix the file."
        )
    texts = {}
    for field in file.fields:
        value = find(row.fields, field)
        if isinstance(value, list) and all(isinstance(part, str) for part in value):
            value = "\n".join(value)
        if not isinstance(value, str):
            raise UserError(
                f"An item of the benchmark {file.benchmark!r} has no text in the field {field!r}.",
                where,
                f"Its fields are {', '.join(row.fields)}: fix `decontaminate.benchmarks.{file.benchmark}.fields`.",
            )
        texts[field] = normal(value)
    named = next((row.fields[key] for key in ID_FIELDS if isinstance(row.fields.get(key), str | int)), None)
    return Item(f"{file.benchmark}:{named if named is not None else f'{file.file.name}:{row.row + 1}'}", texts)
