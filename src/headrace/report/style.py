"""The style sheet of the report's page, which the viewer's pages share."""

from __future__ import annotations

from importlib import resources

from headrace.report import palette
from headrace.report.markup import Markup


def style() -> Markup:
    """The style sheet."""
    sheet = (resources.files("headrace.report") / "page.css").read_text(encoding="utf-8")
    fonts = f":root{{--sans:{palette.FONT};--mono:{palette.MONO}}}"
    return Markup(palette.variables() + fonts + palette.chart_style() + "\n" + sheet)
