"""A recipe that uses every step, over so little text that plain Python gets through it, run in one process."""

from __future__ import annotations

import json
import random
from pathlib import Path
from typing import Any

from headrace.flow.events import EventLog
from headrace.flow.executors.inline import InlineExecutor
from headrace.flow.runner import make
from headrace.graph import build_graph
from headrace.recipe.load import load_recipe, sealed
from headrace.run_folder import digest

MEMORY = 64 << 20
WORDS = ["mill", "wheel", "water", "race", "größe", "naïve", "水車", "🌊", "x = 1\n", "\t", "it's", "12345", "Weir,"]


def write_corpus(folder: Path) -> None:
    """Code, prose and conversations with exact and near copies, and one document that holds an exam's question."""
    rng = random.Random(9)
    prose = [" ".join(rng.choice(WORDS) for _ in range(rng.randrange(20, 70))) for _ in range(16)]
    prose += [prose[0], prose[1] + " once more", prose[2].upper()]
    code = [
        f"def f{i}(a, b):\n    s = [{', '.join(rng.choice('abcd') * 3 + str(k) for k in range(20))}]\n    return a\n"
        for i in range(8)
    ]
    code += [code[3], code[4] + "# end", "x = 1"]
    pages = [
        f"<html><!-- {i} --><script>x</script><p class=x>{text[::-1]} &amp;</p>" for i, text in enumerate(prose[6:9])
    ]
    question = "Return the sum of all even numbers that stand in a list of numbers, please, and no other"
    prose[5] += " " + question
    lines = {"prose": [{"text": text} for text in prose], "code": [{"text": text, "path": "x.py"} for text in code]}
    lines["code"] += [{"text": text, "path": "x.html"} for text in pages]
    turns = [[{"from": "human", "value": f"Say {i}"}, {"from": "gpt", "value": prose[i][:80]}] for i in range(6)]
    lines |= {"chat": [{"conversations": pair} for pair in turns], "exam": [{"question": question, "id": "exam/0"}]}
    for name, rows in lines.items():
        (folder / f"{name}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")


def recipe(folder: Path, **near: Any) -> dict[str, Any]:
    """The recipe over :func:`write_corpus`, with the settings of near-duplicates."""
    fim = {"fim": {"rate": 0.9, "spm": 0.5}}
    exam = {"files": str(folder / "exam.jsonl"), "fields": ["question"]}
    return {
        "name": "small",
        "seed": 3,
        "sources": {
            "prose": {"files": str(folder / "prose.jsonl")},
            "code": {"files": str(folder / "code.jsonl"), "fields": {"path": "path"}},
            "chat": {"files": str(folder / "chat.jsonl"), "format": "chat"},
        },
        "filters": {"short": {"min_characters": 20}, "code": {"sources": ["code"]}},
        "deduplicate": {"near": {"values": 16, "threshold": 0.6, **near}},
        "decontaminate": {"benchmarks": {"exam": exam}, "ngram": 4},
        "split": {"validation": 0.1, "check": "near"},
        "tokenizer": {"train": {"vocab_size": 320}},
        "defaults": {"sequence_length": 24},
        "stages": [
            {"name": "document", "sources": {"prose": {"epochs": 1.5}, "code": fim}},
            {"name": "context", "sources": {"code": fim, "prose": {}}, "fim_level": "context"},
            {"name": "packed", "sources": {"prose": {}, "code": {}}, "pack": {"method": "best_fit"}},
            {"name": "chat", "sources": {"chat": {}}, "chat": "chatml", "pack": {"method": "best_fit"}},
        ],
    }


def digests(folder: Path) -> dict[str, Any]:
    """Run the recipe with each signature, the second to the verdicts only: what ``headrace digest`` says of both."""
    from headrace.documents.inventory import take_inventory
    from headrace.sequence.loader import Loader

    write_corpus(folder)
    told = {}
    settings = {
        "fast": ({"signature": "fast", "verify": True, "ngram": 5}, "all"),
        "datasketch": ({"signature": "datasketch", "ngram": 5}, "verdicts"),
    }
    for name, (near, until) in settings.items():
        run = folder / name
        run.mkdir()
        loaded = load_recipe(recipe(folder, **near))
        (run / "recipe.yaml").write_bytes(sealed(loaded))
        graph = build_graph(loaded, take_inventory(loaded.sources, loaded.seed, folder, run))
        steps = graph.all() if until == "all" else graph.until(until)
        log = EventLog(run)
        for step, made in zip(steps, make(steps, run, InlineExecutor(run, steps, MEMORY), log, MEMORY), strict=True):
            if step.kind == "sequence":
                rows = list(Loader(made.path, 2, positions="document", drop_last=False))
                told[f"{name} {step.stage}"] = [array for batch in rows for array in batch]
        log.close()
        told[name] = digest(run)["artifacts"]
    return told
