"""The page of a limit: a slider, the distribution of what it limits, and what would move."""

from __future__ import annotations

import orjson

from headrace.report.charts.canvas import WIDTH, Chart, box, label, line
from headrace.report.markup import Markup, element, join
from headrace.report.numbers import counted, round_number, short, whole
from headrace.report.tables import Column, both, figure, table, text
from headrace.view.address import address
from headrace.view.layout import empty, pending
from headrace.view.limits import NEAR
from headrace.view.pages.threshold.load import About, Bin, Shown, Threshold

EDGE, PLOT = 14, 130


def heading(query: Threshold, shown: Shown) -> str:
    """Which limit."""
    return "Limits" if not query.limit else f"Limit: {query.limit}"


def draw(query: Threshold, shown: Shown) -> Markup:
    """The limits, or one."""
    links = element("p", element("a", "removed documents", href=address("removed")), class_="note")
    if shown.limit is None:
        return join([links, _limits(shown)])
    about = shown.limit
    if shown.only_a_run is not None:
        return join([links, element("p", shown.only_a_run), _similar(shown, about), _limits(shown)])
    where = "" if len(about.sources) > 8 else f" Sources: {', '.join(about.sources)}."
    said = [f"{about.about}. The run has {number(about.value)}.{where} ", *_looks(about)]
    if shown.moves is None:
        return join([links, element("p", said), _form(shown, about), pending("Counting documents …")])
    return join(
        [
            links,
            element("p", said),
            _form(shown, about),
            element("div", _moved(shown, about), class_="moved", aria_live="polite"),
            _limits(shown),
        ]
    )


def _similar(shown: Shown, about: About) -> Markup | None:
    """How similar the removed copies are, where that was computed."""
    if shown.below is None:
        return pending("Looking up how similar the removed copies are …")
    if not shown.bins:
        return None
    of = sum(one.documents for one in shown.bins)
    said = f"Of {counted(of, 'copy', 'copies')} removed, {whole(shown.below)} were less than {number(shown.value)} "
    said += "similar to the one kept for them: with that threshold these would be compared with others, or stay."
    drawn = both(lambda width, _: histogram(shown, about, width), "values")
    nearest = element("a", "The least similar", href=address("removed", reason="duplicate", order="nearest"))
    return join(
        [
            _form(shown, about),
            element(
                "div",
                element("p", said, " ", nearest, ".", class_="lead summary"),
                figure(f"Copies by {about.measured}", drawn),
                class_="moved",
                aria_live="polite",
            ),
        ]
    )


def number(value: float) -> str:
    """A limit as a person writes it."""
    return whole(value) if value == int(value) and abs(value) >= 1 else f"{value:g}"


def _looks(about: About) -> list[object]:
    nearest = element("a", "nearest it", href=address("removed", reason=about.reason, order="nearest"))
    almost = element("a", "almost removed", href=address("removed", reason=about.reason, order="kept"))
    return ["Documents ", nearest, ", and those ", almost, "."]


def _form(shown: Shown, about: About) -> Markup:
    """Works without a script; with one, the slider and the field answer at once."""
    step = "1" if about.integral else "any"
    return element(
        "form",
        element("input", type="hidden", name="limit", value=about.path),
        element("label", "New value ", element("input", **_FIELD, value=f"{shown.value:.12g}", step=step)),
        element("button", "Show"),
        element("a", f"back to {number(about.value)}", href=address("threshold", limit=about.path), data_key="0"),
        _slider(shown) if len(shown.stops) > 1 else None,
        method="get",
        action=address("threshold"),
        class_="threshold",
    )


def _slider(shown: Shown) -> Markup:
    return element(
        "input",
        type="range",
        min=0,
        max=len(shown.stops) - 1,
        value=_nearest(shown),
        data_stops=orjson.dumps(shown.stops).decode(),
        aria_label="New value",
    )


_FIELD = {"type": "number", "name": "value"}


def _nearest(shown: Shown) -> int:
    return min(range(len(shown.stops)), key=lambda k: abs(shown.stops[k] - shown.value), default=0)


def _moved(shown: Shown, about: About) -> Markup:
    drawn = both(lambda width, _: histogram(shown, about, width), "values")
    return join([_summary(shown, about), figure(f"Documents by {about.measured}", drawn), _table(shown)])


def _summary(shown: Shown, about: About) -> Markup:
    moved = shown.moves or []
    if shown.value == about.value:
        return element("p", "This is the value in force: nothing moves.", class_="lead summary")
    gained, lost, unsure = (sum(getattr(one, name) for one in moved) for name in ("gained", "lost", "unsure"))
    tokens = ["", ""]
    if shown.counted_tokens:
        back, gone = (sum(getattr(one, name) or 0 for one in moved) for name in ("gained_tokens", "lost_tokens"))
        tokens = [f" (≈ {short(back)} tokens)", f" ({short(gone)} tokens)"]
    parts = [
        f"With {number(shown.value)} instead of {number(about.value)}, ",
        element("strong", counted(gained, "document")),
        f"{tokens[0]} would come back, and ",
        element("strong", counted(lost, "document")),
        f"{tokens[1]} would go.",
    ]
    if unsure:
        parts.append(
            f" {counted(unsure, 'more document')} are in groups of near copies that this touches: which of these stay, "
            "only a run can tell, because their texts are compared."
        )
    return element("p", parts, class_="lead summary")


def histogram(shown: Shown, about: About, width: float = WIDTH) -> Chart:
    """What is measured, with the limit in force and the new one; each bar is a link that moves the limit there."""
    bins = shown.bins
    most = max((one.documents for one in bins), default=0) or 1
    wide = (width - 2 * EDGE) / max(1, len(bins))
    top, base = 26.0, 26.0 + PLOT
    parts: list[Markup] = []
    for k, one in enumerate(bins):
        x, tall = EDGE + k * wide, PLOT * one.documents / most
        if one.documents:
            tall = max(tall, 1.5)
        low = about.least or about.path == NEAR  # the side that the new value moves
        out = one.high <= shown.value if low else one.low > shown.value
        said = f"{number_in(one.low)} to {number_in(one.high)}: {counted(one.documents, 'document')}"
        drawn = [element("title", said), box(x, top, wide, PLOT, "hit")]
        drawn.append(box(x + 0.5, base - tall, max(1.0, wide - 1), tall, "fill r0" if out else "kept"))
        there = f"{one.low:.6g}" if about.least else f"{one.high:.6g}"
        href = address("threshold", limit=about.path, value=there)
        parts.append(element("a", drawn, href=href, aria_label=f"Move the limit to {there}"))
    parts.append(line(EDGE, base, width - EDGE, base, "axis"))
    every = max(1, round(56 / wide))
    for k in range(0, len(bins), every):
        parts.append(label(number_in(bins[k].low), EDGE + k * wide, base + 16, "middle muted"))
    moved = shown.value != about.value
    rising = shown.value > about.value
    for value, name, after in ((about.value, "now", not rising), (shown.value, "new", rising)):
        if name == "now" or moved:
            x = EDGE + wide * _place(bins, value)
            side = "middle" if not moved else "" if after else "end"
            parts.append(line(x, top - 6, x, base, name))
            parts.append(label(f"{name} {number(value)}", x, top - 11, f"strong {side}"))
    described = f"{counted(sum(one.documents for one in bins), 'document')}."
    if shown.moves is not None:
        described += f" The filter would remove {whole(sum(one.removed for one in shown.moves))}."
    return Chart(f"Documents by {about.measured}", described, width, base + 24, join(parts))


def number_in(value: float) -> str:
    """A value on the axis."""
    return round_number(value) if abs(value) >= 1000 else f"{value:.3g}"


def _place(bins: list[Bin], value: float) -> float:
    """Where a value is, counted in bins."""
    for k, one in enumerate(bins):
        if value < one.high:
            return k + max(0.0, (value - one.low) / (one.high - one.low))
    return float(len(bins))


def _table(shown: Shown) -> Markup:
    moved = shown.moves or []
    rows = [
        (
            one.source,
            whole(one.kept),
            _signed(one.gained, "+"),
            None if one.gained_tokens is None else f"≈ {short(one.gained_tokens)}" if one.gained_tokens else "0",
            _signed(one.lost, "−"),
            None if one.lost_tokens is None else short(one.lost_tokens),
            whole(one.kept + one.gained - one.lost),
            whole(one.removed),
            whole(one.unsure) if any(other.unsure for other in moved) else None,
        )
        for one in moved
    ]
    names = ("kept now", "come back", "their tokens", "go", "tokens", "kept then", "removed by this filter", "unsure")
    note = "Tokens of documents that go are counted; of those that come back they are estimated from their bytes. "
    note += "A document comes back only if no other filter removes it, and as a copy only if no preferred one is kept."
    return table([text("source"), *map(Column, names)], rows, note)


def _signed(n: int, sign: str) -> str:
    return f"{sign}{whole(n)}" if n else "0"


def _limits(shown: Shown) -> Markup:
    if not shown.limits:
        return empty("The recipe has no numeric limits.")
    rows: list[tuple[object, ...]] = [
        (
            element("a", one.path, href=address("threshold", limit=one.path)),
            number(one.value),
            one.about,
            element("a", one.reason, href=address("removed", reason=one.reason)),
        )
        for one in shown.limits
    ]
    columns = [text("limit"), Column("value"), text("what it limits"), text("removed as")]
    return element("section", element("h2", "All limits"), table(columns, rows))
