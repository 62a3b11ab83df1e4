"""A document: its text, every decision about it, its copies, and where it was trained on."""

from __future__ import annotations

from headrace.view.page import Page
from headrace.view.pages.document.draw import draw, heading
from headrace.view.pages.document.load import Document, load

PAGE = Page(
    about="A document's text, measures, verdict with evidence, copies, license and origin, and each row that holds it.",
    query=Document,
    load=load,
    draw=draw,
    heading=heading,
    styles=("document.css",),
)
