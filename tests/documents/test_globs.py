"""Globs: the matcher against pathlib's, the fixed part, the excludes, the variables."""

from __future__ import annotations

import sysconfig
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from headrace.documents import globs
from headrace.errors import UserError


@pytest.mark.parametrize(
    ("pattern", "name", "matches"),
    [
        ("*.py", "a.py", True),
        ("*.py", "x/a.py", False),
        ("**/*.py", "a.py", True),
        ("**/*.py", "x/y/a.py", True),
        ("x/**", "x/y/a.py", True),
        ("x/**/a.py", "x/a.py", True),
        ("*.{html,css}", "a.css", True),
        ("*.{html,css}", "a.cs", False),
        ("[ab].txt", "b.txt", True),
        ("[!ab].txt", "b.txt", False),
        ("a?.txt", "ab.txt", True),
        ("**/*", ".git/config", False),
        ("**/*", "x/.hidden", False),
        (".config/*", ".config/a", True),
        ("a+b(1).txt", "a+b(1).txt", True),
        ("{a,x/b}.py", "x/b.py", True),
        ("{a,x/*}.py", "x/y/b.py", False),
        ("{a,{b,x/**}}", "x/y/b", True),
        ("{a,{b}.py", "{a,b.py", True),
        ("{a[}].py", "{a}.py", True),
        ("x[!a]b", "x/b", False),
        ("x[b-a]", "xb", False),
        ("[!].py", "!.py", True),
        ("[^].py", "^.py", True),
    ],
)
def test_matcher(pattern, name, matches):
    assert globs.matcher(pattern)(name) is matches


def test_fixed_part():
    assert globs.split("data/**/*.py") == ("data", "**/*.py")
    assert globs.split("/data/x.jsonl") == ("/data", "x.jsonl")
    assert globs.split("${stdlib}/**/*.py") == ("${stdlib}", "**/*.py")
    assert globs.split("*.py") == (".", "*.py")
    assert globs.split("s3://bucket/a/*.zst") == ("s3://bucket/a", "*.zst")


@pytest.mark.parametrize(
    ("pattern", "name", "out"),
    [
        ("test", "json/test/a.py", True),
        ("test", "json/testing/a.py", False),
        ("*.min.js", "a/b.min.js", True),
        ("**/tests/**", "a/tests/b/c.py", True),
        ("a/b", "a/b/c.py", True),
        ("a/b", "a/bc/c.py", False),
        ("/root/a", "a/b.py", True),
        ("site-packages/", "site-packages/x.py", True),
    ],
)
def test_excluder(pattern, name, out):
    assert globs.excluder((pattern,))(name, f"/root/{name}") is out


def test_variables(tmp_path, monkeypatch):
    assert globs.expand("${stdlib}/x", tmp_path, "") == sysconfig.get_path("stdlib") + "/x"
    assert globs.expand("${recipe}/x", tmp_path, "") == f"{tmp_path}/x"
    monkeypatch.setenv("CORPORA", "/corpora")
    assert globs.expand("${CORPORA}/x", tmp_path, "") == "/corpora/x"
    with pytest.raises(UserError, match=r"NOWHERE"):
        globs.expand("${NOWHERE}/x", tmp_path, "sources.a.files")


@given(st.lists(st.sampled_from(["a", "b", "*", "?", "**", "a*", "[ab]"]), min_size=1, max_size=4))
def test_translate_agrees_with_pathlib(tmp_path_factory, parts):
    root = _tree(tmp_path_factory)
    pattern = "/".join(parts)
    if "**/**" in pattern or pattern.endswith("**"):
        return  # pathlib gives folders for these
    expected = {str(p.relative_to(root)) for p in root.glob(pattern) if p.is_file()}
    names = [str(p.relative_to(root)) for p in root.rglob("*") if p.is_file()]
    assert {name for name in names if globs.matcher(pattern)(name)} == expected


@given(st.text(alphabet="{}[]!^,-*?/ab.", max_size=12))
def test_whatever_is_written_is_a_glob(pattern):
    assert globs.matcher(pattern)("a/b") in (True, False)
    assert globs.excluder((pattern or "a",))("a/b", "/root/a/b") in (True, False)


@st.composite
def alternatives(draw, depth=2):
    """A pattern with braces, and the patterns without any that it stands for."""
    pattern, meant = "", [""]
    for _ in range(draw(st.integers(1, 3))):
        if depth and draw(st.booleans()):
            several = draw(st.lists(alternatives(depth - 1), min_size=2, max_size=3))
            text, chosen = "{" + ",".join(one for one, _ in several) + "}", [m for _, ms in several for m in ms]
        else:
            text = draw(st.sampled_from(["a", "b", "/", "*", "?", "[ab]", "y"]))
            chosen = [text]
        pattern, meant = pattern + text, [m + c for m in meant for c in chosen]
    return pattern, meant


@given(alternatives())
def test_braces_stand_for_all_their_alternatives(tmp_path_factory, drawn):
    pattern, meant = drawn
    if any("**" in one for one in (pattern, *meant)):
        return  # which of these cross folders depends on what stands beside them
    root = _tree(tmp_path_factory)
    names = [str(p.relative_to(root)) for p in root.rglob("*") if p.is_file()]
    expected = {name for name in names if any(globs.matcher(one)(name) for one in meant)}
    assert {name for name in names if globs.matcher(pattern)(name)} == expected


_ROOT: list[Path] = []


def _tree(factory) -> Path:
    if not _ROOT:
        root = factory.mktemp("tree")
        for name in ("a", "b", "ab", "x/a", "x/b", "x/y/a", "x/y/ab", "aa/b/a", "aa/b/b"):
            (root / name).parent.mkdir(parents=True, exist_ok=True)
            (root / name).write_text(name)
        _ROOT.append(root)
    return _ROOT[0]
