"""A document: its text, every decision about it, its copies, and where it was trained on."""

from __future__ import annotations

from headrace.view.page import Page
from headrace.view.pages.document.draw import draw, heading
from headrace.view.pages.document.load import Document, load

PAGE = Page(
    name="document",
    title="Document",
    about="A document's text, measures, verdict with evidence, copies, license and origin, and each row that holds it.",
    query=Document,
    load=load,
    draw=draw,
    heading=heading,
    serves=lambda target: target.documents is not None,
    styles=("document.css",),
)
