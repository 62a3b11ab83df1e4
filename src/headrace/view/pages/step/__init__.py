"""A step of a training: its batch, its rows by their loss, and the steps around it."""

from __future__ import annotations

from headrace.report.numbers import whole
from headrace.view.page import Page
from headrace.view.pages.step.draw import draw
from headrace.view.pages.step.load import StepQuery, load

PAGE = Page(
    about="The batch of a training step: its rows, those with the highest loss first where it was recorded, their "
    "documents and licenses, loss by source, and the steps around it.",
    query=StepQuery,
    load=load,
    draw=draw,
    heading=lambda query, shown: f"{shown.stage}, step {whole(shown.step)} of {whole(shown.last)}",
    styles=("sequence.css",),
)
