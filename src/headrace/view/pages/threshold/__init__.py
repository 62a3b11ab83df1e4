"""A limit, and what another value of it would change."""

from __future__ import annotations

from headrace.view.page import Page
from headrace.view.pages.threshold.draw import draw, heading
from headrace.view.pages.threshold.load import Threshold, load

PAGE = Page(
    about="What another value of a filter's limit would keep or remove, by source, from the sidecars alone.",
    query=Threshold,
    load=load,
    draw=draw,
    heading=heading,
    styles=("document.css", "removed.css", "threshold.css"),
    scripts=("threshold.js",),
)
