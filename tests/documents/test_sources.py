"""Listing: which files a source names, under which names, and what a limit takes."""

from __future__ import annotations

import bz2
import gzip
import lzma
import os
import random
import time
from pathlib import Path

import fsspec
import pytest

import headrace.documents.fingerprint as fingerprint_module
from headrace.documents.checked_file import BLOCK, ChangedInput, open_file
from headrace.documents.fingerprint import fingerprint, fingerprinted, trusted
from headrace.documents.sources import list_files
from headrace.errors import UserError
from headrace.flow.notices import Notice
from headrace.flow.storage import read_sealed, write_sealed
from headrace.recipe.paths import anchor
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
    with pytest.raises(UserError, match="no files left"):
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
    (tree / "circle.py").symlink_to(tree / "circle.py")
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


@pytest.mark.parametrize(("suffix", "pack"), [(".gz", gzip.compress), (".bz2", bz2.compress), (".xz", lzma.compress)])
def test_limit_counts_the_content_of_compressed_files(tmp_path, suffix, pack):
    """Rows that compress well: as many are taken as if they were not compressed, and a damaged file counts as far as it
    can be read."""
    for k in range(6):
        (tmp_path / f"{k}.jsonl").write_bytes(b'{"text": "mill"}\n' * 100)
    plain = {"files": f"{tmp_path}/*.jsonl", "limit": 4000}
    expected = {file.name: file.take for file in list_files("s", Source.model_validate(plain), 1, tmp_path)}
    for k in range(6):
        (tmp_path / f"{k}.jsonl{suffix}").write_bytes(pack((tmp_path / f"{k}.jsonl").read_bytes()))
        (tmp_path / f"{k}.jsonl").unlink()
    packed = {"files": f"{tmp_path}/*", "limit": 4000}
    found = list_files("s", Source.model_validate(packed), 1, tmp_path)
    assert sorted(file.take or 0 for file in found) == sorted(take or 0 for take in expected.values())
    assert len(found) == 3
    broken = tmp_path / found[0].name
    broken.write_bytes(broken.read_bytes()[:20])
    assert len(list_files("s", Source.model_validate(packed), 1, tmp_path)) >= 3


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
    assert digests(one, cache) == digests(two, cache)
    before = digests(one, cache)
    Path(one[0].url).write_text("diff")
    os.utime(one[0].url, ns=(1, 1))
    assert digests(one, cache) != before


def digests(files, cache, **options):
    return [file.digest for file in fingerprint(files, cache, **options).files]


def aged(monkeypatch):
    """As if what was written now had been written an hour ago."""
    now = time.time_ns
    monkeypatch.setattr(fingerprint_module.time, "time_ns", lambda: now() + 3600 * 10**9)


def test_fingerprints_are_remembered(tmp_path, monkeypatch):
    aged(monkeypatch)
    path = tmp_path / "a.txt"
    path.write_text("same")
    files = list_files("s", Source.model_validate({"files": str(path)}), 1, tmp_path)
    cache = tmp_path / "cache.json"
    before = digests(files, cache)
    assert trusted(files, cache) == (1, 4)
    assert fingerprint(files, cache).trusted == 1
    assert fingerprint(files, cache, read_all=True).trusted == 0
    # An entry of other bytes but of this file's size and times is believed, unless all is to be read.
    entry = read_sealed(cache)["files"][str(path)]
    write_sealed(cache, {"files": {str(path): [*entry[:3], "0" * 32, ""]}})
    assert digests(files, cache) == ["0" * 32]
    assert digests(files, cache, read_all=True) == before
    assert digests(files, cache) == before
    cache.write_text("spoilt")
    assert digests(files, cache) == before
    path.unlink()
    with pytest.raises(UserError, match="cannot be read"):
        fingerprint(files, cache)


def test_a_file_rewritten_with_its_size_and_time_put_back_is_read_again(tmp_path, monkeypatch):
    aged(monkeypatch)
    path = tmp_path / "a.txt"
    path.write_text("same")
    files = list_files("s", Source.model_validate({"files": str(path)}), 1, tmp_path)
    cache = tmp_path / "cache.json"
    before, stat = digests(files, cache), path.stat()
    time.sleep(0.02)  # the kernel's clock of files moves in steps of some milliseconds
    path.write_text("diff")
    os.utime(path, ns=(stat.st_atime_ns, stat.st_mtime_ns))
    assert digests(files, cache) != before


def test_a_file_that_was_just_written_is_not_remembered(tmp_path):
    path = tmp_path / "a.txt"
    path.write_text("same")
    files = list_files("s", Source.model_validate({"files": str(path)}), 1, tmp_path)
    fingerprint(files, tmp_path / "cache.json")
    assert trusted(files, tmp_path / "cache.json") == (0, 0)


@pytest.mark.parametrize("size", [0, 1, BLOCK - 1, BLOCK, BLOCK + 1, 3 * BLOCK + 5])
def test_a_checked_file_reads_as_the_file_does(tmp_path, size):
    data = random.Random(size).randbytes(size)
    (tmp_path / "a.txt").write_bytes(data)
    [file] = list_files("s", Source.model_validate({"files": str(tmp_path / "a.txt")}), 1, tmp_path)
    file = fingerprinted(file)
    rng = random.Random(1)
    with open_file(file) as checked:
        assert checked.read() == data
        assert checked.read(5) == b""
        for _ in range(50):
            at, length = rng.randint(0, size + 3), rng.choice([0, 1, 100, BLOCK, 2 * BLOCK])
            assert checked.seek(at) == at
            assert checked.read(length) == data[at : at + length]
            assert checked.tell() == max(at, min(size, at + length))


@pytest.mark.parametrize("size", [1, BLOCK, BLOCK + 1, 3 * BLOCK])
def test_a_checked_file_gives_out_no_byte_that_was_not_fingerprinted(tmp_path, size):
    path = tmp_path / "a.txt"
    path.write_bytes(bytes(size))
    [file] = list_files("s", Source.model_validate({"files": str(path)}), 1, tmp_path)
    file = fingerprinted(file)
    for place in {0, size // 2, size - 1}:
        with open(path, "r+b") as f:
            f.seek(place)
            f.write(b"x")
        with open_file(file) as checked, pytest.raises(ChangedInput):
            checked.read()
        path.write_bytes(bytes(size))
    path.write_bytes(bytes(size + 1))
    with pytest.raises(ChangedInput):
        open_file(file)


@pytest.mark.parametrize("folder", ["[DATA]", "a{b}", "what?", "s*r"])
def test_folders_called_like_patterns(tmp_path, monkeypatch, folder):
    inside = tmp_path / folder / "deep"
    inside.mkdir(parents=True)
    (inside / "x.jsonl").write_text("x")
    (inside / "y.txt").write_text("y")
    monkeypatch.setenv("CORPUS", str(tmp_path / folder))
    for glob, found in {
        f"{tmp_path}/{folder}/deep/x.jsonl": ["x.jsonl"],
        f"{tmp_path}/{folder}/deep/*.jsonl": ["x.jsonl"],
        f"{tmp_path}/{folder}/**/*.jsonl": ["deep/x.jsonl"],
        f"{tmp_path}/{folder}": ["deep/x.jsonl", "deep/y.txt"],
        "${CORPUS}/*/x.jsonl": ["deep/x.jsonl"],
        "${CORPUS}/deep/x.jsonl": ["x.jsonl"],
        "${recipe}/deep/*.txt": ["y.txt"],
    }.items():
        anchored = anchor({"sources": {"s": {"files": glob}}}, tmp_path / folder)["sources"]["s"]
        assert names(anchored, base=tmp_path / folder) == found, glob
    (tmp_path / folder / "D").mkdir()
    excluding = {"files": f"{tmp_path}/{folder}", "exclude": ["${CORPUS}/deep/y.txt"]}
    assert names(excluding) == ["deep/x.jsonl"]


def test_a_glob_of_an_archive_is_told(tmp_path):
    with pytest.raises(UserError):
        names({"files": f"zip://*.jsonl::{tmp_path}/nothing.zip"})


def test_what_is_not_known_to_be_text_is_refused_or_left_out_and_said(tmp_path):
    for name in ("a.py", "b.tar", "c.png", "d.jsonl.lz4", "e", "Makefile", "f.jl"):
        (tmp_path / name).write_text("function f() end")
    with pytest.warns(Notice, match=r"source s: 4 files skipped by name \(1 .tar, 1 .png, 1 .lz4, 1 e\)"):
        assert names({"files": f"{tmp_path}/*"}) == ["Makefile", "a.py", "f.jl"]
    for name, said in (
        ("b.tar", "an archive"),
        ("c.png", "does not identify it as text"),
        ("d.jsonl.lz4", "compressed"),
        ("e", "does not identify it as text"),
    ):
        with pytest.raises(UserError, match=said):
            names({"files": f"{tmp_path}/{name}"})
    with pytest.raises(UserError, match=r"no files with a recognized name: .*1 .png"):
        names({"files": f"{tmp_path}/*.png"})
    assert names({"files": f"{tmp_path}/c.png", "format": "text"}) == ["c.png"]


def test_the_card_of_a_data_set_is_no_document(tmp_path):
    for name in ("README.md", "data/a.jl", "data/b.jsonlines", "data/c.ndjson", "LICENSE"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text('{"text": "x"}\n')
    with pytest.warns(Notice, match=r"2 files skipped by name \(1 \w+(.md)?, 1 \w+(.md)?\)"):
        files = list_files("s", Source.model_validate({"files": str(tmp_path)}), 1, tmp_path)
    assert {file.name: file.format for file in files} == dict.fromkeys(
        ("data/a.jl", "data/b.jsonlines", "data/c.ndjson"), "jsonl"
    )
    assert names({"files": f"{tmp_path}/**/*.{{md,ndjson}}"}) == ["README.md", "data/c.ndjson"]
