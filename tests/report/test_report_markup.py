import xml.etree.ElementTree as ET

from hypothesis import given
from hypothesis import strategies as st

from headrace.report.markup import Markup, element, escape, join
from headrace.visible import visible


def test_strings_are_escaped_and_markup_is_not():
    assert element("p", "<b>", Markup("<b/>")) == "<p>&lt;b&gt;<b/></p>"
    assert element("a", "x", href='"><script>') == '<a href="&quot;&gt;&lt;script&gt;">x</a>'


def test_attributes():
    drawn = element("g", class_="a", aria_label="b", hidden=None, x=1.25, y=2.0, open=True, tabindex=0, checked=False)
    assert drawn == '<g class="a" aria-label="b" x="1.2" y="2" open="open" tabindex="0"></g>'


def test_children_nest_and_none_is_left_out():
    assert join([1, None, ["a", ("b", 2.5)]]) == "1ab2.5"


@given(st.text(st.characters(codec=None, exclude_categories=())))
def test_any_string_gives_well_formed_xml_without_control_characters(text):
    drawn = element("p", text, title=text)
    parsed = ET.fromstring(drawn.encode("utf-8"))
    shown = "".join(parsed.itertext())
    assert shown == visible(text)
    assert not any(ord(c) < 32 and c not in "\t\n\r" for c in drawn)
    assert "\x1b" not in escape(text)
    assert "\x9b" not in escape(text)
