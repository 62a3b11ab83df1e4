"""A small recipe that reads a file of every kind: tokenizer, chat template, benchmark, list of opt-outs, function,
license files, a published sequence."""

from __future__ import annotations

import json
import random
from pathlib import Path

import h5py
import numpy as np
import orjson

from headrace.recipe.stages import TokenizerTrain
from headrace.tokens.special import CHAT_MARKERS
from headrace.tokens.training import train

RECIPE = """\
name: many-files
sources:
  code: {files: "corpus/code*.jsonl", fields: {repo: repo, path: path}, licenses: {deny: GPL-*}}
  prose: {files: ["${recipe}/corpus/prose.jsonl", "ELSEWHERE/more.jsonl"], license: CC0-1.0}
  talk: {files: corpus/talk.jsonl, format: chat}
documents: {max_quarantined: 0.5}
measures: {vowels: {python: "functions.py:vowels", type: float, with: {list: ELSEWHERE/words.txt}}}
filters: {rules: [{name: vowels, keep: vowels > 0.01}]}
deduplicate: {against: [old.jsonl, ELSEWHERE/older.jsonl]}
decontaminate: {benchmarks: {exam: {files: exam.jsonl, fields: [question]}}, ngram: 4}
opt_out: {repositories: lists/repos.txt}
split: {validation: 0.1}
tokenizer: {file: tokenizer/tokenizer.json}
defaults: {sequence_length: 32}
stages:
  - {name: first, sources: {code: {}, prose: {epochs: 1.5}}}
  - {name: chat, sources: {talk: {}}, chat: tokenizer/template.jinja, pack: {method: best_fit}}
  - {name: imported, sequence: [ELSEWHERE/published, {path: published/more.h5, slice: [0, 0.5]}]}
"""
TEMPLATE = (
    "{%- for message in messages %}{{- bos_token ~ message.role }}: "
    "{% if message.role == 'assistant' %}{% generation %}{{ message.content }}{% endgeneration %}"
    "{% else %}{{ message.content }}{% endif %}\n{% endfor %}"
)
LICENSE = (Path(__file__).parents[2] / "LICENSE").read_text(encoding="utf-8")


def sequence(path: Path, rows: int) -> None:
    """Rows as Cerebras's preprocessor writes them."""
    path.parent.mkdir(parents=True, exist_ok=True)
    tokens = np.random.default_rng(rows).integers(0, 300, (rows, 33))
    data = np.stack([tokens[:, :-1], np.ones_like(tokens[:, 1:]), tokens[:, 1:]], axis=1)
    with h5py.File(path, "w") as file:
        file.create_dataset("data", data=data, dtype="i4", compression="gzip", chunks=(1, 3, 32))


def write(folder: Path, elsewhere: Path) -> Path:
    """Write the recipe to a folder, and the files that it reads to this one and another; returns the recipe's path."""
    rng = random.Random(4)
    words = ["mill", "wheel", "water", "race", "größe", "weir", "sluice", "leat", "stone", "grain", "水車"]

    def text(n: int = 40) -> str:
        return " ".join(rng.choice(words) for _ in range(n))

    question = "how many sluices must a miller open before the wheel turns"
    code = [{"text": f"# {i}\n{text()}", "repo": f"owner/repo{i % 4}", "path": f"src/f{i}.py"} for i in range(40)]
    code[1]["text"] = "# SPDX-License-Identifier: GPL-2.0-only\n" + code[1]["text"]
    code += [{"text": LICENSE + f"\n{i}", "repo": f"owner/repo{i}", "path": "LICENSE"} for i in (0, 1)]
    prose = [{"text": text(60), "license": ("CC-BY-4.0" if i % 3 else None)} for i in range(30)]
    prose += [{"text": f"{text(9)} {question} {text(9)}"}, prose[3], {"text": "zzz " * 30}]
    talk = [[{"from": "human", "value": text(9)}, {"from": "gpt", "value": text(12)}] for _ in range(20)]
    files = {
        folder / "corpus/code1.jsonl": code[::2],
        folder / "corpus/code2.jsonl": code[1::2],
        folder / "corpus/prose.jsonl": prose,
        folder / "corpus/talk.jsonl": [{"conversations": turns} for turns in talk],
        folder / "exam.jsonl": [{"task_id": "exam/1", "question": question}],
        folder / "old.jsonl": [prose[4]],
        elsewhere / "older.jsonl": [prose[5]],
        elsewhere / "more.jsonl": [{"text": text(50)} for _ in range(5)],
    }
    for path, rows in files.items():
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    sequence(elsewhere / "published/data-00001.h5", 12)
    sequence(folder / "published/more.h5", 8)
    special = ["</s>", "<s>", *CHAT_MARKERS]
    texts = (row["text"] for row in prose if row["text"])
    definition = train(texts, TokenizerTrain(vocab_size=400), special, 1)
    held = {
        "tokenizer/tokenizer.json": orjson.dumps(definition).decode(),
        "tokenizer/tokenizer_config.json": json.dumps({"bos_token": "<s>", "eos_token": "</s>"}),
        "tokenizer/template.jinja": TEMPLATE,
        "lists/repos.txt": "owner/repo3\n",
        "functions.py": "def vowels(document, list):\n    return sum(c in 'aeiou' for c in document.text) / 100\n",
        "recipe.yaml": RECIPE.replace("ELSEWHERE", str(elsewhere)),
    }
    for name, content in held.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(content, encoding="utf-8")
    return folder / "recipe.yaml"
