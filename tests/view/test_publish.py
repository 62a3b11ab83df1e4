"""A run as static pages: every link leads to a file that is there, and nothing needs a server."""

from __future__ import annotations

import getpass
import re
import shutil
import subprocess
import sys
from collections import Counter
from pathlib import Path

import pytest
from pages import Page

from headrace.errors import UserError
from headrace.flow.events import EventLog
from headrace.view import publish as module
from headrace.view.publish import REMOVED, SAMPLES, publish, rewritten
from headrace.view.target import Target

HEADRACE = str(Path(sys.executable).with_name("headrace"))


@pytest.fixture(scope="module")
def published(viewed, tmp_path_factory) -> Path:
    out = tmp_path_factory.mktemp("published") / "out"
    done = subprocess.run([HEADRACE, "view", viewed, "--with", viewed, "--export", out], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert "pages" in done.stdout
    assert not out.with_name("out.partial").exists()
    return out


def read(file: Path) -> Page:
    page = Page()
    page.feed(file.read_text(encoding="utf-8"))
    page.close()
    assert not page._open, file
    return page


def removed_for(target: Target) -> Counter[str]:
    """Reason -> documents removed for it."""
    counts = target.artifact("verdicts").manifest.counts.values()
    return sum((Counter(one["removed"]) for one in counts), Counter())


def seen(out: Path) -> Counter[str]:
    """Reason -> pages with a document."""
    pages = [read(file) for file in out.glob("removed-*.html")]
    return Counter(page.text("h1").removeprefix("Removed: ") for page in pages)


def test_links_lead_to_files(published):
    follow(published)


def follow(published):
    """Follow all links from the first page: they lead to files that are there, and reach all of them."""
    reached, queue = set(), ["index.html"]
    while queue:
        name = queue.pop()
        if name in reached:
            continue
        reached.add(name)
        page = read(published / name)
        ids = {own["id"] for _, own, _ in page.elements if "id" in own}
        for _, own, _ in page.elements:
            for key in ("href", "src", "action"):
                href = own.get(key)
                if href is None or href == "data:,":
                    continue
                file, _, fragment = href.partition("#")
                assert re.fullmatch(r"(static/)?[\w.-]*", file), (name, href)
                assert (published / (file or name)).is_file(), (name, href)
                assert file or fragment in ids, (name, href)
                if file.endswith(".html"):
                    queue.append(file)
    assert reached == {file.name for file in published.glob("*.html")}


def test_nothing_needs_a_server(published):
    for file in published.glob("*.html"):
        names = {name for name, _, _ in read(file).elements}
        assert not names & {"script", "form", "input", "button", "iframe"}, file
    assert not list(published.rglob("*.js"))


def test_pages_are_those_of_the_viewer(published, target, client):
    """Figures are the same; so is the design."""
    page = read(published / "index.html")
    for tile in ("records read", "documents kept"):
        assert tile in page.all("dt")
    viewed = Page()
    viewed.feed(client.get("/").text)
    assert page.all("dd") == viewed.all("dd")
    assert (published / "static" / "headrace.css").read_text() == client.get("/static/headrace.css").text
    stages = {read(file).text("h1") for file in published.glob("stage-*.html")}
    assert stages == {stage.name for stage in target.recipe.stages}
    rows = [read(file) for file in published.glob("sequence-*.html")]
    assert len(rows) == SAMPLES * len(target.sequences)
    assert all(row.all("div", class_="tokens as-tokens") for row in rows)
    reasons = {reason for one in target.artifact("verdicts").manifest.counts.values() for reason in one["removed"]}
    removed = " ".join(read(file).text("main") for file in published.glob("removed-*.html"))
    assert all(reason in removed for reason in reasons)
    assert all(seen(published)[reason] == min(n, REMOVED) for reason, n in removed_for(target).items())
    assert (published / "compare.html").is_file()


def test_paths_of_this_machine_are_not_told(published, viewed, viewed_corpus):
    for file in published.rglob("*"):
        if file.is_file():
            text = file.read_text(encoding="utf-8")
            for path in (viewed, viewed_corpus, viewed.parent.parent, Path.home()):
                assert f"{path}/" not in text, file
            assert f"/{getpass.getuser()}/" not in text


def test_other_links_become_text():
    page = '<p><a href="/a">A</a> <a href="/b?x=1&amp;y=2#z" class="k">B</a><a href="/d" data-key="j">next</a></p>'
    page += '<svg><a href="/c"><rect/></a></svg>'
    page += '<form action="/a"><input name="q"/><p>gone <a href="/a">gone</a><svg></svg></p></form>'
    page += "<p>&lt;b&gt; &#39; at /home/me/run/x</p>"
    told = rewritten(page, {"/a": "a.html"}, {"/home/me/run": "demo"})
    assert '<a href="a.html">A</a> <span class="k">B</span>' in told
    assert "<svg><g><rect/></g></svg>" in told
    assert "gone" not in told
    assert "next" not in told
    assert "<p>&lt;b&gt; &#39; at demo/x</p>" in told
    assert rewritten(page + '<a href="/a">A</a>', {"/a": "a.html"}, {}).endswith('<a href="a.html">A</a>')
    told = rewritten(page, {"/b?x=1&y=2": "b.html"}, {})
    assert '<a class="k" href="b.html#z">B</a>' in told


def test_a_failure_is_told_without_paths(viewed, tmp_path):
    """Its message is in the run's log, and names files of this machine."""
    run = Path(shutil.copytree(viewed, tmp_path / "run"))
    log = EventLog(run)
    log.emit("failed", message=f"Cannot read {run}/x and {Path.home()}/data.")
    log.close()
    publish(Target(run), tmp_path / "out")
    said = read(tmp_path / "out" / "index.html").text("p", class_="error")
    assert said == "Cannot read small/x and ~/data."


def test_removed_documents_are_fewer_where_they_are_long(target, tmp_path, monkeypatch):
    """Each reason has a page all the same, and all links lead somewhere."""
    monkeypatch.setattr(module, "LARGEST", 1)
    publish(target, tmp_path / "out")
    assert all(seen(tmp_path / "out")[reason] == 1 for reason in removed_for(target))
    follow(tmp_path / "out")


def test_what_is_there_stays(viewed, tmp_path):
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "mine.txt").write_text("mine")
    with pytest.raises(UserError, match="not empty"):
        publish(Target(viewed), tmp_path / "out")
    assert [path.name for path in tmp_path.rglob("*")] == ["out", "mine.txt"]


def test_only_runs_are_written(viewed, tmp_path):
    stage = next((viewed / "artifacts").glob("sequence-*"))
    with pytest.raises(UserError, match="Only runs"):
        publish(Target(stage), tmp_path / "out")
