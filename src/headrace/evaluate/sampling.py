"""Generate text: left to right, or into a hole using fill-in-the-middle sentinels."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from typing import Any

import numpy as np

from headrace.evaluate.generation import Cached, generate
from headrace.flow.keys import salt
from headrace.model.transformer import Transformer
from headrace.recipe.training import SamplesSection
from headrace.sequence.store import ArrowSequence
from headrace.tokens.engine import Engine, special_id

# Tokens of a prompt taken from held-out text, of a hole cut into it, and of the text on either side of the hole.
PROMPT, HOLE, SIDE = 32, 12, 48
SEARCHED_ROWS = 256  # rows of held-out text searched for a document to take a prompt from


@dataclass(frozen=True)
class Prompt:
    """What a model is asked to continue.

    Attributes:
        tokens: int[n], including sentinels.
        prefix: text before what the model writes.
        suffix: text after the hole; None for a continuation.
        truth: what the document has there, if the prompt comes from one.
        source: the document's source.
        row: the document's row in the documents artifact.
    """

    tokens: np.ndarray
    prefix: str
    suffix: str | None = None
    truth: str | None = None
    source: str | None = None
    row: int | None = None


def infilling(prefix: np.ndarray, suffix: np.ndarray, engine: Engine) -> np.ndarray:
    """``<eod> <prefix> P <suffix> S <middle>``: the model continues with the middle (PSM, Bavarian et al., 2022)."""
    before, after, middle = (special_id(engine, role) for role in ("fim_prefix", "fim_suffix", "fim_middle"))
    return _after_document(np.concatenate([[before], prefix, [after], suffix, [middle]]), engine)


def stated_prompts(section: SamplesSection, engine: Engine) -> list[Prompt]:
    """The prompts and holes given in a recipe."""
    found = []
    for text in section.prompts or ():
        found.append(Prompt(_after_document(engine.encode([text]).tokens, engine), text))
    for hole in section.infills or ():
        prefix = engine.encode([hole.prefix]).tokens
        suffix = engine.encode([hole.suffix], first=not hole.prefix).tokens
        found.append(Prompt(infilling(prefix, suffix, engine), hole.prefix, hole.suffix))
    return found


def held_out_prompts(
    section: SamplesSection, sequence: ArrowSequence, engine: Engine, infilled: Collection[str]
) -> list[Prompt]:
    """One prompt and one hole from held-out documents, if the recipe gives none.

    Args:
        section: the recipe's section.
        sequence: the held-out sequence.
        engine: the tokenizer.
        infilled: sources that the model was trained to infill; the hole is cut into one of these if possible.
    """
    found = []
    if section.prompts is None:
        tokens, where = _document(sequence, PROMPT + HOLE, ())
        if where:
            prompt, rest = tokens[:PROMPT], tokens[PROMPT : PROMPT + HOLE]
            found.append(
                Prompt(_after_document(prompt, engine), _text(engine, prompt), None, _text(engine, rest), **where)
            )
    if section.infills is None and "fim_middle" in engine.special:
        tokens, where = _document(sequence, 2 * SIDE + HOLE, infilled)
        if where:
            prefix, hole, suffix = tokens[:SIDE], tokens[SIDE : SIDE + HOLE], tokens[SIDE + HOLE : 2 * SIDE + HOLE]
            text, after, truth = (_text(engine, part) for part in (prefix, suffix, hole))
            found.append(Prompt(infilling(prefix, suffix, engine), text, after, truth, **where))
    return found


def write_samples(
    model: Transformer, engine: Engine, prompts: list[Prompt], section: SamplesSection, seed: int, stage: str
) -> list[dict[str, Any]]:
    """Generate a sample for each prompt.

    Returns:
        For each prompt ``{"kind": "continuation" | "infilling", "prompt", "suffix", "text", "truth", "source", "row",
        "tokens", "temperature"}``.
    """
    out = []
    for i, prompt in enumerate(prompts):
        key = salt(seed, "sample", stage, i)
        stop = set(engine.special_ids.tolist())
        [new] = generate(Cached(model), [prompt.tokens], section.tokens, [key], section.temperature, stop=stop)
        known = np.array([token for token in new if token < engine.vocab_size], dtype=np.uint32)
        out.append(
            {
                "kind": "continuation" if prompt.suffix is None else "infilling",
                "prompt": prompt.prefix,
                "suffix": prompt.suffix,
                "text": _text(engine, known),
                "truth": prompt.truth,
                "source": prompt.source,
                "row": prompt.row,
                "tokens": len(new),
                "temperature": section.temperature,
            }
        )
    return out


def _document(sequence: ArrowSequence, least: int, preferred: Collection[str]) -> tuple[np.ndarray, dict[str, Any]]:
    """The first tokens of a plain document: from a preferred source if possible, otherwise the first in order."""
    best: tuple[np.ndarray, dict[str, Any]] = (np.zeros(0, dtype=np.int64), {})
    for row in range(min(SEARCHED_ROWS, len(sequence))):
        for segment in sequence.segments(row):
            if segment["kind"] != 0 or segment["offset"] != 0 or segment["length"] <= least:
                continue
            source = sequence.sources[int(segment["source"])]
            start = int(segment["start"])
            tokens = sequence.rows(row, row + 1)[0, start : start + least].astype(np.int64)
            found = (tokens, {"source": source, "row": int(segment["row"])})
            if not preferred or source in preferred:
                return found
            if not best[1]:
                best = found
    return best


def _after_document(tokens: np.ndarray, engine: Engine) -> np.ndarray:
    # In training, a document starts where the previous one ended.
    return np.concatenate([[special_id(engine, "eod")], tokens]).astype(np.int64)


def _text(engine: Engine, tokens: np.ndarray) -> str:
    return engine.decode(np.asarray(tokens, dtype=np.uint32)).decode("utf-8", errors="replace")
