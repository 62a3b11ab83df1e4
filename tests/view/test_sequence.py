"""The page of rows: what it says of each token against the sequence, the tokenizer and `headrace replay`."""

from __future__ import annotations

import html

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pages import Page

from headrace.sequence.fim import PLAIN, PSM, SPM, draw, rearrange
from headrace.sequence.loader import Loader
from headrace.sequence.provenance import beside, replay_rows
from headrace.tokens.engine import Texts
from headrace.tokens.load import open_engine
from headrace.train.steps import Steps, Taken
from headrace.view import rows as rows_of
from headrace.view.fim import BOTH, UNMARKED, fim_parts
from headrace.view.pages import sequence as page
from headrace.view.rows import Row, Run, Segment
from headrace.view.spelling import spelled
from headrace.view.target import Missing


def tokens(row: dict) -> list[dict]:
    """The tokens of a row's JSON, each with what its run and segment say of it."""
    out = []
    for segment in row["segments"]:
        for run in segment["runs"]:
            for k, index in enumerate(run["ids"]):
                about = {"id": index, "place": run["start"] + k, "loss": run["loss"], "part": run["part"]}
                out.append(about | {"bytes": run["bytes"][k] if run["bytes"] else None, "segment": segment})
    return out


@pytest.mark.parametrize("stage", ["stage1", "stage2", "heldout"])
def test_every_token_of_every_row(client, target, stage):
    """Ids, bytes, loss, source, document, offset and license are the sequence's, the tokenizer's and replay's."""
    sequence, decoder = target.sequence(stage), target.decoder(stage)
    documents = beside(sequence, "documents")
    for first in range(0, min(24, len(sequence)), 8):
        stop = min(first + 8, len(sequence))
        rows, loss = sequence.rows(first, stop), sequence.loss(first, stop)
        told = client.get(f"/sequences/{stage}?row={first}&rows={stop - first}&format=json").json()["rows"]
        replayed = replay_rows(sequence, documents, decoder, first, stop, target.artifact("licences"))
        for i, (row, other) in enumerate(zip(told, replayed, strict=True)):
            found = tokens(row)
            assert [one["id"] for one in found] == rows[i].tolist()
            assert [one["place"] for one in found] == list(range(sequence.seq_len + 1))
            data = [decoder.decode(rows[i, k : k + 1], first=False) for k in range(len(found))]
            assert [bytes.fromhex(one["bytes"]) for one in found] == data
            padding = [one["segment"]["kind"] == "padding" for one in found]
            assert [one["loss"] for one in found] == (loss[i] & ~np.array(padding)).tolist()
            for mine, theirs in zip(row["segments"], other.segments, strict=True):
                for name in ("start", "length", "kind", "source", "document", "offset", "epoch", "id", "origin",
                             "license", "repo", "path", "language"):  # fmt: skip
                    assert mine[name] == getattr(theirs, name), name


def test_text_is_what_was_trained_on(client, target):
    """As text, runs join to the row's bytes, special tokens included; ids need no more than the ids."""
    sequence, decoder = target.sequence("stage2"), target.decoder("stage2")
    for row in range(6):
        told = client.get(f"/sequences/stage2?row={row}&view=text&format=json").json()["rows"][0]
        text = "".join(run["text"] for one in told["segments"] for run in one["runs"])
        # Documents may begin in the middle of a character, so that broken ones are spelled apart.
        assert text == "".join(
            spelled(decoder.decode(np.array(run["ids"]), first=False))
            for one in told["segments"]
            for run in one["runs"]
        )
        ids = [index for one in told["segments"] for run in one["runs"] for index in run["ids"]]
        assert ids == sequence.rows(row, row + 1)[0].tolist()
        shown = client.get(f"/sequences/stage2?row={row}&view=ids").text
        assert all(f">{index}</span>" in shown for index in set(ids))


@given(st.lists(st.binary(max_size=6), max_size=6))
def test_spelling_loses_no_byte(parts):
    """What is no UTF-8 is shown by value; other text that can be seen stays as it is."""
    data = b"".join(parts)
    shown = spelled(data)
    try:
        text = data.decode()
    except UnicodeDecodeError:
        assert "<" in shown
    else:
        if text.isprintable():
            assert shown == text
    assert all(c in "\t\n" or c.isprintable() for c in shown if c.isascii())
    assert "\u202e" not in spelled(data + "\u202e".encode())


def test_cut_characters():
    assert spelled("€".encode()[:2]) == "<E2 82>"
    assert spelled(b"a" + "€".encode()[2:] + b"b") == "a<AC>b"
    assert spelled(b"\xed\xa0\x80\r\n\x00\x1b") == "<ED A0 80>␍\n␀␛"


@pytest.fixture(scope="module")
def engine(target):
    return open_engine(beside(target.sequence("stage2"), "tokenizer"))


@given(st.lists(st.text(max_size=12), min_size=1, max_size=3), st.integers(0, 2**64 - 1), st.data())
def test_parts_against_the_transformation(engine, texts, seed, data):
    """Parts of rearranged documents are those that were encoded, whole or cut off at the start."""
    ids = np.array([[seed, k] for k in range(len(texts))], dtype=np.uint64)
    kind, draws = draw(ids, seed, 1.0, 0.5)
    kind[[not text for text in texts]] = PLAIN
    made = rearrange(Texts.of(texts), kind, draws, engine, first=True)
    roles = engine.special
    for i in range(len(texts)):
        own = made.tokens[made.offsets[i] : made.offsets[i + 1]]
        if kind[i] == PLAIN:
            assert set(fim_parts(own, roles, "plain", True)) <= {None}
            continue
        name = {PSM: "fim-psm", SPM: "fim-spm"}[int(kind[i])]
        at = {role: int(np.flatnonzero(own == roles[role])[0]) for role in ("fim_prefix", "fim_suffix", "fim_middle")}
        last = "middle" if kind[i] == PSM else BOTH
        wanted = [
            "sentinel" if k in at.values()
            else last if k > at["fim_middle"] else "suffix" if k > at["fim_suffix"] else "prefix"
            for k in range(len(own))
        ]  # fmt: skip
        assert fim_parts(own, roles, name, True) == wanted
        if kind[i] == SPM or at["fim_suffix"] > 1:  # PSM with an empty prefix looks like SPM
            assert fim_parts(own, roles, "unknown", True) == wanted
        cut = data.draw(st.integers(0, len(own)))
        rest = fim_parts(own[cut:], roles, name, False)
        if cut <= at["fim_middle"]:
            assert rest == wanted[cut:]
        else:
            assert set(rest) <= {UNMARKED}


def test_parts_of_slices_without_sentinels(client, target):
    """They are looked up where the document's other slices are."""
    sequence, special = target.sequence("stage2"), target.decoder("stage2").special
    by_copy: dict[tuple, list] = {}
    for row in range(len(sequence)):
        for one in sequence.segments(row):
            if one["kind"] in (1, 2):
                ids = sequence.rows(row, row + 1)[0, one["start"] : one["start"] + one["length"]]
                key = int(one["row"]), int(one["epoch"]), int(one["kind"])
                by_copy.setdefault(key, []).append((int(one["offset"]), row, ids))
    looked = 0
    for (document, epoch, kind), slices in by_copy.items():
        slices.sort(key=lambda one: one[0])
        whole = slices[0][2]
        for offset, _, ids in slices[1:]:  # rows share their last token with the next
            whole = np.concatenate([whole, ids[len(whole) - offset :]]) if 0 <= len(whole) - offset < 2 else whole
        if slices[0][0] or len(whole) != slices[-1][0] + len(slices[-1][2]):
            continue  # a part of it is not in the sequence
        parts = fim_parts(whole, special, {1: "fim-psm", 2: "fim-spm"}[kind], True)
        for offset, row, ids in slices[1:]:
            if np.isin(ids, [special[role] for role in ("fim_prefix", "fim_suffix", "fim_middle")]).any() or looked > 9:
                continue
            looked += 1
            told = client.get(f"/sequences/stage2?row={row}&view=text&format=json").json()["rows"][0]
            [mine] = [
                one for one in told["segments"]
                if (one["document"], one["epoch"], one["offset"]) == (document, epoch, offset)
            ]  # fmt: skip
            found = [run["part"] for run in mine["runs"] for _ in run["ids"]]
            eod = int(ids[-1] == special["eod"])
            assert found[: len(ids) - eod] == parts[offset : offset + len(ids) - eod]
    assert looked


def test_steps_and_ranks(client, target):
    """A step's rows are the loader's, for any number of ranks; a row's step is the one that took it."""
    sequence = target.sequence("stage2")
    for ranks in (1, 3, 4):
        for rank in range(ranks):
            loader = Loader(sequence, 4, rank=rank, world_size=ranks, even=False)
            told = client.get(f"/sequences/stage2?step=3&rank={rank}&ranks={ranks}&format=json").json()
            rows = [[one["id"] for one in tokens(row)] for row in told["rows"]]
            assert rows == loader.at(8).tokens.tolist()
            assert [one["step"] for one in told["taken"]] == [3] * len(rows)
    for query in ("step=7", "step=3&rank=0&ranks=5", "step=3&rank=2&ranks=2", "row=1000000", "token=129", "from=200"):
        assert client.get(f"/sequences/stage2?{query}&format=json").status_code == 404, query
    for query in ("step=0", "rank=-1", "rows=65", "rows=0", "view=html", "row=x", "more=1", "from="):
        assert client.get(f"/sequences/stage2?{query}&format=json").status_code == 400, query
    assert client.get("/sequences/stage9?format=json").status_code == 404


def test_long_rows_are_cut(client, target, monkeypatch):
    """The links to more lead through the whole of a row, each page with as much as is allowed."""
    monkeypatch.setitem(page.SHOWN, "tokens", 50)
    found, href = [], "/sequences/stage2?row=3"
    while href:
        row = client.get(href, headers={"accept": "application/json"}).json()["rows"][0]
        found += [one["id"] for one in tokens(row)]
        text = client.get(href).text
        more = text.rfind('<a href="', 0, text.find(">more: ")) if ">more: " in text else -1
        href = "" if more < 0 else html.unescape(text[more + 9 : text.find('"', more + 9)])
    assert found == target.sequence("stage2").rows(3, 4)[0].tolist()
    shown = client.get("/sequences/stage2?row=3&token=120")
    assert shown.text.count('id="token-120"') == 1


def test_rows_of_many_documents_are_cut(client, target, monkeypatch):
    """By segments too: each takes room."""
    monkeypatch.setattr(rows_of, "MOST_SEGMENTS", 1)
    monkeypatch.setattr(rows_of, "LEAST_SEGMENTS", 1)
    sequence = target.sequence("chat")
    row = max(range(40), key=lambda row: len(sequence.segments(row)))
    assert len(sequence.segments(row)) > 2
    found, place = [], 0
    while place <= sequence.seq_len:
        shown = client.get(f"/sequences/chat?row={row}&from={place}&format=json").json()["rows"][0]
        assert len(shown["segments"]) == 1
        found += [one["id"] for one in tokens(shown)]
        place = shown["stop"]
    assert found == sequence.rows(row, row + 1)[0].tolist()


@given(st.lists(st.tuples(st.integers(0, 12), st.integers(0, 6)), max_size=6))
def test_no_token_is_missing(spans):
    """Whatever segments somebody recorded: with gaps, empty, one above the other."""
    segments = [rows_of.Segment(start, min(length, 12 - start), "plain") for start, length in spans]
    tiled = rows_of._tiled(segments, 12)
    assert all(one.length for one in tiled)
    covered = [k for one in tiled for k in range(one.start, one.start + one.length)]
    assert set(covered) == set(range(12))
    gaps = [k for one in tiled if one.kind == "unknown" for k in range(one.start, one.start + one.length)]
    assert not set(gaps) & {k for one in segments for k in range(one.start, one.start + one.length)}


def test_untrained_steps():
    steps = Steps.untrained(10, 4, 16)
    assert (steps.first, steps.last) == (1, 2)
    assert steps.at(3) is None
    assert [one.step for one in steps.of_rows(range(10))] == [1] * 4 + [2] * 4 + [None] * 2


def test_rows_beyond(target):
    with pytest.raises(Missing, match="no row 999,999"):
        page.load(target, page.Rows.model_validate({"stage": "stage1", "row": 999_999}))


EVIL = '<script>alert(1)</script>\u202e\x1b[31m\x00</span><img src=x onerror=alert(1)>" onmouseover="x'


@pytest.mark.parametrize("color", ["document", "loss"])
@pytest.mark.parametrize("view", ["text", "tokens", "ids"])
def test_hostile_rows(view, color):
    """Whatever tokens, sources and fields hold, it is text on the page."""
    losses = [0.0, 0.2, 7.0, np.inf, np.nan, 99.0]
    data = [b"<script>", b"\xff\xfe", b"\r\n", EVIL.encode(), b"\xe2\x82", b""]
    runs = [
        Run(
            0, [7] * 6, spelled(b"".join(data)), [spelled(one) for one in data], ["3C"] * 6, part, loss, special, losses
        )
        for part in (None, "prefix", "sentinel", "unmarked")
        for loss in (True, False)
        for special in (True, False)
    ]
    fields = dict.fromkeys(("source", "id", "origin", "license", "repo", "path", "language"), EVIL)
    segments = [Segment(0, 6, kind, epoch=1, offset=3, document=4, runs=runs, **fields)
                for kind in ("plain", "fim-psm", "chat", "padding", "unknown")]  # fmt: skip
    rows, taken = [Row(3, 9, 0, 6, segments, 5)], [Taken(3, 1, "left")]
    shown = page.Shown("s", ["s", "t"], 9, 6, [EVIL], rows, taken, [1.5], 0, True, 2, 4, True, True)
    parsed_page = Page()
    parsed_page.feed(
        page.draw(page.Rows.model_validate({"stage": "s", "view": view, "color": color, "token": 2}), shown)
    )
    parsed_page.close()
    assert not parsed_page.all("script")
    assert not parsed_page.all("img")
    assert not any(c in text for text in parsed_page.all("div") for c in "\u202e\x1b\x00\r")
    titles = [own["title"] for _, own, _ in parsed_page.elements if own.get("title")]
    assert not any(c in title for title in titles for c in "\u202e\x1b\x00")
    if view != "text" or color == "loss":
        assert any(title.startswith("token 2 · id 7 · bytes 3C") for title in titles)
        assert "<FF FE>" in parsed_page.text("div", class_="said") or view == "ids"
