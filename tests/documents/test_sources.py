"""Listing: which files a source names, under which names, and what a limit takes."""

from __future__ import annotations

import os
from pathlib import Path

import fsspec
import pytest

from headrace.documents.fingerprint import fingerprint
from headrace.documents.sources import list_files
from headrace.errors import UserError
from headrace.recipe.schema import Source


@pytest.fixture
def tree(tmp_path) -> Path:
    for name in ("a.py", "b/c.py", "b/d/e.py", "b/d/f.txt", "g.jsonl.gz", "h.JSON", "i.parquet", "j.jsonl.zst"):
        path = tmp_path / "tree" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(name * 10)
    return tmp_path / "tree"


def names(source: dict, base: Path = Path(), seed: int = 1) -> list[str]:
    return [file.name for file in list_files("s", Source.model_validate(source), seed, base)]


def test_names_are_relative_to_the_fixed_part(tree):
    assert names({"files": f"{tree}/**/*.py"}) == ["a.py", "b/c.py", "b/d/e.py"]
    assert names({"files": f"{tree}/b/**/*.py"}) == ["c.py", "d/e.py"]
    assert names({"files": f"{tree}/b/c.py"}) == ["c.py"]
    assert names({"files": str(tree / "b")}) == ["c.py", "d/e.py", "d/f.txt"]
    assert names({"files": "${recipe}/*.py"}, base=tree) == ["a.py"]


def test_formats_by_suffix(tree):
    files = list_files("s", Source.model_validate({"files": f"{tree}/**/*"}), 1, tree)
    assert {f.name: (f.format, f.compression) for f in files} == {
        "a.py": ("text", None),
        "b/c.py": ("text", None),
        "b/d/e.py": ("text", None),
        "b/d/f.txt": ("text", None),
        "g.jsonl.gz": ("jsonl", "gzip"),
        "h.JSON": ("json", None),
        "i.parquet": ("parquet", None),
        "j.jsonl.zst": ("jsonl", "zstd"),
    }
    stated = {"files": [{"glob": f"{tree}/a.py", "format": "docstrings"}, f"{tree}/b/c.py"], "format": "text"}
    assert [f.format for f in list_files("s", Source.model_validate(stated), 1, tree)] == ["docstrings", "text"]


def test_excludes(tree):
    assert names({"files": f"{tree}/**/*.py", "exclude": ["d"]}) == ["a.py", "b/c.py"]
    assert names({"files": f"{tree}/**/*.py", "exclude": [f"{tree}/b"]}) == ["a.py"]
    with pytest.raises(UserError, match="no file left"):
        names({"files": f"{tree}/**/*.py", "exclude": ["*.py"]})


def test_each_real_file_once(tree):
    (tree / "0-link.py").symlink_to(tree / "a.py")
    (tree / "loop").symlink_to(tree)
    outside = tree.parent / "outside"
    outside.mkdir()
    (outside / "o.py").write_text("o")
    (tree / "way").symlink_to(outside)
    (tree / "way2").symlink_to(outside)
    (tree / "broken.py").symlink_to(tree / "nothing")
    assert names({"files": f"{tree}/**/*.py"}) == ["a.py", "b/c.py", "b/d/e.py", "way/o.py"]
    assert names({"files": [f"{tree}/a.py", f"{tree}/*.py"]}) == ["a.py"]


def test_equal_names_of_two_roots_are_told_apart(tmp_path):
    for root in ("one", "two"):
        (tmp_path / root).mkdir()
        (tmp_path / root / "x.py").write_text(root)
    assert names({"files": [f"{tmp_path}/one/*.py", f"{tmp_path}/two/*.py"]}) == ["x.py", "two/x.py"]


def test_files_with_wildcards_in_their_names(tmp_path):
    (tmp_path / "a[1].txt").write_text("x")
    assert names({"files": f"{tmp_path}/a[1].txt"}) == ["a[1].txt"]


def test_missing_file_and_empty_match(tmp_path):
    with pytest.raises(UserError, match="does not exist"):
        names({"files": f"{tmp_path}/nothing.jsonl"})
    with pytest.raises(UserError, match="matches no file"):
        names({"files": [f"{tmp_path}/*.jsonl"]})
    with pytest.raises(UserError, match="matches no file"):
        names({"files": [f"{tmp_path}/nowhere/*.jsonl"]})


def test_remote_files_through_fsspec():
    memory = fsspec.filesystem("memory")
    for name in ("a.jsonl", "b/c.jsonl", "d.txt"):
        memory.pipe(f"/corpus/{name}", name.encode())
    assert names({"files": "memory://corpus/**/*.jsonl"}) == ["a.jsonl", "b/c.jsonl"]
    (single,) = list_files("s", Source.model_validate({"files": "memory://corpus/d.txt"}), 1, Path())
    assert (single.name, single.size, single.remote) == ("d.txt", 5, True)
    with pytest.raises(UserError, match="does not exist"):
        names({"files": "memory://corpus/x.txt"})


def test_limit_takes_whole_files_in_keyed_order(tmp_path):
    for i in range(50):
        (tmp_path / f"{i:02d}.txt").write_text("x" * 100)
    source = {"files": f"{tmp_path}/*.txt", "limit": 1050}
    taken = names(source)
    assert len(taken) == 10
    assert taken == sorted(taken)
    assert taken == names(source)
    assert taken != names(source, seed=2)
    # A smaller limit takes a part of what a larger one takes.
    assert set(names({**source, "limit": 500})) < set(taken)
    with pytest.raises(UserError, match="No file"):
        names({**source, "limit": 50})


def test_limit_cuts_a_file_that_has_rows(tmp_path):
    (tmp_path / "a.jsonl").write_text('{"text": "x"}\n' * 100)
    (file,) = list_files("s", Source.model_validate({"files": f"{tmp_path}/a.jsonl", "limit": 300}), 1, tmp_path)
    assert file.take == 300


def test_fingerprints_follow_content_not_place(tmp_path):
    for place in ("one", "two"):
        (tmp_path / place).mkdir()
        (tmp_path / place / "a.txt").write_text("same")
    one, two = (
        list_files("s", Source.model_validate({"files": f"{tmp_path}/{p}/*"}), 1, tmp_path) for p in ("one", "two")
    )
    cache = tmp_path / "cache.json"
    assert fingerprint(one, cache) == fingerprint(two, cache)
    before = fingerprint(one, cache)
    Path(one[0].url).write_text("diff")
    os.utime(one[0].url, ns=(1, 1))
    assert fingerprint(one, cache) != before


def test_fingerprints_are_remembered(tmp_path):
    path = tmp_path / "a.txt"
    path.write_text("same")
    files = list_files("s", Source.model_validate({"files": str(path)}), 1, tmp_path)
    cache = tmp_path / "cache.json"
    before = fingerprint(files, cache)
    stat = path.stat()
    path.write_text("diff")  # the same size and, below, the same time: the cache answers
    os.utime(path, ns=(stat.st_atime_ns, stat.st_mtime_ns))
    assert fingerprint(files, cache) == before
    cache.write_text("spoilt")
    assert fingerprint(files, cache) != before
    path.unlink()
    with pytest.raises(UserError, match="cannot be read"):
        fingerprint(files, cache)
