"""What a method works with: seeds, an item that they inspire, what is asked for it, and what its answers make."""

from __future__ import annotations

from collections.abc import Generator
from dataclasses import dataclass, field
from typing import Any, Literal, NamedTuple

import orjson

from headrace.flow.keys import salt
from headrace.synthetic.requests import Reply

Finding = Literal["failed", "truncated", "parse", "unsuitable", "tests", "repeats", "copied", "duplicate", "similar"]
"""Why what was made is not kept: see :mod:`headrace.synthetic.judge`."""


@dataclass(frozen=True)
class Seed:
    """A document that inspires.

    Attributes:
        id: its content id.
        row: its row in the documents that seeds are taken from.
        text: its text.
        source: its source.
        language, license, repo, path: as the documents have them.
        turns: of a conversation, role and content of each turn.
    """

    id: str
    row: int
    text: str
    source: str
    language: str | None = None
    license: str | None = None
    repo: str | None = None
    path: str | None = None
    turns: tuple[tuple[str, str], ...] = ()

    @property
    def task(self) -> tuple[str, str]:
        """Its task and the answer: of a conversation, the user's first turn and what follows it; of a text, all."""
        asked = next((i for i, (role, _) in enumerate(self.turns) if role == "user"), None)
        if asked is None:
            return self.text, ""
        answer = next((said for role, said in self.turns[asked + 1 :] if role == "assistant"), "")
        return self.turns[asked][1], answer


@dataclass(frozen=True)
class Item:
    """One chain of requests.

    Attributes:
        number: its place among all.
        seeds: what inspires it.
        turn: how often these seeds were used before.
        seed: the recipe's seed.
    """

    number: int
    seeds: tuple[Seed, ...]
    turn: int
    seed: int

    def key(self, *purpose: str | int) -> int:
        """64 bits for a purpose, the same wherever the item stands among others."""
        return salt(self.seed, "synthetic", *purpose, self.turn, *(seed.id for seed in self.seeds))

    def draw(self, *purpose: str | int) -> float:
        """A number in [0, 1) for a purpose."""
        return (self.key(*purpose) >> 11) * 2.0**-53


class Ask(NamedTuple):
    """A prompt of a method: its template, and what the template sees."""

    template: str
    variables: dict[str, Any]


@dataclass
class Made:
    """A document that an answer makes, or the answer with why it makes none.

    Attributes:
        text: its text; of a conversation, for reading only.
        turns: of a conversation, role and content of each turn.
        language: its language.
        about: what to record of how it was made.
        compared: the text whose similarity to earlier ones is measured.
        program, tests: to be run in the sandbox.
        finding, evidence: why it is not kept.
        requests: the keys of the requests that led to it.
    """

    text: str
    turns: list[tuple[str, str]] | None = None
    language: str | None = None
    about: dict[str, Any] = field(default_factory=dict)
    compared: str | None = None
    program: str = ""
    tests: str = ""
    finding: Finding | None = None
    evidence: dict[str, Any] = field(default_factory=dict)
    requests: tuple[str, ...] = ()

    @property
    def content(self) -> bytes:
        """What makes it equal to another."""
        return orjson.dumps(self.turns or self.text)


Chain = Generator[Ask, Reply, list[Made]]
"""A method's work on an item: yields what to ask, gets what was replied, returns what it makes of it."""


# What servers call it if the model itself ended its answer: OpenAI's word first, then TGI's and others'.
COMPLETE = frozenset({"stop", "eos", "eos_token", "stop_sequence", "end_turn", "complete"})


def unusable(reply: Reply) -> Made | None:
    """What to record of a reply that holds no complete answer; None if it does."""
    if reply.failed is not None:
        return Made("", finding="failed", evidence={"error": reply.failed})
    if reply.finish is not None and reply.finish.lower() not in COMPLETE:
        return Made(reply.text, finding="truncated", evidence={"finish_reason": reply.finish})
    return None


def task_and_answer(task: str, answer: str, chat: bool) -> Made:
    """A document of a task and its answer: a conversation, or one text of both."""
    turns = [("user", task), ("assistant", answer)] if chat else None
    return Made(f"{task}\n\n{answer}", turns)
