"""Decontamination: documents in, those that contain an item of twenty benchmarks out.

HumanEval and MBPP where they are at hand; the other benchmarks are made, because they are nowhere to be had offline:
items whose question and solution are lines of the corpus in another order, so that their words and the shapes of their
tokens are as common as real ones. Against bigcode-dataset's way in plain Python, whose result must be the same, and
datatrove's n-grams. (NeMo Curator has had no decontamination since 1.0.)
"""

from __future__ import annotations

import random
import tempfile
from collections.abc import Iterator
from typing import Any

import numpy as np
import pyarrow as pa

from bench.corpus import SHARED
from bench.corpus import texts as read_texts
from bench.harness import Crew, Result, Setting, compare, megabytes, parts, require, sample
from headrace.recipe.schema import Decontaminate, Shapes
from headrace.select.contamination.benchmarks import Item, list_benchmarks, read_items
from headrace.select.contamination.index import Index, build
from headrace.select.contamination.step import search

BENCHMARKS = 20
MOST_ITEMS = 500  # of each that is made: HumanEval has 164, MBPP 974, BigCodeBench 1,140, APPS 5,000
ITEMS_PER_MB = 8  # fewer on little text
BATCH_BYTES = 8 << 20  # as in the step
LOOP_MB = 0.1  # plain Python asks for each of 20,000 texts in every document
TARGET = 10  # MB/s


def items_of(texts: list[str], count: int) -> list[Item]:
    """The items of twenty benchmarks, so many of each that is made."""
    files = {"humaneval": "HumanEval.jsonl.gz", "mbpp": "mbpp.jsonl"}
    there = {name: SHARED / "fixtures/benchmarks" / file for name, file in files.items()}
    named = {name: {"files": str(path)} for name, path in there.items() if path.is_file()}
    found = []
    if named:
        found = read_items(list_benchmarks(Decontaminate.model_validate({"benchmarks": named})), "nfc")
    draw = random.Random(0)
    lines = [line for text in texts[:: max(1, len(texts) // 2000)] for line in text.split("\n") if 12 < len(line) < 120]
    for benchmark in range(BENCHMARKS - len(named)):
        for number in range(count):
            question = " ".join(draw.choices(lines, k=draw.randint(3, 15)))
            solution = "\n".join(draw.choices(lines, k=draw.randint(5, 30)))
            texts_of = {"question": question, "solution": solution}
            found.append(Item(f"made{benchmark}:{number}", texts_of, programs={"program": solution}))
    return found


def batches(texts: list[str]) -> list[pa.RecordBatch]:
    """Documents as the step reads them."""
    found, first, size = [], 0, 0
    for i, text in enumerate(texts):
        size += len(text)
        if size >= BATCH_BYTES or i + 1 == len(texts):
            column = pa.array(texts[first : i + 1], pa.large_string())
            found.append(pa.RecordBatch.from_arrays([column], names=["text"]))
            first, size = i + 1, 0
    return found


def flagged(documents: list[pa.RecordBatch], index: Index) -> list[int]:
    """The documents that contain a text whole."""
    whole = [table["method"].to_pylist() for table in (search(batch, index) for batch in documents)]
    return np.flatnonzero([method == "substring" for methods in whole for method in methods]).tolist()  # type: ignore[no-any-return]


def bigcode(texts: list[str], needles: list[str]) -> list[int]:
    """find_substrings.py: the first text that is in the document, both in lower case."""
    found = []
    for i, text in enumerate(texts):
        content = text.lower()
        for needle in needles:
            if needle.lower() in content:
                found.append(i)
                break
    return found


def datatrove(items: list[Item]) -> Any:
    """datatrove's filter with its usual 12-grams and its tokenizer of English, and the hashes of the items' n-grams."""
    import xxhash
    from datatrove.pipeline.decont.n_grams import NGramsDecontFilter
    from datatrove.utils.logging import logger
    from datatrove.utils.text import ngrams, simplify_text

    logger.remove()
    with tempfile.TemporaryDirectory() as folder:
        made = NGramsDecontFilter(folder)
    made.hash_func = lambda text: xxhash.xxh64_intdigest(text.encode())  # its own, but xxhash 4 takes no strings
    made._index_hashes = {}
    for item in items:
        for text in item.fields.values():
            tokens = made.tokenizer.word_tokenize(simplify_text(text, made.config.norm_config))
            grams = map(" ".join, ngrams(tokens, made.config.n_grams))
            made._index_hashes |= {made.hash_func(gram): item.name for gram in grams}
    return made


def run(setting: Setting) -> Iterator[Result]:
    """Substrings as bigcode's, with equal results; then everything at once."""
    from datatrove.data import Document

    texts = read_texts(setting.corpus)
    items = items_of(texts, max(10, min(MOST_ITEMS, round(setting.mb * ITEMS_PER_MB))))
    whole = build(items, 10_000, False, "bigcode")
    every = build(items, 10, False, "bigcode", Shapes())
    needles = whole.pattern_texts
    some = sample(texts, min(LOOP_MB, setting.mb / 8))
    # Some documents that contain items, which a corpus hardly has.
    planted = [f"x\n{needle}\n" for needle in needles[:: len(needles) // 50]]
    checked = [*some, *planted]
    there = flagged(batches(checked), whole)
    require(there == bigcode(checked, needles), "other documents contain a text")
    require(len(there) >= len(planted), "a planted text was not found")
    filter_ = datatrove(items)
    mine, looped = parts(texts, setting.cores), parts(some, setting.cores)
    ours = [batches(part) for part in mine]
    trove = [[Document(text=text, id="") for text in part] for part in parts(sample(texts, 1), setting.cores)]
    amount = f"{BENCHMARKS} benchmarks, {len(items):,} items, {len(needles):,} texts"
    with (
        Crew(setting, lambda part: flagged(ours[part], whole)) as substrings,
        Crew(setting, lambda part: [search(batch, every).num_rows for batch in ours[part]]) as everything,
        Crew(setting, lambda part: bigcode(looped[part], needles)) as loop,
        Crew(setting, lambda part: [filter_.filter(document) is True for document in trove[part]]) as ngrams,
    ):
        size, loop_size = megabytes(texts), megabytes(some)
        yield compare(
            setting, "decontamination, substrings", "bigcode-dataset, find_substrings", "MB/s",
            substrings.side(size), loop.side(loop_size), note=f"{amount}; equal documents found",
        )  # fmt: skip
        trove_size = megabytes([document.text for part in trove for document in part])
        yield compare(
            setting, "decontamination, n-grams, substrings and shapes", "datatrove, n-grams", "MB/s",
            everything.side(size), ngrams.side(trove_size), TARGET * setting.cores, "ours", note=amount,
        )  # fmt: skip
