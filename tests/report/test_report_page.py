import re
from dataclasses import replace
from html.parser import HTMLParser

import pytest
from run_facts import EVIL, facts

from headrace.report.build import charts
from headrace.report.page import page

VOID = {"meta", "input", "br", "hr"}


class Page(HTMLParser):
    """The page's elements and text; complains about elements that are not closed in order."""

    def __init__(self, text: str) -> None:
        super().__init__(convert_charrefs=True)
        self.tags: list[tuple[str, dict]] = []
        self.texts: list[str] = []
        self._open: list[str] = []
        self.feed(text)
        self.close()
        assert not self._open

    def handle_starttag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))
        if tag not in VOID:
            self._open.append(tag)

    def handle_startendtag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))

    def handle_endtag(self, tag):
        assert self._open.pop() == tag

    def handle_data(self, data):
        if self._open and self._open[-1] != "style":
            self.texts.append(data)

    @property
    def text(self):
        return " ".join(" ".join(self.texts).split())


@pytest.fixture(scope="module")
def drawn():
    return Page(page(facts()))


def test_nothing_runs_and_nothing_is_fetched(drawn):
    tags = {tag for tag, _ in drawn.tags}
    assert not tags & {"script", "link", "img", "iframe", "object", "embed", "base", "form", "foreignobject"}
    for tag, attributes in drawn.tags:
        assert not [name for name in attributes if name.startswith("on")]
        for name in ("href", "src", "xlink:href"):
            assert attributes.get(name, "#").startswith("#"), (tag, attributes)
    text = page(facts())
    assert "url(http" not in text
    assert "@import" not in text
    assert ("meta", "default-src 'none'; style-src 'unsafe-inline'; img-src data:") in [
        (tag, attributes.get("content")) for tag, attributes in drawn.tags
    ]


def test_what_a_corpus_holds_stays_text(drawn):
    assert "<script>alert('1')</script>" in drawn.text
    assert "demo <i>" in drawn.text
    assert "\x00" not in page(facts())
    assert EVIL not in page(facts())


def test_ids_are_unique_and_links_lead_somewhere(drawn):
    ids = [attributes["id"] for _, attributes in drawn.tags if "id" in attributes]
    assert len(ids) == len(set(ids))
    text = page(facts())
    for target in re.findall(r'href="#([^"]+)"', text) + re.findall(r"url\(#([^)]+)\)", text):
        assert target in ids


def test_every_number_of_the_facts_is_told(drawn):
    told = facts()
    text = drawn.text
    for source in told.sources:
        for n in (source.documents, source.kept, source.tokens, *source.removed.values(), *source.splits.values()):
            assert f"{n:,}" in text, (source.name, n)
    for stage in told.stages:
        for n in (stage.rows, stage.tokens, *(s.tokens for s in stage.sources), *(s.copies for s in stage.sources)):
            assert f"{n:,}" in text, (stage.name, n)
        assert f"{stage.training.first:.3f}" in text
        assert f"{stage.training.last:.3f}" in text
        for points in stage.training.held_out.values():
            assert f"{points[0][1]:.3f} → {points[-1][1]:.3f}" in text
    for licence in told.licences:
        assert f"{licence.tokens:,}" in text
    for n in (*told.duplicates.values(), *told.contamination.values()):
        assert f"{n:,}" in text


def test_removed_tokens_are_said_to_be_an_estimate(drawn):
    [python, *others] = facts().sources
    assert python.bytes_a_token == pytest.approx(9_000_000 / 3_400_123)
    assert python.removed_tokens("short") == pytest.approx(9_000 * 3_400_123 / 9_000_000)
    assert "Tokens removed (estimate)" in drawn.text
    assert "≈ 3.40 k" in drawn.text
    # Without a kept document there is no rate, and nothing is estimated; without a removed one it is nothing.
    assert python.removed_tokens("holdout") == 0
    bare = replace(python, tokens=0, stored_bytes=0)
    assert bare.removed_tokens("short") is None
    assert others[0].removed_tokens("duplicate") is None


def test_what_was_not_made_is_absent():
    told = facts(trained=False)
    sections = set(re.findall(r'<section id="([^"]+)"', page(told)))
    assert sections == {"sources", "removed", "lengths", "splits", "stages", "work", "recipe"}
    assert list(charts(told)) == ["token_split.svg"]
    bare = replace(
        told,
        sources=[replace(s, kept=None, removed={}, splits={}, tokens=None, lengths=None) for s in told.sources],
        duplicates=None,
        holdout=None,
        contamination=None,
        examples=[],
        stages=[],
        licences=[],
        work=[],
        seconds=None,
    )
    sections = set(re.findall(r'<section id="([^"]+)"', page(bare)))
    assert sections == {"sources", "recipe"}
    assert charts(bare) == {}
    Page(page(bare))
    Page(page(replace(bare, sources=[])))


def test_charts_stand_alone_too():
    assert sorted(charts(facts())) == ["loss.svg", "token_split.svg"]
