"""Building sequences from tokens: sample, (fill in the middle,) pack, shuffle, write."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any

from bench import pipelines
from bench.corpus import texts as read_texts
from bench.harness import Result, Setting, require, result
from bench.vocabularies import byte_level

# The rate of a build that writes this many tokens or more no longer shows the cost of starting its phases.
LEAST_TOKENS = 100e6
# Text of the corpus gives about a token for this many bytes.
BYTES_A_TOKEN = 3.5


def stages(setting: Setting, kind: str, sources: list[str], options: dict[str, Any]) -> list[dict[str, Any]]:
    """Stages alike in all but the name, one for each round and a first one that is not measured."""
    return [
        {
            "name": f"{kind}{turn}",
            "sequence_length": pipelines.SEQUENCE_LENGTH,
            "sources": dict.fromkeys(sources, options),
        }
        for turn in range(setting.rounds + 1)
    ]


def run(setting: Setting) -> Iterator[Result]:
    """Plain and FIM, each stage timed within one run, so that the workers are there already."""
    definition = byte_level(setting, read_texts(setting.corpus))
    tokenizer = pipelines.tokenizer_file(setting, definition)
    plain = {"epochs": float(math.ceil(min(64.0, LEAST_TOKENS * BYTES_A_TOKEN / (setting.mb * 1e6))))}
    # Code is about half of the corpus and the target a quarter, so half the passes last as long.
    fim = {"epochs": max(1.0, plain["epochs"] // 2), "fim": {"rate": 0.9, "spm": 0.5}}
    recipe = pipelines.recipe(setting, tokenizer=tokenizer)
    for kind, name, options, sources, target in (
        ("plain", "sequence, FIM off", plain, sorted(recipe["sources"]), 30),
        ("fim", "sequence, FIM 0.9 on code", fim, pipelines.code_sources(setting), 8),
    ):
        given = stages(setting, kind, sources, options)
        folder = setting.work / f"sequence-{kind}"
        # All of it, so that every build but the first finds workers that have started and loaded their kernels.
        made = pipelines.run(recipe | {"stages": given}, folder, None, setting.cores)
        yield _rates(setting, made, name, kind, target)


def _rates(setting: Setting, made: pipelines.Run, name: str, kind: str, target: float) -> Result:
    rates = []
    for turn in range(1, setting.rounds + 1):
        artifact = made.artifact(f"sequence-{kind}{turn}")
        tokens = pipelines.sequence_tokens(artifact)
        held = made.artifact("tokens").manifest.counts
        for source, entry in artifact.manifest.extra["ledger"]["sources"].items():
            stored = held[source]["train"]["tokens"] * int(entry["epochs"])
            require(entry["tokens_in"] == stored, f"{entry['tokens_in']} tokens of {source} came, {stored} are stored")
        rates.append(tokens / made.took(f"sequence-{kind}{turn}") / 1e6)
    return result(
        setting, name, None, "M tokens/s", rates, None, target, "ours", f"{tokens / 1e6:.0f} M tokens a build"
    )
