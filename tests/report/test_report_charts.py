import math
import xml.etree.ElementTree as ET

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from headrace.report.charts.axes import labeled, shown, smoothed
from headrace.report.charts.canvas import NARROW, WIDTH, broken, fitted, log_ticks, text_width, ticks
from headrace.report.charts.lengths import Lengths, lengths_chart
from headrace.report.charts.loss import BINS, LossStage, loss_chart
from headrace.report.charts.matrix import heat_table
from headrace.report.charts.removal import RemovalBar, removal_chart
from headrace.report.charts.series import POINTS, Panel, Series, Stage, series_chart, thinned
from headrace.report.charts.split import SplitSource, SplitStage, split_chart
from headrace.report.markup import element
from headrace.report.numbers import round_number

SVG = "{http://www.w3.org/2000/svg}"
EVIL = "<script>&\"'\x00]]>"


def stage(name, start, n, loss=None, held_out=None):
    x = start + np.arange(1, n + 1, dtype=np.float64)
    loss = np.linspace(5, 4, n) if loss is None else np.asarray(loss, dtype=np.float64)
    return LossStage(name, x, loss, start, start + n, held_out or {})


def parsed(chart):
    inline = ET.fromstring(chart.inline("chart"))
    alone = ET.fromstring(chart.file("chart"))
    for root in (inline, alone):
        assert root.tag == f"{SVG}svg"
        assert root.find(f"{SVG}title").text == chart.title
        assert root.find(f"{SVG}desc").text
        assert root.get("role") == "img"
        assert not list(root.iter(f"{SVG}script"))
        for node in root.iter():
            numbers = [node.get(key) for key in ("x", "y", "width", "height", "x1", "x2", "y1", "y2")]
            assert all(math.isfinite(float(n)) for n in numbers if n is not None and not n.endswith("%"))
    return inline


def words(root):
    return " ".join("".join(node.itertext()) for node in root.iter(f"{SVG}text"))


@pytest.mark.parametrize("log", [False, True])
def test_loss_chart_is_well_formed_and_names_stages_and_sources(log):
    held = {"a": [(0, 5.5), (10, 4.5)], EVIL: [(10, 4.0)]}
    root = parsed(loss_chart([stage("one", 0, 10, held_out=held), stage(EVIL, 10, 1)], ["a", EVIL], log=log))
    said = words(root)
    assert "one" in said
    assert "held out: a" in said
    assert "nats per token" in said


def test_loss_chart_survives_missing_and_constant_losses():
    for loss in ([math.nan, 3.0, math.nan], [2.0, 2.0], [3.0]):
        parsed(loss_chart([stage("s", 0, len(loss), loss)], [], log=True))
        parsed(loss_chart([stage("s", 0, len(loss), loss)], []))


def test_loss_chart_of_a_long_run_stays_small():
    n = 50 * BINS
    rng = np.random.default_rng(1)
    chart = loss_chart([stage("s", 0, n, 3 + rng.random(n))], [])
    assert len(chart.inline("c")) < 100_000
    parsed(chart)


@pytest.mark.parametrize("log", [False, True])
def test_series_are_drawn_over_all_stages_with_their_marks(log):
    x = np.arange(1, 5001, dtype=np.float64)
    y = np.where(x % 7 == 0, math.nan, 2 + np.sin(x / 100))
    one = Series("a", "c0", x, y)
    marks = [(30.0, math.nan, "step 30: not finite"), (50.0, 9.0, EVIL)]
    stages = [Stage("one", 0, 5000), Stage(EVIL, 5000, 6000)]
    panel = Panel("Norm", "norm", [one, Series("b", "c1", x[:1] + 5000, y[:1])], marks, "skipped", log=log)
    chart = series_chart(panel, stages)
    root = parsed(chart)
    assert "step 30: not finite" in "".join(root.itertext())
    assert {"one", "norm", "skipped", "a", "b"} <= set(words(root).split())
    assert len(chart.inline("c")) < 30_000
    parsed(series_chart(Panel("Nothing", "", [Series("a", "c0", x[:2], np.full(2, math.nan))], log=log), stages))


def test_thinned_series_keep_their_mean_and_their_ends():
    x, y = np.arange(10_000.0), np.random.default_rng(1).random(10_000)
    few, means = thinned(x, y)
    assert len(few) == POINTS
    assert few[-1] == x[-1]
    assert means.mean() == pytest.approx(y.mean())


@pytest.mark.parametrize(
    ("tick", "said"), [(0, "0"), (0.00015, "1.5e-4"), (2e-5, "2e-5"), (0.25, "0.25"), (9, "9"), (6000, "6 k")]
)
def test_ticks_are_short(tick, said):
    assert shown(tick) == said


def test_smoothing_starts_at_the_first_loss_and_skips_what_is_missing():
    assert smoothed(np.array([4.0]))[0] == 4.0
    line = smoothed(np.array([math.nan, 4.0, math.nan, 2.0]))
    assert math.isnan(line[0])
    assert line[1] == line[2] == 4.0
    assert 2.0 < line[3] < 4.0


def test_narrow_stages_do_not_write_over_each_other():
    stages = [stage("first", 0, 1000), *(stage(f"narrow{i}", 1000 + 5 * i, 5) for i in range(4))]
    root = parsed(loss_chart(stages, []))
    placed = [
        (float(t.get("x")), float(t.get("y")), t.text)
        for t in root.iter(f"{SVG}text")
        if "strong" in t.get("class", "")
    ]
    for i, (x, y, name) in enumerate(placed):
        for other_x, other_y, other in placed[i + 1 :]:
            assert y != other_y or abs(x - other_x) >= (text_width(name) + text_width(other)) / 2


def test_token_split_lengths_follow_tokens_and_labels_tell_epochs_and_fim():
    stages = [
        SplitStage("one", [SplitSource("docs", 1_000_000, 1)]),
        SplitStage("two", [SplitSource("docs", 500_000, 0.5), SplitSource("code", 1_500_000, 3, 0.9)]),
    ]
    root = parsed(split_chart(stages, ["docs", "code"]))
    bars = [float(r.get("width")) for r in root.iter(f"{SVG}rect") if r.get("height") == "30"]
    solid = [
        w
        for w, r in zip(bars, (r for r in root.iter(f"{SVG}rect") if r.get("height") == "30"), strict=True)
        if r.get("class")
    ]
    assert solid[0] / solid[2] == pytest.approx(1 / 1.5, rel=0.01)
    assert solid[1] / solid[2] == pytest.approx(0.5 / 1.5, rel=0.01)
    hatched = [w for w in bars if w not in solid]
    assert hatched[0] / solid[2] == pytest.approx(0.9, rel=0.01)
    said = words(root)
    for piece in ("1.00 M", "0.5 epochs", "3 epochs", "FIM 90.0 %", "25.0 %"):
        assert piece in said


def test_lengths_are_as_high_as_their_counts():
    told = [Lengths("a", [0, 0, 4, 8], [0, 0, 1]), Lengths("b", [0, 0, 0, 0, 1], [0, 0, 0, 0, 1])]
    root = parsed(lengths_chart(told))
    high = {}
    for group in (g for g in root.iter(f"{SVG}g") if g.find(f"{SVG}title") is not None):
        tip = group.find(f"{SVG}title").text
        high[tip] = [(r.get("class"), float(r.get("height"))) for r in group.iter(f"{SVG}rect")]
    assert high == {
        "a, 2 to less than 4 bytes: 4 read, 1 kept": [("fill c0", 11.2), ("outline", 45)],
        "a, 4 to less than 8 bytes: 8 read, 0 kept": [("outline", 90)],
        "b, 8 to less than 16 bytes: 1 read, 1 kept": [("fill c1", 90), ("outline", 90)],
    }
    assert "median 4 to less than 8 bytes" in root.find(f"{SVG}desc").text


def test_empty_charts():
    parsed(lengths_chart([Lengths("none", [], [])]))
    parsed(split_chart([SplitStage("none", [])], []))
    parsed(removal_chart([RemovalBar("empty", 0, {})], []))


def test_removal_tells_every_reason_with_its_count():
    reasons = ["short", "filter:max_line", "none"]
    root = parsed(removal_chart([RemovalBar(EVIL, 90, {"short": 9, "filter:max_line": 1, "none": 0}, 3)], reasons))
    said = words(root)
    for piece in ("kept 90 (90.0 %)", "short 9 (9.0 %)", "filter:max_line 1 (1.0 %)", "quarantined 3"):
        assert piece in said
    assert "none" not in said


def test_heat_table_adds_up_and_escapes():
    values = {("a", "a"): 3, ("a", EVIL): 2, (EVIL, "a"): 1}
    root = ET.fromstring(element("div", heat_table(["a", EVIL], ["a", EVIL], values, "corner", "caption")))
    cells = [[cell.text for cell in row] for row in root.iter("tr")]
    assert [row[-1] for row in cells] == ["total", "5", "1", "6"]
    assert cells[-1][1:] == ["4", "2", "6"]


@given(st.floats(-1e12, 1e12), st.floats(1e-6, 1e12))
def test_ticks_lie_within_and_are_few(low, span):
    high = low + span
    made = ticks(low, high)
    assert len(made) <= 12
    slack = 1e-6 * max(abs(low), abs(high), span)
    assert all(low - slack <= tick <= high + slack for tick in made)


@pytest.mark.parametrize(
    ("low", "high"), [(6.92, 6.955), (10_001, 10_009), (0, 3), (1_000_000, 1_000_040), (0.1, 0.1002)]
)
def test_ticks_are_told_apart(low, high):
    """Also where they are near each other, and far from 0."""
    for say in (shown, round_number):
        told = labeled(ticks(low, high), say)
        assert [tick for tick, _ in told] == ticks(low, high)
        assert len({said for _, said in told}) == len(told) > 2
    assert labeled([0, 250_000, 500_000], round_number) == [(0, "0"), (250_000, "250 k"), (500_000, "500 k")]


@given(st.floats(1e-3, 1e3), st.floats(1.001, 1e6))
def test_log_ticks_are_positive_and_within(low, factor):
    made = log_ticks(low, low * factor)
    assert all(0 < tick <= low * factor * 1.001 for tick in made)


def test_fitted_text():
    assert fitted("short", 500) == "short"
    cut = fitted("a" * 500, 100)
    assert cut.endswith("…")
    assert text_width(cut) <= 100 < WIDTH


NAMES = ["docs", "a source with a very long name, of many words and of many more than anyone would write", "x" * 200]


@pytest.mark.parametrize("width", [NARROW, WIDTH])
def test_nothing_stands_out_of_a_chart(width):
    held = {name: [(0, 5.5), (10, 4.5)] for name in NAMES}
    parts = [SplitSource(name, 10**i, 3.25, 0.9, (0.125, 0.25)) for i, name in enumerate(NAMES)]
    removed = {f"filter:{name}": 3 for name in NAMES}
    charts = [
        loss_chart([stage(name, 10 * i, 10, held_out=held) for i, name in enumerate(NAMES)], NAMES, width=width),
        split_chart([SplitStage(name, parts) for name in NAMES], NAMES, width),
        removal_chart([RemovalBar(name, 90, removed, 3) for name in NAMES], list(removed), width),
        lengths_chart([Lengths(name, [1] * 60, [1] * 59) for name in NAMES], width),
        lengths_chart([Lengths("one", [0] * 9 + [3], None)], width),
    ]
    for chart in charts:
        root = parsed(chart)
        _, _, across, down = map(float, root.get("viewBox").split())
        assert across == width
        shifts = {text: shift for g in root.iter(f"{SVG}g") for text in g for shift in [g.get("transform")]}
        for text in root.iter(f"{SVG}text"):
            if "rotate" in text.get("transform", "") or text in shifts:
                continue
            x, wide, classes = float(text.get("x")), text_width(text.text), text.get("class", "").split()
            left = x - wide if "end" in classes else x - wide / 2 if "middle" in classes else x
            assert left >= -1, text.text
            assert left + wide <= width + 1, text.text
            assert 0 <= float(text.get("y")) <= down, text.text
        for box in root.iter(f"{SVG}rect"):
            assert float(box.get("x")) + float(box.get("width")) <= width + 1


@given(st.text(alphabet="ab 好", max_size=200), st.floats(40, 400))
def test_broken_text_keeps_its_words_within_the_width(text, width):
    lines = broken(text, width)
    assert all(text_width(line) <= width for line in lines)
    if all(text_width(word) <= width for word in text.split()):
        assert " ".join(lines).split() == text.split()
