"""The preset ``slimpajama`` and SlimPajama's own steps, written out plainly, agree on every document.

The steps are those of Cerebras' scripts: ``normalize_text.py``, ``filter.py``, ``to_hash.py`` (datasketch, one update
a shingle), ``generate_duplicate_pairs.py`` and ``generate_connected_components.py``. Which document of a component is
kept is left to chance there and to an order of preference here, so components are compared, and that one document of
each stays.
"""

from __future__ import annotations

import json
import random
import re
import string
import sysconfig
from collections import defaultdict
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from small_run import prose

from commands import headrace

THRESHOLD, WIDTH, BANDS, RANGE = 200, 13, 9, 13

RECIPE = """\
name: slim
extends: slimpajama
seed: 1
sources:
  code: {files: "${recipe}/code.jsonl"}
  prose: {files: "${recipe}/prose.jsonl"}
split: {validation: 0, test: 0}
"""


def corpus() -> dict[str, list[str]]:
    """Modules and made-up prose, copied, changed a little and much, badly decoded, and cut short."""
    rng = random.Random(5)
    stdlib = Path(sysconfig.get_paths()["stdlib"])
    modules = [p.read_text(encoding="utf-8")[:6000] for p in sorted(stdlib.glob("*.py")) if p.stat().st_size > 2000]
    code = modules[:70]
    for text in modules[:40]:
        words = text.split(" ")
        for at in rng.sample(range(len(words)), k=min(len(words), rng.choice([0, 1, 3, 10, 40]))):
            words[at] = rng.choice(["value", "x", ""])
        code.append(" ".join(words))
    written = [prose(rng, rng.choice([5, 25, 30, 40, 200])) for _ in range(60)]
    written += [text.upper().replace(",", " ;\r\n") for text in written[:20]]
    written += [f"“{text}” &amp; naïve café".encode().decode("latin-1") for text in written[:20]]
    written += ["", " ", "...", "Short.", "short", "twelve chars", "thirteen char", "x" * 199, "x" * 200, "y " * 150]
    return {"code": code, "prose": written}


def cleaned(text: str) -> str:
    without = text.lower().translate(str.maketrans("", "", string.punctuation))
    return re.sub(r"\s+", " ", without.strip())


def reference(texts: list[str]) -> tuple[list[bool], list[int]]:
    """Which documents are short, and the smallest row of each one's component."""
    ftfy, datasketch = pytest.importorskip("ftfy"), pytest.importorskip("datasketch")
    hashfunc = pytest.importorskip("datasketch.hashfunc").sha1_hash32
    legacy = {"scheme": "legacy"} if hasattr(datasketch.minhash, "_SCHEME_LEGACY") else {}  # 2.0 gave it a name
    seen: list[dict[bytes, int]] = [{} for _ in range(BANDS)]
    label, short = list(range(len(texts))), []
    for row, text in enumerate(texts):
        text = cleaned(ftfy.fix_text(text, normalization="NFC"))
        short.append(len(text) < THRESHOLD)
        sketch = datasketch.MinHash(num_perm=128, seed=1, hashfunc=hashfunc, **legacy)
        for at in range(len(text) - WIDTH + 1):
            sketch.update(text[at : at + WIDTH].encode("utf-8"))
        for band, known in enumerate(seen):
            values = sketch.hashvalues[band * RANGE : (band + 1) * RANGE]
            first = known.setdefault(bytes(values.byteswap().data), row)
            one, two = label[first], label[row]
            label = [min(one, two) if each in (one, two) else each for each in label]
    return short, label


def column(run: Path, kind: str, name: str) -> list:
    [folder] = (run / "artifacts").glob(f"{kind}-*")
    tables = [pq.read_table(path, columns=[name]) for path in sorted(folder.glob("*.parquet"))]
    return pa.concat_tables(tables)[name].to_pylist()


def test_the_preset_agrees_with_the_scripts_on_every_document(tmp_path: Path) -> None:
    made = corpus()
    for name, texts in made.items():
        (tmp_path / f"{name}.jsonl").write_text("".join(json.dumps({"text": text}) + "\n" for text in texts))
    (tmp_path / "recipe.yaml").write_text(RECIPE)
    run = tmp_path / "run"
    headrace("run", tmp_path / "recipe.yaml", "--out", run, "--until", "verdicts", "--workers", 2)
    assert column(run, "documents", "source") == ["code"] * len(made["code"]) + ["prose"] * len(made["prose"])
    short, label = reference(made["code"] + made["prose"])

    reasons = column(run, "verdicts", "reason")
    assert [reason in ("short", "empty") for reason in reasons] == short  # nothing at all has a reason of its own
    found = [own if own is not None else row for row, own in enumerate(column(run, "duplicates", "component"))]
    assert found == label
    assert 20 < len(set(label)) < len(label) - 40

    members = defaultdict(list)
    for row, component in enumerate(label):
        members[component].append(row)
    for rows in members.values():
        kept = [row for row in rows if reasons[row] is None]
        assert len(kept) == (0 if all(short[row] for row in rows) else 1)
        assert {reasons[row] for row in rows} <= {None, "short", "empty", "duplicate"}
