"""What was removed: by reason and source, then a document at a time, to judge a filter by."""

from __future__ import annotations

from headrace.view.page import Page
from headrace.view.pages.removed.draw import draw, heading
from headrace.view.pages.removed.load import Removed, load

PAGE = Page(
    about="Documents removed by reason and source; a random sample of each or those nearest a limit, with evidence.",
    query=Removed,
    load=load,
    draw=draw,
    heading=heading,
    styles=("document.css", "removed.css"),
)
