"""What synthetic sources take: requests, tokens, dollars."""

from __future__ import annotations

from dataclasses import dataclass

from headrace.planning.counts import BYTES_PER_TOKEN, SourceCounts
from headrace.planning.text import tokens_text
from headrace.recipe.schema import Recipe
from headrace.recipe.synthetic import Synthetic

# Tokens of a prompt besides what it shows of its seeds, and of what it shows: some lines of code, or three tasks.
PROMPT, SHOWN = 150, 150
# An answer takes about a third of what it may: Magicoder's problems and solutions have some 600 tokens of 2500.
ANSWER = 1 / 3
MAX_TOKENS = 2048  # what a request allows if the recipe does not say


@dataclass(frozen=True)
class Asked:
    """What is asked of a server, all of it estimated.

    Attributes:
        requests: at least, if everything made is kept.
        most: at most.
        input, output: tokens of the prompts and of the answers, at least.
        dollars: what they cost, if the recipe states prices.
    """

    requests: int
    most: int
    input: int
    output: int
    dollars: float


def asked(config: Synthetic) -> Asked:
    """What a synthetic source asks for."""
    each = config.tasks if config.method == "self-instruct" else 1
    chain = config.rounds + 1 if config.method == "evol" else 1
    items = -(-config.count // each)
    shown = SHOWN * (config.examples if config.method == "self-instruct" else 1)
    if config.method in ("rephrase", "prompt"):
        shown = round(min(config.seeds.characters, 6000) / BYTES_PER_TOKEN)
    requests = items * chain
    read, written = requests * (PROMPT + shown), round(requests * _answer(config))
    price = config.server.price
    return Asked(
        requests, config.most_items * chain, read, written, (read * price.input + written * price.output) / 1e6
    )


def _answer(config: Synthetic) -> float:
    limit = config.server.options.get("max_tokens", MAX_TOKENS)
    return ANSWER * (limit if isinstance(limit, int) and limit > 0 else MAX_TOKENS)


def count_synthetic(name: str, recipe: Recipe) -> SourceCounts:
    """The size of a synthetic source: as many documents as it asks for, of the length that answers have."""
    config = recipe.synthetic[name]
    each = config.tasks if config.method == "self-instruct" else 1
    tokens = round(config.count * _answer(config) / each)
    return SourceCounts(name, "estimated", None, config.count, round(tokens * BYTES_PER_TOKEN), tokens + config.count)


def notes(recipe: Recipe) -> list[str]:
    """What each synthetic source asks for, in a sentence."""
    told = []
    for name, config in recipe.synthetic.items():
        one = asked(config)
        server = config.server.url or "nobody: all answers are recorded"
        said = (
            f"Synthetic source {name!r} ({config.method}) asks {server} for {one.requests:,} to {one.most:,} answers "
        )
        said += f"of {config.server.model}: ~{tokens_text(one.input)} tokens of prompts and "
        said += f"~{tokens_text(one.output)} of answers"
        said += f", ~{one.dollars:,.2f} dollars" if one.dollars else ""
        told.append(f"{said}, if everything is kept; how long depends on the server.")
    return told
