"""The pages about Python: the reference is that of the docstrings, and every how-to runs."""

from __future__ import annotations

import re
import sys
from pathlib import Path

import pytest
import torch
from transformers import LlamaConfig, LlamaForCausalLM

from headrace import open_sequence
from headrace.reference import document

sys.path.insert(0, str(Path(__file__).parents[1] / "report"))

from small_pipeline import copied

DOCS = Path(__file__).parents[2] / "docs"


def test_the_reference_is_that_of_the_docstrings() -> None:
    page = (DOCS / "python.md").read_text(encoding="utf-8")
    assert page == document(), "run `python -m headrace.reference > docs/python.md`"
    assert ":class:" not in page


def test_every_how_to_works(once, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    page = (DOCS / "howto.md").read_text(encoding="utf-8")
    assert len(re.findall(r"^## .*\?$", page, re.M)) == 19
    blocks = re.findall(r"^```python\n(.*?)^```$", page, re.M | re.S)
    assert len(blocks) == 15
    run = copied(once, tmp_path / "corpus")
    monkeypatch.chdir(tmp_path)
    vocabulary = open_sequence(run, "second").vocab_size
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=vocabulary, hidden_size=16, intermediate_size=32, num_hidden_layers=1, num_attention_heads=2
    )
    names = {"run": str(run), "stage": "second", "model": LlamaForCausalLM(config)}
    for block in blocks:
        exec(compile(block, block.splitlines()[0], "exec"), names)
    assert set(names["reasons"]["reason"]) >= {None, "short", "duplicate"}
    assert names["verdict"]["reason"] == "duplicate"
    assert names["characters"] == names["headrace"].open_documents(run).to_polars()["text"].str.len_chars().sum()
    sequence = names["sequence"]
    assert names["first"].tolist() == sequence.rows(0, 4).tolist()
    assert names["second"].tolist() == sequence.rows(4, 8).tolist()
    assert len(names["seen"]) >= 1
    assert (tmp_path / "for-hub" / "README.md").is_file()
