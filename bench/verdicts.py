"""Documents to verdicts with every step on, from .jsonl.zst, against the reference's normalise and hash path."""

from __future__ import annotations

import unicodedata
from collections.abc import Iterator

import ftfy
import pyarrow.parquet as pq

from bench import pipelines
from bench.corpus import texts as read_texts
from bench.harness import Crew, Result, Setting, megabytes, parts, require, result, sample
from bench.signature import loop
from headrace.select.clean import clean_text

SHORT = 200
LOOP_MB = 0.5


def reference(texts: list[str]) -> None:
    """What SlimPajama's scripts do to each document before its index: ftfy with NFC, then the hash of each shingle."""
    loop([ftfy.fix_text(text, normalization="NFC") for text in texts])


def check(made: pipelines.Run, texts: list[str]) -> None:
    """Every document has a verdict, and those called short are those that Python finds short."""
    verdicts = made.artifact("verdicts")
    require(verdicts.rows == len(texts), f"{verdicts.rows} verdicts on {len(texts)} documents")
    short = 0
    for i in range(len(verdicts.shards)):
        short += pq.read_table(verdicts.shard_path(i), columns=["reason"])["reason"].to_pylist().count("short")
    expected = sum(len(clean_text(unicodedata.normalize("NFC", text))) < SHORT for text in texts)
    require(short == expected, f"{short} documents are called short, {expected} are")


def run(setting: Setting) -> Iterator[Result]:
    """Rates a core: ours of a whole run, the reference's of a sample in memory."""
    texts = read_texts(setting.corpus)
    few = sample(texts, min(LOOP_MB * setting.cores, setting.mb / 8))
    shares = parts(few, setting.cores)
    recipe = pipelines.recipe(setting, **pipelines.all_steps(setting))
    mine, theirs, startup = [], [], 0.0
    for turn in range(setting.rounds + 1):
        made = pipelines.run(recipe, setting.work / "verdicts", "verdicts", setting.cores)
        if turn == 0:  # unmeasured: the kernels of a fresh checkout are compiled here
            check(made, texts)
            continue
        startup = made.startup
        mine.append(megabytes(texts) / made.seconds / setting.cores)
        with Crew(setting, lambda part: reference(shares[part])) as them:
            theirs.append(megabytes(few) / them.side(1).seconds() / setting.cores)
    note = f"without the start of the workers, {startup:.1f} s"
    unit, name = "MB/s per core", "verdicts, all steps, from .jsonl.zst"
    peer = "datasketch and ftfy, the reference's normalise + hash loop"
    yield result(setting, name, None, unit, mine, None, 15, "ours", note)
    yield result(setting, name, peer, unit, mine, theirs, 40, note=note)
