"""The data card and the list of documents, against the rows of the sequences and the documents themselves."""

from __future__ import annotations

import re
import shutil
from collections import Counter, defaultdict
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st
from markdown_it import MarkdownIt
from small_pipeline import EVIL, copied
from typer.testing import CliRunner

from headrace.cli.app import app
from headrace.report import attribution as attributed
from headrace.report.attribution import uses
from headrace.report.card.card import card
from headrace.report.card.facts import made
from headrace.report.card.markdown import code, fenced, table, text
from headrace.report.card.write import write_card
from headrace.sequence.store import open_sequence
from headrace.sequence.windows import PADDING


@pytest.fixture(scope="module")
def run(once, tmp_path_factory):
    return copied(once, tmp_path_factory.mktemp("card") / "tiny")


@pytest.fixture(scope="module")
def told(run):
    return made(run)


@pytest.fixture(scope="module")
def documents(told):
    documents = told.artifacts["documents", None]
    shards = (pq.read_table(documents.shard_path(i)) for i in range(len(documents.shards)))
    return pa.concat_tables(shards).to_pylist()


@pytest.fixture(scope="module")
def placed(told):
    """Stage -> document row -> positions, from the segments row by row."""
    found = defaultdict(Counter)
    for name in told.stages:
        sequence = open_sequence(told.artifacts["sequence", name].path)
        for row in range(len(sequence)):
            for segment in sequence.segments(row):
                if segment["kind"] != PADDING:
                    found[name][int(segment["row"])] += int(segment["length"])
    return found


def test_every_document_of_the_stages_is_listed_with_its_tokens(told, documents, placed, monkeypatch):
    listed = pa.concat_tables(told.attribution()).to_pylist()
    used = sorted(set().union(*placed.values()))
    assert [row["id"] for row in listed] == [documents[i]["id"] for i in used]
    for row, at in zip(listed, used, strict=True):
        assert row["tokens"] == {name: placed[name][at] for name in told.stages}
        assert row["license"] == documents[at]["license"]
        assert row["license_found"] == (
            documents[at]["license"] and {"prose": "source", "code": "field"}[row["source"]]
        )
        assert (row["origin_file"], row["origin_row"]) == (documents[at]["origin_file"], documents[at]["origin_row"])
    monkeypatch.setattr(attributed, "COUNTED_BYTES", 0)  # a shard at a time
    assert pa.concat_tables(told.attribution()).to_pylist() == listed


def test_kept_documents_in_no_stage_are_listed_where_asked_for(told, documents):
    verdicts = told.artifacts["verdicts", None]
    keep = pa.concat_tables([pq.read_table(verdicts.shard_path(i)) for i in range(len(verdicts.shards))])["keep"]
    everything = pa.concat_tables(told.attribution(everything=True)).to_pylist()
    assert [row["id"] for row in everything] == [
        d["id"] for d, kept in zip(documents, keep.to_pylist(), strict=True) if kept
    ]
    assert any(not any(row["tokens"].values()) for row in everything)


def test_uses_add_up_to_the_ledgers(told, placed):
    found = uses(told.attribution())
    for name in told.stages:
        ledger = told.artifacts["sequence", name].manifest.extra["ledger"]["sources"]
        for source, entry in ledger.items():
            assert sum(use.tokens[name] for use in found if use.source == source) == entry["tokens_placed"]
    assert sum(use.documents for use in found) == len(set().union(*placed.values()))


def test_the_card_is_read_by_the_hubs_own_library(run):
    hub = pytest.importorskip("huggingface_hub")
    read = hub.DatasetCard(write_card(run))
    assert read.data.license == ["cc0-1.0", "other", "unknown"]
    assert read.data.size_categories == ["n<1K"]
    assert read.data.pretty_name == "tiny"


def test_the_card_says_what_there_is(run, told):
    facts = told.facts()
    said = card(facts)
    for source in facts.run.sources:
        for n in (source.documents, source.kept, *source.removed.values()):
            assert f"| {n:,} |" in said
    for use in facts.uses:
        for n in use.tokens.values():
            assert f" {n:,} |" in said
    unknown = sum(one.documents for one in facts.run.by_licence if not one.name)
    assert f"**No license is known for {unknown} of {facts.run.kept} documents" in said
    assert "`MIT & <b>` (not SPDX)" in said
    assert "| exam | `question` | 1 | 0 | 1 |" in said
    for digest in facts.digests.values():
        assert digest in said
    recipe = yaml.safe_load(re.search(r"```yaml\n(.*?)```", said, re.DOTALL)[1])
    assert recipe["name"] == "tiny"
    assert "Seal:" not in said
    assert str(run) not in said
    assert EVIL not in said


def test_a_card_of_one_stage_speaks_of_no_other(run, told):
    said = write_card(run, stages=["first"])
    tables = said.partition("<details>")[0]
    assert "second" not in tables
    assert "tokens in first" in tables
    assert "sequence-first" in said
    listed = pa.concat_tables(made(run, ["first"]).attribution())
    assert set(listed["source"].to_pylist()) == {"prose"}
    assert [field.name for field in listed.schema.field("tokens").type] == ["first"]


def test_equal_runs_have_equal_cards(run, tmp_path):
    shutil.copytree(run, tmp_path / "elsewhere")
    write_card(run, tmp_path / "a" / "README.md", tmp_path / "a.parquet")
    write_card(tmp_path / "elsewhere", tmp_path / "b" / "README.md", tmp_path / "b.parquet")
    assert (tmp_path / "a.parquet").read_bytes() == (tmp_path / "b.parquet").read_bytes()
    for name in ("README.md", "token_split.svg"):
        assert (tmp_path / "a" / name).read_bytes() == (tmp_path / "b" / name).read_bytes()


def test_the_command(run, tmp_path):
    out, listed = tmp_path / "README.md", tmp_path / "ATTRIBUTION.parquet"
    result = CliRunner().invoke(app, ["card", str(run), "--out", str(out), "--attribution", str(listed)])
    assert result.exit_code == 0, result.output
    assert "](token_split.svg)" in out.read_text()
    assert (tmp_path / "token_split.svg").read_text().startswith("<?xml")
    assert pq.read_table(listed).num_rows == sum(use.documents for use in made(run).facts().uses)
    printed = CliRunner().invoke(app, ["card", str(run)])
    assert printed.output.startswith("---\nlicense:")
    assert "token_split.svg" not in printed.output  # there is none beside it
    wrong = CliRunner().invoke(app, ["card", str(run), "--stage", "third"])
    assert wrong.exit_code == 2
    assert "first, second" in wrong.output


def test_a_run_without_stages_lists_what_it_kept(run, tmp_path):
    shutil.copytree(run, tmp_path / "run")
    for path in (tmp_path / "run" / "artifacts").iterdir():
        if path.name.split("-")[0] in ("sequence", "tokens", "tokenizer"):
            shutil.rmtree(path)
    told = made(tmp_path / "run")
    assert sum(len(t) for t in told.attribution()) == told.facts().run.kept
    said = write_card(tmp_path / "run")
    assert "Tokens by stage" not in said
    assert "**No license is known for 20 of 100 documents" in said


def _cells(markdown: str) -> list[str]:
    parsed = MarkdownIt("commonmark", {"html": True}).enable("table").parse(markdown)
    return [token for token in parsed if token.type == "inline"]


HOSTILE = st.text(
    st.one_of(st.sampled_from("|`*_[]()<>!&\\#~\n\r\t-+.:@/$\u202e\x1b"), st.characters(codec="utf-8")), max_size=30
)


@given(HOSTILE, HOSTILE)
def test_text_stays_text_whatever_it_is(one, other):
    lines = "\n".join(table(["a", "b", "c"], [(text(one) or "x", code(other), 7)], 2))
    cells = _cells(lines)
    assert len(cells) == 6
    assert cells[-1].content == "7"
    kinds = {child.type for child in cells[3].children}
    assert kinds <= {"text", "text_special"}, kinds
    kinds = {(child.type, child.content if child.type == "html_inline" else "") for child in cells[4].children}
    assert kinds <= {
        ("text", ""),
        ("text_special", ""),
        ("code_inline", ""),
        ("html_inline", "<code>"),
        ("html_inline", "</code>"),
    }


@given(HOSTILE)
def test_a_fence_ends_where_we_end_it(inside):
    parsed = MarkdownIt("commonmark").parse("\n".join([*fenced(inside, "yaml"), "after"]))
    assert [token.type for token in parsed] == ["fence", "paragraph_open", "inline", "paragraph_close"]


def test_docs_name_every_column():
    page = (Path(__file__).parents[2] / "docs" / "formats.md").read_text()
    for name in attributed.schema(["x"]).names:
        assert f"`{name}`" in page
