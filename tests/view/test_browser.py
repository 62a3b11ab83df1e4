"""The viewer in a real Chromium: a person's ways through it, the keyboard, an accessibility check, phones, and silence.

All pages are watched: nothing is logged as an error, nothing breaks the policy, and no other host is asked.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import urlsplit

import pytest

from headrace.export import Wanted, export
from headrace.flow.lock import lock
from headrace.pipeline import run as make_run
from headrace.recipe.load import load_recipe
from headrace.sequence.provenance import beside
from headrace.view.labels import read_labels
from headrace.view.publish import publish
from headrace.view.target import Target

api = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
HEADRACE = str(Path(sys.executable).with_name("headrace"))
NAMES = ("chromium", "chromium-browser", "google-chrome")
WIDE, PHONE = {"width": 1280, "height": 900}, {"width": 400, "height": 800}
PAGES = (
    "/",
    "/stages",
    "/stages/stage2",
    "/stages/stage2/steps/3",
    "/sequences/stage2",
    "/sequences/stage2?view=text&rows=2",
    "/sequences/stage2?view=ids",
    "/documents",
    "/documents?q=return&how=phrase",
    "/documents/1",
    "/removed",
    "/removed?reason=duplicate",
    "/removed?reason=quarantined",
    "/removed/limit",
    "/removed/limit?limit=filters.short.min_characters",
    "/copied?q=What+is+the+airspeed+velocity+of+an+unladen+swallow",
    "/corpus",
    "/corpus?between=bytes:1000:4000",
    "/corpus?source=code",
    "/corpus/query",
    "/corpus/query?sql=SELECT+row,+path,+bytes+FROM+corpus+LIMIT+5",
    "/compare",
)


@pytest.fixture(scope="module")
def browser() -> Iterator[api.Browser]:
    found = next((path for name in NAMES if (path := shutil.which(name)) is not None), None)
    if found is None:
        pytest.skip("no browser: install Debian's chromium")
    with api.sync_playwright() as playwright:
        # CI runs as root in containers, where Chromium's sandbox cannot be set up.
        yield playwright.chromium.launch(executable_path=found, args=["--no-sandbox", "--disable-dev-shm-usage"])


def served(*arguments: object) -> Iterator[str]:
    """The address of a viewer in a process of its own."""
    command = [HEADRACE, "view", *map(str, arguments), "--no-browser", "--port", "0"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env={**os.environ, "COLUMNS": "400"}) as process:
        try:
            assert process.stdout is not None
            yield re.search(r"http://\S+(?=/ )", process.stdout.readline())[0]
        finally:
            process.terminate()


@pytest.fixture(scope="module")
def run(viewed, tmp_path_factory) -> Path:
    """A copy, which labels are written to."""
    return Path(shutil.copytree(viewed, tmp_path_factory.mktemp("browsed") / "run"))


@pytest.fixture(scope="module")
def site(run, viewed) -> Iterator[str]:
    yield from served(run, "--with", viewed)


class Visitor:
    """A window of the browser that keeps what should not happen."""

    def __init__(self, browser: api.Browser, site: str, **options: object) -> None:
        self.site, self.wrong = site, []
        self.context = browser.new_context(viewport=WIDE, base_url=site, **options)
        self.page = self.context.new_page()
        self.page.set_default_timeout(20_000)
        self.page.on("console", lambda said: said.type in ("error", "warning") and self.wrong.append(said.text))
        self.page.on("pageerror", lambda error: self.wrong.append(str(error)))
        self.page.on("request", lambda request: self._own(request.url))

    def _own(self, url: str) -> None:
        if urlsplit(url).scheme != "data" and not url.startswith(f"{self.site}/"):
            self.wrong.append(f"it asked for {url}")

    def open(self, address: str) -> api.Page:
        self.page.goto(address)
        self.ready()
        return self.page

    def ready(self) -> None:
        api.expect(self.page.locator(".pending")).to_have_count(0, timeout=60_000)

    def follow(self, selector: str) -> None:
        """Click what is seen of it, and wait for where it leads."""
        before = self.page.url
        self.page.locator(selector).locator("visible=true").first.click()
        self.page.wait_for_url(lambda url: url != before)
        self.ready()

    def press(self, key: str) -> None:
        before = self.page.url
        self.page.keyboard.press(key)
        self.page.wait_for_url(lambda url: url != before)
        self.ready()


@pytest.fixture
def visitor(browser, site) -> Iterator[Visitor]:
    visitor = Visitor(browser, site)
    yield visitor
    visitor.context.close()
    assert visitor.wrong == []


def test_from_the_flow_to_a_near_duplicate_and_its_difference(visitor):
    """From the Sankey to a removed copy, beside the document that was kept for it."""
    page = visitor.open("/")
    visitor.follow('svg a[href="/removed?reason=duplicate"]')
    assert "duplicate" in page.locator("h1").inner_text()
    for _ in range(20):
        if page.locator("table.diff").count():
            break
        visitor.press("j")
    row = page.locator("table.diff tr:has(mark)").first
    assert "itself" in row.inner_text()
    assert "self" in row.inner_text()
    visitor.follow('.case .where a[href^="/documents/"]')
    assert "removed" in page.locator(".lead").first.inner_text()
    visitor.follow("#copies table a[href^='/documents/']")
    assert "kept" in page.locator(".lead").first.inner_text()


def test_from_a_loss_to_its_rows_a_document_and_its_license(visitor, target):
    """From the highest loss of the chart to the batch, a row of it, a document in the row, and its license."""
    curves = target.curves("stage2")
    step = int(curves.step[curves.values["loss"].argmax()])
    page = visitor.open("/stages")
    visitor.follow('a[href="/stages/stage2"]')
    visitor.follow(f'svg a[href="/stages/stage2/steps/{step}"]')
    assert page.locator("h1").inner_text().startswith(f"stage2, step {step} ")
    assert f"{curves.values['loss'].max():.4g}" in page.locator("dl.tiles").inner_text()
    visitor.follow('table a[href^="/sequences/stage2?row="]')
    rows = target.steps("stage2").at(step).rows(step)
    assert int(re.search(r"row=(\d+)", page.url)[1]) in range(*rows)
    visitor.follow('.segment a[href^="/documents/"]')
    facts = page.locator("dl.facts").inner_text()
    assert "LICENSE" in facts.upper()
    assert "PSF-2.0" in facts or "CC0-1.0" in facts
    place = page.locator("#training table a").first.get_attribute("href")
    assert place.startswith("/sequences/")


def test_from_a_recorded_spike_to_the_document_that_made_it(browser, spiked):
    """From the mark on the chart to the row with the highest loss, its tokens, the document, and its license."""
    for site in served(spiked):
        visitor = Visitor(browser, site)
        page = visitor.open("/stages/only")
        visitor.follow('#rows ~ .scroll tr:has(.tag) a[href^="/stages/only/steps/"]')
        assert "Outlying" in page.locator(".error").inner_text()
        step = int(re.search(r"steps/(\d+)", page.url)[1])
        first = page.locator("section:has(.begins) tbody tr").first
        assert "GPL-2.0-only" in first.locator(".begins").first.inner_text()
        visitor.follow('section:has(.begins) tbody a[href*="color=loss"]')
        assert page.locator(".tokens.by-loss .t.l7").count() > 20
        assert page.locator(".legend").inner_text().count("loss, nats") == 1
        page.locator(".tokens .t.l7").first.hover()
        assert re.search(r"· loss \d", page.locator("#token").inner_text())
        visitor.follow('.views a:text-is("document")')
        assert page.locator(".tokens.by-loss").count() == 0
        page.go_back()
        visitor.follow(".segment:has(.l7) .of a")
        assert "GPL-2.0-only" in page.locator("dl.facts").inner_text()
        assert page.locator(f'#training a[href="/stages/only/steps/{step}"]').count()
        visitor.context.close()
        assert visitor.wrong == []


def test_losses_are_readable(browser, spiked):
    """In their colors, in both schemes; on a phone nothing is wider than it."""
    axe = pytest.importorskip("axe_playwright_python.sync_playwright").Axe()
    pages = ("/sequences/only?row=164&color=loss", "/stages/only/steps/42", "/stages/only")
    for site in served(spiked):
        for scheme in ("light", "dark"):
            visitor = Visitor(browser, site, color_scheme=scheme)
            for address in pages:
                page = visitor.open(address)
                broken = axe.run(page, options={"resultTypes": ["violations"]}).response["violations"]
                assert [(one["id"], [node["html"][:200] for node in one["nodes"]][:3]) for one in broken] == []
                page.set_viewport_size(PHONE)
                assert page.evaluate("document.documentElement.scrollWidth") <= PHONE["width"], address
                page.set_viewport_size(WIDE)
            visitor.context.close()
            assert visitor.wrong == []


def test_a_choice_is_given_a_label(visitor, run):
    """On the corpus page; the documents with it are found, and their ids."""
    page = visitor.open("/corpus?source=code")
    page.get_by_label("As a label").fill("look again")
    with page.expect_navigation():
        page.get_by_role("button", name="Give").click()
    visitor.ready()
    assert "look again" in page.locator("aside").inner_text()
    page = visitor.open("/documents")
    visitor.follow('aside a[href*="label=look"]')
    assert "label=look+again" in page.url
    assert page.locator("#hits li").count() > 5
    assert len(page.request.get("/corpus/ids?label=look+again").text().split()) > 5


def test_labels_by_keyboard(visitor, run):
    """y and n judge a removed document; the precision follows."""
    page = visitor.open("/removed?reason=duplicate")
    keys = {one.get_attribute("data-key"): one for one in page.locator("[data-key]").all()}
    assert {"y", "n"} <= keys.keys()
    visitor.press("y")
    visitor.press("n")
    assert "50 % rightly removed" in page.locator("main").inner_text()
    assert len(read_labels(run)) == 2
    visitor.press("k")
    assert "at=" in page.url


def test_keys_turn_rows_and_steps_and_tokens(visitor):
    page = visitor.open("/sequences/stage2")
    visitor.press("n")
    assert page.url.endswith("?row=1")
    visitor.press("p")
    page.locator(".tokens").focus()
    page.keyboard.press("ArrowRight")
    page.keyboard.press("ArrowRight")
    assert "token=1" in page.url
    assert page.locator("#token").inner_text().startswith("token 1")
    page = visitor.open("/stages/stage2/steps/2")
    visitor.press("j")
    assert page.url.endswith("/steps/3")


def test_the_first_key_leads_past_the_menu(visitor):
    """A keyboard reaches the content at once, and every link of the page shows that it has the focus."""
    page = visitor.open("/")
    page.keyboard.press("Tab")
    assert page.evaluate("document.activeElement.className") == "skip"
    page.keyboard.press("Enter")
    assert page.url.endswith("#content")
    for _ in range(12):
        page.keyboard.press("Tab")
        style = "getComputedStyle(document.activeElement)"
        assert page.evaluate(f"{style}.outlineStyle") != "none", page.evaluate("document.activeElement.outerHTML")


def test_a_limit_is_moved_as_a_run_moves_it(visitor, target, viewed_corpus, tmp_path):
    """The numbers follow the slider, and so does the address; a run with that limit keeps what they say."""
    page = visitor.open("/removed/limit?limit=filters.short.min_characters")
    summary = page.locator(".moved .summary")
    before = summary.inner_text()
    page.locator("input[type=range]").focus()
    for _ in range(60):
        page.keyboard.press("ArrowRight")
    api.expect(summary).not_to_have_text(before)
    value = int(page.locator("input[type=number]").input_value())
    page.wait_for_url(f"**value={value}")
    visitor.open(page.url)
    back, gone, unsure = (
        int(found[1].replace(",", "")) if found is not None else 0
        for found in (
            re.search(rf"([0-9,]+) {said}", summary.inner_text())
            for said in (
                "documents? (\\([^)]*\\) )?would come",
                "documents? (\\([^)]*\\) )?would go",
                "more documents?",
            )
        )
    )
    assert gone > 20
    overrides = [f"filters.short.min_characters={value}"]
    make_run(load_recipe(viewed_corpus / "trained.yaml", overrides), tmp_path / "run", workers=0, until="verdicts")
    counts = (one.artifact("verdicts").manifest.counts.values() for one in (target, Target(tmp_path / "run")))
    now, then = (sum(source["kept"] for source in sources) for sources in counts)
    assert abs(now - gone + back - then) <= unsure


def test_a_published_file_is_read_with_its_tokenizer(browser, viewed, target, tmp_path):
    """An .h5 that stands alone: its rows as text, and each token's part of fill-in-the-middle."""
    made = export(viewed, tmp_path / "out", "hdf5", Wanted(stages=("stage2",)), workers=0)
    [file] = (made / "stage2").glob("*.h5")
    alone = Path(shutil.copy(file, tmp_path / "train_packed_00000.h5"))
    tokenizer = beside(target.sequence("stage2"), "tokenizer").path / "tokenizer.json"
    sequence = target.sequence("stage2").rows(0, len(target.sequence("stage2")))[:, :-1]
    for site in served(alone, "--tokenizer", tokenizer):
        visitor = Visitor(browser, site)
        page = visitor.open("/")
        visitor.follow('a[href="/sequences/rows"]')
        for part in ("suffix", "middle"):
            sentinel = target.decoder("stage2").special[f"fim_{part}"]
            rows, places = (sequence == sentinel).nonzero()
            page.locator("input[name=row]").first.fill(str(rows[0]))
            with page.expect_navigation():
                page.locator("input[name=row]").first.press("Enter")
            assert any(part in said for said in page.locator(".tokens .tag").all_inner_texts())
            page.locator(".t").nth(int(places[0])).click()
            assert f"<|fim_{part}|>" in page.locator(".t.here").inner_text()
            page.locator(".tokens").press("ArrowRight")
            assert part in page.locator("#token").inner_text()
        visitor.context.close()
        assert visitor.wrong == []


def test_charts_filter_each_other(visitor):
    page = visitor.open("/corpus")
    before = page.locator(".lead").inner_text()
    visitor.follow("figure svg a")
    assert "between=" in page.url
    assert page.locator(".lead").inner_text() != before
    visitor.follow("a.chip")
    assert page.locator(".lead").inner_text() == before


def test_a_stretch_is_dragged_over(visitor):
    """Also on a page that was counted while it was seen."""
    page = visitor.open("/corpus?between=words:3:")
    bars = page.locator("figure").first.locator("g[data-start]")
    boxes = [bars.nth(k).bounding_box() for k in (3, 6)]
    page.mouse.move(*_middle(boxes[0]))
    page.mouse.down()
    page.mouse.move(*_middle(boxes[1]), steps=5)
    page.mouse.up()
    page.wait_for_url("**between=bytes**")
    start, end = bars.nth(3).get_attribute("data-start"), bars.nth(6).get_attribute("data-end")
    assert f"bytes {start} {end}" in page.locator("a.chip").last.inner_text()


def _middle(box: dict[str, float]) -> tuple[float, float]:
    return box["x"] + box["width"] / 2, box["y"] + box["height"] / 2


def test_a_run_that_begins_later_is_followed(browser, viewed, tmp_path):
    """A page that was open before: its progress, then its figures, and that it has stopped, without a reload."""
    run = Path(shutil.copytree(viewed, tmp_path / "run"))
    (run / "artifacts").rename(run / "aside")
    (run / "artifacts").mkdir()
    for site in served(run):
        visitor = Visitor(browser, site)
        page = visitor.open("/")
        assert page.locator(".state").inner_text() == "stopped"
        page.evaluate("window.kept = true")
        with lock(run):
            api.expect(page.locator(".state")).to_have_text("running")
            documents = next(path for path in (run / "aside").iterdir() if path.name.startswith("documents-"))
            shutil.move(documents, run / "artifacts" / documents.name)
            api.expect(page.locator("dl.tiles dt").first).to_have_text("records read")
            api.expect(page.locator(".live .lead")).to_contain_text("1 of")
        api.expect(page.locator(".state")).to_have_text("stopped")
        assert page.evaluate("window.kept")
        visitor.context.close()
        assert visitor.wrong == []


def test_it_works_without_scripts(browser, site):
    visitor = Visitor(browser, site, java_script_enabled=False)
    for address in PAGES:
        visitor.page.goto(address)
        assert visitor.page.locator("h1").count() == 1
    visitor.context.close()
    assert visitor.wrong == []


@pytest.mark.parametrize("scheme", ["light", pytest.param("dark", marks=pytest.mark.slow)])
def test_accessibility(browser, site, scheme):
    """axe finds nothing on any page."""
    axe = pytest.importorskip("axe_playwright_python.sync_playwright").Axe()
    visitor = Visitor(browser, site, color_scheme=scheme)
    found = {}
    # All else is the same in both.
    rules = {"runOnly": ["color-contrast", "link-in-text-block"]} if scheme == "dark" else {}
    for address in (*PAGES, "/removed/limit?limit=deduplicate.near.threshold"):
        page = visitor.open(address)
        broken = axe.run(page, options={"resultTypes": ["violations"], **rules}).response["violations"]
        told = [(one["id"], [node["html"][:200] for node in one["nodes"]][:3]) for one in broken]
        if told:
            found[address] = told
    visitor.context.close()
    assert found == {}
    assert visitor.wrong == []


def test_nothing_is_wider_than_a_phone(browser, site):
    visitor = Visitor(browser, site)
    visitor.page.set_viewport_size(PHONE)
    wide = {}
    for address in PAGES:
        page = visitor.open(address)
        width = page.evaluate("document.documentElement.scrollWidth")
        if width > PHONE["width"]:
            wide[address] = width
    visitor.context.close()
    assert wide == {}
    assert visitor.wrong == []


def test_errors_are_pages(browser, site):
    """With words and the menu."""
    visitor = Visitor(browser, site)
    for address in ("/nothing", "/documents/999999999", "/documents/x", "/stages/none"):
        visitor.page.goto(address)
        assert visitor.page.locator("[role=alert]").inner_text()
        assert visitor.page.locator("header nav a").count() > 3
    visitor.context.close()
    assert not [said for said in visitor.wrong if "Failed to load resource" not in said]


def test_hostile_documents_stay_text(browser, hostile):
    """As a browser parses them: no element, no attribute and no script of theirs."""
    for site in served(hostile):
        visitor = Visitor(browser, site)
        pages = ["/", "/removed", "/removed?reason=quarantined", "/removed?reason=short", "/documents", "/corpus"]
        pages += [f"/documents/{row}" for row in range(0, 40, 4)]
        pages += [f"/sequences/first?row={row}" for row in range(0, 12, 3)]
        for address in pages:
            page = visitor.open(address)
            assert page.evaluate("document.querySelectorAll('evil-x, [evil], [onevil]').length") == 0, address
            assert page.evaluate("[...document.scripts].every(one => one.src.startsWith(location.origin))"), address
        visitor.context.close()
        assert visitor.wrong == []


@pytest.mark.slow
def test_published_pages_are_read_from_a_disk(browser, viewed, tmp_path):
    """Styled, with links that work, as files."""
    publish(Target(viewed), tmp_path / "out")
    visitor = Visitor(browser, f"file://{tmp_path}", color_scheme="dark")
    page = visitor.open(f"file://{tmp_path}/out/index.html")
    light = "getComputedStyle(document.documentElement).backgroundColor"
    assert page.evaluate(light) not in ("rgba(0, 0, 0, 0)", "rgb(255, 255, 255)")
    visitor.follow('a[href="stages.html"]')
    visitor.follow('a[href="stage-2.html"]')
    assert page.locator("h1").inner_text() == "stage2"
    visitor.follow('a[href^="sequence-"]')
    assert page.locator(".tokens .t").count() > 50
    visitor.context.close()
    assert visitor.wrong == []
