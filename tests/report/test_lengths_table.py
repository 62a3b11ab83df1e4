"""The table of what stages take by length."""

from headrace.report.facts import StageFacts, StageSourceFacts
from headrace.report.sections.stages import lengths_table


def stage(*by_length):
    source = StageSourceFacts("code", 3, 5, (0.0, 1.0), 1.7, 900, 890, by_length=by_length)
    return StageFacts("long", 1, 1000, 1000, 0, 0, [source], None)


def test_each_length_has_a_row_with_its_share_of_the_source():
    counts = {"epochs": 2.0, "documents": 2, "copies": 4, "wanted": None, "tokens_in": 290}
    short = {"lengths": [0, 8000], **counts, "reached": 300}
    long = {"lengths": [8000, None], **counts, "reached": 100}
    drawn = str(lengths_table([stage(short, long)], ["code"]))
    assert all(text in drawn for text in ("0–7,999", "8,000 or more", "75.0 %", "25.0 %"))


def test_stages_that_take_all_lengths_alike_have_no_table():
    assert lengths_table([stage()], ["code"]) is None
