"""Colours and type of every chart and of the page, light and dark.

The hues are those of Okabe and Ito, "Color Universal Design" (2008), which people with any common colour blindness
can tell apart; their order puts the pairs that are hardest to tell apart far from each other. Yellow, too faint on
white for thin lines, comes last.
"""

from __future__ import annotations

from headrace.report.markup import Markup

# name: (on light, on dark). The dark values are the same hues; blue is lifted to keep 4.5 : 1 against the surface.
HUES = (
    ("#0072B2", "#3D9BDC"),  # blue
    ("#E69F00", "#E69F00"),  # orange
    ("#009E73", "#1DB88C"),  # bluish green
    ("#CC79A7", "#D68BB5"),  # reddish purple
    ("#56B4E9", "#8CCBF0"),  # sky blue
    ("#D55E00", "#EE7A22"),  # vermillion
    ("#B8A800", "#F0E442"),  # yellow, darkened on light
    ("#5B5B5B", "#B0B0B0"),  # grey for black
)

_LIGHT = {
    "page": "#f6f7f8",
    "surface": "#ffffff",
    "ink": "#1c2126",
    "muted": "#5a646e",
    "line": "#d5dadf",
    "faint": "#eef1f3",
    "accent": "#0072B2",
    "good": "#c8ccd0",
}
_DARK = {
    "page": "#101418",
    "surface": "#181d22",
    "ink": "#e6eaee",
    "muted": "#9aa5b0",
    "line": "#38414a",
    "faint": "#222930",
    "accent": "#6db9ee",
    "good": "#4a545e",
}

FONT = "ui-sans-serif, system-ui, -apple-system, 'Segoe UI', Roboto, 'Helvetica Neue', Arial, sans-serif"
MONO = "ui-monospace, SFMono-Regular, Menlo, Consolas, 'DejaVu Sans Mono', monospace"


def hue(index: int) -> str:
    """The class of the colour of the ``index``-th thing; beyond eight they come again."""
    return f"c{index % len(HUES)}"


def variables() -> Markup:
    """The style sheet's custom properties for light and dark."""

    def block(column: int, base: dict[str, str]) -> str:
        colours = {f"c{i}": pair[column] for i, pair in enumerate(HUES)}
        return "".join(f"--{name}:{value};" for name, value in (base | colours).items())

    return Markup(
        f":root{{color-scheme:light dark;{block(0, _LIGHT)}}}"
        f"@media (prefers-color-scheme:dark){{:root{{{block(1, _DARK)}}}}}"
    )


def chart_style() -> Markup:
    """The rules that charts need: inside the page once, or inside each chart that stands alone."""
    hues = "".join(
        f".c{i}{{--hue:var(--c{i})}}.chart .fill.c{i}{{fill:var(--c{i})}}.chart .stroke.c{i}{{stroke:var(--c{i})}}"
        for i in range(len(HUES))
    )
    return Markup(
        f".chart{{font:12px {FONT};font-variant-numeric:tabular-nums}}"
        ".chart text{fill:var(--ink)}.chart text.muted{fill:var(--muted)}.chart text.strong{font-weight:600}"
        ".chart .end{text-anchor:end}.chart .middle{text-anchor:middle}.chart .title{font-size:15px;font-weight:600}"
        ".chart .surface{fill:var(--surface)}.chart .band{fill:var(--faint)}"
        ".chart .grid{stroke:var(--line);stroke-width:1;shape-rendering:crispEdges}"
        ".chart .axis{stroke:var(--muted);stroke-width:1;shape-rendering:crispEdges}"
        ".chart .stroke{fill:none;stroke-linejoin:round;stroke-linecap:round}"
        ".chart .raw{opacity:.4;stroke-width:1}.chart .rawband{fill:var(--muted);opacity:.22}"
        ".chart .smooth{stroke:var(--ink);stroke-width:2}.chart .raw{stroke:var(--muted)}"
        ".chart .held{stroke-width:1.5;stroke-dasharray:4 3;opacity:.6}"
        ".chart .mark{stroke:var(--surface);stroke-width:1.5}"
        ".chart .kept{fill:var(--good)}.chart .gap{stroke:var(--surface);stroke-width:1.5}"
        ".chart .hatch{stroke:var(--surface);stroke-width:2.2;opacity:.62}" + hues
    )
