"""The first page of a recipe: what a run of it would do, as `headrace plan` tells."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from headrace.recipe.load import dump
from headrace.report.markup import Markup, element, join
from headrace.report.tables import details
from headrace.view.layout import pending
from headrace.view.page import Page, Query
from headrace.view.target import Target


@dataclass(frozen=True)
class Planned:
    """What the page shows.

    Attributes:
        name: the recipe's name.
        recipe: the recipe, as YAML with nothing left to extend.
        plan: as ``headrace plan --json``; None while sources are looked at.
        text: the same in words.
    """

    name: str
    recipe: str
    plan: dict[str, Any] | None
    text: str


def load(target: Target, query: Query) -> Planned:
    """Plan it, in the background."""
    plan = target.plan
    told = (None, "") if plan is None else (plan.to_json(), str(plan))
    return Planned(target.name, dump(target.recipe), *told)


def draw(query: Query, shown: Planned) -> Markup:
    """The page."""
    recipe = details("The recipe, with all that it extends", element("pre", shown.recipe, class_="text", tabindex=0))
    if shown.plan is None:
        return join([pending("Looking at the sources …"), recipe])
    lead = element("p", "What a run of this recipe is expected to do. Estimates start with ~.", class_="lead")
    return join([lead, element("pre", shown.text, class_="plan", tabindex=0), recipe])


PAGE = Page(
    about="What a run of a recipe is expected to do: documents, tokens, stages, steps, disk, memory and time.",
    query=Query,
    load=load,
    draw=draw,
    heading=lambda query, shown: shown.name,
)
