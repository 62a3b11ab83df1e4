"""All pages in the order of the menu, and all actions: what else the server answers. The modules of both are imported
when they are first asked for: all together take longer than the first page may."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from functools import cached_property
from importlib import import_module
from typing import Any

from starlette.requests import Request
from starlette.responses import Response

from headrace.view.address import SITE
from headrace.view.page import Page
from headrace.view.target import Target


@dataclass(frozen=True)
class Listed:
    """A page, before it is imported.

    Attributes:
        name: its name in :data:`headrace.view.address.SITE`, and that of its module in ``pages``.
        title: in the menu.
        serves: whether it has anything to say about a target.
        menu: whether the menu leads to it; else other pages do.
    """

    name: str
    title: str
    serves: Callable[[Target], bool]
    menu: bool = False

    @cached_property
    def page(self) -> Page[Any, Any]:
        """The page itself."""
        page: Page[Any, Any] = import_module(f"headrace.view.pages.{self.name}").PAGE
        return page


@dataclass(frozen=True)
class Action:
    """An answer that is no page: a stream of events, or a change.

    Attributes:
        path: its route.
        methods: a change is a POST.
        function: what answers, as ``module:name`` within this package.
    """

    path: str
    methods: tuple[str, ...]
    function: str

    @cached_property
    def do(self) -> Callable[[Target, Request, bytes], Awaitable[Response]]:
        """Answers, given the target, the request and its body."""
        module, name = self.function.split(":")
        do: Callable[[Target, Request, bytes], Awaitable[Response]] = getattr(
            import_module(f"headrace.view.{module}"), name
        )
        return do


def _has_corpus(target: Target) -> bool:
    return target.is_run and bool(target.recipe.sources)


PAGES: tuple[Listed, ...] = (
    Listed("overview", "Run", lambda target: target.is_run, menu=True),
    Listed("opened", "Start", lambda target: not target.is_run and not target.is_recipe, menu=True),
    Listed("plan", "Plan", lambda target: target.is_recipe, menu=True),
    Listed("records", "Rows", lambda target: target.records is not None, menu=True),
    Listed("stages", "Stages", lambda target: target.is_run and bool(target.recipe.stages), menu=True),
    Listed("stage", "Stage", lambda target: target.is_run),
    Listed("documents", "Documents", _has_corpus, menu=True),
    Listed("copied", "Copied text", _has_corpus),
    Listed("corpus", "Corpus", _has_corpus, menu=True),
    Listed("query", "SQL", _has_corpus),
    Listed("compare", "Compare", lambda target: target.other is not None, menu=True),
    Listed("sequence", "Sequence", lambda target: bool(target.sequences)),
    Listed("step", "Step", lambda target: bool(target.sequences)),
    Listed("document", "Document", lambda target: target.documents is not None),
    Listed("removed", "Removed", lambda target: target.documents is not None, menu=True),
    Listed("threshold", "Limits", lambda target: target.is_run and target.artifact("verdicts") is not None),
)
ACTIONS: tuple[Action, ...] = (
    Action("/progress", ("GET",), "pages.progress:stream"),
    Action("/copied", ("POST",), "pages.copied:send"),
    Action("/corpus/ids", ("GET",), "choice:ids"),
    Action("/corpus/label", ("POST",), "choice:give_label"),
    Action(SITE["find"], ("GET",), "finding:find"),
    Action("/removed/label", ("POST",), "pages.removed.label:label"),
)
