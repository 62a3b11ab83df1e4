"""Stretches of a text in documents, against comparing every pair of places."""

from __future__ import annotations

from urllib.parse import quote

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from headrace.tables import open_documents
from headrace.view.search.copied import Match, stretches
from headrace.view.search.stretches import LEAST, find_stretches, table_of


def plain(documents: list[bytes], text: bytes) -> set[tuple[int, int, int, int]]:
    """All maximal matches of at least LEAST bytes."""
    out = set()
    for d, data in enumerate(documents):
        for i in range(len(data) - LEAST + 1):
            for j in range(len(text) - LEAST + 1):
                if i and j and data[i - 1] == text[j - 1]:
                    continue
                n = 0
                while i + n < len(data) and j + n < len(text) and data[i + n] == text[j + n]:
                    n += 1
                if n >= LEAST:
                    out.add((d, j, i, n))
    return out


PIECE = st.sampled_from(
    [b"ab" * 30, b"the quick brown fox jumps over the lazy dog ", b"x" * 41, b"\x00\xff" * 21, b"y"]
)
TEXT = st.lists(PIECE, max_size=4).map(b"".join)


# Of two pieces no more than SAME windows are alike.
@given(st.lists(TEXT, max_size=4), st.lists(PIECE, max_size=2).map(b"".join))
def test_every_maximal_match_is_found(documents, text):
    """Texts made of a few pieces, so that most have stretches in common."""
    data = np.frombuffer(b"".join(documents), dtype=np.uint8)
    offsets = np.cumsum([0, *map(len, documents)], dtype=np.int64)
    found = find_stretches(data, offsets, table_of(text))
    assert set(zip(*(column.tolist() for column in found), strict=True)) == plain(documents, text)


def test_longest_first_without_those_inside():
    """A stretch inside a longer one is not told again; each document counts once."""
    told = [Match(3, 10, 0, 90), Match(4, 10, 7, 90), Match(3, 10, 200, 90), Match(5, 20, 0, 50), Match(5, 95, 1, 45)]
    found = stretches(told)
    assert [(one.start, one.length, one.documents) for one in found] == [(10, 90, 2), (95, 45, 1)]
    assert [(match.row, match.at) for match in found[0].matches] == [(3, 0), (4, 7)]


def test_a_pasted_text_is_found_where_it_stands(client, viewed):
    """Sent by a form, with lines of other text around what was copied."""
    rows = open_documents(viewed, removed=True).to_arrow(["text", "source"]).to_pylist()
    row = next(i for i, one in enumerate(rows) if one["source"] == "tree" and len(one["text"]) > 3000)
    copied = rows[row]["text"][1000:1400]
    answer = client.post(
        "/copied",
        content=b"q=" + quote(f"A line of my own.\r\n{copied}\nAnd another.").encode(),
        headers={"content-type": "application/x-www-form-urlencoded", "sec-fetch-site": "same-origin"},
    )
    assert answer.status_code == 303
    address = answer.headers["location"]
    while (told := client.get(f"{address}&format=json").json())["searched"] < told["rows"]:
        pass
    best = told["stretches"][0]
    assert copied.strip() in told["words"][0]
    assert row in [match["row"] for match in best["matches"]]
    assert best["documents"] == sum(told["words"][0] in one["text"] for one in rows)
    assert "<mark>" in client.get(address).text
    while any(one["seen"] is None for holders in told["holders"] for one in holders):
        told = client.get(f"{address}&format=json").json()
    holder = next(one for one in told["holders"][0] if one["row"] == row)
    assert holder["seen"]
    for seen in holder["seen"]:
        shown = client.get(f"/documents/{row}?format=json").json()
        while shown["trained"] is None:
            shown = client.get(f"/documents/{row}?format=json").json()
        places = shown["trained"][seen["stage"]]["shown"]
        assert seen["rows"] == len({one["placement"]["row"] for one in places})
        assert set(seen["steps"]) <= {one["step"] for one in places if one["fate"] == "trained"}


def test_texts_that_are_not_looked_for(client):
    """Too short, too long, not at hand, sent by another site."""
    assert client.get("/copied?q=short").status_code == 400
    assert client.get("/copied?text=0123456789abcdef").status_code == 404
    assert (
        client.post("/copied", content=b"q=" + b"a" * 300_000, headers={"sec-fetch-site": "same-origin"}).status_code
        == 400
    )
    assert (
        client.post("/copied", content=b"q=" + b"a" * 5_000_000, headers={"sec-fetch-site": "same-origin"}).status_code
        == 413
    )
    assert client.post("/copied", content=b"q=x", headers={"sec-fetch-site": "cross-site"}).status_code == 403
