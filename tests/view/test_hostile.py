"""Documents that try to become part of the page: through every page, no element, attribute or command comes of them."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator
from urllib.parse import urlencode

import orjson
import pytest
from hostile_run import EVIL, make, write_corpus
from pages import Page
from starlette.testclient import TestClient

from headrace.view.app import application
from headrace.view.publish import publish
from headrace.view.target import Target
from headrace.visible import visible

MOST = 60  # pages that are read
ELEMENTS = """
a article aside b body br button caption circle clippath code col colgroup dd defs desc details div dl dt em
fieldset figcaption figure footer form g h1 h2 h3 h4 head header html i input kbd label legend li line
lineargradient link main mark meta nav ol option output p path pattern pre progress rect script section
select small span stop strong sub summary sup svg table tbody td text textarea tfoot th thead title tr
tspan ul use
"""
OWN = frozenset(ELEMENTS.split())


class Strict(Page):
    """A page in which only the viewer's own elements may be."""

    def handle_starttag(self, tag, attrs):
        assert tag in OWN, self.get_starttag_text()
        for name, value in attrs:
            assert re.fullmatch(r"[a-z][a-z0-9:-]*", name), self.get_starttag_text()
            assert "evil" not in name, self.get_starttag_text()
            if name in ("href", "src", "action", "formaction"):
                assert re.match(r"/(?!/)|#|data:,$", value or ""), self.get_starttag_text()
        super().handle_starttag(tag, attrs)

    def handle_comment(self, data):
        raise AssertionError(f"a comment: {data}")

    def handle_pi(self, data):
        raise AssertionError(f"an instruction: {data}")

    def unknown_decl(self, data):
        raise AssertionError(f"a declaration: {data}")

    def handle_decl(self, decl):
        assert decl == "doctype html"


def strict(text: str) -> Strict:
    page = Strict()
    page.feed(text)
    page.close()
    assert not page._open
    assert text == visible(text), "something is neither seen nor named"
    return page


@pytest.fixture(scope="module")
def viewer(hostile) -> Iterator[TestClient]:
    with TestClient(application(Target(hostile, other=Target(hostile))), base_url="http://localhost") as client:
        yield client


def asked(viewer: TestClient) -> list[str]:
    """Where a reading begins: every page of the menu, and hostile words wherever an address takes them."""
    found = ["/", "/compare", "/removed?reason=quarantined", "/documents?kept=no"]
    for evil in EVIL:
        told = evil.encode("utf-8", "replace").decode()
        named = {"q": told}
        found += [f"/documents?{urlencode(named | {'how': how})}" for how in ("text", "phrase", "regex", "name")]
        found.append(f"/copied?{urlencode({'q': told * 3})}")
        found += [f"/{page}?{urlencode({name: told})}" for page, name in (("corpus", "license"), ("corpus", "between"))]
        found += [f"/removed?{urlencode({name: told})}" for name in ("reason", "source", "order", told)]
        found.append(
            f"/corpus/query?{urlencode({'sql': 'SELECT path, license, $$' + told + '$$ AS evil FROM corpus'})}"
        )
        found.append(f"/corpus/query?{urlencode({'sql': told})}")
        found.append(f"/stages/{urlencode({'': told})[1:]}")
    return found


def test_no_element_or_attribute_comes_from_data(viewer):
    """Every page is read as a browser parses it, following its links."""
    queue, seen, kinds = asked(viewer), set(), Counter()
    first = len(queue)

    def kind(href: str) -> str:
        return re.sub(r"\d+", "N", href.split("?")[0])

    while queue and len(seen) < first + MOST:
        least = min(range(len(queue)), key=lambda i: kinds[kind(queue[i])])
        href = queue.pop(0 if len(seen) < first else least)
        if href in seen or href.startswith("/corpus/ids"):
            continue
        seen.add(href)
        answer = viewer.get(href)
        assert answer.status_code in (200, 400, 404, 409), (href, answer.text[:500])
        page = strict(answer.text)
        kinds[kind(href)] += len(seen) > first
        queue += sorted({link.split("#")[0] for link in page.links("/")} - seen)
    wanted = {"/documents/N", "/sequences/first", "/removed", "/compare", "/corpus/query", "/removed/limit"}
    assert wanted <= kinds.keys(), kinds


def test_hostile_text_is_shown_as_it_is(viewer):
    """It is not swallowed either: a reader sees what stands in the document."""
    page = strict(viewer.get("/documents/0").text)
    assert EVIL[0] in page.text("pre", class_="text whole")
    told = next(strict(viewer.get(f"/documents/{i}").text) for i in range(60)
                if "␛" in viewer.get(f"/documents/{i}").text)  # fmt: skip
    assert "␛[31m" in told.text("pre", class_="text whole")


def test_json_of_hostile_documents_is_json(viewer):
    for page in ("", "documents", "documents/3", "sequences/first", "removed", "compare"):
        answer = viewer.get(f"/{page}?format=json")
        assert orjson.loads(answer.content), page
        assert answer.headers["content-type"] == "application/json"


def test_published_pages_are_as_safe(hostile, tmp_path):
    target = Target(hostile, other=Target(hostile))
    assert publish(target, tmp_path / "out") > 10
    for file in (tmp_path / "out").glob("*.html"):
        text = file.read_text(encoding="utf-8")
        page = Page()
        page.feed(text)
        assert not page._open
        assert {name for name, _, _ in page.elements} <= OWN - {"form", "script", "input", "button"}
        assert not any("evil" in name for _, own, _ in page.elements for name in own)
        assert text == visible(text)


@pytest.mark.slow
def test_a_line_of_100_mb_is_shown_in_parts(tmp_path):
    """Every page stays small and answers."""
    run = make(write_corpus(tmp_path / "corpus", 100_000_000), tmp_path / "run")
    viewer = TestClient(application(Target(run)), base_url="http://localhost")
    rows = viewer.get("/documents?format=json&q=long&how=name").json()["hits"]
    (row,) = [one["row"] for one in rows if one["path"] == "long"]
    pages = [f"/documents/{row}", f"/documents/{row}?at=99000000", "/documents?q=evil", "/sequences/first?row=5"]
    pages += ["/removed", "/removed?reason=duplicate", "/corpus", "/", f"/copied?{urlencode({'q': EVIL[0] * 8})}"]
    for href in pages:
        answer = viewer.get(href)
        assert answer.status_code == 200, href
        assert len(answer.content) < 1_000_000, href
        strict(answer.text)
