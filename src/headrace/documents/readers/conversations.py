"""Conversations: the shapes in which instruction data come, as turns of (role, content).

ShareGPT: ``conversations: [{from, value}]``. OpenAI: ``messages: [{role, content}]``. Alpaca (Taori et al., 2023):
``instruction``, ``input``, ``output``. CrystalChat was trained on the first and the last.
"""

from __future__ import annotations

from typing import Any

from headrace.documents.readers.base import EXCERPT, Bad, Record, Tally, excerpt, kind

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
}
LISTS = (("conversations", "from", "value"), ("messages", "role", "content"))
REQUESTS = ("instruction", "prompt", "question")
REPLIES = ("output", "response", "completion", "answer")
SYSTEMS = ("system", "system_prompt")
JOIN = "\n\n"


class _Unfit(Exception):  # noqa: N818 - it never leaves this file
    """Why a row is no conversation."""


def conversation(row: int, value: Any, tally: Tally) -> Record | Bad:
    """The record in a parsed row: its turns, and the fields that are no part of them."""
    if not isinstance(value, dict):
        return Bad(row, f"the row holds {kind(value)}, not an object with fields", excerpt(str(value)))
    try:
        turns = _turns(value, tally)
    except _Unfit as error:
        return Bad(row, str(error)[:EXCERPT], excerpt(str(value)))
    if not any(role == "assistant" for role, _ in turns):
        return Bad(row, "the conversation has no turn of the assistant", excerpt(str(value)))
    return Record(row, "", value, turns)


def _turns(value: dict[str, Any], tally: Tally) -> list[tuple[str, str]]:
    for name, role, content in LISTS:
        listed = value.get(name)
        if isinstance(listed, list):
            del value[name]
            # Some ShareGPT files use the other's keys for the turns.
            return _system(value) + [_turn(turn, role, content) for turn in listed]
    request = next((name for name in REQUESTS if isinstance(value.get(name), str)), None)
    reply = next((name for name in REPLIES if isinstance(value.get(name), str)), None)
    if request is None or reply is None:
        tally.seen = tally.seen or sorted(map(str, value))
        raise _Unfit(f"no conversation in the fields {', '.join(map(str, value))}")
    asked = value.pop(request)
    given = value.pop("input", None)
    if isinstance(given, str) and given.strip():
        asked = f"{asked}{JOIN}{given}"
    return [*_system(value), ("user", asked), ("assistant", value.pop(reply))]


def _system(value: dict[str, Any]) -> list[tuple[str, str]]:
    for name in SYSTEMS:
        if isinstance(value.get(name), str) and value[name].strip():
            return [("system", value.pop(name))]
    return []


def _turn(turn: Any, role: str, content: str) -> tuple[str, str]:
    if not isinstance(turn, dict):
        raise _Unfit(f"a turn is {kind(turn)}, not an object")
    who = turn.get(role, turn.get("role", turn.get("from")))
    what = turn.get(content, turn.get("content", turn.get("value")))
    known = ROLES.get(who.lower()) if isinstance(who, str) else None
    if known is None:
        raise _Unfit(f"a turn has the role {who!r}, which is none of {', '.join(ROLES)}")
    if isinstance(what, list):  # OpenAI's content parts
        what = JOIN.join(part.get("text", "") for part in what if isinstance(part, dict) and part.get("type") == "text")
    if not isinstance(what, str):
        raise _Unfit(f"a turn of the {known} holds {kind(what)}, not text")
    return known, what
