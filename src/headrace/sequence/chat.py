"""Conversations as token rows: CrystalChat's template and ChatML, with loss on what the assistant says.

``crystalchat`` (LLM360/CrystalChat, as its published packed rows show)::

    <s><|sys_start|> {system}<|sys_end|><|im_start|> {user}<|im_end|> {assistant}</s>

Further turns repeat from ``<|im_start|>``; ``</s>`` stands once, at the end; the space is left out where
nothing is said. ``chatml`` (OpenAI's Chat Markup Language)::

    <|im_start|>{role}\\n{content}<|im_end|>\\n

What stands between two special tokens is one string to the tokenizer, and goes on from what stands before it: models
with a dummy prefix put no further space there.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal, NamedTuple, TypedDict

import numpy as np
import orjson

from headrace.errors import UserError
from headrace.flow.exchange import gather
from headrace.tokens.engine import Engine, Texts, special_id

Template = Literal["crystalchat", "chatml"]

# What CrystalChat's data say where a conversation brings no system turn of its own.
DEFAULT_SYSTEM = (
    "You are CrystalCoder, a helpful and intelligent assistant. Follow the instructions and answer the questions as "
    "accurately as possible."
)


class Turn(TypedDict):
    """One turn: who speaks (``system``, ``user``, ``assistant``), and the code points of the text that are said."""

    role: str
    start: int
    end: int


class Chats(NamedTuple):
    """Rendered conversations.

    Attributes:
        tokens: uint32[n_tokens], special tokens included, but for the end-of-document token that closes each
            conversation: the sequence adds that to every document, and it carries loss.
        offsets: int64[n + 1].
        loss: bool[n_tokens]: whether each token carries loss when it is the target.
    """

    tokens: np.ndarray
    offsets: np.ndarray
    loss: np.ndarray


class _Part(NamedTuple):
    """A special token (``role``) or a text between two, and the byte of the text from which loss is carried."""

    role: str | None
    text: bytes
    loss_from: int | None


def turns_of(meta: str | None) -> list[Turn] | None:
    """The turns in a document's ``meta``, or None for a document that is no conversation."""
    if not meta or '"turns"' not in meta:
        return None
    turns = orjson.loads(meta).get("turns")
    return turns if isinstance(turns, list) and turns else None


def transform(texts: Texts, turns: Sequence[list[Turn] | None], engine: Engine, template: Template) -> Chats:
    """Render and encode conversations.

    Args:
        texts: the documents' text.
        turns: each document's turns; None for a document that is no conversation, which is kept as it is and carries
            loss throughout (crystalchat puts ``<s>`` before it, with loss too).
        engine: the tokenizer. Templates that begin with ``<s>`` leave it out if the tokenizer has no ``bos``.
        template: ``crystalchat`` or ``chatml``.

    Raises:
        UserError: the tokenizer lacks one of the template's markers, or a role is unknown.
    """
    rendered = [_render(texts.bytes_of(i), turns[i], template, "bos" in engine.special) for i in range(texts.count)]
    parts = [part for conversation in rendered for part in conversation]
    # Only plain text begins a document for the tokenizer: in a conversation a special token stands before everything.
    plain = np.array([said is None for said in turns], dtype=bool)
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
                # A token that reaches back into the role's header is not what the model has to say.
                sizes = engine.lengths[tokens[stretch]]
                loss[stretch] = np.cumsum(sizes) - sizes >= part.loss_from
    offsets = np.concatenate([[0], np.cumsum([len(conversation) for conversation in rendered], dtype=np.int64)])
    return Chats(tokens, ends[offsets].astype(np.int64), loss)


def _render(data: bytes, turns: list[Turn] | None, template: Template, bos: bool) -> list[_Part]:
    render = _crystalchat if template == "crystalchat" else _chatml
    if turns is None:
        head = [_Part("bos", b"", 0)] if bos and template == "crystalchat" else []
        return [*head, _Part(None, data, 0)]
    text = data.decode("utf-8")
    said = [(turn["role"], text[turn["start"] : turn["end"]]) for turn in turns]
    for role, _ in said:
        if role not in ("system", "user", "assistant"):
            raise UserError(
                f"A conversation has a turn by {role!r}.", "meta.turns", "Roles are system, user and assistant."
            )
    return render(said, bos)


def _crystalchat(said: list[tuple[str, str]], bos: bool) -> list[_Part]:
    parts = [_Part("bos", b"", None)] if bos else []
    if said[0][0] != "system":
        said = [("system", DEFAULT_SYSTEM), *said]
    for role, content in said:
        text = b" " + content.encode() if content else b""
        if role == "assistant":
            parts.append(_Part(None, text, 0))
        else:
            start, end = ("sys_start", "sys_end") if role == "system" else ("im_start", "im_end")
            parts += [_Part(start, b"", None), _Part(None, text, None), _Part(end, b"", None)]
    return parts


def _chatml(said: list[tuple[str, str]], bos: bool) -> list[_Part]:
    parts = []
    for i, (role, content) in enumerate(said):
        header = f"{role}\n".encode()
        answer = role == "assistant"
        parts += [
            _Part("im_start", b"", None),
            _Part(None, header + content.encode(), len(header) if answer else None),
            _Part("im_end", b"", 0 if answer else None),
        ]
        if i + 1 < len(said):
            parts.append(_Part(None, b"\n", None))
    return parts
