"""Conversations as tokens: CrystalChat's template and ChatML, with loss on what the assistant says.

A turn may override its loss (``loss``). A turn without text carries no loss, nor does the end of a conversation unless
its last turn is an answer that does.

``crystalchat`` (LLM360/CrystalChat, as its published packed rows show)::

    <s><|sys_start|> {system}<|sys_end|><|im_start|> {user}<|im_end|> {assistant}</s>

Further turns repeat from ``<|im_start|>``; ``</s>`` comes once, at the end; the space is omitted for empty turns.
``chatml`` (OpenAI's Chat Markup Language)::

    <|im_start|>{role}\\n{content}<|im_end|>\\n

The text between two special tokens is tokenized as one string that continues the text before it: models with a dummy
prefix insert no further space.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal, NamedTuple, NotRequired, TypedDict

import numpy as np
import orjson

from headrace.errors import UserError
from headrace.flow.slices import gather
from headrace.tokens.engine import Engine, Texts, special_id

Template = Literal["crystalchat", "chatml"]

# The default in CrystalChat's data for conversations without a system turn.
DEFAULT_SYSTEM = (
    "You are CrystalCoder, a helpful and intelligent assistant. Follow the instructions and answer the questions as "
    "accurately as possible."
)


class Turn(TypedDict):
    """One turn: its role (``system``, ``user``, ``assistant``), and the range of the text it covers, in code points.

    ``loss`` says whether it carries loss; without it, the assistant's turns do.
    """

    role: str
    start: int
    end: int
    loss: NotRequired[bool]


class Chats(NamedTuple):
    """Rendered conversations.

    Attributes:
        tokens: uint32[n_tokens], including special tokens, except for the end-of-document token that ends each
            conversation: the sequence adds that to every document.
        offsets: int64[n + 1].
        loss: bool[n_tokens]: whether each token carries loss when it is the target.
        end_loss: bool[n]: whether the end-of-document token does: if the last turn is an answer that carries loss.
    """

    tokens: np.ndarray
    offsets: np.ndarray
    loss: np.ndarray
    end_loss: np.ndarray


class _Said(NamedTuple):
    role: str
    content: str
    learned: bool


class _Part(NamedTuple):
    """A special token (``role``) or the text between two, and the byte of the text from which it carries loss."""

    role: str | None
    text: bytes
    loss_from: int | None


def turns_of(column: str | None) -> list[Turn] | None:
    """The turns in a document's ``turns`` column, or None for a document that is not a conversation."""
    if column is None:
        return None
    turns: list[Turn] = orjson.loads(column)
    return turns


def transform(texts: Texts, turns: Sequence[list[Turn] | None], engine: Engine, template: Template) -> Chats:
    """Render and encode conversations.

    Args:
        texts: the documents' text.
        turns: each document's turns; None for a document that is not a conversation, which is kept unchanged and
            carries loss throughout (crystalchat puts ``<s>`` before it, also with loss).
        engine: the tokenizer. Templates that start with ``<s>`` omit it if the tokenizer has no ``bos``.
        template: ``crystalchat`` or ``chatml``.

    Raises:
        UserError: the tokenizer lacks one of the template's markers, or a role is unknown.
    """
    said = [_said(texts.bytes_of(i), turns[i]) for i in range(texts.count)]
    bos = "bos" in engine.special
    render = _crystalchat if template == "crystalchat" else _chatml
    rendered = [
        _plain(texts.bytes_of(i), template, bos) if talk is None else render(talk, bos) for i, talk in enumerate(said)
    ]
    parts = [part for conversation in rendered for part in conversation]
    # Only plain text starts a document for the tokenizer: in a conversation, a special token precedes everything.
    plain = np.array([talk is None for talk in said], dtype=bool)
    first = np.repeat(plain, [len(conversation) for conversation in rendered])
    pieces = engine.encode(Texts.of(part.text for part in parts), first)
    roles = sorted({part.role for part in parts if part.role is not None})
    ids = {role: special_id(engine, role) for role in roles}
    source = np.concatenate([pieces.tokens, np.array([ids[role] for role in roles], dtype=np.uint32)])
    index = {role: len(pieces.tokens) + i for i, role in enumerate(roles)}
    starts = pieces.offsets[:-1].copy()
    lengths = np.diff(pieces.offsets)
    for i, part in enumerate(parts):
        if part.role is not None:
            starts[i], lengths[i] = index[part.role], 1
    tokens = gather(source, starts, lengths)
    ends = np.concatenate([[0], np.cumsum(lengths)])
    loss = np.zeros(len(tokens), dtype=bool)
    for i, part in enumerate(parts):
        if part.loss_from is not None:
            stretch = slice(int(ends[i]), int(ends[i + 1]))
            if part.loss_from == 0:
                loss[stretch] = True
            else:
                # A token that reaches back into the role's header is not the model's to predict.
                sizes = engine.lengths[tokens[stretch]]
                loss[stretch] = np.cumsum(sizes) - sizes >= part.loss_from
    offsets = np.concatenate([[0], np.cumsum([len(conversation) for conversation in rendered], dtype=np.int64)])
    closing = [talk is None or (talk[-1].role == "assistant" and talk[-1].learned) for talk in said]
    return Chats(tokens, ends[offsets].astype(np.int64), loss, np.array(closing, dtype=bool))


def _said(data: bytes, turns: list[Turn] | None) -> list[_Said] | None:
    """The text of each turn, and whether it carries loss: an answer without text never does."""
    if turns is None:
        return None
    text = data.decode("utf-8")
    said = []
    for turn in turns:
        role, content = turn["role"], text[turn["start"] : turn["end"]]
        if role not in ("system", "user", "assistant"):
            raise UserError(
                f"A conversation has a turn with the role {role!r}.", "turns", "Roles are system, user and assistant."
            )
        said.append(_Said(role, content, turn.get("loss", role == "assistant") and bool(content.strip())))
    return said


def _plain(data: bytes, template: Template, bos: bool) -> list[_Part]:
    head = [_Part("bos", b"", 0)] if bos and template == "crystalchat" else []
    return [*head, _Part(None, data, 0)]


def _crystalchat(said: list[_Said], bos: bool) -> list[_Part]:
    parts = [_Part("bos", b"", None)] if bos else []
    if said[0].role != "system":
        said = [_Said("system", DEFAULT_SYSTEM, False), *said]
    for role, content, learned in said:
        text = b" " + content.encode() if content else b""
        carried = 0 if learned else None
        if role == "assistant":
            parts.append(_Part(None, text, carried))
        else:
            start, end = ("sys_start", "sys_end") if role == "system" else ("im_start", "im_end")
            parts += [_Part(start, b"", None), _Part(None, text, carried), _Part(end, b"", carried)]
    return parts


def _chatml(said: list[_Said], bos: bool) -> list[_Part]:
    parts = []
    for i, (role, content, learned) in enumerate(said):
        header = f"{role}\n".encode()
        parts += [
            _Part("im_start", b"", None),
            _Part(None, header + content.encode(), len(header) if learned else None),
            _Part("im_end", b"", 0 if learned else None),
        ]
        if i + 1 < len(said):
            parts.append(_Part(None, b"\n", None))
    return parts
