"""Turn the common shapes of instruction data into conversations.

ShareGPT: ``conversations: [{from, value}]``. OpenAI: ``messages: [{role, content}]``. Alpaca (Taori et al., 2023):
``instruction``, ``input``, ``output``. CrystalChat was trained on the first and the last. Guanaco (Dettmers et al.,
2023): a ``text`` in which ``### Human:`` and ``### Assistant:`` begin the turns.

Nothing in a record is dropped silently. A message keeps its other keys and a record its other fields. Anything that the
model would have to see but no template renders, such as images and reasoning, makes the row bad, with the
field's name as the reason.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from functools import lru_cache
from typing import Any

from headrace.documents.readers.base import EXCERPT, Bad, Message, Record, Repaired, Tally, excerpt, kind
from headrace.documents.readers.json_values import dump, parse

ROLES = {
    "system": "system",
    "developer": "system",
    "human": "user",
    "user": "user",
    "prompter": "user",  # OASST
    "gpt": "assistant",
    "assistant": "assistant",
    "chatgpt": "assistant",
    "bing": "assistant",
    "bard": "assistant",
    "model": "assistant",
    "tool": "tool",
    "observation": "tool",
}
# Some ShareGPT files use OpenAI's keys for the turns.
LISTS = {
    "conversations": (("from", "role"), ("value", "content")),
    "messages": (("role", "from"), ("content", "value")),
}
REQUESTS = ("instruction", "prompt", "question")
REPLIES = ("output", "response", "completion", "answer")
SYSTEMS = ("system", "system_prompt")
_TURN = re.compile(r"\s*### (Human|Assistant|System):")  # OpenAssistant-guanaco, also without line feeds before it
JOIN = "\n\n"

# OpenAI's content parts (chat completions, responses).
TEXT_PARTS = ("text", "input_text", "output_text")
# Whether to learn a message: `loss` (ms-swift), `weight` (OpenAI), `train` and `training` (Axolotl).
LOSS_MARKS = ("loss", "weight", "train", "training")
# Content that no template renders, in lower case without `_` and `-`: in a message, and in a whole record.
_EVERYWHERE = frozenset({
    "functions", "functioncall", "image", "images", "audio", "audios", "video", "videos",
    "trainoninput", "trainoninputs",
})  # fmt: skip
UNSHOWN_MESSAGE = _EVERYWHERE | {
    "tools", "toolcall", "tooluse", "toolresult", "toolresults", "toolresponses", "functioncalls",
    "functionresponse", "reasoning", "reasoningcontent", "reasoningdetails", "thinking", "thinkingblocks", "thought",
    "thoughts", "refusal", "channel", "recipient", "imageurl", "inputaudio", "file", "files", "attachments",
}  # fmt: skip
UNSHOWN_RECORD = _EVERYWHERE | {"history"}  # earlier turns, next to Alpaca's three fields
# Values of those keys that still mean a plain message (OpenAI's harmony and ChatGPT's exports).
PLAIN = {"channel": "final", "recipient": "all"}


class _Unfit(Exception):  # noqa: N818 - it never leaves this file
    """Why a row is not a conversation."""


def conversation(row: int, value: Any, tally: Tally) -> Record | Bad:
    """The record in a parsed row: its messages, and the fields that are not part of them."""
    if not isinstance(value, dict):
        return Bad(row, f"the row holds {kind(value)}, not an object with fields", shown(value))
    fields = dict(value)
    try:
        messages = _messages(fields, tally)
        tools = _tools(fields)
    except _Unfit as error:
        return Bad(row, str(error)[:EXCERPT], shown(value))
    answers = [message.content for message in messages if message.role == "assistant"]
    if not any(answer.strip() for answer in answers) and not any(
        "tool_calls" in message.fields for message in messages
    ):
        empty = " that says anything" if answers else ""
        return Bad(row, f"the conversation has no turn of the assistant{empty}", shown(value))
    return Record(row, "", fields, messages, tools)


def shown(value: Any) -> str:
    """The beginning of a parsed row as JSON, for display."""
    return excerpt(dump(value, str))


def _messages(fields: dict[str, Any], tally: Tally) -> list[Message]:
    """Take the messages out of a record's fields."""
    lists = [name for name in LISTS if fields.get(name) is not None]
    name = next((name for name in lists if isinstance(fields[name], list) and fields[name]), None)
    request, reply = _first(fields, REQUESTS), _first(fields, REPLIES)
    if name is not None:
        who, what = LISTS[name]
        turns = fields.pop(name)
        messages = [_message(turn, f"turn {i}", who, what) for i, turn in enumerate(turns, 1)]
    elif request is not None and reply is not None:
        asked, given = _string(fields, request), _string(fields, "input")
        messages = [
            Message("user", JOIN.join(text for text in (asked, given) if text.strip())),
            Message("assistant", _string(fields, reply)),
        ]
    elif isinstance(fields.get("text"), str) and _TURN.match(fields["text"]):
        messages = _guanaco(_string(fields, "text"))
    elif lists:
        held = fields[lists[0]]
        raise _Unfit(
            f"the field {lists[0]!r} holds no turn, so the conversation has no turn of the assistant"
            if held == []
            else f"the field {lists[0]!r} holds {kind(held)}, not a list of turns"
        )
    else:
        tally.seen = tally.seen or sorted(map(str, fields))
        raise _Unfit(f"no conversation in the fields {', '.join(map(str, fields))}")
    _refuse(fields, UNSHOWN_RECORD, "the record")
    system = _first(fields, SYSTEMS)
    if system is not None and not _blank(fields[system]):
        messages.insert(0, Message("system", _string(fields, system)))
    return messages


def _message(turn: Any, where: str, who: Iterable[str], what: Iterable[str]) -> Message:
    """A message, with everything that is not role, text or loss in ``fields``."""
    if not isinstance(turn, dict):
        raise _Unfit(f"a turn is {kind(turn)}, not an object: {where}")
    # Tables give every turn all the keys that any turn has, as nulls.
    left = {str(key): value for key, value in turn.items() if value is not None}
    speaker = left.pop(_first(left, who) or "", None)
    role = ROLES.get(speaker.lower()) if isinstance(speaker, str) else None
    if role is None:
        raise _Unfit(f"{where} has the role {speaker!r}, which is none of {', '.join(ROLES)}")
    where = f"{where} ({role})"
    _refuse(left, UNSHOWN_MESSAGE, where)
    calls = _calls(left, role, where)
    key = _first(left, what) or ""
    said = left.pop(key, None)
    if said is None and calls:
        # Templates tell a message that only calls tools from one that says nothing.
        return Message(role, "", _loss(left, role, where), {**left, "content": None})
    if said is None and left:
        raise _Unfit(f"{where} holds null, not text; its other keys: {', '.join(left)}")
    content, parts = _text(said, where)
    loss = _loss(left, role, where)
    if parts is not None:
        left[key] = parts
    return Message(role, content, loss, left)


def _calls(left: dict[str, Any], role: str, where: str) -> bool:
    """Check and parse a message's tool calls, as OpenAI has them; returns whether there are any."""
    held = left.get("tool_calls", left.get("toolCalls"))
    if _blank(held):
        return False
    if "toolCalls" in left or role != "assistant":
        raise _Unfit(f"{where} has 'toolCalls'" if "toolCalls" in left else f"{where} has 'tool_calls'")
    calls = _listed(held, f"the tool calls of {where}")
    for call in calls:
        named = call.get("function", call)
        if not isinstance(named, dict) or not isinstance(named.get("name"), str):
            raise _Unfit(f"a tool call of {where} names no function")
    left["tool_calls"] = calls
    return True


def _tools(fields: dict[str, Any]) -> list[Any] | None:
    """Take the tools out of a record's fields."""
    if _blank(fields.get("tools")):
        return None
    return _listed(fields.pop("tools"), "the field 'tools'")


def _listed(value: Any, where: str) -> list[dict[str, Any]]:
    """A list of objects, which tables hold as JSON text."""
    if isinstance(value, str):
        try:
            value = parse(_whole(value, where).encode())
        except ValueError:
            raise _Unfit(f"{where} is text, but not JSON") from None
    if not isinstance(value, list) or not all(isinstance(item, dict) for item in value):
        raise _Unfit(f"{where} is not a list of objects")
    return value


def _guanaco(text: str) -> list[Message]:
    """The turns of a text in which headings begin them."""
    _, *pieces = _TURN.split(text)
    return [Message(ROLES[role.lower()], said.strip()) for role, said in zip(pieces[::2], pieces[1::2], strict=True)]


def _text(content: Any, where: str) -> tuple[str, list[dict[str, Any]] | None]:
    """The text of a message's content, and the rest of its parts, if there is any."""
    if isinstance(content, str):
        return _whole(content, where), None
    if not isinstance(content, list):
        raise _Unfit(f"{where} holds {kind(content)}, not text")
    texts, left = [], []
    for i, part in enumerate(content, 1):
        place = f"part {i} of {where}"
        if isinstance(part, str):
            part = {"text": part}
        if not isinstance(part, dict):
            raise _Unfit(f"{place} is {kind(part)}, not text")
        rest = {str(key): value for key, value in part.items() if value is not None}
        type_, text = rest.pop("type", "text"), rest.pop("text", None)
        if type_ not in TEXT_PARTS:
            raise _Unfit(f"{place} has the type {type_!r}; only parts of text are read")
        _refuse(rest, UNSHOWN_MESSAGE, place)
        if not isinstance(text, str):
            raise _Unfit(f"{place} has {kind(text)} as its 'text'")
        texts.append(_whole(text, place))
        left.append(rest)
    return JOIN.join(texts), left if any(left) else None


def _whole(text: str, where: str) -> str:
    """The text, if it is complete."""
    if isinstance(text, Repaired):
        raise _Unfit(f"{where} is {text.error}")
    return text


def _loss(left: dict[str, Any], role: str, where: str) -> bool | None:
    """Remove the loss marks and return what they say; None if there are none."""
    said = set()
    for key in LOSS_MARKS:
        value = left.get(key)
        if value is None:
            continue
        if not isinstance(value, int | float) or value not in (0, 1):
            raise _Unfit(f"{where} has {key!r}: {value!r}; loss is carried or not: true, false, 1 or 0")
        # OpenAI's weights concern only the assistant, and files give 1 to every role.
        if key == "weight" and value and role != "assistant":
            continue
        said.add(bool(left.pop(key)))
    if len(said) > 1:
        raise _Unfit(f"the marks of loss of {where} contradict each other: {', '.join(LOSS_MARKS)}")
    return said.pop() if said else None


def _refuse(left: dict[str, Any], unshown: frozenset[str], where: str) -> None:
    """Check that nothing is left that the model would have to see."""
    for key, value in left.items():
        name = _plain(key)
        if name in unshown and not _blank(value) and value != PLAIN.get(name):
            raise _Unfit(f"{where} has {key!r}, which is not read")


@lru_cache(1 << 10)
def _plain(key: str) -> str:
    return key.lower().replace("_", "").replace("-", "")


def _blank(value: Any) -> bool:
    """Whether a field is empty; ``[]`` and ``{}`` may also be written as text."""
    return value.strip() in ("", "[]", "{}") if isinstance(value, str) else not value


def _first(fields: dict[str, Any], names: Iterable[str]) -> str | None:
    """The first of some fields that is not empty, otherwise the first that exists."""
    there = [name for name in names if fields.get(name) is not None]
    return next((name for name in there if not _blank(fields[name])), there[0] if there else None)


def _string(fields: dict[str, Any], name: str) -> str:
    """Take a text out of the fields; a missing one is empty."""
    value = fields.pop(name, None)
    if isinstance(value, str):
        return _whole(value, f"the field {name!r}")
    if value is None or value in ([], {}):
        return ""
    raise _Unfit(f"the field {name!r} holds {kind(value)}, not text")
