"""How the segments of a row are drawn: as text, as tokens, or as ids."""

from __future__ import annotations

import math
from bisect import bisect_right
from dataclasses import dataclass
from typing import Literal

from headrace.report.markup import Markup, element, join
from headrace.report.numbers import whole
from headrace.report.palette import hue
from headrace.view.address import address
from headrace.view.fim import BOTH, UNMARKED
from headrace.view.rows import Row, Run, Segment

View = Literal["text", "tokens", "ids"]
FEW = 20  # ids of padding that is of several kinds
PARTS = {
    "prefix": "prefix",
    "suffix": "suffix",
    "middle": "middle-part",
    BOTH: "middle-part",
    UNMARKED: UNMARKED,
}
"""Part -> its class."""
LOSSES = (0.1, 0.5, 1.0, 2.0, 4.0, 6.0, 9.0)
"""Nats at which a token gets the next color: a token as likely as not has 0.7, one of 50,000 drawn blindly 10.8."""
TOLD = {UNMARKED: "part not known", "sentinel": "sentinel"}


@dataclass(frozen=True)
class Look:
    """How segments are drawn.

    Attributes:
        view: as what.
        sources: the names of all sources, in the order of their colors.
        documents: whether there are pages of documents to link to.
        token: the position of a token to mark.
        loss: whether tokens are colored by their loss rather than their source.
    """

    view: View
    sources: list[str]
    documents: bool
    token: int | None = None
    loss: bool = False


def legend(look: Look, rows: list[Row]) -> Markup:
    """What the colors and lines of some rows mean."""
    segments = [one for row in rows for one in row.segments]
    runs = [run for one in segments for run in one.runs]
    names = [name for name in look.sources if any(one.source == name for one in segments)]
    entries = [
        element("li", element("span", class_=f"key {hue(look.sources.index(name))}"), name, class_="entry")
        for name in names
    ]
    if look.loss and any(run.losses for run in runs):
        entries.append(element("li", "loss, nats:", [_step_of(k) for k in range(len(LOSSES) + 1)], class_="entry"))
    parts = [part for part in PARTS if any(run.part == part for run in runs)]
    entries += [
        element("li", element("span", TOLD.get(part, part), class_=f"run {PARTS[part]}"), class_="entry")
        for part in parts
    ]
    if any(not run.loss for one in segments if one.kind != "padding" for run in one.runs):
        entries.append(element("li", element("span", "no loss", class_="run quiet"), class_="entry"))
    if any(run.special for run in runs):
        entries.append(element("li", element("span", "special token", class_="run special"), class_="entry"))
    if any(one.kind == "padding" for one in segments):
        entries.append(element("li", element("span", "padding", class_="run pad"), class_="entry"))
    return element("ul", entries, class_="legend", aria_label="Legend")


def _step_of(k: int) -> Markup:
    """A color of losses in the legend."""
    said = f"< {LOSSES[0]:g}" if k == 0 else f"{LOSSES[k - 1]:g}" if k < len(LOSSES) else f"≥ {LOSSES[-1]:g}"
    return element("span", said, class_=f"t l{k}")


def heat(loss: float) -> str:
    """The class for the color of a loss; none where a token carries no loss."""
    return "" if math.isnan(loss) else f"l{bisect_right(LOSSES, loss)}"


def document(look: Look, one: Segment) -> Markup:
    """A link to a segment's document, where there are pages of documents."""
    said = whole(one.document or 0) if one.id is None else one.id[:12]
    return element("a", said, href=address("document", row=one.document)) if look.documents else join(said)


def color(look: Look, one: Segment) -> str:
    """The class for the color of a segment's source."""
    return hue(look.sources.index(one.source)) if one.source in look.sources else "nobody"


def segment(look: Look, one: Segment) -> Markup:
    """A segment: what it is from, and its tokens."""
    kind = "" if one.kind in ("plain", "unknown", "padding") else one.kind
    label = [
        element("span", one.source or ("padding" if one.kind == "padding" else "text"), class_="source"),
        [" ", document(look, one)] if one.document is not None else None,
        f" · from token {whole(one.offset)}" if one.offset else None,
        f" · {kind}" if kind else None,
        f" · {one.license}" if one.license else None,
        f" · loss {one.loss:.4g}" if one.loss is not None else None,
    ]
    drawn: list[object] = []
    part: str | None = None
    if one.kind == "padding":
        drawn = [_padding(run) for run in one.runs]
    else:
        for run in one.runs:
            if run.part not in (part, "sentinel", None):
                drawn.append(element("b", TOLD.get(run.part, run.part), class_="tag"))
            part = run.part if run.part != "sentinel" else part
            drawn.append(_run(look, one, run))
    return element(
        "article",
        element("p", label, class_="of"),
        element("div", drawn, class_="said"),
        class_=f"segment {color(look, one)} {'padding' if one.kind == 'padding' else ''}".strip(),
    )


def _padding(run: Run) -> Markup:
    """Padding, which is one token many times, is told and not repeated."""
    n = len(run.ids)
    if len(set(run.ids)) > 1:
        said = f"{whole(n)} tokens: {' '.join(map(str, run.ids[:FEW]))}{' …' if n > FEW else ''}"
    else:
        said = f"{run.text[: len(run.text) // n] if run.text else f'id {run.ids[0]}'} × {whole(n)}"
    return element("span", said, class_="run pad")


def _run(look: Look, one: Segment, run: Run) -> Markup:
    classes = [
        "run",
        PARTS.get(run.part or "", ""),
        "" if run.loss else "quiet",
        "special" if run.special else "",
    ]
    if look.view == "text" and run.text is not None:
        inside: object = run.text
    else:
        inside = [_token(look, one, run, k) for k in range(len(run.ids))]
    return element("span", inside, class_=" ".join(filter(None, classes)))


def _token(look: Look, one: Segment, run: Run, k: int) -> Markup:
    place = run.start + k
    as_text = look.view == "tokens" and run.texts
    said = run.texts[k].replace("\n", "↵\n") or "∅" if as_text else str(run.ids[k])
    here = look.token == place
    color = heat(run.losses[k]) if look.loss and run.losses else ""
    classes = " ".join(filter(None, ("t", color, "here" if here else "")))
    return element("span", said, class_=classes, title=told(one, run, k), id=f"token-{place}" if here else None)


def _nats(loss: float) -> str:
    return f"{loss:.3g}" if math.isfinite(loss) else "not finite"


def told(one: Segment, run: Run, k: int) -> str:
    """Everything about a token, in a line."""
    place = run.start + k
    parts = [f"token {place}", f"id {run.ids[k]}"]
    if run.bytes:
        parts.append(f"bytes {run.bytes[k] or 'none'}")
    if one.source is not None:
        parts.append(one.source)
    if one.document is not None:
        parts.append(f"document {one.document}, its token {place - one.start + (one.offset or 0)}")
    if run.part is not None:
        parts.append(TOLD.get(run.part, run.part))
    if run.special:
        parts.append("special")
    recorded = run.losses[k] if run.losses else math.nan
    parts.append("no loss" if not run.loss else "loss" if math.isnan(recorded) else f"loss {_nats(recorded)}")
    return " · ".join(parts)
