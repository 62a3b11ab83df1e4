"""A small real corpus with known troubles in it, a recipe for it, and runs that are killed."""

from __future__ import annotations

import gzip
import json
import os
import random
import signal
import sysconfig
from pathlib import Path

from headrace import pipeline
from headrace.recipe.load import load_recipe

RECIPE = """\
name: small
seed: 7
sources:
  code:
    files: "${recipe}/code/*.jsonl"
    text: content
    fields: {license: licence, repo: repo, path: path}
    language: python
  prose: {files: "${recipe}/prose/*.jsonl.gz", license: CC0-1.0}
  tree: {files: "${recipe}/tree/**/*.py", license: PSF-2.0, language: python}
  chat: {files: "${recipe}/chat.json", format: chat}
documents: {max_quarantined: 0.1}
filters: {short: {min_characters: 200}, code: {sources: [code, tree]}}
deduplicate: {near: {verify: true}, priority: [tree, code]}
decontaminate: {benchmarks: {exam: {files: "${recipe}/exam.jsonl", fields: [question, answer]}}}
split: {validation: 0.05}
tokenizer: {train: {vocab_size: 1000}}
defaults: {sequence_length: 128}
stages:
  - name: stage1
    sources: {prose: {slice: [0, 0.5]}}
  - name: stage2
    sources:
      prose: {slice: [0.5, 1]}
      code: {epochs: 2, fim: {rate: 0.9, spm: 0.5}}
      tree: {epochs: 1.5, fim: {rate: 0.5}}
  - name: stage3
    sources: {code: {weight: 0.7}, prose: {weight: 0.3}}
    tokens: 60k
    pack: {method: best_fit, mix_sources: false}
  - name: chat
    sources: {chat: {epochs: 2}}
    chat: chatml
"""

MODEL = """\
model: {layers: 2, width: 32, heads: 2}
"""


def prose(rng: random.Random, words: int) -> str:
    """Text of made-up words: long enough to be kept, and like nothing else."""
    lexicon = [f"{a}{b}" for a in ("ba", "lo", "mi", "tur", "ven", "sko") for b in ("ra", "del", "nix", "ough", "s")]
    return " ".join(rng.choice(lexicon) + rng.choice(["", "", ",", "."]) for _ in range(words))


def build_corpus(root: Path, modules: int = 120) -> Path:
    """Write the corpus and the recipe; the same bytes every time on one machine."""
    rng = random.Random(1)
    stdlib = Path(sysconfig.get_paths()["stdlib"])
    files = sorted(p for p in stdlib.glob("*.py") if 2000 < p.stat().st_size < 60_000)[:modules]
    texts = [(p.name, p.read_text(encoding="utf-8")) for p in files]
    (root / "code").mkdir(parents=True)
    (root / "prose").mkdir()
    (root / "tree" / "pkg").mkdir(parents=True)
    half = len(texts) // 2
    for k, part in enumerate((texts[: half // 2], texts[half // 2 : half])):
        rows = [{"content": t, "licence": "PSF-2.0", "repo": "cpython", "path": n, "stars": k} for n, t in part]
        rows.append({"content": part[0][1].replace("self", "itself", 2), "licence": "PSF-2.0", "path": "near-copy.py"})
        rows.append({"content": part[1][1], "path": "exact-copy.py"})
        rows.append({"content": "x = 1"})
        lines = [json.dumps(row) for row in rows]
        (root / "code" / f"{k}.jsonl").write_text("\n".join(lines) + "\n", encoding="utf-8")
    with open(root / "code" / "1.jsonl", "ab") as f:
        f.write(b'{"content": "cut short\n{"other": 1}\n{"content": "\\ud800 alone"}\n{"content": "\xff\xfe"}\n')
    for name, text in texts[half:]:
        (root / "tree" / "pkg" / name).write_text(text, encoding="utf-8")
    (root / "tree" / "copy_of_code.py").write_text(texts[0][1], encoding="utf-8")
    with gzip.GzipFile(root / "prose" / "0.jsonl.gz", "wb", mtime=0) as f:
        for i in range(150):
            extra = " What is the airspeed velocity of an unladen swallow in flight over the sea? " if i == 7 else ""
            f.write(json.dumps({"text": prose(rng, 120) + extra + prose(rng, 60)}).encode() + b"\n")
    turns = [
        [
            {"from": "human", "value": f"Say {i} in words, please, and then once more."},
            {"from": "gpt", "value": prose(rng, 60)},
        ]
        for i in range(60)
    ]
    (root / "chat.json").write_text(json.dumps([{"conversations": t} for t in turns]))
    question = "What is the airspeed velocity of an unladen swallow in flight over the sea?"
    item = {"task_id": "exam/1", "question": question, "answer": "African or European, that is the other question here"}
    (root / "exam.jsonl").write_text(json.dumps(item) + "\n")
    (root / "recipe.yaml").write_text(RECIPE)
    (root / "with-model.yaml").write_text(RECIPE + MODEL)
    return root


def killed_at_event(recipe: Path, run: Path, name: str, left: int) -> None:
    """Run with two workers in a process that kills itself at an event of an artifact.

    Args:
        recipe: the recipe.
        run: the run folder.
        name: the artifact.
        left: at which of its events, or when it is published, if that comes before.
    """
    child = os.fork()
    if child == 0:

        def listen(event: dict) -> None:
            nonlocal left
            if event.get("artifact") == name:
                left -= 1
                if left == 0 or event.get("state") in ("published", "present"):
                    os.kill(os.getpid(), signal.SIGKILL)

        try:
            pipeline.run(load_recipe(recipe), run, workers=2, listener=listen)
        finally:
            os._exit(1)
    assert os.waitpid(child, 0)[1] == signal.SIGKILL, name


def published(run: Path, kinds: tuple[str, ...] = ()) -> dict[str, bytes]:
    """The bytes of every finished artifact of the run (of some kinds)."""
    base = run / "artifacts"
    return {
        str(p.relative_to(base)): p.read_bytes()
        for p in sorted(base.rglob("*"))
        if p.is_file()
        and ".partial" not in p.relative_to(base).parts[0]
        and (not kinds or p.relative_to(base).parts[0].split("-")[0] in kinds)
    }
