"""Functions that an installed distribution brings by its entry points."""

from __future__ import annotations

import importlib
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from headrace.errors import UserError
from headrace.functions import packages
from headrace.recipe.functions import Map, Measure
from headrace.recipe.load import load_recipe

PROJECT = """\
[build-system]
requires = ["setuptools"]
build-backend = "setuptools.build_meta"
[project]
name = "dummy-{n}"
version = "{version}"
[project.entry-points."headrace.measures"]
vowels = "dummy{n}.measures:vowels"
[project.entry-points."headrace.maps"]
loud = "dummy{n}.measures:loud"
[tool.setuptools]
packages = ["dummy{n}"]
"""
MEASURES = """\
VERSION = 1
def vowels(document, letters="aeiou") -> int:
    return sum(document.text.count(letter) for letter in letters)
def loud(document):
    return document.text.upper()
"""


def install(folder: Path, target: Path, n: int = 1, version: str = "1.0", code: str = MEASURES) -> None:
    """Build a distribution and install it into a folder, with pip and no network."""
    package = folder / f"dummy{n}"
    package.mkdir(parents=True, exist_ok=True)
    (folder / "pyproject.toml").write_text(PROJECT.format(n=n, version=version))
    (package / "__init__.py").write_text("")
    (package / "measures.py").write_text(code)
    shutil.rmtree(folder / "build", ignore_errors=True)
    options = ["--no-deps", "--no-index", "--no-build-isolation", "--quiet", "--upgrade", "--target", str(target)]
    subprocess.run([sys.executable, "-m", "pip", "install", *options, str(folder)], check=True)
    importlib.invalidate_caches()


@pytest.fixture
def site(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    target = tmp_path / "site"
    install(tmp_path / "project", target)
    monkeypatch.syspath_prepend(str(target))
    yield target
    for name in [name for name in sys.modules if name.startswith("dummy")]:
        del sys.modules[name]


def test_found_typed_loaded_and_identified(site: Path, tmp_path: Path) -> None:
    measure = Measure.model_validate({"package": "vowels", "with": {"letters": "ab"}})
    assert measure.type == "int"
    assert measure.origin == "dummy1.measures:vowels of dummy-1 1.0"

    class Document:
        text = "abba"

    assert measure.load(tmp_path)(Document) == 4
    assert Map.model_validate({"package": "loud"}).load(tmp_path)(Document) == "ABBA"
    before = measure.identity()
    for version, code in (("1.1", MEASURES), ("1.1", MEASURES.replace("VERSION = 1", "VERSION = 2"))):
        shutil.rmtree(site)  # pip leaves the older version in a --target
        install(tmp_path / "project", site, version=version, code=code)
        after = Measure.model_validate({"package": "vowels", "with": {"letters": "ab"}}).identity()
        assert after != before
        before = after
    with pytest.raises(UserError, match="has changed since the recipe was read"):
        measure._load(tmp_path)


def test_absent_and_ambiguous_names_are_told(site: Path, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"provides 'vowel' in headrace\.measures") as told:
        packages.find("headrace.measures", "vowel")
    assert "vowels" in told.value.fix
    install(tmp_path / "second", site, n=2)
    with pytest.raises(UserError, match=r"Several installed packages .*: dummy-1 1\.0, dummy-2 1\.0"):
        packages.find("headrace.measures", "vowels")
    recipe = {"name": "r", "sources": {"s": {"files": "f"}}, "measures": {"v": {"package": "vowel"}}}
    with pytest.raises(UserError, match="No installed package provides 'vowel'"):
        load_recipe(recipe)
