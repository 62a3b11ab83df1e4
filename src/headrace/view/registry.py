"""All pages in the order of the menu, and all actions: what else the server answers."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any

from starlette.requests import Request
from starlette.responses import Response

from headrace.view import choice
from headrace.view.address import SITE
from headrace.view.finding import find
from headrace.view.page import Page
from headrace.view.pages import (
    compare,
    copied,
    corpus,
    document,
    documents,
    opened,
    overview,
    plan,
    progress,
    query,
    records,
    removed,
    sequence,
    stage,
    stages,
    step,
    threshold,
)
from headrace.view.pages.removed.label import label
from headrace.view.target import Target


@dataclass(frozen=True)
class Action:
    """An answer that is no page: a stream of events, or a change.

    Attributes:
        path: its route.
        methods: a change is a POST.
        do: answers, given the target, the request and its body.
    """

    path: str
    methods: tuple[str, ...]
    do: Callable[[Target, Request, bytes], Awaitable[Response]]


PAGES: tuple[Page[Any, Any], ...] = (
    overview.PAGE,
    opened.PAGE,
    plan.PAGE,
    records.PAGE,
    stages.PAGE,
    stage.PAGE,
    documents.PAGE,
    copied.PAGE,
    corpus.PAGE,
    query.PAGE,
    compare.PAGE,
    sequence.PAGE,
    step.PAGE,
    document.PAGE,
    removed.PAGE,
    threshold.PAGE,
)
ACTIONS: tuple[Action, ...] = (
    Action("/progress", ("GET",), progress.stream),
    Action("/copied", ("POST",), copied.send),
    Action("/corpus/ids", ("GET",), choice.ids),
    Action("/corpus/label", ("POST",), choice.give_label),
    Action(SITE["find"], ("GET",), find),
    Action("/removed/label", ("POST",), label),
)
