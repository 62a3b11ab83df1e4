"""Conversations rendered by Jinja templates: ids and loss as transformers has them.

Ids are those of ``apply_chat_template(tokenize=True)``, loss lies where ``return_assistant_tokens_mask`` has 1: on
every token that has a part of a ``{% generation %}`` block. A template without these marks is rendered up to each
answer with ``add_generation_prompt``; what follows, up to the last control token of the answer, is what the model
generates.
"""

from __future__ import annotations

from typing import Any

from headrace.sequence import typed_text
from headrace.sequence.chat import Conversation, Part, Rendered
from headrace.sequence.chat_template import ChatTemplate
from headrace.sequence.jinja import Refused
from headrace.tokens.control import ControlTokens, Found
from headrace.tokens.engine import Engine


class JinjaChat:
    """Renders conversations.

    Args:
        template: a Jinja template.
        engine: the tokenizer.
        control: its control tokens.
    """

    def __init__(self, template: ChatTemplate, engine: Engine, control: ControlTokens) -> None:
        self._template, self._control = template.jinja, control
        spelled = {index: text for text, index in control.ids.items()}
        roles = {role: spelled[index] for role, index in engine.special.items() if index in spelled}
        self._variables = template.variables(roles)
        self._eod = engine.special["eod"]
        self._last_only = template.chat.loss == "last"

    def __call__(self, talk: Conversation) -> Rendered:
        """Render a conversation.

        Raises:
            Refused: the template does not render it, or it asks for loss where the template marks none.
        """
        messages = [_message(said.role, said.content, said.fields) for said in talk.said]
        source = self._template.source
        if talk.tools and "tools" not in source:
            raise Refused("the template has no place for tools")
        if "tool_calls" not in source and any(said.fields.get("tool_calls") for said in talk.said):
            raise Refused("the template has no place for tool calls")
        data = {"tools": talk.tools} if talk.tools else {}
        rendering, control = typed_text.render(self._template, messages, data, self._variables, self._control)
        learned = rendering.generated
        if not self._template.marked:
            learned = self._generated(messages, data, rendering.text, control)
        learned = self._chosen(talk, learned)
        parts = self._parts(rendering.text, control, learned)
        answer = bool(talk.said) and talk.said[-1].role == "assistant" and talk.said[-1].learned
        if parts and parts[-1].id == self._eod:  # which the sequence adds to every document
            return Rendered(parts[:-1], bool(parts[-1].learned))
        return Rendered(parts, answer)

    def _generated(
        self, messages: list[dict[str, Any]], data: dict[str, Any], text: str, control: list[Found]
    ) -> list[tuple[int, int]]:
        """The ranges of characters that a template without marks leaves to the model."""
        ranges = []
        given = {**self._variables, **data}
        for i, message in enumerate(messages):
            if message["role"] != "assistant":
                continue
            before = self._template.render(messages[:i], {**given, "add_generation_prompt": True}).text
            after = self._template.render(messages[: i + 1], given).text
            stop = self._common(after, text, control)
            if not text.startswith(before) or stop < len(before) or not self._closes(after[stop:]):
                raise Refused("the template has no generation marks, and renders a turn otherwise if more follow")
            ends = [found.end for found in control if len(before) < found.end <= stop]
            tail = text[ends[-1] : stop] if ends else "-"
            ranges.append((len(before), ends[-1] if ends and not tail.strip() else stop))
        return ranges

    @staticmethod
    def _common(some: str, text: str, control: list[Found]) -> int:
        """How many first characters both have, in whole control tokens of the text."""
        pairs = enumerate(zip(some, text, strict=False))
        stop = next((i for i, (a, b) in pairs if a != b), min(len(some), len(text)))
        return next((found.start for found in control if found.start < stop < found.end), stop)

    def _closes(self, tail: str) -> bool:
        """Whether a template may write this after the last turn only, as Phi-3's does: control tokens."""
        at = 0
        for start, end, _ in self._control.find(tail):
            if tail[at:start].strip():
                return False
            at = end
        return not tail[at:].strip()

    def _chosen(self, talk: Conversation, ranges: list[tuple[int, int]]) -> list[tuple[int, int]]:
        """The ranges of the turns that are learned."""
        for said in talk.said:
            if said.role != "assistant" and said.learned and said.marked:
                raise Refused(f"a turn of the {said.role} is to be learned, where the template marks none")
        answers = [said.learned for said in talk.said if said.role == "assistant"]
        if all(answers):
            return ranges
        if len(answers) != len(ranges):
            raise Refused(f"the template marks {len(ranges)} stretches for {len(answers)} turns of the assistant")
        return [stretch for stretch, learned in zip(ranges, answers, strict=True) if learned]

    def _parts(self, text: str, control: list[Found], learned: list[tuple[int, int]]) -> list[Part]:
        parts: list[Part] = []
        at = 0
        for start, end, index in [*control, Found(len(text), len(text), -1)]:
            if start > at:
                first = self._control.spaced or not parts
                piece = text[at:start]
                parts.append(Part(None, piece.encode(), _ranges(piece, at, learned), first))
            if index >= 0:
                parts.append(Part(index, b"", any(a < end and start < b for a, b in learned)))
            at = end
        return parts


def _message(role: str, content: str, fields: dict[str, Any]) -> dict[str, Any]:
    """A message as it was in the data, without nulls, which templates cannot tell from text."""
    said = {} if "content" in fields and fields["content"] is None else {"content": content}
    whole = {"role": role, **said, **{key: value for key, value in fields.items() if key not in ("role", "content")}}
    return {key: value for key, value in whole.items() if value is not None}


def _ranges(piece: str, at: int, learned: list[tuple[int, int]]) -> bool | list[tuple[int, int]]:
    """The bytes of a piece of text that are learned: True or False for all or none, else (first, last) per range, both
    where a character begins: of a last character that makes several tokens transformers takes only the first."""
    out = []
    for a, b in learned:
        first, last = max(a - at, 0), min(b - at, len(piece)) - 1
        if first <= last:
            if first == 0 and b - at > len(piece):
                return True
            beyond = b - at > len(piece)
            out.append((len(piece[:first].encode()), len(piece[: last + beyond].encode())))
    return out or False
