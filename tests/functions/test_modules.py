"""The code of a function: which files belong to it, what changes its digest, and how it is loaded from a copy."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pytest

from headrace.errors import UserError
from headrace.functions.loading import load_file, load_text
from headrace.functions.modules import digest_of, read_modules
from headrace.functions.signature import signatures, version


def write(folder: Path, **files: str) -> None:
    for name, text in files.items():
        path = folder / (name.replace("__", "/") + ".py")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)


def test_helpers_are_found_through_helpers_and_folders(tmp_path: Path) -> None:
    write(
        tmp_path,
        main="import first\nfrom inside.deep import x\nimport json\ndef f(d): import late",
        first="from second import y",
        second="y = 1",
        late="",
        json="raise SystemExit",
        unused="",
        inside__deep="x = 2",
        inside__other="",
    )
    found = list(read_modules(tmp_path / "main.py"))
    assert found == ["main.py", "first.py", "inside/deep.py", "inside/other.py", "late.py", "second.py"]


def test_the_digest_follows_the_text_of_all_files_and_no_path(tmp_path: Path) -> None:
    digests = []
    for folder, helper in (("a", "y = 1"), ("b", "y = 1"), ("c", "y = 2")):
        write(tmp_path / folder, main="from helper import y", helper=helper)
        digests.append(digest_of(read_modules(tmp_path / folder / "main.py")))
    assert digests[0] == digests[1] != digests[2]
    (tmp_path / "a" / "main.py").write_text("from helper import y  # and a comment")
    assert digest_of(read_modules(tmp_path / "a" / "main.py")) != digests[0]


@pytest.mark.parametrize("text", ["def f(:\n", "x = '\0'", "(" * 2000, "\ud8ff"])
def test_what_is_not_python_is_told(tmp_path: Path, text: str) -> None:
    (tmp_path / "m.py").write_bytes(text.encode("utf-8", "surrogatepass"))
    with pytest.raises(UserError, match="not valid Python"):
        read_modules(tmp_path / "m.py")
    with pytest.raises(UserError, match="does not exist"):
        read_modules(tmp_path / "absent.py")


def test_a_copy_is_run_in_the_place_of_a_changed_file(tmp_path: Path) -> None:
    write(tmp_path, main="import helper_of_copy\nfrom pathlib import Path\ndef f(d): return helper_of_copy.y, __file__")
    write(tmp_path, helper_of_copy="y = 1")
    path = tmp_path / "main.py"
    files = read_modules(path)
    path.write_text("def f(d): return 'changed'")
    (tmp_path / "helper_of_copy.py").write_text("y = 'changed'")
    assert load_file(path, "f", files)(None) == (1, str(path))
    assert str(tmp_path) not in sys.path


def test_a_changed_helper_is_loaded_anew_in_the_same_process(tmp_path: Path) -> None:
    for value in (1, 2):
        write(tmp_path, main="from helper_anew import y\ndef f(d): return y", helper_anew=f"y = {value}")
        assert load_file(tmp_path / "main.py", "f", read_modules(tmp_path / "main.py"))(None) == value


def test_two_helpers_of_one_name_and_a_taken_name_are_told(tmp_path: Path) -> None:
    for folder in ("a", "b"):
        write(tmp_path / folder, main="from helper_twice import y\ndef f(d): return y", helper_twice=f"y = {folder!r}")
    first, second = (read_modules(tmp_path / folder / "main.py") for folder in ("a", "b"))
    assert load_file(tmp_path / "a" / "main.py", "f", first)(None) == "a"
    with pytest.raises(UserError, match="Two helpers are imported as 'helper_twice'"):
        load_file(tmp_path / "b" / "main.py", "f", second)
    assert np.__name__ in sys.modules
    write(tmp_path, taken="import numpy\ndef f(d): return 1", numpy="")
    with pytest.raises(UserError, match="same name as an installed module"):
        load_file(tmp_path / "taken.py", "f", read_modules(tmp_path / "taken.py"))


@pytest.mark.parametrize(
    ("text", "what"),
    [
        ("import nowhere_to_be_found\ndef f(d): ...", "ModuleNotFoundError"),
        ("raise SystemExit(3)\ndef f(d): ...", "SystemExit: 3"),
        ("def g(d): ...", "no function 'f'"),
        ("f = 3", "no function 'f'"),
    ],
)
def test_what_cannot_be_loaded_is_told(text: str, what: str) -> None:
    with pytest.raises(UserError, match=what):
        load_text(text, "f")


def test_signatures_are_read_and_nothing_is_run() -> None:
    import ast

    tree = ast.parse(
        "VERSION = 1 + 2\nraise SystemExit\n"
        "def a(d) -> float: ...\ndef b(d) -> 'int | None': ...\ndef c(d) -> Optional[str]: ...\ndef e(d): ...\n"
        "def g(d) -> list[str]: ...\nclass K:\n  def __call__(self, d) -> bool: ...\n"
    )
    told = {name: signature.returns for name, signature in signatures(tree).items()}
    assert told == {"a": "float", "b": "int", "c": "str", "e": None, "g": None, "K": "bool"}
    assert version(tree) == "1 + 2"
