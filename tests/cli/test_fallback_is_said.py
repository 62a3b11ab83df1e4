"""A tokenizer that the fast engine does not cover: the run says so, once, however many workers open it."""

from __future__ import annotations

import json
import random
import subprocess
import sys
import warnings
from pathlib import Path

import pytest

from headrace.flow.events import EventLog, read_events
from headrace.flow.notices import Notice, notices_to
from headrace.recipe.stages import TokenizerTrain
from headrace.tokens.training import train

SAID = "runs on the tokenizers library"


def odd_tokenizer(texts: list[str]) -> dict:
    """A byte-level tokenizer whose split pattern is nobody's."""
    definition = train(texts, TokenizerTrain(vocab_size=300), ["<|endoftext|>"], 1)
    split = {"type": "Split", "pattern": {"Regex": r"\w+|\W+"}, "behavior": "Isolated", "invert": False}
    level = {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, "use_regex": False}
    return {**definition, "pre_tokenizer": {"type": "Sequence", "pretokenizers": [split, level]}}


def test_a_run_says_it_once(tmp_path: Path) -> None:
    rng = random.Random(3)
    texts = [" ".join(rng.choices(["mill", "race", "wheel", "sluice"], k=150)) for _ in range(40)]
    (tmp_path / "tokenizer.json").write_text(json.dumps(odd_tokenizer(texts)))
    sources = {}
    for number in range(4):
        some = texts[number::4]
        (tmp_path / f"{number}.jsonl").write_text("".join(json.dumps({"text": text}) + "\n" for text in some))
        sources[f"s{number}"] = {"files": f"{number}.jsonl"}
    tokenizer = {"file": str(tmp_path / "tokenizer.json")}
    stage = {"name": "one", "sequence_length": 32, "sources": {name: {} for name in sources}}
    recipe = {"name": "odd", "sources": sources, "tokenizer": tokenizer, "stages": [stage]}
    (tmp_path / "recipe.yaml").write_text(json.dumps(recipe))  # JSON is YAML
    command = [sys.executable, "-c", "from headrace.cli import main; main()", "run", str(tmp_path / "recipe.yaml")]
    command += ["--out", str(tmp_path / "run"), "--workers", "2"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert done.stdout.count(SAID) == 1
    assert r"its rules for splitting text have '\w'" in done.stdout
    assert SAID not in done.stderr
    logs = [path.read_text() for path in (tmp_path / "run" / "logs").glob("*")]
    assert not any(SAID in log for log in logs)
    said = [event["text"] for event in read_events(tmp_path / "run") if event["event"] == "notice"]
    assert sum(SAID in text for text in said) == 1


def test_notices_are_passed_on_and_other_warnings_are_not(tmp_path: Path) -> None:
    heard = []
    log = EventLog(tmp_path, heard.append)

    def give() -> None:
        with notices_to(log.notice):
            warnings.simplefilter("always")
            for _ in range(2):
                warnings.warn("slow", Notice, stacklevel=1)
            warnings.warn("old", DeprecationWarning, stacklevel=1)

    with pytest.warns(DeprecationWarning, match="old"):
        give()
    log.close()
    log.notice("slow")
    log.notice("after the end")
    assert [event["text"] for event in heard] == ["slow", "after the end"]
    assert [event["text"] for event in read_events(tmp_path)] == ["slow"]
