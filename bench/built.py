"""A sequence over the corpus for the loader's benchmarks, built once."""

from __future__ import annotations

import math
import shutil

from bench import pipelines
from bench.corpus import texts as read_texts
from bench.harness import Setting
from bench.vocabularies import byte_level
from headrace.flow.artifact import Artifact

# A pass over so many tokens takes a peer some seconds, and ours long enough to be timed.
TOKENS = 30e6
BYTES_A_TOKEN = 3.5


def sequence(setting: Setting) -> Artifact:
    """The sequence, of about ``TOKENS`` tokens in rows of 2048 targets."""
    folder = setting.work / f"loader-{setting.corpus.name}"
    found = [*folder.glob("artifacts/sequence-rows-????????")]
    if found:
        return Artifact.open(found[0])
    definition = byte_level(setting, read_texts(setting.corpus))
    recipe = pipelines.recipe(setting, tokenizer=pipelines.tokenizer_file(setting, definition))
    epochs = max(1.0, float(math.ceil(min(64.0, TOKENS * BYTES_A_TOKEN / (setting.mb * 1e6)))))
    stage = {"name": "rows", "sequence_length": pipelines.SEQUENCE_LENGTH}
    stage["sources"] = {name: {"epochs": epochs} for name in recipe["sources"]}
    made = pipelines.run(recipe | {"stages": [stage]}, folder, "sequence-rows", 1)
    for name in ("documents", "tokens"):
        shutil.rmtree(made.artifact(name).path)
    return made.artifact("sequence-rows")
