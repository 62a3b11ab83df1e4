"""Conversations as tokens, with loss on what the assistant says.

``crystalchat`` (LLM360/CrystalChat, as its published packed rows show)::

    <s><|sys_start|> {system}<|sys_end|><|im_start|> {user}<|im_end|> {assistant}</s>

Further turns repeat from ``<|im_start|>``; ``</s>`` comes once, at the end; the space is omitted for empty turns.
``chatml`` (OpenAI's Chat Markup Language)::

    <|im_start|>{role}\\n{content}<|im_end|>\\n

In these two, the text between two special tokens is tokenized as one string that continues the text before it: models
with a dummy prefix insert no further space. A turn may override its loss (``loss``). A turn without text carries no
loss, nor does the end of a conversation unless its last turn is an answer that does. Other templates are Jinja
(:mod:`headrace.sequence.jinja_chat`).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple, NotRequired, TypedDict

import numpy as np
import orjson

from headrace.flow.slices import gather
from headrace.sequence.chat_template import ChatTemplate
from headrace.sequence.jinja import Refused
from headrace.tokens.control import ControlTokens
from headrace.tokens.engine import Encoded, Engine, Texts, special_id
from headrace.tokens.special import CHAT_MARKERS

# The default in CrystalChat's data for conversations without a system turn.
DEFAULT_SYSTEM = (
    "You are CrystalCoder, a helpful and intelligent assistant. Follow the instructions and answer the questions as "
    "accurately as possible."
)


class Turn(TypedDict):
    """One turn: its role, and the range of the text it covers, in code points.

    ``loss`` says whether it carries loss; without it, the assistant's turns do. ``fields`` are its other keys, and
    ``tools``, in the first turn, the tools of the conversation.
    """

    role: str
    start: int
    end: int
    loss: NotRequired[bool]
    fields: NotRequired[dict[str, Any]]
    tools: NotRequired[list[Any]]


class Chats(NamedTuple):
    """Rendered conversations.

    Attributes:
        tokens: uint32[n_tokens], including special tokens, except for the end-of-document token that ends each
            conversation: the sequence adds that to every document.
        offsets: int64[n + 1].
        loss: bool[n_tokens]: whether each token carries loss when it is the target.
        end_loss: bool[n]: whether the end-of-document token does: if the last turn is an answer that carries loss.
        refused: index -> why a conversation was not rendered; it has no tokens.
    """

    tokens: np.ndarray
    offsets: np.ndarray
    loss: np.ndarray
    end_loss: np.ndarray
    refused: dict[int, str]


class Said(NamedTuple):
    """A turn, its text, and whether the model learns it; ``marked`` if the data say so."""

    role: str
    content: str
    learned: bool
    fields: dict[str, Any]
    marked: bool


class Conversation(NamedTuple):
    """The turns of a conversation, and its tools."""

    said: list[Said]
    tools: list[Any] | None


class Part(NamedTuple):
    """A special token or the text between two.

    Attributes:
        id: the special token, or None for text.
        text: UTF-8.
        learned: False, True, the byte of the text from which tokens that begin there carry loss, or ranges of bytes
            (first, beginning of the last character): every token with a part of one carries loss, except for tokens
            that begin within the last character.
        first: whether the text gets a model's dummy prefix.
    """

    id: int | None
    text: bytes
    learned: bool | int | list[tuple[int, int]]
    first: bool = False


class Rendered(NamedTuple):
    """The parts of a conversation, and whether the end of the document carries loss."""

    parts: list[Part]
    end_loss: bool


Render = Callable[[Conversation], Rendered]


def turns_of(column: str | None) -> list[Turn] | None:
    """The turns in a document's ``turns`` column, or None for a document that is not a conversation."""
    if column is None:
        return None
    turns: list[Turn] = orjson.loads(column)
    return turns


def transform(
    texts: Texts,
    turns: Sequence[list[Turn] | None],
    engine: Engine,
    template: ChatTemplate,
    control: ControlTokens | None = None,
    limit: int | None = None,
) -> Chats:
    """Render and encode conversations.

    Args:
        texts: the documents' text.
        turns: each document's turns; None for a document that is not a conversation, which is kept unchanged and
            carries loss throughout (crystalchat puts ``<s>`` before it, also with loss).
        engine: the tokenizer. Templates that start with ``<s>`` omit it if the tokenizer has no ``bos``.
        template: the template.
        control: the tokenizer's control tokens, for Jinja templates.
        limit: the most tokens of a conversation, for templates that truncate.

    Raises:
        UserError: the tokenizer lacks one of the template's markers.
    """
    render = _renderer(engine, template, control)
    rendered, refused = [], {}
    talks: list[Conversation | None] = []
    for i in range(texts.count):
        said = turns[i]
        talk = None if said is None else conversation(texts.bytes_of(i).decode("utf-8"), said, template.chat.loss)
        talks.append(talk)
        try:
            rendered.append(_plain(texts.bytes_of(i), template, engine) if talk is None else render(talk))
        except Refused as error:
            refused[i] = str(error)
            rendered.append(Rendered([], False))
    chats = _encode(rendered, engine)
    policy = template.chat.truncate
    if limit is None or policy == "split":
        return chats._replace(refused=refused)
    long = np.flatnonzero(np.diff(chats.offsets) > limit)
    for i in map(int, long):
        rendered[i] = Rendered([], False)
        talk = talks[i]
        tokens = int(np.diff(chats.offsets)[i])
        try:
            if talk is None or policy == "drop":
                raise Refused("")
            rendered[i] = _shortened(talk, render, engine, limit, policy)
        except Refused as error:
            refused[i] = str(error) or f"it has {tokens:,} tokens and a row has room for {limit:,}"
    return (_encode(rendered, engine) if len(long) else chats)._replace(refused=refused)


def _encode(rendered: list[Rendered], engine: Engine) -> Chats:
    """Encode the texts of rendered conversations together."""
    parts = [part for one in rendered for part in one.parts]
    pieces = engine.encode(Texts.of(part.text for part in parts), np.array([part.first for part in parts], dtype=bool))
    ids = sorted({part.id for part in parts if part.id is not None})
    source = np.concatenate([pieces.tokens, np.array(ids, dtype=np.uint32)])
    index = {token: len(pieces.tokens) + i for i, token in enumerate(ids)}
    starts = pieces.offsets[:-1].copy()
    lengths = np.diff(pieces.offsets)
    for i, part in enumerate(parts):
        if part.id is not None:
            starts[i], lengths[i] = index[part.id], 1
    tokens = gather(source, starts, lengths)
    ends = np.concatenate([[0], np.cumsum(lengths)])
    loss = np.zeros(len(tokens), dtype=bool)
    for i, part in enumerate(parts):
        stretch = slice(int(ends[i]), int(ends[i + 1]))
        if isinstance(part.learned, bool):
            loss[stretch] = part.learned
        elif isinstance(part.learned, int):
            # A token that reaches back into the role's header is not the model's to predict.
            sizes = engine.lengths[tokens[stretch]]
            loss[stretch] = np.cumsum(sizes) - sizes >= part.learned
        else:
            one = Encoded(tokens[stretch], np.array([0, len(tokens[stretch])]))
            spans = engine.spans(one, part.first, Texts.of([part.text]))
            for first, last in part.learned:
                loss[stretch] |= (spans[:, 1] > first) & (spans[:, 0] <= last)
    offsets = np.concatenate([[0], np.cumsum([len(one.parts) for one in rendered], dtype=np.int64)])
    closing = np.array([one.end_loss for one in rendered], dtype=bool)
    return Chats(tokens, ends[offsets].astype(np.int64), loss, closing, {})


def conversation(text: str, turns: list[Turn], loss: str = "assistant") -> Conversation:
    """The turns of a conversation, and whether each is learned: an answer without text never is."""
    last = max((i for i, turn in enumerate(turns) if turn["role"] == "assistant"), default=-1)
    said = []
    for i, turn in enumerate(turns):
        role, content = turn["role"], text[turn["start"] : turn["end"]]
        learned = turn.get("loss", role == "assistant") and (loss == "assistant" or i == last)
        said.append(Said(role, content, learned, turn.get("fields", {}), "loss" in turn))
    return Conversation(said, turns[0].get("tools") if turns else None)


def _renderer(engine: Engine, template: ChatTemplate, control: ControlTokens | None) -> Render:
    if template.source is not None:
        from headrace.sequence.jinja_chat import JinjaChat

        assert control is not None
        return JinjaChat(template, engine, control)
    bos = engine.special.get("bos")
    markers = ("im_end", "im_start") if template.where == "chatml" else tuple(sorted(CHAT_MARKERS))
    ids = {role: special_id(engine, role) for role in markers}
    render = _chatml if template.where == "chatml" else _crystalchat

    def rendered(talk: Conversation) -> Rendered:
        if talk.tools:
            raise Refused(f"{template.where} has no place for tools")
        for one in talk.said:
            if one.role not in ("system", "user", "assistant"):
                raise Refused(f"{template.where} has no place for the role {one.role!r}")
            if one.fields.get("tool_calls"):
                raise Refused(f"{template.where} has no place for tool calls")
        said = [one._replace(learned=one.learned and bool(one.content.strip())) for one in talk.said]
        return Rendered(render(said, ids, bos), bool(said) and said[-1].role == "assistant" and said[-1].learned)

    return rendered


def _plain(data: bytes, template: ChatTemplate, engine: Engine) -> Rendered:
    bos = engine.special.get("bos")
    head = [Part(bos, b"", True)] if bos is not None and template.where == "crystalchat" else []
    return Rendered([*head, Part(None, data, True, True)], True)


def _crystalchat(said: list[Said], ids: dict[str, int], bos: int | None) -> list[Part]:
    parts = [Part(bos, b"", False)] if bos is not None else []
    if said[0].role != "system":
        said = [Said("system", DEFAULT_SYSTEM, False, {}, False), *said]
    for role, content, learned, *_ in said:
        text = b" " + content.encode() if content else b""
        if role == "assistant":
            parts.append(Part(None, text, learned))
        else:
            start, end = ("sys_start", "sys_end") if role == "system" else ("im_start", "im_end")
            parts += [Part(ids[start], b"", False), Part(None, text, learned), Part(ids[end], b"", learned)]
    return parts


def _chatml(said: list[Said], ids: dict[str, int], bos: int | None) -> list[Part]:
    parts = []
    for i, (role, content, learned, *_) in enumerate(said):
        header = f"{role}\n".encode()
        parts += [
            Part(ids["im_start"], b"", False),
            Part(None, header + content.encode(), len(header) if learned else False),
            Part(ids["im_end"], b"", learned),
        ]
        if i + 1 < len(said):
            parts.append(Part(None, b"\n", False))
    return parts


def _shortened(talk: Conversation, render: Render, engine: Engine, limit: int, policy: str) -> Rendered:
    """As many of the exchanges (a turn of the user and what follows it) as fit, from the end or the beginning."""
    starts = [i for i, said in enumerate(talk.said) if said.role == "user"]
    exchanges = [talk.said[a:b] for a, b in zip(starts, [*starts[1:], len(talk.said)], strict=True)]
    head = talk.said[: starts[0]] if starts else talk.said
    if any(said.role != "system" for said in head):
        raise Refused("")
    fits: Rendered | None = None
    low, high = 0, len(exchanges) - 1  # all of them do not fit
    while low < high:
        middle = (low + high + 1) // 2
        kept = exchanges[-middle:] if policy == "left" else exchanges[:middle]
        tried = render(Conversation([*head, *(said for exchange in kept for said in exchange)], talk.tools))
        if int(_encode([tried], engine).offsets[-1]) <= limit:
            low, fits = middle, tried
        else:
            high = middle - 1
    if fits is None or not any(part.learned is not False for part in fits.parts):
        raise Refused("")
    return fits
