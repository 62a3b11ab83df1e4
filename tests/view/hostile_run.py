"""A run whose every text, name and value tries to become markup, a command of a terminal, or invisible."""

from __future__ import annotations

import json
from pathlib import Path

from headrace.pipeline import run
from headrace.recipe.load import load_recipe

EVIL = [
    "<evil-x onevil='alert(1)'>",
    '"><evil-x onevil=1><!-- ',
    "'><evil-x evil='1",
    "</pre></textarea></title></style></script></code></table></svg><script evil=1>evil()</script>",
    "<svg><evil-x/></svg><![CDATA[<evil-x>]]><?evil x?><!DOCTYPE evil>",
    "&lt;evil-x&gt; &#60;evil-x&#62; &quot; evil=1 &#0; &NotAnEntity;",
    "javascript:evil() data:text/html,<evil-x> {{evil}} ${evil} %3Cevil-x%3E",
    "\x1b[31m\x1b]0;evil\x07\x1bP\x9b2J\x08\x7f",
    "\u202egpj.exe\u202c \u2066a\u2069 \u200b\u200d\ufeff\U000e0041 \u2028\u2029",
    "nul \0 and \ud800 alone, \r only, \x85 \x0b \x0c",
    '=HYPERLINK("http://evil.example") [evil](javascript:evil()) \n\n\n\t\t`evil`',
]

RECIPE = """\
name: hostile
seed: 3
sources:
  prose: {files: "${recipe}/prose.jsonl", fields: {license: licence}}
  chat: {files: "${recipe}/chat.json", format: chat}
documents: {max_quarantined: 0.9}
filters:
  short: {min_characters: 60}
  rules: [{name: evil, keep: "words < 4 or words > 9"}]
deduplicate: {near: {ngram: 2}}
decontaminate: {benchmarks: {exam: {files: "${recipe}/exam.jsonl", fields: [question]}}, ngram: 5, substring: false}
split: {validation: 0.1}
tokenizer: {train: {vocab_size: 400}}
stages:
  - {name: first, sequence_length: 64, chat: chatml, sources: {prose: {fim: {rate: 0.5, spm: 0.5}}, chat: {}}}
"""


def write_corpus(folder: Path, line: int = 100_000) -> Path:
    """Write the corpus and its recipe; returns the recipe's path.

    Args:
        folder: to be made.
        line: characters of the one long line.
    """
    folder.mkdir()
    rows = []
    for i, evil in enumerate(EVIL):
        other = EVIL[i - 1]
        named = {"path": f"{i}/{evil}", "repo": other, "licence": evil, "language": other, evil: {other: [evil]}}
        text = " ".join(f"{evil} {word}" for word in (f"alpha{i} beta{i} gamma delta{i} epsilon eta theta{i}").split())
        rows.append({"text": text, **named})
        rows.append({"text": f"{text} and a little more", **named})
        rows.append({"text": evil, **named})
    question = f"{EVIL[0]} how many roads must a man walk down before you call him a man"
    rows.append({"text": f"{question} {question}", "path": "contaminated"})
    rows.append({"text": EVIL[0] * (line // len(EVIL[0])), "path": "long"})
    with open(folder / "prose.jsonl", "w") as file:
        file.writelines(json.dumps(row) + "\n" for row in rows)
        file.writelines(f'{{"text": "cut short {EVIL[0]}\n{EVIL[7]}\x1b\n' for _ in range(3))
    turns = [[{"from": "human", "value": evil * 3}, {"from": "gpt", "value": f"{evil} answer {i}"}] for i, evil in
             enumerate(EVIL)]  # fmt: skip
    (folder / "chat.json").write_text(json.dumps([{"conversations": one} for one in turns]))
    (folder / "exam.jsonl").write_text(json.dumps({"task_id": f"exam/{EVIL[1]}", "question": question}) + "\n")
    (folder / "recipe.yaml").write_text(RECIPE)
    return folder / "recipe.yaml"


def make(recipe: Path, out: Path) -> Path:
    """Run it in this process; returns the run's folder."""
    run(load_recipe(recipe), out, workers=0, memory=1_000_000_000)
    return out
