"""Benchmark files, and the items in them."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from headrace.documents.checked_file import confirm, open_file
from headrace.documents.fields import find
from headrace.documents.fingerprint import fingerprinted
from headrace.documents.normalise import Normaliser, normaliser
from headrace.documents.readers.base import Bad, Lost, Part, Record, Tally, not_utf8
from headrace.documents.readers.base import Item as Row
from headrace.documents.sources import InputFile, list_files
from headrace.errors import UserError
from headrace.flow.storage import cannot_read
from headrace.recipe.benchmarks import PARTS, BenchmarkKind
from headrace.recipe.schema import Decontaminate, Source
from headrace.select.contamination.published import PUBLISHED, Unfit, after

# Names of id fields: HumanEval, MBPP, EvalPlus and BigCodeBench use task_id; DS-1000 and GSM8K-like ones the others.
ID_FIELDS = ("task_id", "id", "question_id", "problem_id")
ROWS = ("jsonl", "json", "parquet")


@dataclass(frozen=True)
class BenchmarkFile:
    """One file of a benchmark, with its fingerprint.

    Attributes:
        benchmark: its name in the recipe.
        fields: the fields to search for, or of a published benchmark the parts of its items.
        file: the file.
        kind: which published benchmark it is; None if the recipe names its fields.
        code: the fields that make a program.
    """

    benchmark: str
    fields: tuple[str, ...]
    file: InputFile
    kind: BenchmarkKind | None = None
    code: tuple[str, ...] = ()

    def params(self) -> list[Any]:
        """What of it determines what is found."""
        more: list[Any] = [] if self.kind is None and not self.code else [self.kind, list(self.code)]
        return [self.benchmark, list(self.fields), self.file.name, self.file.digest, *more]


@dataclass(frozen=True)
class Item:
    """One item of a benchmark.

    Attributes:
        name: ``<benchmark>:<item's id>``, or ``<benchmark>:<file>:<row>`` if it has no id.
        fields: field name -> text, in the recipe's order.
        alternatives: name -> text of which a copy may hold any: searched for whole, never as n-grams of the item.
        programs: name -> program.
        verbatim: name -> text as bigcode-dataset's script searches for it; None searches for the fields, stripped.
        unread: why some of its text could not be taken; '' if all was.
    """

    name: str
    fields: dict[str, str]
    alternatives: dict[str, str] = field(default_factory=dict)
    programs: dict[str, str] = field(default_factory=dict)
    verbatim: dict[str, str] | None = None
    unread: str = ""


def list_benchmarks(config: Decontaminate, place: str = "decontaminate.benchmarks") -> tuple[BenchmarkFile, ...]:
    """The files of all benchmarks with their fingerprints, benchmarks by name.

    Args:
        config: the recipe's section, with absolute paths (as loaded).

    Raises:
        UserError: a file is missing or unreadable, or a glob matches nothing.
    """
    found = []
    for name, benchmark in sorted(config.benchmarks.items()):
        where = f"{place}.{name}"
        kind = config.kind_of(name)
        fields = config.parts_of(name)
        source = Source.model_validate({"files": list(benchmark.files)})
        try:
            listing = list_files(name, source, 0, Path.cwd())
            for file in listing if kind is None else _files_of(kind, listing, f"{where}.files"):
                found.append(BenchmarkFile(name, fields, fingerprinted(file), kind, benchmark.code))
        except UserError as error:
            raise UserError(error.what, error.where.replace(f"sources.{name}", where, 1), error.fix) from None
        except OSError as error:
            raise cannot_read("The file", f"{where}.files", error) from None
    return tuple(found)


def _files_of(kind: BenchmarkKind, listing: list[InputFile], where: str) -> list[InputFile]:
    """The files that hold items: those of the folders of items if there are any, otherwise files of rows.

    Raises:
        UserError: there are none.
    """
    known = PUBLISHED[kind].folder
    base = [os.path.basename(file.name) for file in listing]
    if known and next(iter(known)) in base:
        return [file for file, name in zip(listing, base, strict=True) if name in known]
    rows = [file for file in listing if file.format in ROWS] if len(listing) > 1 else listing
    if not rows:
        told = " or ".join(["a .jsonl, .json or .parquet file", *(f"a folder with {name}" for name in list(known)[:1])])
        raise UserError(f"No file of {PUBLISHED[kind].name} is there.", where, f"Name {told}.")
    return rows


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
    for where, file, row in _rows(files, at):
        items.append(_item(file, row, where, normal) if file.kind is None else _published(file, row, where, normal))
    return items


def _rows(files: tuple[BenchmarkFile, ...], at: Callable[[str], None]) -> Iterator[tuple[str, BenchmarkFile, Row]]:
    """The rows of all files, and where each stands. The files of a folder are one row."""
    folders: dict[str, list[BenchmarkFile]] = {}
    for file in files:
        if file.kind is not None and os.path.basename(file.file.name) in PUBLISHED[file.kind].folder:
            folders.setdefault(os.path.dirname(file.file.url), []).append(file)
            continue
        at(file.file.url)
        rows = list(rows_of(file.file))
        confirm(file.file)
        if not rows:
            raise UserError("The benchmark file has no items.", file.file.url, "Fix it, or remove it.")
        yield from ((f"{file.file.url}, row {row.row + 1}", file, row) for row in rows)
    for folder, inside in folders.items():
        at(folder)
        kind = inside[0].kind
        assert kind is not None
        held = {PUBLISHED[kind].folder[os.path.basename(one.file.name)]: _text_of(one.file) for one in inside}
        name = os.path.dirname(inside[0].file.name) or os.path.basename(folder)
        yield folder, inside[0], Record(0, "", {**held, "problem_id": name})


def _text_of(file: InputFile) -> str:
    try:
        with open_file(file) as stream:
            return stream.read().decode("utf-8")
    except UnicodeDecodeError as error:
        raise UserError(f"The benchmark file is {not_utf8(error)}.", file.url, "Fix it, or remove it.") from None
    except OSError as error:
        raise cannot_read("The benchmark file", file.url, error) from None


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


def _item(file: BenchmarkFile, row: Row, where: str, normal: Normaliser) -> Item:
    if not isinstance(row, Record):
        raise _unusable(file, row, where)
    texts = {name: normal(_field(file, row, where, name)) for name in file.fields}
    program = after(*(_field(file, row, where, name) for name in file.code)) if file.code else ""
    named = next((row.fields[key] for key in ID_FIELDS if isinstance(row.fields.get(key), str | int)), None)
    return Item(
        f"{file.benchmark}:{named if named is not None else f'{file.file.name}:{row.row + 1}'}",
        texts,
        programs={"program": normal(program)} if program else {},
    )


def _field(file: BenchmarkFile, row: Record, where: str, name: str) -> str:
    value = find(row.fields, name)
    if isinstance(value, list) and all(isinstance(part, str) for part in value):
        return "\n".join(value)
    if not isinstance(value, str):
        key = "code" if name not in file.fields else "fields"
        raise UserError(
            f"An item of the benchmark {file.benchmark!r} has no text in the field {name!r}.",
            where,
            f"Its fields are {', '.join(row.fields)}: fix `decontaminate.benchmarks.{file.benchmark}.{key}`.",
        )
    return value


def _published(file: BenchmarkFile, row: Row, where: str, normal: Normaliser) -> Item:
    """The item in a row of a published benchmark."""
    assert file.kind is not None
    if not isinstance(row, Record):
        raise _unusable(file, row, where)
    published, names = PUBLISHED[file.kind], ", ".join(row.fields)
    try:
        texts = published.texts(row.fields)
    except Unfit as error:
        fix = f"Its fields are {names}. Give a file of {published.name}, another `kind`, or `fields` without `kind`."
        raise UserError(f"A row is no item of {published.name}: {error}.", where, fix) from None
    fields: dict[str, str] = {}
    several: dict[str, str] = {}
    for name in file.fields:
        value = texts.parts[name]
        if value is None and name not in PARTS[file.kind].searched and not published.folder:
            fix = f"Its fields are {names}; leave {name!r} out of `decontaminate.benchmarks.{file.benchmark}.fields`."
            raise UserError(f"An item of {published.name} has no {name!r}.", where, fix)
        if isinstance(value, list):
            several |= {f"{name} {i + 1}": normal(one) for i, one in enumerate(value)}
        elif value:
            fields[name] = normal(value)
    named = published.id_of(row.fields)
    return Item(
        f"{file.benchmark}:{named if named is not None else f'{file.file.name}:{row.row + 1}'}",
        fields,
        several,
        {name: normal(one) for name, one in texts.programs.items() if one} if "solution" in file.fields else several,
        {name: normal(one) for name, one in texts.verbatim.items() if one},
        texts.unread if "tests" in file.fields else "",
    )


def _unusable(file: BenchmarkFile, row: Row, where: str) -> UserError:
    return UserError(f"A row of the benchmark {file.benchmark!r} cannot be used: {fault(row)}.", where, "Fix the file.")
