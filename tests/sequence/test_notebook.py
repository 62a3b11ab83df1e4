"""What a notebook shows of sequences and batches: their text, escaped, and where there is loss."""

from __future__ import annotations

import pickle
import re
import sys
from html import unescape
from pathlib import Path

import pytest

from headrace import Loader, open_run, open_sequence

sys.path.insert(0, str(Path(__file__).parents[1] / "report"))

from small_pipeline import EVIL, copied


@pytest.fixture(scope="module")
def run(once, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return copied(once, tmp_path_factory.mktemp("notebook") / "corpus")


def shown(page: str) -> str:
    return unescape(re.sub(r"<[^>]*>", "", page))


def test_a_sequence_shows_its_first_rows(run: Path) -> None:
    sequence = open_sequence(run, "second")
    page = sequence._repr_html_()  # type: ignore[operator]
    assert f"{len(sequence):,} rows of 64 + 1 tokens" in page
    assert "prose, code" in page
    assert len(page) < 20_000
    assert page.count("<div") == page.count("</div>")
    assert page.count("<span") == page.count("</span>")


def test_text_is_escaped_and_segments_are_apart(run: Path) -> None:
    sequence = open_sequence(run, "first")
    pages = [batch._repr_html_() for batch in Loader(sequence, 4)]
    assert EVIL[:10] in "".join(map(shown, pages))
    assert not any("<script" in page for page in pages)
    colours = [set(re.findall(r"background:(#\w+)", page)) for page in pages]
    assert any(len(found) > 1 for found in colours)


def test_a_batch_from_elsewhere_shows_ids(run: Path) -> None:
    batch = Loader(open_sequence(run, "first"), 2).at(0)
    page = pickle.loads(pickle.dumps(batch))._repr_html_()
    assert " ".join(map(str, batch.tokens[1, :5])) in shown(page)


def test_a_run_shows_what_is_built(run: Path) -> None:
    opened = open_run(run)
    assert opened.stages == ["first", "second"]
    assert len(opened.sequence("first")) == len(open_sequence(run, "first"))
    page = opened._repr_html_()
    told = opened.status()["artifacts"]
    assert page.count("<tr>") == len(told) + 1
    assert f"sequence second done {len(opened.sequence('second')):,}" in " ".join(re.sub(r"<[^>]*>", " ", page).split())
    assert f"documents done {len(opened.documents(removed=True)):,}" in " ".join(re.sub(r"<[^>]*>", " ", page).split())
