"""What a user waits for before anything happens: ``headrace --help``, and the kernels in a fresh process."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

from bench.corpus import texts as read_texts
from bench.harness import Result, Setting, result
from bench.pipelines import tokenizer_file
from bench.vocabularies import byte_level

TIMES = 5
HEADRACE = Path(sys.executable).with_name("headrace")

KERNELS = """
import sys, time
import numpy, numba, pyarrow, tokenizers
from pathlib import Path
from headrace.recipe.cleaning import Near
from headrace.select.duplicates.fingerprints import fingerprints
from headrace.tokens.engine import Texts
from headrace.tokens.load import open_file
from headrace.tokens import covered, encoding, fast
from headrace.select import clean
from headrace.select.duplicates import minhash
started = time.perf_counter()
texts = Texts.of(["The headrace carries the water to the wheel, and the wheel turns the stone. " * 4])
fingerprints(Near(), texts.data, texts.offsets)
engine = open_file(Path(sys.argv[1]))
engine.decode_batch(engine.encode(texts))
print(time.perf_counter() - started)
"""


def kernels(tokenizer: str, cache: str | None = None) -> float:
    """Seconds in a fresh process for its first signature, encoding and decoding, once everything is imported."""
    environment = {**os.environ, **({"NUMBA_CACHE_DIR": cache} if cache else {})}
    done = subprocess.run([sys.executable, "-c", KERNELS, tokenizer], env=environment, capture_output=True, check=True)
    return float(done.stdout)


def run(setting: Setting) -> Iterator[Result]:
    """Help, a second process, and the first one, which compiles."""
    taken = []
    for _ in range(TIMES + 1):
        start = time.perf_counter()
        subprocess.run([HEADRACE, "--help"], check=True, stdout=subprocess.DEVNULL)
        taken.append(time.perf_counter() - start)
    yield result(setting, "first-use, headrace --help", None, "s", taken[1:], None, 0.3, "ours")
    tokenizer = tokenizer_file(setting, byte_level(setting, read_texts(setting.corpus)))["file"]
    kernels(tokenizer)
    warm = [kernels(tokenizer) for _ in range(setting.rounds)]
    yield result(setting, "first-use, kernels in a second process", None, "s", warm, None, 1, "ours")
    with tempfile.TemporaryDirectory() as cache:
        yield result(setting, "first-use, kernels compiled", None, "s", [kernels(tokenizer, cache)], None)
