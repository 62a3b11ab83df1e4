import pytest

from headrace.report.numbers import counted, duration, epochs, passes, percent, round_number, short, size, whole


@pytest.mark.parametrize(
    ("n", "said"),
    [
        (0, "0"),
        (987, "987"),
        (998.5, "998.5"),
        (1000, "1.00 k"),
        (12_345, "12.3 k"),
        (999_499, "999 k"),
        (999_950, "1.00 M"),
        (344_800_000_000, "345 B"),
        (1.5e12, "1.50 T"),
    ],
)
def test_counts_have_three_figures(n, said):
    assert short(n) == said


def test_units():
    assert size(0) == "0 B"
    assert size(1_234_567) == "1.23 MB"
    assert round_number(2_000_000) == "2 M"
    assert round_number(2_500_000) == "2.5 M"
    assert round_number(0) == "0"
    assert whole(1234567) == "1,234,567"
    assert counted(1, "document") == "1 document"
    assert counted(2, "process", "processes") == "2 processes"
    assert epochs(1.0) == "1 epoch"
    assert epochs(0.25) == "0.25 epochs"
    assert passes(2, (0, 1)) == "2 epochs"
    assert passes(1, (0.5, 1)) == "1 epoch of 50 %"


def test_shares_never_round_something_to_nothing_or_nearly_all_to_all():
    assert percent(0, 10) == "0 %"
    assert percent(1, 1_000_000) == "< 0.1 %"
    assert percent(999_999, 1_000_000) == "> 99.9 %"
    assert percent(10, 10) == "100 %"
    assert percent(1, 3) == "33.3 %"
    assert percent(1, 0) == "0 %"


@pytest.mark.parametrize(
    ("seconds", "said"),
    [(0.44, "0.4 s"), (9.96, "10 s"), (59.4, "59 s"), (59.6, "1 min 00 s"), (242, "4 min 02 s"), (7499, "2 h 05 min")],
)
def test_durations(seconds, said):
    assert duration(seconds) == said
