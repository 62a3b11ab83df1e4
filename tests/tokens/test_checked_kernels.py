"""The kernels with every index checked, and as the plain Python that they are: the same ids, nothing out of bounds."""

from __future__ import annotations

import json
import os
import random
import subprocess
import sys

import pytest

from headrace.tokens.definition import byte_level_definition
from headrace.tokens.library import LibraryEngine

_ENCODE = """
import json, sys, warnings
warnings.simplefilter("ignore")  # NumPy's scalars warn of the overflow that hashes are made of
from headrace.tokens.fast import FastEngine
definition, texts = json.load(sys.stdin)
engine, found = FastEngine(definition, {}), []
for stretch in (9, 16, 4096):
    scanner = engine._tables.scanner._replace(stretch=stretch)
    engine._tables = engine._tables._replace(scanner=scanner)
    encoded = engine.encode(texts)
    engine.decode_batch(encoded)
    found.append(encoded.tokens.tolist())
print(json.dumps(found))
"""


def sentencepiece():
    vocab = {f"<0x{byte:02X}>": byte for byte in range(256)}
    merges = [["\u2581", "a"], ["a", "b"], ["\u2581", "\u2581"], ["a", "a"]]
    for piece in ["a", "b", "\u2581", "\u6f22", *("".join(merge) for merge in merges)]:
        vocab.setdefault(piece, len(vocab))
    replace = {"type": "Replace", "pattern": {"String": " "}, "content": "\u2581"}
    model = {"type": "BPE", "byte_fallback": True, "fuse_unk": True, "vocab": vocab, "merges": merges}
    sections = {"normalizer": replace, "pre_tokenizer": None, "decoder": None, "model": model}
    return {**byte_level_definition({}, []), **sections}


def texts():
    rng = random.Random(3)
    odd = [
        "(a it's\n\n  x 12345 '\u3000\u3000a\r\n(\n \n",
        " " * 70 + "ab" * 40,
        "\xe9" * 60 + "'S'\u017f",
        "",
        "a",
        "\n",
    ]
    return odd + ["".join(rng.choices("aA'sS \n(1\xe9\u6f22\u3000\U0001f600\u2581", k=40)) for _ in range(15)]


@pytest.mark.parametrize("switch", ["NUMBA_DISABLE_JIT", "NUMBA_BOUNDSCHECK"])
@pytest.mark.parametrize("kind", ["trained", "gpt2 pattern", "sentencepiece"])
def test_kernels_checked(kind, switch, trained_definition, tmp_path_factory):
    definition = sentencepiece() if kind == "sentencepiece" else trained_definition
    if kind == "gpt2 pattern":
        definition = {**definition, "pre_tokenizer": byte_level_definition({}, [])["pre_tokenizer"]}
    expected = LibraryEngine(definition, {}).encode(texts()).tokens.tolist()
    # Kernels with checks are other kernels: their own cache, which the kinds share.
    cache = tmp_path_factory.getbasetemp() / switch
    env = {**os.environ, switch: "1", "NUMBA_CACHE_DIR": str(cache)}
    given = json.dumps([definition, texts()])
    done = subprocess.run([sys.executable, "-c", _ENCODE], input=given, capture_output=True, text=True, env=env)
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout) == [expected] * 3
