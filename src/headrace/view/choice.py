"""What is chosen on the corpus page: documents by measures and words; as SQL, as a rule of a recipe, as a list of ids,
and as a label."""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Annotated, Any
from urllib.parse import parse_qsl

from pydantic import Field
from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import PlainTextResponse, RedirectResponse, Response

from headrace.errors import UserError
from headrace.flow.storage import explaining_os_errors
from headrace.recipe.columns import DOCUMENT, MEASURES
from headrace.view.address import address
from headrace.view.labels import can_label
from headrace.view.named_labels import give
from headrace.view.page import Query
from headrace.view.sql import Database, database, quoted
from headrace.view.target import Target, Wrong

WORDS = ("source", "language", "license", "reason", "split", "format")
"""Columns of words that are charted where they have several values."""
FIELDS = {"format": "kind"}  # of the query: in an address, ``format`` asks for JSON


class CorpusQuery(Query):
    """What is chosen: ``between`` has stretches of measures (``bytes:1000:5000``, either end may be left out), the
    others values."""

    between: Annotated[tuple[str, ...], Field(max_length=40)] = ()
    source: tuple[str, ...] = ()
    language: tuple[str, ...] = ()
    license: tuple[str, ...] = ()
    reason: tuple[str, ...] = ()
    split: tuple[str, ...] = ()
    kind: tuple[str, ...] = ()
    label: tuple[str, ...] = ()
    kept: Annotated[str | None, Field(pattern="^(yes|no)$")] = None


@dataclass(frozen=True)
class Chosen:
    """The choices: stretches of measures, and values of columns of words."""

    between: dict[str, tuple[float, float]]
    values: dict[str, tuple[str, ...]]

    @staticmethod
    def of(query: CorpusQuery, made: Database) -> Chosen:
        """Read the query.

        Raises:
            Wrong: it names no measure, or no stretch.
        """
        between = {}
        for told in query.between:
            found = re.fullmatch(r"(.+):([^:]*):([^:]*)", told)
            try:
                if found is None or found[1] not in made.measures:
                    raise ValueError
                low, high = float(found[2] or "-inf"), float(found[3] or "inf")
                if math.isnan(low) or math.isnan(high):
                    raise ValueError
            except ValueError:
                fix = f"Write NAME:FROM:TO, of {', '.join(made.measures)}."
                raise Wrong(f"{told!r} is no stretch of a measure.", "between", fix) from None
            between[found[1]] = low, high
        values: dict[str, tuple[str, ...]] = {name: getattr(query, FIELDS.get(name, name)) for name in WORDS}
        values["label"] = query.label
        values["keep"] = {"yes": ("true",), "no": ("false",)}.get(query.kept or "", ())
        return Chosen(between, {name: told for name, told in values.items() if told})

    def where(self, columns: Sequence[str], without: str | None = None) -> tuple[str, list[Any]]:
        """As a condition with its parameters, without what is chosen of one column."""
        parts: list[str] = ["true"]
        parameters: list[Any] = []
        for name, (low, high) in self.between.items():
            if name != without:
                parts.append(f"({quoted(name)} >= ? AND {quoted(name)} < ?)")
                parameters += [low, high]
        for name, values in self.values.items():
            if name == "label" and name != without:
                parts.append("id IN (SELECT id FROM labels WHERE list_contains(?::VARCHAR[], label))")
                parameters.append(list(values))
            elif name != without and name in columns:
                some = [value for value in values if value]
                null = f"{quoted(name)} IS NULL" if "" in values else "false"
                parts.append(f"(list_contains(?::VARCHAR[], {quoted(name)}::VARCHAR) OR {null})")
                parameters.append(some)
        return " AND ".join(parts), parameters

    def rule(self) -> str | None:
        """As the condition of a rule of a recipe (``filters.rules``), which removes what does not meet it."""
        parts: list[str] = []
        if any(name not in MEASURES for name in self.between) or set(self.values) - {*DOCUMENT, "format"}:
            return None  # what a rule cannot see
        for name, (low, high) in self.between.items():
            if low > -math.inf:
                parts.append(f"{name} >= {_exactly(low)}")
            if high < math.inf:
                parts.append(f"{name} < {_exactly(high)}")
        for name, values in self.values.items():
            some = [value for value in values if value]
            told = f"{name} in {some!r}" if some else ""
            none = f"{name} is None" if "" in values else ""
            parts.append(f"({told} or {none})" if told and none else told or none)
        return " and ".join(parts) or None


def _exactly(value: float) -> str:
    """A number as a recipe has it, whatever its size: a rule shall keep what was chosen."""
    return str(int(value)) if value.is_integer() and abs(value) < 1e15 else repr(value)


async def ids(target: Target, request: Request, body: bytes) -> Response:
    """The ids of the chosen documents, one a line: what `headrace withdraw --from` reads."""

    def make() -> str:
        found = ids_of(target, CorpusQuery.model_validate(_fields(request.query_params.multi_items())))
        return "".join(f"{one}\n" for one in found)

    text = await run_in_threadpool(make)
    return PlainTextResponse(text, headers={"content-disposition": 'attachment; filename="documents.txt"'})


def _fields(pairs: Iterable[tuple[str, str]]) -> dict[str, Any]:
    told: dict[str, Any] = {}
    for name, value in pairs:
        if name in ("kept", "name", "on"):
            told[name] = value
        else:
            told.setdefault(name, []).append(value)
    return told


def ids_of(target: Target, query: CorpusQuery) -> list[str]:
    """The ids of the chosen documents.

    Raises:
        UserError: there are more than a million.
    """
    made = database(target)
    if "corpus" not in made.tables:
        return []
    chosen = Chosen.of(query, made)
    columns = [row[0] for row in made.run("SELECT * FROM (DESCRIBE corpus)").rows]
    where, parameters = chosen.where(columns)
    found = made.run(f"SELECT id FROM corpus WHERE {where} ORDER BY row", parameters, MOST_IDS, MOST_IDS * 64)
    if found.cut:
        raise UserError(f"More than {MOST_IDS:,} documents are chosen.", str(target.path), "Choose fewer at a time.")
    return [row[0] for row in found.rows]


class Labelled(CorpusQuery):
    """The form: what is chosen, the label, and whether it is given or taken back."""

    name: Annotated[str, Field(min_length=1, max_length=40, pattern=r"^[^\x00-\x1f\x7f]+$")]
    on: bool = True


async def give_label(target: Target, request: Request, body: bytes) -> Response:
    """Give the chosen documents a label, or take it back; the answer leads to the choice again."""
    form = Labelled.model_validate(_fields(parse_qsl(body.decode("utf-8", "replace"))))
    await run_in_threadpool(_give, target, form)
    fields = {name: value for name, value in form.changed().items() if name not in ("name", "on")}
    return RedirectResponse(address("corpus", **fields), 303)


def _give(target: Target, form: Labelled) -> None:
    query = CorpusQuery(**form.model_dump(exclude={"name", "on"}))
    if query == CorpusQuery():
        raise Wrong("Nothing is chosen.", "", "Choose documents first.")
    if not can_label(target.path):
        raise UserError("The run folder cannot be written.", str(target.path), "Labels are off.")
    with explaining_os_errors(target.path):
        give(target.path, form.name.strip(), form.on, ids_of(target, query), query.model_dump(exclude_defaults=True))


MOST_IDS = 1_000_000  # 33 MB
