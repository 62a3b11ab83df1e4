import re
from dataclasses import replace

import orjson
import pytest
from rich.console import Console
from run_facts import facts

from headrace.report.samples import Generated
from headrace.report.summary import WIDTH, corpus_lines, renderable, summary, summary_lines, to_json


def test_it_fits_a_screen_and_says_what_happened():
    lines = summary_lines(facts())
    assert len(lines) <= 45
    assert all(len(line) <= WIDTH for line in lines)
    text = "\n".join(lines)
    for piece in (
        "21,337 read",
        "12 quarantined, 3 empty",
        "6,511 removed",
        "14,811 kept",
        "duplicate",
        "FIM 90.1 %",
        "2 epochs",
        "9.10 → ",
    ):
        assert piece in text
    assert "infilled" in text
    assert lines[-1] == "Report: runs/demo/report/index.html"


def test_a_terminal_is_never_given_anything_to_obey():
    told = facts()
    stage = told.stages[0]
    evil = Generated("a\x1b]0;title\x07\n", "b\x9b31m", "\x1b[2J\rgone\x00")
    stage = replace(stage, training=replace(stage.training, samples=[evil]))
    text = summary(replace(told, stages=[stage], name="\x1b[1m"))
    assert not any((ord(c) < 32 and c != "\n") or 127 <= ord(c) < 160 for c in text)


def test_rich_shows_the_same_words():
    console = Console(width=WIDTH, force_terminal=True, color_system=None)
    with console.capture() as capture:
        console.print(renderable(facts()))
    shown = [line.rstrip() for line in capture.get().splitlines()]
    assert shown == [line.rstrip() for line in summary_lines(facts())]


def test_rich_takes_no_markup_from_texts():
    told = facts()
    stage = told.stages[0]
    stage = replace(stage, training=replace(stage.training, samples=[Generated("[bold]x[/bold]", None, "[/]")]))
    console = Console(width=WIDTH, force_terminal=True)
    with console.capture() as capture:
        console.print(renderable(replace(told, stages=[stage])))
    assert "[bold]x[/bold]" in capture.get()


def test_many_reasons_are_summed_up_in_one_column():
    told = facts()
    removed = {f"filter:{name}": i + 1 for i, name in enumerate("abcdefgh")}
    told = replace(told, sources=[replace(told.sources[0], removed=removed)])
    lines = summary_lines(told)
    assert "other" in lines[1]
    assert lines[2].split()[-5:] == ["8", "7", "6", "5", "10"]


def test_what_was_read_adds_up():
    told = facts()
    lines = corpus_lines([replace(s, lost_rows=7, lost_bytes=9) for s in told.sources])
    read, kept, removed, quarantined, empty = (int(n.replace(",", "")) for n in re.findall(r"(\S+) [rkqe]", lines[0]))
    assert read == kept + removed + quarantined + empty
    assert "28 rows and 36 bytes lost" in lines[1]
    header, *rows = [line.split() for line in lines[2:]]
    for row in rows:
        numbers = dict(zip(header[1:], (int(n.replace(",", "")) for n in row[1:]), strict=True))
        assert numbers.pop("read") == sum(numbers.values())


@pytest.mark.parametrize("width", [60, 80, 100])
def test_it_fits_the_terminal_with_many_sources_and_stages(width):
    told = facts()
    sources = [replace(told.sources[i % 2], name=f"source-{i}") for i in range(6)]
    training = told.stages[0].training
    held = {source.name: [(0, 9.0), (10, 2.0)] for source in sources}
    stages = [replace(told.stages[0], name=f"stage{i}", training=replace(training, held_out=held)) for i in range(5)]
    lines = summary_lines(replace(told, sources=sources, stages=stages), width)
    assert all(len(line) <= width for line in lines if not line.startswith("Report: "))
    assert sum("held-out source-3" in line for line in lines) == (1 if width > 80 else 2)
    assert not any("9.00 …" in line for line in lines)


def test_absent_parts():
    told = facts(trained=False)
    assert "Loss" not in summary(told)
    assert "Sample" not in summary(told)
    bare = replace(told, sources=[replace(s, kept=None, removed={}) for s in told.sources], stages=[], seconds=None)
    assert "kept" not in summary(replace(bare, work=[], report=None))


@pytest.mark.parametrize("trained", [True, False])
def test_json(trained):
    value = orjson.loads(orjson.dumps(to_json(facts(trained))))
    assert value["documents"]["kept"] == 14_811
    assert value["stages"]["stage2"]["sources"]["python"]["epochs"] == 2
    assert ("training" in value["stages"]["stage1"]) == trained
    assert orjson.dumps(facts(trained).to_json())
