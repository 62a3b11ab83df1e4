"""``signature: datasketch``, which is datasketch's to the bit, against the reference's loop that it reproduces."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from bench.corpus import texts as read_texts
from bench.harness import Result, Setting, require, sample
from bench.signature import LOOP_MB, batches, loop, measured, ours
from headrace.select.duplicates.permuted_minhash import signatures

# The loop goes through a shingle at a time, so a few hundred kilobytes tell its rate.
CHECKED_MB = 0.5


def run(setting: Setting) -> Iterator[Result]:
    """Equal bits first, then the rates."""
    texts = read_texts(setting.corpus)
    some = [*sample(texts, min(CHECKED_MB, setting.mb / 8)), "short", "", "ΣΑΣ İstanbul"]
    mine = np.concatenate(ours(batches(some), signatures))
    require(
        np.array_equal(mine, np.array([sketch.hashvalues for sketch in loop(some)])),
        "the signatures are not datasketch's",
    )
    peer = "datasketch, update per shingle"
    yield measured(setting, "signature: datasketch", peer, 10, min(LOOP_MB, setting.mb / 8), loop, texts, signatures)
