from hypothesis import given
from hypothesis import strategies as st

from headrace.report.excerpts import BEFORE, LENGTH, around, beginning, compared


def test_long_texts_are_cut():
    text, marks = beginning("x" * 5000)
    assert text == "x" * LENGTH + "…"
    assert marks == []
    assert beginning("short") == ("short", [])


def test_a_span_is_shown_with_its_surroundings():
    text = "a" * 1000 + "FOUND" + "b" * 1000
    shown, [(start, end)] = around(text, 1000, 1005)
    assert shown[start:end] == "FOUND"
    assert shown.startswith("…a")
    assert start == BEFORE + 1
    assert around("FOUND", 0, 5) == ("FOUND", [(0, 5)])


@given(st.text(max_size=3000), st.integers(0, 3000), st.integers(0, 3000))
def test_marks_lie_within_the_excerpt(text, start, length):
    start = min(start, len(text))
    end = min(start + length, len(text))
    shown, [(a, b)] = around(text, start, end)
    assert 0 <= a <= b <= len(shown)
    assert text[start:end].startswith(shown[a:b])


def test_copies_are_compared_where_they_differ():
    lead = "word " * 400
    (one, marks), (other, other_marks) = compared(lead + "old end", lead + "new end")
    assert [one[a:b] for a, b in marks] == ["old"]
    assert [other[a:b] for a, b in other_marks] == ["new"]
    assert one.startswith("…")


def test_equal_copies_have_no_marks():
    assert compared("same", "same") == (("same", []), ("same", []))


@given(st.text("ab \n", max_size=300), st.text("ab \n", max_size=300))
def test_what_is_not_marked_is_the_same_on_both_sides(one, other):
    bare = []
    for shown, marks in compared(one, other):
        at, kept = 0, ""
        for start, end in marks:
            kept += shown[at:start]
            at = end
        bare.append(kept + shown[at:])
    assert bare[0] == bare[1]
