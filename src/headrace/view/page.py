"""What a page is: a query, what it loads, and how that is drawn; as JSON it is what it loads."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

from pydantic import BaseModel, ConfigDict

from headrace.report.markup import Markup
from headrace.view.target import Target


class Query(BaseModel):
    """The state of a page: what its address says, in its path and after the ``?``.

    Fields are short words, since people read addresses. Each has a default unless the path names it.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    def changed(self, **values: object) -> dict[str, Any]:
        """The fields that differ from their defaults, with some of them changed: for :func:`address`."""
        told = self.model_dump(exclude_defaults=True) | values
        fields = type(self).model_fields
        return {fields[k].alias or k: v for k, v in told.items() if fields[k].is_required() or v != fields[k].default}


Q = TypeVar("Q", bound=Query)
F = TypeVar("F")


@dataclass(frozen=True)
class Page(Generic[Q, F]):
    """A page of the viewer; :mod:`headrace.view.registry` has its name, and which targets have it.

    Attributes:
        about: what it answers, in a sentence: for people, and for programs that use it as a tool.
        query: the model of its query.
        load: what it shows: a dataclass (or a dictionary) of JSON values. May raise :class:`UserError`.
        draw: the page's body, from the query and what was loaded.
        heading: the page's heading.
        styles, scripts: further files of ``static/`` that it needs.
    """

    about: str
    query: type[Q]
    load: Callable[[Target, Q], F]
    draw: Callable[[Q, F], Markup]
    heading: Callable[[Q, F], str]
    styles: tuple[str, ...] = ()
    scripts: tuple[str, ...] = ()
