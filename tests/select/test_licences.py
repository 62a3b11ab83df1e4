"""Licenses found in texts, records, license files and recipes, and the verdicts about them and about opt-outs."""

from __future__ import annotations

import json
from pathlib import Path

import orjson
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from headrace.errors import UserError
from headrace.pipeline import run
from headrace.recipe.licences import OptOut
from headrace.recipe.load import load_recipe
from headrace.report.card.facts import made
from headrace.report.card.write import write_card
from headrace.run_folder import artifact, digest
from headrace.select.licences.detect import folders, is_licence_file, licence_text, spdx_lines
from headrace.select.verdicts.opt_out import Lists, list_lists
from headrace.select.why.explain import explain_row

MIT = """MIT License

Copyright (c) 2024 A. N. Author

Permission is hereby granted, free of charge, to any person obtaining a copy
of this software and associated documentation files (the "Software"), to deal
in the Software without restriction, including without limitation the rights
to use, copy, modify, merge, publish, distribute, sublicense, and/or sell
copies of the Software, and to permit persons to whom the Software is
furnished to do so, subject to the following conditions:

The above copyright notice and this permission notice shall be included in all
copies or substantial portions of the Software.

THE SOFTWARE IS PROVIDED "AS IS", WITHOUT WARRANTY OF ANY KIND, EXPRESS OR
IMPLIED, INCLUDING BUT NOT LIMITED TO THE WARRANTIES OF MERCHANTABILITY,
FITNESS FOR A PARTICULAR PURPOSE AND NONINFRINGEMENT. IN NO EVENT SHALL THE
AUTHORS OR COPYRIGHT HOLDERS BE LIABLE FOR ANY CLAIM, DAMAGES OR OTHER
LIABILITY, WHETHER IN AN ACTION OF CONTRACT, TORT OR OTHERWISE, ARISING FROM,
OUT OF OR IN CONNECTION WITH THE SOFTWARE OR THE USE OR OTHER DEALINGS IN THE
SOFTWARE.
"""
ISC = """ISC License

Copyright (c) 2020 B. Author

Permission to use, copy, modify, and/or distribute this software for any
purpose with or without fee is hereby granted, provided that the above
copyright notice and this permission notice appear in all copies.

THE SOFTWARE IS PROVIDED "AS IS" AND THE AUTHOR DISCLAIMS ALL WARRANTIES WITH
REGARD TO THIS SOFTWARE INCLUDING ALL IMPLIED WARRANTIES OF MERCHANTABILITY
AND FITNESS. IN NO EVENT SHALL THE AUTHOR BE LIABLE FOR ANY SPECIAL, DIRECT,
INDIRECT, OR CONSEQUENTIAL DAMAGES OR ANY DAMAGES WHATSOEVER RESULTING FROM
LOSS OF USE, DATA OR PROFITS, WHETHER IN AN ACTION OF CONTRACT, NEGLIGENCE OR
OTHER TORTIOUS ACTION, ARISING OUT OF OR IN CONNECTION WITH THE USE OR
PERFORMANCE OF THIS SOFTWARE.
"""

# (repo, path, text, license field) -> (license, found)
CODE = [
    ("a/one", "LICENSE", MIT, None, "MIT", "file"),
    ("a/one", "src/x.py", "import os\n", None, "MIT", "file"),
    ("a/one", "src/y.py", "# SPDX-License-Identifier: GPL-2.0-only\n", "MIT License", "GPL-2.0-only", "text"),
    ("a/one", "src/z.py", "x = 1\n", "Apache License, Version 2.0", "Apache-2.0", "field"),
    ("a/one", "vendor/COPYING", ISC, None, "ISC", "file"),
    ("a/one", "vendor/deep/q.c", "int q;\n", None, "ISC", "file"),
    ("A/One", "other.py", "y = 2\n", None, "MIT", "file"),
    ("b/two", "LICENSE-MIT", MIT + "\n", None, "ISC AND MIT", "file"),
    ("b/two", "LICENSE-ISC", ISC + "\n", None, "ISC AND MIT", "file"),
    ("b/two", "m.rs", "fn main() {}\n", "unknown", "ISC AND MIT", "file"),
    ("c/three", "LICENSE", "Ask me nicely.\n", None, None, None),
    ("c/three", "w.py", "w = 3\n", None, None, None),
    ("c/three", "v.py", "v = 4\n", "my own", "my own", "field"),
    (None, "LICENSE", MIT + "\n\n", None, None, None),
]


def corpus(folder: Path, licenses: str, more: str = "") -> Path:
    folder.mkdir(exist_ok=True)
    rows = [{"text": t, "repo": r, "path": p, "license": n} for r, p, t, n, _, _ in CODE]
    (folder / "code.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    prose = [{"text": f"Page {i}.\n", "url": f"https://www.{'sub.' * (i % 2)}example.org/a/{i}.html"} for i in range(4)]
    prose.append({"text": "# SPDX-License-Identifier: MIT\n", "license": "CC-BY-4.0"})
    (folder / "prose.jsonl").write_text("".join(json.dumps(row) + "\n" for row in prose))
    (folder / "recipe.yaml").write_text(
        f"""\
name: rights
sources:
  code: {{files: "${{recipe}}/code.jsonl"{licenses}}}
  prose: {{files: "${{recipe}}/prose.jsonl", license: CC0-1.0}}
split: {{validation: 0}}
{more}"""
    )
    return folder


def make(folder: Path, out: str = "run", workers: int = 0) -> Path:
    run(load_recipe(folder / "recipe.yaml"), folder / out, workers=workers, memory=500_000_000)
    return folder / out


def rows(run: Path, kind: str) -> list[dict]:
    found = artifact(run, kind)
    return pa.concat_tables([pq.read_table(found.shard_path(i)) for i in range(len(found.shards))]).to_pylist()


def verdicts(run: Path) -> list[tuple]:
    told = zip(rows(run, "documents"), rows(run, "verdicts"), strict=True)
    return [(d["source"], d["origin_row"], v["reason"], v["evidence"] and orjson.loads(v["evidence"])) for d, v in told]


@pytest.fixture(scope="module")
def searched(tmp_path_factory):
    return make(corpus(tmp_path_factory.mktemp("rights") / "c", ", licenses: {}"))


def test_where_licenses_are_found(searched):
    told = zip(rows(searched, "documents"), rows(searched, "licences"), strict=True)
    found = {(d["source"], d["origin_row"]): (row["license"], row["found"]) for d, row in told}
    for i, (*_, license, way) in enumerate(CODE):
        assert found["code", i] == (license, way), CODE[i]
    # The texts of other sources are not searched.
    assert found["prose", 0] == ("CC0-1.0", "source")
    assert found["prose", 4] == ("CC-BY-4.0", "field")
    counts = artifact(searched, "licences").manifest.counts
    assert counts["code"] == {"text": 1, "field": 2, "file": 8, "source": 0, "none": 3}


def test_searching_alone_removes_nothing_and_judges_nothing(searched, tmp_path):
    assert {reason for *_, reason, _ in verdicts(searched)} == {None}
    plain = make(corpus(tmp_path / "c", ""))
    assert artifact(plain, "verdicts").manifest.identity == artifact(searched, "verdicts").manifest.identity


def test_the_card_tells_how_licenses_were_found(searched):
    said = write_card(searched)
    assert "| code | MIT | file | 3 |" in said
    assert "| code | `my own` (not SPDX) | field | 1 |" in said
    assert "Texts and license files were not searched for licenses in prose" in said
    listed = pa.concat_tables(made(searched).attribution()).to_pylist()
    assert [(row["license"], row["license_found"]) for row in listed[: len(CODE)]] == [case[4:] for case in CODE]


@pytest.mark.parametrize(
    ("licenses", "removed"),
    [
        ("{allow: [MIT, ISC]}", {2: "allow", 3: "allow", 10: "unknown", 11: "unknown", 12: "unknown", 13: "unknown"}),
        (
            "{allow: MIT, unknown: keep}",
            {2: "allow", 3: "allow", 4: "allow", 5: "allow", 7: "allow", 8: "allow", 9: "allow"},
        ),
        ("{deny: ['GPL-*', 'Apache*']}", {2: "deny", 3: "deny"}),
        ("{unknown: remove}", {10: "unknown", 11: "unknown", 12: "unknown", 13: "unknown"}),
    ],
)
def test_licenses_that_are_not_permitted(licenses, removed, tmp_path):
    made = make(corpus(tmp_path / "c", f", licenses: {licenses}"))
    found = {row: told for source, row, reason, told in verdicts(made) if reason == "license" and source == "code"}
    assert {row: told["rule"] for row, told in found.items()} == removed
    for row, told in found.items():
        assert (told["license"], told["found"]) == CODE[row][4:]
    assert not [row for row in verdicts(made) if row[0] == "prose" and row[2]]
    if "deny" in licenses:
        assert found[2]["by"] == "GPL-*"
        artifacts = {kind: artifact(made, kind) for kind in ("documents", "licences", "verdicts")}
        [decision] = [
            d
            for d in explain_row(load_recipe(made / "recipe.yaml"), artifacts, 2)["decisions"]
            if d["reason"] == "license"
        ]
        assert decision["removes"] is True
        assert decision["measured"] == {"license": "GPL-2.0-only", "found": "text"}


def test_workers_and_order_change_nothing(tmp_path):
    folder = corpus(tmp_path / "c", ", licenses: {allow: [MIT, ISC]}")
    one = digest(make(folder, "one", workers=0))
    assert digest(make(folder, "two", workers=2)) == one
    text = (folder / "recipe.yaml").read_text()
    (folder / "recipe.yaml").write_text(text.replace("[MIT, ISC]", "[isc, mit license]"))
    assert digest(make(folder, "three"))["artifacts"].keys() == one["artifacts"].keys()


@pytest.mark.parametrize(
    ("licenses", "said"),
    [
        ("{allow: MTI}", "not an SPDX license"),
        ("{deny: ['GLP-*']}", "SPDX license is like"),
        ("{allow: MIT OR ISC}", "several"),
    ],
)
def test_misspelt_licenses_are_mistakes(licenses, said, tmp_path):
    with pytest.raises(UserError, match=said):
        load_recipe(corpus(tmp_path / "c", f", licenses: {licenses}") / "recipe.yaml")


def test_opt_outs(tmp_path):
    folder = tmp_path / "c"
    folder.mkdir()
    (folder / "repos.txt").write_text("# who asked\n\nhttps://github.com/B/Two.git\n")
    (folder / "paths.txt").write_text("a/one:vendor/\nw.py\n")
    (folder / "urls.txt").write_text("sub.example.org\nhttps://example.org/a/2.html\n")
    more = "opt_out: {repositories: '${recipe}/repos.txt', paths: [paths.txt], urls: urls.txt}\n"
    made = make(corpus(folder, "", more))
    found = {row[:2]: row[3] for row in verdicts(made) if row[2] == "opt_out"}
    assert set(found) == {("code", i) for i in (4, 5, 7, 8, 9, 11)} | {("prose", i) for i in (1, 2, 3)}
    assert found["code", 7] == {
        "by": "repositories",
        "value": "https://github.com/B/Two.git",
        "list": "repos.txt",
        "line": 3,
    }
    assert found["code", 5]["value"] == "a/one:vendor/"
    assert found["prose", 3]["value"] == "sub.example.org"
    before = artifact(made, "verdicts").manifest.identity
    (folder / "paths.txt").write_text("a/one:vendor/\n")
    assert artifact(make(folder), "verdicts").manifest.identity != before
    assert ("code", 11) not in {row[:2] for row in verdicts(folder / "run") if row[2]}
    assert "on a list of those who opted out" in write_card(folder / "run")


def lists(tmp_path: Path, **named: str) -> Lists:
    for kind, text in named.items():
        (tmp_path / kind).write_text(text)
    return Lists(list_lists(OptOut(**{kind: str(tmp_path / kind) for kind in named})))


@pytest.mark.parametrize(
    ("kind", "entry", "document", "on"),
    [
        ("repositories", "octo", {"repo": "Octo/Cat"}, True),
        ("repositories", "octo/", {"repo": "Octo/Cat"}, True),
        ("repositories", "octo/ca", {"repo": "octo/cat"}, False),
        ("repositories", "git@github.com:octo/cat.git", {"repo": "octo/cat"}, True),
        ("repositories", "octo/cat", {"repo": "https://gitlab.com/octo/cat"}, True),
        ("repositories", "cat", {"repo": "cat"}, True),
        ("repositories", "octo", {"repo": None}, False),
        ("paths", "src/", {"path": "src/a/b.py"}, True),
        ("paths", "src/", {"path": "lib/src/b.py"}, False),
        ("paths", "src/b.py", {"path": "./src/b.py", "repo": "o/c"}, True),
        ("paths", "o/d:src/", {"path": "src/b.py", "repo": "o/c"}, False),
        ("urls", "example.org", {"meta": '{"url": "http://a.b.example.org/x?y#z"}'}, True),
        ("urls", "example.org", {"meta": '{"url": "http://myexample.org/x"}'}, False),
        ("urls", "example.org/x", {"meta": '{"url": "https://www.Example.org/x?y"}'}, True),
        ("urls", "http://example.org/blog/", {"meta": '{"url": "https://example.org/blog/2020/1"}'}, True),
        ("urls", "http://example.org/blog/", {"meta": '{"url": "https://example.org/blogger"}'}, False),
        ("urls", "example.org", {"meta": '{"url": 7}'}, False),
        ("ids", "0" * 32, {"id": "0" * 32}, True),
    ],
)
def test_what_entries_cover(kind, entry, document, on, tmp_path):
    full = {"id": "f" * 32, "repo": None, "path": None, "meta": None, **document}
    assert (lists(tmp_path, **{kind: f"\ufeff{entry}\r\n"}).match(full) is not None) == on


def test_wrong_lists_are_told(tmp_path):
    with pytest.raises(UserError, match="not a document id") as error:
        lists(tmp_path, ids="# fine\nnonsense\n")
    assert error.value.where.endswith("ids, line 2")
    (tmp_path / "bytes").write_bytes(b"\xff\xfe\n")
    with pytest.raises(UserError, match="not UTF-8"):
        Lists(list_lists(OptOut(urls=str(tmp_path / "bytes"))))
    with pytest.raises(UserError, match="does not exist"):
        list_lists(OptOut(urls=str(tmp_path / "gone")))


@pytest.mark.parametrize(
    ("head", "license"),
    [
        (b"#!/bin/sh\n# SPDX-License-Identifier: MIT\n", "MIT"),
        (b"/* SPDX-License-Identifier: GPL-2.0+ */\n", "GPL-2.0-or-later"),
        (b"<!-- SPDX-License-Identifier: MIT OR Apache-2.0 -->\r\n", "Apache-2.0 OR MIT"),
        (b"// SPDX-License-Identifier: MIT\n// SPDX-License-Identifier: ISC\n", "ISC AND MIT"),
        (b"Write SPDX-License-Identifier: MIT into each file.\n", None),
        (b"# SPDX-License-Identifier: <id>\n", None),
        (b"# SPDX-License-Identifier:\n", None),
        (b"", None),
    ],
)
def test_spdx_lines(head, license):
    assert spdx_lines(head) == license


@given(st.binary(max_size=200).map(lambda tail: b"# SPDX-License-Identifier: " + tail))
def test_no_line_is_too_odd(head):
    spdx_lines(head)
    licence_text(head)


def test_names_of_license_files():
    for path in ("LICENSE", "a/b/licence.md", "COPYING.LESSER", "LICENSE-MIT", "UNLICENSE", "mit-license.txt"):
        assert is_licence_file(path), path
    for path in ("license.py", "src/licensing.txt", "LICENSES/MIT.txt", "copying_files.txt.py", "NOTICE"):
        assert not is_licence_file(path), path
    assert folders("a/b/c.py") == ["a/b", "a", ""]
    assert folders("./c.py") == [""]


def test_license_texts():
    assert licence_text(MIT.encode()) == "MIT"
    assert licence_text((MIT + ISC).encode()) == "ISC AND MIT"
    assert licence_text(b"Do what you like.") is None
