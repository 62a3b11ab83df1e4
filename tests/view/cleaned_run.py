"""A run whose documents are removed for many reasons, some for several at once, and whose copies change when limits
do."""

from __future__ import annotations

import json
import random
from collections.abc import Sequence
from pathlib import Path

from headrace.pipeline import run
from headrace.recipe.load import load_recipe

EVIL = "<script>alert('x')</script>\u202eevil\x00\x1b[31m </pre><img src=x onerror=alert(1)>"
QUESTION = "how many roads must a man walk down before you call him a man in this town of mine"

RECIPE = """\
name: cleaned
seed: 3
sources:
  prose: {files: "${recipe}/prose.jsonl", license: CC0-1.0}
  code: {files: "${recipe}/code.jsonl", fields: {license: licence}, language: python}
  chat: {files: "${recipe}/chat.json", format: chat}
documents: {max_quarantined: 0.5}
filters:
  short: {min_characters: 120, sources: {code: {min_characters: 60}}}
  code: {max_line: 300, mean_line: 200, min_alphabetic: 0.3, sources: [code, prose]}
  rules: [{name: wordy, keep: "words > 12 and characters / words < 40"}]
deduplicate: {near: {ngram: 5}, priority: [code]}
decontaminate: {benchmarks: {exam: {files: "${recipe}/exam.jsonl", fields: [question]}}, ngram: 5, substring: false}
split: {validation: 0.2}
tokenizer: {train: {vocab_size: 400}}
stages:
  - name: first
    sequence_length: 64
    chat: chatml
    sources: {prose: {}, code: {epochs: 2, fim: {rate: 0.8, spm: 0.5}}, chat: {}}
"""


def words(rng: random.Random, n: int) -> str:
    """Words, on lines of 9 to 60 words."""
    made = ["".join(rng.choice("aeioubcdfglmnprst") for _ in range(rng.randint(2, 9))) for _ in range(n)]
    wide = rng.randint(9, 60)
    return "\n".join(" ".join(made[at : at + wide]) for at in range(0, n, wide))


def nearly(rng: random.Random, text: str, longer: int = 0) -> str:
    """A text with a few characters more, similar enough to be a copy."""
    at = rng.randrange(max(1, len(text)))
    return text[:at] + "q" + text[at:] + "!" * (longer % 3) + " zz" * longer


def documents(rng: random.Random) -> tuple[list[str], list[str]]:
    """Texts of prose and code: of many lengths, with groups of copies around every limit."""
    prose = [words(rng, rng.randint(4, 60)) for _ in range(160)]
    code = [
        f"def f{i}():\n    x = '{words(rng, rng.randint(1, 70))}'\n    return {'1234567890' * rng.randint(0, 12)}0\n"
        for i in range(120)
    ]
    for texts in (prose, code):
        for _ in range(30):
            base = rng.choice(texts)
            texts += [nearly(rng, base, longer) for longer in range(rng.randint(1, 4))]
        texts += [rng.choice(texts) for _ in range(25)]
    prose += [rng.choice(code) for _ in range(15)]
    prose += [f"{words(rng, 14)} {' '.join(QUESTION.split()[: 5 + i])} {words(rng, 14)}" for i in range(14)]
    prose += [EVIL, f"{EVIL} {words(rng, 50)}", "", "a\n" * 80]
    return prose, code


def write_corpus(folder: Path) -> Path:
    """Write the corpus and its recipe; returns the recipe's path."""
    rng = random.Random(5)
    prose, code = documents(rng)
    folder.mkdir()
    with open(folder / "prose.jsonl", "w") as f:
        f.writelines(json.dumps({"text": text, "shard": {"of": EVIL}}) + "\n" for text in prose)
        f.write('{"text": "cut sho <b>\n')
        f.write('{"nothing": "<b>"}\n')
    with open(folder / "code.jsonl", "w") as f:
        for i, text in enumerate(code):
            more = {"licence": "MIT & <b>"} if i % 2 else {}
            f.write(json.dumps({"text": text, "path": f"src/<{i}>.py", "repo": "a/<b>"} | more) + "\n")
    turns = [
        [{"from": "human", "value": f"Say {i} {EVIL if i == 3 else ''}"}, {"from": "gpt", "value": words(rng, 20)}]
        for i in range(12)
    ]
    (folder / "chat.json").write_text(json.dumps([{"conversations": one} for one in turns]))
    (folder / "exam.jsonl").write_text(json.dumps({"task_id": "exam/<1>", "question": QUESTION}) + "\n")
    (folder / "recipe.yaml").write_text(RECIPE)
    return folder / "recipe.yaml"


def make(recipe: Path, out: Path, overrides: Sequence[str] = (), until: str | None = None) -> Path:
    """Run it in this process; returns the run's folder."""
    run(load_recipe(recipe, overrides), out, workers=0, memory=500_000_000, until=until)
    return out
