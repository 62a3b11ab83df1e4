"""A request to a server, and what its answer says. Answers come from outside: anything may be in them."""

from __future__ import annotations

import json
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import orjson
import xxhash

from headrace.recipe.synthetic import Server

MOST_TOKENS = 1 << 40  # a count of tokens above this is not one


class Rubbish(Exception):  # noqa: N818 - what a server sent
    """Why the body of a successful response is not an answer."""


@dataclass(frozen=True)
class Request:
    """What is asked.

    Attributes:
        path: the endpoint below the server's address.
        body: the fields that are sent.
        sample: tells requests for several answers to the same body apart, which has no ``seed`` then.
    """

    path: str
    body: dict[str, Any]
    sample: int | None = None

    @cached_property
    def key(self) -> str:
        """32 hexadecimal digits: the hash of what is asked, whoever is asked."""
        what = [self.path, self.body, *([] if self.sample is None else [self.sample])]
        return xxhash.xxh3_128_hexdigest(orjson.dumps(what, option=orjson.OPT_SORT_KEYS))

    @property
    def characters(self) -> int:
        """The length of the prompt."""
        messages = self.body.get("messages") or [{"content": self.body["prompt"]}]
        return sum(len(message["content"]) for message in messages)


def request_of(server: Server, system: str, prompt: str, seed: int) -> Request:
    """The request for a prompt.

    Args:
        server: the recipe's section: model, endpoint and options.
        system: the system message; may be empty.
        prompt: the user's message.
        seed: for the server's sampling, so that asking again for another answer is another request.
    """
    options = {"max_tokens": 2048, "seed": seed, **server.options}
    sent = {"model": server.model, **{name: value for name, value in options.items() if value is not None}}
    sample = seed if "seed" not in sent else None
    if server.api == "completions":
        text = f"{system}\n\n{prompt}" if system else prompt
        return Request("/completions", {**sent, "prompt": text}, sample)
    said = [{"role": "system", "content": system}] if system else []
    return Request("/chat/completions", {**sent, "messages": [*said, {"role": "user", "content": prompt}]}, sample)


@dataclass(frozen=True)
class Reply:
    """What became of a request.

    Attributes:
        text: the answer; empty if there is none.
        finish: why the server ended it: ``stop``, ``length`` or another word of its own; None if it did not say.
        failed: why there is no answer; None if there is one.
        input, output: tokens of the prompt and of the answer, as the server counts; 0 if it does not say.
    """

    text: str
    finish: str | None = None
    failed: str | None = None
    input: int = 0
    output: int = 0


def read_reply(body: str) -> Reply:
    """The answer in the body of a response.

    Raises:
        Rubbish: it is not JSON, or not of the shape that the interface promises; says in what way.
    """
    try:
        value = json.loads(body)
    except (ValueError, RecursionError) as error:
        start = body.lstrip()[:60]
        kind = "HTML" if start[:1] == "<" else "not JSON"
        raise Rubbish(f"the body is {kind}: {start!r}" if start else "the body is empty") from error
    try:
        choice = value["choices"][0]
        text = choice["message"]["content"] if "message" in choice else choice["text"]
        finish = choice.get("finish_reason")
    except (LookupError, TypeError, AttributeError):
        said = value.get("error") if isinstance(value, dict) else None
        raise Rubbish(f"the body has no answer{f', but an error: {message_of(said)}' if said else ''}") from None
    if not isinstance(text, str):
        raise Rubbish("the answer is not text")
    usage = value.get("usage")
    counted = usage if isinstance(usage, dict) else {}
    return Reply(
        text.encode("utf-8", "replace").decode(),  # a lone surrogate cannot be stored
        finish if isinstance(finish, str) else None,
        None,
        _count(counted.get("prompt_tokens")),
        _count(counted.get("completion_tokens")),
    )


def message_of(said: Any) -> str:
    """A server's error in words."""
    told = said.get("message", said) if isinstance(said, dict) else said
    return str(told)[:300]


def _count(value: Any) -> int:
    return value if type(value) is int and 0 <= value < MOST_TOKENS else 0  # a bool is an int
