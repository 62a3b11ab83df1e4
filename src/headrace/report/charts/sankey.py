"""What flows from where to where: ribbons between two columns, as wide as what they carry (a Sankey diagram)."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

from headrace.report.charts.canvas import SIZE, WIDTH, Chart, box, fitted, label, linked, text_width
from headrace.report.markup import Markup, element, join
from headrace.report.numbers import percent

NODE, GAP, LEAST = 14, 10, 1.5  # pixels: a node's width, the space between two, the least height of either
LINE = 16  # height of a label's line


@dataclass(frozen=True)
class Flow:
    """A ribbon.

    Attributes:
        start, stop: names of a node on the left and one on the right.
        value: what it carries.
        href: where a click on it leads.
    """

    start: str
    stop: str
    value: float
    href: str | None = None


@dataclass(frozen=True)
class Node:
    """A node: its name, its class for color, and where a click on it leads."""

    name: str
    fill: str
    href: str | None = None


def sankey_chart(
    title: str,
    left: Sequence[Node],
    right: Sequence[Node],
    flows: Sequence[Flow],
    said: Callable[[float], str],
    width: float = WIDTH,
    height: float = 300,
) -> Chart:
    """Draw flows between two columns of nodes, each in the order given. Nodes without flows are left out.

    Args:
        title: what flows.
        left, right: the columns.
        flows: at most one between two nodes.
        said: a value in words.
        width: of the chart.
        height: of the ribbons at least; labels may need more.
    """
    flows = [flow for flow in flows if flow.value > 0]
    out = _sums((flow.start, flow.value) for flow in flows)
    into = _sums((flow.stop, flow.value) for flow in flows)
    left, right = [n for n in left if n.name in out], [n for n in right if n.name in into]
    total = sum(out.values())
    if not total:
        return Chart(title, "Nothing flows yet.", width, 24, label("Nothing flows yet.", 0, 16, "muted"))
    lines = 2 if width < WIDTH else 1
    tallest = max(len(left), len(right))
    span = max(height, tallest * (LINE * lines + 2)) - GAP * (tallest - 1)
    wanted = [
        text_width(f"{n.name}  {_amount(values[n.name], total, said)}")
        for values, nodes in ((out, left), (into, right))
        for n in nodes
    ]
    margin = min(0.34 * width, NODE + 12 + max(wanted))
    before, after = margin, width - margin
    tops = {**_tops("l", left, out, total, span, lines), **_tops("r", right, into, total, span, lines)}
    bottom = max(y + h for y, h in tops.values())
    parts: list[Markup] = [_ribbons(flows, left, right, tops, total, span, before, after, said)]
    for side, nodes, values in (("l", left, out), ("r", right, into)):
        for node in nodes:
            y, tall = tops[side, node.name]
            parts.append(
                _node(node, values[node.name], total, side == "l", y, tall, before, after, margin, said, lines)
            )
    told = "; ".join(f"{f.start} to {f.stop}: {said(f.value)}" for f in flows)
    return Chart(title, f"{told}.", width, bottom + LINE, join(parts))


def _sums(pairs: Iterable[tuple[str, float]]) -> dict[str, float]:
    total: dict[str, float] = {}
    for name, value in pairs:
        total[name] = total.get(name, 0) + value
    return total


def _tops(
    side: str, nodes: Sequence[Node], values: dict[str, float], total: float, span: float, lines: int
) -> dict[tuple[str, str], tuple[float, float]]:
    """Each node's top and height."""
    y, found = 4.0, {}
    for node in nodes:
        tall = max(LEAST, span * values[node.name] / total)
        # A label needs its line, however thin its node is.
        room = max(tall, LINE * lines)
        found[side, node.name] = y + (room - tall) / 2, tall
        y += room + (GAP if lines == 1 else 2)
    return found


def _ribbons(
    flows: Sequence[Flow],
    left: Sequence[Node],
    right: Sequence[Node],
    tops: dict[tuple[str, str], tuple[float, float]],
    total: float,
    span: float,
    before: float,
    after: float,
    said: Callable[[float], str],
) -> Markup:
    order = {node.name: i for i, node in enumerate(right)}
    rank = {node.name: i for i, node in enumerate(left)}
    fills = {node.name: node.fill for node in left}
    used: dict[tuple[str, str], float] = {}
    drawn = []
    x1, x2 = before + NODE / 2, after - NODE / 2
    middle = (x1 + x2) / 2
    for flow in sorted(flows, key=lambda f: (rank[f.start], order[f.stop])):
        tall = max(LEAST / 2, span * flow.value / total)
        a = tops["l", flow.start][0] + used.get(("l", flow.start), 0)
        b = tops["r", flow.stop][0] + used.get(("r", flow.stop), 0)
        used["l", flow.start] = used.get(("l", flow.start), 0) + tall
        used["r", flow.stop] = used.get(("r", flow.stop), 0) + tall
        path = (
            f"M{x1:.1f} {a:.1f}C{middle:.1f} {a:.1f} {middle:.1f} {b:.1f} {x2:.1f} {b:.1f}"
            f"V{b + tall:.1f}C{middle:.1f} {b + tall:.1f} {middle:.1f} {a + tall:.1f} {x1:.1f} {a + tall:.1f}Z"
        )
        tip = element("title", f"{flow.start} → {flow.stop}: {said(flow.value)}")
        ribbon = element("path", tip, d=path, class_=f"{fills[flow.start]} ribbon")
        drawn.append(linked(ribbon, flow.href))
    return element("g", drawn)


def _node(
    node: Node,
    value: float,
    total: float,
    is_left: bool,
    y: float,
    tall: float,
    before: float,
    after: float,
    margin: float,
    said: Callable[[float], str],
    lines: int,
) -> Markup:
    x = before - NODE / 2 if is_left else after - NODE / 2
    room = margin - NODE - 4
    amount = _amount(value, total, said)
    at, class_ = (x - 6, "end") if is_left else (x + NODE + 6, "")
    middle = y + tall / 2
    if lines == 1 and text_width(f"{node.name}  {amount}") <= room:
        words = [
            element(
                "text",
                element("tspan", node.name, class_="strong"),
                element("tspan", f"  {amount}", class_="muted"),
                x=at,
                y=middle + 4,
                class_=class_ or None,
            )
        ]
    else:
        words = [
            label(fitted(node.name, room, SIZE * 1.12), at, middle - 2, f"{class_} strong".strip()),
            label(fitted(amount, room), at, middle + 12, f"{class_} muted".strip()),
        ]
    tip = element("title", f"{node.name}: {amount}")
    return linked(element("g", tip, box(x, y, NODE, tall, node.fill), words), node.href)


def _amount(value: float, total: float, said: Callable[[float], str]) -> str:
    return f"{said(value)} ({percent(value, total)})"
