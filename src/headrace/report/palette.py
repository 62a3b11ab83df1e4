"""Colors and fonts of all charts and the page, light and dark.

The hues are those of Okabe and Ito, "Color Universal Design" (2008), which people with any common color blindness can
tell apart; the pairs hardest to tell apart are far from each other in the order. Yellow, too faint on white for thin
lines, comes last. Plain fills of these hues stand for sources. Reasons for removal have hues from the gaps between
these, each with a texture, so that even in print or to a color-blind reader no reason looks like a source or another
reason.
"""

from __future__ import annotations

from headrace.report.markup import Markup, element

# name: (on light, on dark). Dark values have the same hues; blue is lighter to keep 4.5 : 1 against the surface.
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

# Hues of reasons: violet, leaf green, crimson, magenta; on light and on dark.
REASON_HUES = (
    ("#6A3FC2", "#A98BEE"),
    ("#3D7A1F", "#86C95C"),
    ("#B3122E", "#FF7A8C"),
    ("#8A1C8A", "#E07FE0"),
)
# Textures of reasons in tiles of 8 x 8. None is diagonal: that is for fill-in-the-middle.
TEXTURES = (
    "M2 0a2 2 0 1 1 0 4a2 2 0 1 1 0-4zM6 4a2 2 0 1 1 0 4a2 2 0 1 1 0-4z",  # dots
    "M0 1h8v2h-8zM0 5h8v2h-8z",  # horizontal lines
    "M1 0h2v8h-2zM5 0h2v8h-2z",  # vertical lines
    "M0 0h4v4h-4zM4 4h4v4h-4z",  # checks
    "M0 0h8v2h-8zM0 2h2v6h-2z",  # grid
    "M3 1h2v2h2v2h-2v2h-2v-2h-2v-2h2z",  # crosses
    "M0 4l4-4l4 4v3l-4-4l-4 4z",  # chevrons
    "M1 1h6v6h-6zM3 3v2h2v-2z",  # frames
)
# Every texture in every hue.
FILLS = len(TEXTURES) * len(REASON_HUES)

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
    """The class for the color of the ``index``-th source; they repeat after eight."""
    return f"c{index % len(HUES)}"


def texture(index: int) -> str:
    """The class for the fill of the ``index``-th reason; they repeat after :data:`FILLS`."""
    return f"r{index % FILLS}"


def _reason_hue(index: int) -> int:
    """Hues in turn, shifted by one each time the textures repeat."""
    return (index + index // len(TEXTURES)) % len(REASON_HUES)


def textures() -> Markup:
    """The definitions that fills of reasons refer to: once per document."""
    tiles = [
        element(
            "pattern",
            element("rect", width=8, height=8, class_="ground"),
            element("path", d=TEXTURES[i % len(TEXTURES)], class_="figure"),
            id=f"texture-{i}",
            class_=f"tile{i}",
            width=8,
            height=8,
            patternUnits="userSpaceOnUse",
        )
        for i in range(FILLS)
    ]
    return element("defs", tiles)


def variables() -> Markup:
    """The style sheet's custom properties, for light and dark."""

    def block(column: int, base: dict[str, str]) -> str:
        colours = {f"c{i}": pair[column] for i, pair in enumerate(HUES)}
        colours |= {f"r{i}": pair[column] for i, pair in enumerate(REASON_HUES)}
        return "".join(f"--{name}:{value};" for name, value in (base | colours).items())

    return Markup(
        f":root{{color-scheme:light dark;{block(0, _LIGHT)}}}"
        f"@media (prefers-color-scheme:dark){{:root{{{block(1, _DARK)}}}}}"
    )


def chart_style() -> Markup:
    """The style rules for charts: once in the page, or in each standalone chart."""
    hues = "".join(
        f".c{i}{{--hue:var(--c{i})}}.chart .fill.c{i}{{fill:var(--c{i})}}.chart .stroke.c{i}{{stroke:var(--c{i})}}"
        for i in range(len(HUES))
    ) + "".join(
        f".chart .fill.r{i}{{fill:url(#texture-{i})}}.tile{i}{{--hue:var(--r{_reason_hue(i)})}}" for i in range(FILLS)
    )
    return Markup(
        f".chart{{font:12px {FONT};font-variant-numeric:tabular-nums}}"
        ".chart text{fill:var(--ink)}.chart .muted:is(text,tspan){fill:var(--muted)}"
        ".chart .strong:is(text,tspan){font-weight:600}"
        ".chart .end{text-anchor:end}.chart .middle{text-anchor:middle}.chart .title{font-size:15px;font-weight:600}"
        ".chart .surface{fill:var(--surface)}.chart .band{fill:var(--faint)}"
        ".chart .grid{stroke:var(--line);stroke-width:1;shape-rendering:crispEdges}"
        ".chart .axis{stroke:var(--muted);stroke-width:1;shape-rendering:crispEdges}"
        ".chart .stroke{fill:none;stroke-linejoin:round;stroke-linecap:round}"
        ".chart .raw{opacity:.4;stroke-width:1}.chart .rawband{fill:var(--muted);opacity:.22}"
        ".chart .series{stroke-width:1.5}"
        ".chart .spike{stroke:#c0392b;stroke-width:2}"
        ".chart .smooth{stroke:var(--ink);stroke-width:2}.chart .raw{stroke:var(--muted)}"
        ".chart .held{stroke-width:1.5;stroke-dasharray:4 3;opacity:.6}"
        ".chart .mark{stroke:var(--surface);stroke-width:1.5}"
        "pattern .ground{fill:color-mix(in srgb,var(--hue) 22%,var(--surface))}pattern .figure{fill:var(--hue)}"
        ".chart .outline{fill:none;stroke:var(--ink);stroke-width:1}"
        ".chart .quarantined{fill:none;stroke:var(--muted);stroke-dasharray:2 1.5}"
        ".chart .ribbon{opacity:.38}.chart a:hover .ribbon,.chart a:focus .ribbon{opacity:.75}"
        ".chart .stretch{fill:var(--ink);opacity:0}.chart a:hover .stretch,.chart a:focus .stretch{opacity:.13}"
        ".chart .kept{fill:var(--good)}.chart .gap{stroke:var(--surface);stroke-width:1.5}"
        ".chart .hatch{stroke:var(--surface);stroke-width:2.2;opacity:.62}" + hues
    )
