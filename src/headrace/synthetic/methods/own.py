"""A prompt of the user's own, and perhaps a parser."""

from __future__ import annotations

from typing import Any

import orjson

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
            failed = error if isinstance(error, Failed) else self.parser.wrong(str(error))
            return [Made(reply.text, finding="parse", evidence={"error": self.parser.failed(failed, seed.id)[:300]})]
        return made or [Made(reply.text, finding="parse", evidence={"error": "the parser found nothing"})]


def _made(value: Any, language: str | None, chat: bool) -> Made:
    """A document of what a parser returns: a text, or ``{"text"}`` or ``{"messages"}`` with further fields.

    Raises:
        TypeError: it returns something else.
    """
    if value is None:
        return Made("", finding="parse", evidence={"error": "the parser returns None"})
    if isinstance(value, str):
        return Made(_text(value, "a text"), language=language, compared=value)
    if not isinstance(value, dict):
        raise TypeError(f"returns {type(value).__name__}")
    language = value.get("language", language)
    if language is not None:
        _text(language, "`language`")
    messages = value.get("messages")
    if chat and isinstance(messages, list):
        if not messages or not all(isinstance(one, dict) for one in messages):
            raise TypeError("returns `messages` that are no list of messages")
        turns = [(_text(one.get("role"), "`role`"), _text(one.get("content"), "`content`")) for one in messages]
        return Made("\n\n".join(said for _, said in turns), turns, language)
    if "text" not in value:
        raise TypeError("returns a record without `text`" + (" or `messages`" if chat else ""))
    text = _text(value["text"], "`text`")
    told = {key: one for key, one in value.items() if key not in ("text", "language", "messages")}
    try:
        orjson.dumps(told)
    except TypeError as error:
        raise TypeError(f"returns fields that are not JSON: {error}") from None
    return Made(text, None, language, {"fields": told} if told else {}, text)


def _text(value: Any, what: str) -> str:
    """A text that can be stored.

    Raises:
        TypeError: it is not text, is blank, or has lone surrogates.
    """
    if not isinstance(value, str):
        raise TypeError(f"returns {type(value).__name__} for {what}")
    if not value.strip():
        raise TypeError(f"returns nothing for {what}")
    try:
        value.encode()
    except UnicodeEncodeError:
        raise TypeError(f"returns a lone surrogate in {what}") from None
    return value
