"""A run's sidecars as tables of DuckDB: read only, of this run's files alone, with limits on memory and time."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import duckdb
import pyarrow as pa

from headrace.flow.artifact import Artifact
from headrace.view.named_labels import NamedLabels, named_labels
from headrace.view.target import Target, Wrong

MEMORY = "256MB"  # the whole viewer stays below 500 MB
SECONDS = 20.0  # that a query may take
MOST_ROWS = 1000  # of an answer
MOST_CHARACTERS = 4000  # of a cell
MOST_ANSWER = 1 << 20  # characters of an answer, with some for each cell: it is one page
CELL = 24  # of them
PIECE = 16  # rows that are taken from DuckDB at a time, whatever is in them
FOLLOWING = ("measures", "duplicates", "contamination", "verdicts", "licences")
"""Sidecars whose rows follow those of documents. Columns that two of them have keep the sidecar's name in front."""


@dataclass(frozen=True)
class Answer:
    """The rows of a query.

    Attributes:
        columns: their names.
        types: DuckDB's names of their types.
        rows: at most :data:`MOST_ROWS`.
        cut: whether there are more.
    """

    columns: list[str]
    types: list[str]
    rows: list[list[Any]]
    cut: bool


class Database:
    """The tables of a run: ``corpus`` (a row a document, without its text), ``documents`` and each sidecar by its name;
    ``labels`` that a person gave, by id.

    Args:
        artifacts: the documents and sidecars, by the name of their table.
    """

    def __init__(self, artifacts: dict[str, Artifact]) -> None:
        self._connection = duckdb.connect(":memory:")
        self._labels: NamedLabels | None = None
        self._labelling = threading.Lock()
        run = self._connection.execute
        files = {name: _paths(made) for name, made in artifacts.items()}
        self.tables = [name for name, paths in files.items() if paths]
        for name in self.tables:
            run(f"CREATE VIEW {quoted(name)} AS SELECT * FROM {_read(files[name])}")
        self.measures: dict[str, str] = {}
        if "documents" in self.tables:
            run(f"CREATE VIEW corpus AS {self._corpus(files)}")
            self.tables.insert(0, "corpus")
            run("CREATE TABLE labels (id VARCHAR, label VARCHAR)")
            self.tables.append("labels")
        folders = [str(made.path) for made in artifacts.values()]
        run(f"SET allowed_directories = {_list(folders)}")
        for setting in (
            "temp_directory = ''",
            "enable_external_access = false",
            f"memory_limit = '{MEMORY}'",
            "threads = 2",
            "autoinstall_known_extensions = false",
            "autoload_known_extensions = false",
            "lock_configuration = true",
        ):
            run(f"SET {setting}")

    def _corpus(self, files: dict[str, list[str]]) -> str:
        """The documents beside what was found about them, row by row."""
        taken = {"row", "text", "meta", "turns", "bytes"}
        columns = ["(row_number() OVER () - 1) AS row"]
        tables = []
        for name in ("documents", *(table for table in self.tables if table != "documents")):
            alias = quoted(f"t_{name}")
            tables.append(f"{_read(files[name])} AS {alias}")
            about = self._connection.execute(f"DESCRIBE {quoted(name)}").fetchall()
            for column, type_, *_ in about:
                if name == "documents" and column == "bytes":
                    columns.append(f"{alias}.bytes AS bytes")
                    self.measures["bytes"] = type_
                    continue
                if column in taken and (name == "documents" or column == "bytes"):
                    continue
                shown = f"{name}_{column}" if column in taken else column
                shown = {"licences_license": "license_found", "size": "copies"}.get(shown, shown)
                taken.add(column)
                columns.append(f"{alias}.{quoted(column)} AS {quoted(shown)}")
                if name != "documents" and type_ in NUMBERS and column not in NOT_MEASURED:
                    self.measures[shown] = type_
        return f"SELECT {', '.join(columns)} FROM {' POSITIONAL JOIN '.join(tables)}"

    def label(self, labels: NamedLabels) -> None:
        """Fill the table ``labels`` anew, if they are others than before."""
        with self._labelling:
            if labels is self._labels or "labels" not in self.tables:
                return
            cursor = self._connection.cursor()
            try:
                cursor.execute("BEGIN")
                cursor.execute("DELETE FROM labels")
                for name, ids in labels.ids.items():
                    told = pa.table({"id": pa.array(ids.astype("U32")), "label": pa.array([name] * len(ids))})
                    cursor.register("given", told)
                    cursor.execute("INSERT INTO labels SELECT id, label FROM given")
                    cursor.unregister("given")
                cursor.execute("COMMIT")
            finally:
                cursor.close()
            self._labels = labels

    def run(
        self,
        sql: str,
        parameters: Sequence[Any] = (),
        most: int = MOST_ROWS,
        characters: int = MOST_ANSWER,
        seconds: float | None = None,
    ) -> Answer:
        """Answer a query.

        Args:
            sql: one SELECT.
            parameters: of its placeholders.
            most: rows that are wanted.
            characters: about how many are.
            seconds: that it may take; None for one of our own, which is asked in the background.

        Raises:
            Wrong: it is none, or takes too long or too much memory; says what DuckDB says.
        """
        cursor = self._connection.cursor()
        timer = threading.Timer(threading.TIMEOUT_MAX if seconds is None else seconds, cursor.interrupt)
        try:
            statements = cursor.extract_statements(sql)
            if len(statements) != 1 or statements[0].type != duckdb.StatementType.SELECT:
                raise Wrong("Only a single SELECT is answered.", sql[:200], "Begin with SELECT, FROM or WITH.")
            timer.start()
            found = cursor.execute(statements[0], list(parameters))
            rows, cut = _fetched(found, most, characters)
            described = found.description or []
        except duckdb.InterruptException:
            raise Wrong(f"The query took more than {seconds:g} s.", sql[:200], "Ask for less, or use DuckDB.") from None
        except (duckdb.Error, RuntimeError) as error:
            raise Wrong(f"DuckDB says: {str(error).split(chr(10))[0][:500]}", sql[:200], "") from None
        finally:
            timer.cancel()
            cursor.close()
        return Answer([one[0] for one in described], [str(one[1]) for one in described], rows, cut)

    def ask(self, sql: str) -> Answer:
        """:meth:`run` of what a person asks, for :data:`SECONDS` at most."""
        return self.run(sql, seconds=SECONDS)


def _fetched(found: duckdb.DuckDBPyConnection, most: int, characters: int) -> tuple[list[list[Any]], bool]:
    """The first rows of an answer, and whether there are more."""
    rows: list[list[Any]] = []
    while some := found.fetchmany(PIECE):
        for row in some:
            shown = [_cell(value) for value in row]
            characters -= sum(CELL + (len(cell) if isinstance(cell, str) else 0) for cell in shown)
            if len(rows) == most or (rows and characters < 0):
                return rows, True
            rows.append(shown)
    return rows, False


NOT_MEASURED = frozenset({"component", "exact_of", "start", "end"})  # rows and places
NUMBERS = frozenset({"BIGINT", "UBIGINT", "INTEGER", "DOUBLE", "FLOAT", "SMALLINT", "TINYINT", "UINTEGER", "HUGEINT"})


def database(target: Target) -> Database:
    """The tables of a run."""

    def make() -> Database:
        found: dict[str, Artifact] = {}
        for (kind, stage), made in target.artifacts.items():
            if kind == "documents" or kind in FOLLOWING:
                found[kind] = made
            elif kind == "measure" and stage is not None:
                found[f"measure_{stage}"] = made
        return Database({"documents": found.pop("documents"), **found} if "documents" in found else {})

    made = target.kept("database", make)
    made.label(named_labels(target))
    return made


def quoted(name: str) -> str:
    """A name as SQL has it."""
    return '"' + name.replace('"', '""') + '"'


def _paths(made: Artifact) -> list[str]:
    """The shards of an artifact, as a pattern if it matches nothing else, in their order: DuckDB takes 10 kB for each
    path that a query names, 240 MB for the tables of 36 GB of text."""
    names = [str(entry["name"]) for entry in made.shards]
    for index in range(len(names)):
        made.shard_path(index)  # of a run at a URL they are fetched
    there = sorted(path.name for path in made.path.glob("*.parquet"))
    if names and there == names and not set(str(made.path)) & set("*?[]"):
        return [str(made.path / "*.parquet")]
    return [str(made.path / name) for name in names]


def _read(paths: Sequence[str]) -> str:
    return f"read_parquet({_list(paths)})"


def _list(values: Sequence[str]) -> str:
    return "[" + ", ".join("'" + value.replace("'", "''") + "'" for value in values) + "]"


def _cell(value: Any) -> Any:
    """A value as JSON has it; long texts are cut."""
    if isinstance(value, bool | int | float) or value is None:
        return value
    text = value if isinstance(value, str) else str(value)
    return text if len(text) <= MOST_CHARACTERS else f"{text[:MOST_CHARACTERS]}…"
