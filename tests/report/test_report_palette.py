import colorsys
import re
import xml.etree.ElementTree as ET

import pytest

from headrace.report.charts.removal import RemovalBar, removal_chart
from headrace.report.palette import FILLS, HUES, REASON_HUES, TEXTURES, chart_style, hue, texture, textures

SVG = "{http://www.w3.org/2000/svg}"


def angle(colour):
    """The hue in degrees, None of a grey."""
    red, green, blue = (int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5))
    h, s, _ = colorsys.rgb_to_hsv(red, green, blue)
    return 360 * h if s > 0.05 else None


@pytest.mark.parametrize("column", [0, 1])
def test_reasons_and_sources_differ_in_hue(column):
    for reason in REASON_HUES:
        for source in HUES:
            one, other = angle(reason[column]), angle(source[column])
            if other is not None:
                assert min(abs(one - other), 360 - abs(one - other)) >= 15, (reason, source)


def test_reasons_have_each_its_own_texture_and_sources_none():
    assert len(set(TEXTURES)) == len(TEXTURES)
    style = chart_style()
    looks = set()
    for i in range(FILLS):
        assert f".fill.{texture(i)}{{fill:url(#texture-{i})}}" in style
        pattern = next(p for p in ET.fromstring(textures()) if p.get("id") == f"texture-{i}")
        shade = re.search(rf"\.tile{i}{{--hue:var\(--(r\d)\)}}", style).group(1)
        looks.add((pattern.find("path").get("d"), shade))
    assert len(looks) == FILLS
    for i in range(len(HUES)):
        assert f".fill.{hue(i)}{{fill:var(--c{i})}}" in style


def test_removal_is_drawn_in_textures_only_the_same_for_a_reason_in_every_source():
    reasons = ["duplicate", "filter:a", "filter:b", "short", "failed:x", "withdrawn"]
    bars = [RemovalBar("one", 5, {r: i + 1 for i, r in enumerate(reasons)}, 2), RemovalBar("two", 1, {"short": 9})]
    root = ET.fromstring(removal_chart(bars, reasons).inline("c"))
    fills = {}
    for group in (g for g in root.iter(f"{SVG}g") if g.find(f"{SVG}title") is not None):
        name = group.find(f"{SVG}title").text.split(", ", 1)[1].rsplit(":", 1)[0]
        fills.setdefault(name, set()).add(group.find(f"{SVG}rect").get("class"))
    assert fills.pop("kept") == {"kept"}
    assert set(fills) == set(reasons)
    assert len(set.union(*fills.values())) == len(reasons)
    classes = {name for box in root.iter(f"{SVG}rect") for name in box.get("class").split()}
    assert not [name for name in classes if re.fullmatch(r"c\d", name)]
