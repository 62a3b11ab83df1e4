"""A run imports nothing that it does not need."""

from __future__ import annotations

import json
import os
import random
from pathlib import Path

import pytest
from small_run import prose

from commands import apart

# In place of pandas: says who imported it, and is not there.
PANDAS = """
import os, sys
open(os.environ["IMPORTED"], "a").write(" ".join(sys.argv) + "\\n")
raise ImportError("pandas")
"""
RECIPE = """
name: start
sources: {prose: {files: "${recipe}/*.jsonl"}}
deduplicate: {near: {}}
filters: {short: {min_characters: 20}}
tokenizer: {train: {vocab_size: 300}}
stages: [{name: all, sequence_length: 64, sources: {prose: {}}}]
"""
OWN = "documents: {map: [{python: 'own.py:same'}]}"
FUNCTION = "def same(document):\n    return document.text\n"


@pytest.mark.parametrize("own", [False, True])
def test_arrow_imports_pandas_for_the_users_functions_only(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, own: bool
) -> None:
    (tmp_path / "packages" / "pandas").mkdir(parents=True)
    (tmp_path / "packages" / "pandas" / "__init__.py").write_text(PANDAS)
    texts = [json.dumps({"text": prose(random.Random(n), 60)}) for n in range(40)]
    (tmp_path / "texts.jsonl").write_text("\n".join(texts) + "\n")
    (tmp_path / "own.py").write_text(FUNCTION)
    (tmp_path / "recipe.yaml").write_text(RECIPE + (OWN if own else ""))
    packages = [str(tmp_path / "packages"), *filter(None, [os.environ.get("PYTHONPATH")])]
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join(packages))
    monkeypatch.setenv("IMPORTED", str(tmp_path / "imported"))
    arguments = ("--out", tmp_path / "run", "--workers", 1, "--until", "sequence-all")
    apart("run", tmp_path / "recipe.yaml", *arguments)
    assert (tmp_path / "imported").exists() == own
