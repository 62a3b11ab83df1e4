"""A prompt of the user's own, and perhaps a parser."""

from __future__ import annotations

from typing import Any

from headrace.functions.calling import Function
from headrace.functions.failures import Failed
from headrace.recipe.synthetic import Synthetic
from headrace.synthetic.items import Ask, Chain, Item, Made, unusable


class Own:
    """The method.

    Attributes:
        parser: the user's function, loaded; None takes answers as they are.
    """

    seeds = 1

    def __init__(self, config: Synthetic) -> None:
        self._chat = config.chat
        self.prompts = (config.prompt or "",)
        self.parser: Function | None = None

    def chain(self, item: Item) -> Chain:
        """Ask once."""
        [seed] = item.seeds
        reply = yield Ask(self.prompts[0], {})
        if wrong := unusable(reply):
            return [wrong]
        if self.parser is None:
            text = reply.text.strip()
            if not text:
                return [Made("", finding="parse", evidence={"error": "an empty answer"})]
            return [Made(text, language=seed.language, compared=text)]
        try:
            read = self.parser({"text": reply.text, "seeds": [vars(seed) for seed in item.seeds]})
            made = [_made(one, seed.language, self._chat) for one in (read if isinstance(read, list) else [read])]
        except (Failed, TypeError) as error:
            return [Made(reply.text, finding="parse", evidence={"error": str(error)[:300]})]
        return made or [Made(reply.text, finding="parse", evidence={"error": "the parser found nothing"})]


def _made(value: Any, language: str | None, chat: bool) -> Made:
    """A document of what a parser returns: a text, or ``{"text"}`` or ``{"messages"}`` with further fields.

    Raises:
        TypeError: it returns something else.
    """
    if value is None:
        return Made("", finding="parse", evidence={"error": "the parser returns None"})
    if isinstance(value, str):
        return Made(value, language=language, compared=value)
    if not isinstance(value, dict):
        raise TypeError(f"the parser returns {type(value).__name__}")
    messages = value.get("messages")
    if chat and isinstance(messages, list):
        turns = [(str(one["role"]), str(one["content"])) for one in messages if isinstance(one, dict)]
        return Made("\n\n".join(said for _, said in turns), turns, value.get("language", language))
    if not isinstance(value.get("text"), str):
        raise TypeError("the parser returns a record without `text`" + (" or `messages`" if chat else ""))
    told = {key: one for key, one in value.items() if key not in ("text", "language", "messages")}
    return Made(value["text"], None, value.get("language", language), {"fields": told} if told else {}, value["text"])
