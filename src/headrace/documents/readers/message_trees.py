"""Message trees, as OpenAssistant publishes them (Köpf et al. 2023, 2304.07327), turned into conversations.

A tree has a prompt, and every message has replies, ranked by people: 0 is the best. Files hold a tree per row
(``prompt`` with nested ``replies``), or a message per row (``message_id``, ``parent_id``), the messages of a tree one
after the other and each after the one that it answers. A conversation is a path that ends with the assistant: the best
of each tree, which takes the best-ranked reply at every step, or every longest one.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any, Literal

from headrace.documents.readers.base import Bad, Item, Message, Record, Repaired, Skipped, Tally
from headrace.documents.readers.conversations import ROLES, shown
from headrace.documents.readers.json_values import dump

Paths = Literal["best", "all"]
MOST_MESSAGES = 2_000  # the largest published tree has some hundred


@dataclass(slots=True)
class _Node:
    """A message, its number among its tree's rows, and its replies."""

    row: int
    message: Message
    rank: float
    replies: list[_Node] = field(default_factory=list)


class _Unfit(Exception):  # noqa: N818 - it never leaves this file
    """Why a message is not part of a conversation."""


def is_message(value: Any) -> bool:
    """Whether a row is a message of a tree."""
    return isinstance(value, dict) and {"message_id", "parent_id", "text", "role"} <= value.keys()


def is_tree(value: Any) -> bool:
    """Whether a row is a whole tree."""
    return (
        isinstance(value, dict) and isinstance(value.get("prompt"), dict) and {"text", "role"} <= value["prompt"].keys()
    )


def grown(items: Iterator[Item], paths: Paths, tally: Tally) -> Iterator[Item]:
    """Conversations out of the rows that are messages or trees; other items pass.

    Args:
        items: records whose ``turns`` are None hold a message or a tree as their fields.
        paths: the best path of each tree, or all.
        tally: counts the rows; the conversations that a row of a whole tree gives beyond one are counted too.
    """
    held: list[tuple[int, dict[str, Any]]] = []
    size = 0
    for item in items:
        if not isinstance(item, Record):
            yield item
            continue
        loose = item.turns is None
        if held and not (loose and _continues(held[-1][1], item.fields)):
            yield from _of_messages(held, size, paths, tally)
            held, size = [], 0
        if not loose:
            yield item
        elif is_message(item.fields):
            too_many = len(held) > MOST_MESSAGES or size > tally.room()
            size += len(dump(item.fields, str))
            # What is beyond the limits is kept only as a row to tell of.
            held.append((item.row, {key: item.fields[key] for key in _TREE if key in item.fields} if too_many
                         else item.fields))  # fmt: skip
        else:
            made = list(_of_tree(item, paths))
            tally.read += max(0, len(made) - 1)
            yield from made
    if held:
        yield from _of_messages(held, size, paths, tally)


_TREE = ("message_tree_id", "message_id", "parent_id")


def _continues(before: dict[str, Any], fields: dict[str, Any]) -> bool:
    """Whether a message belongs to the tree of the one before it."""
    if not is_message(fields):
        return False
    if fields.get("message_tree_id") is not None:
        return bool(fields["message_tree_id"] == before.get("message_tree_id"))
    return fields["parent_id"] is not None


def _of_messages(rows: list[tuple[int, dict[str, Any]]], size: int, paths: Paths, tally: Tally) -> Iterator[Item]:
    """The conversations of the messages of a tree; the other rows are skipped, as parts of one, or bad."""
    first = rows[0][0]
    if len(rows) > MOST_MESSAGES or size > tally.room():
        yield Bad(first, f"a message tree of {len(rows):,} messages, more than can be read", rows=len(rows))
        return
    nodes: dict[str, _Node] = {}
    root: _Node | None = None
    bad = 0
    for row, value in rows:
        try:
            node = _node(row, value)
            name, parent = str(value["message_id"]), value["parent_id"]
            if name in nodes:
                raise _Unfit(f"the tree has a second message {name!r}")
            if parent is None and root is not None:
                raise _Unfit("the tree has a second message without a parent")
            if parent is not None and str(parent) not in nodes:
                raise _Unfit(f"the message that it answers, {str(parent)[:80]!r}, is not before it in its tree")
        except _Unfit as error:
            bad += 1
            yield Bad(row, str(error), shown(value))
            continue
        nodes[name] = node
        if parent is None:
            root = node
        else:
            nodes[str(parent)].replies.append(node)
    made = [] if root is None else [_record(path, {}) for path in _paths(root, paths)]
    if not made and root is not None:
        yield Bad(first, "the message tree has no turn of the assistant", shown(rows[0][1]), rows=len(nodes))
        return
    made.sort(key=lambda record: record.row)
    yield from made
    if len(made) + bad < len(rows):
        yield Skipped(rows[-1][0], len(rows) - len(made) - bad)


def _of_tree(item: Record, paths: Paths) -> Iterator[Item]:
    """The conversations of a tree in one row."""
    value = item.fields
    try:
        root = _nested(item.row, value["prompt"])
    except _Unfit as error:
        yield Bad(item.row, str(error), shown(value))
        return
    rest = {key: held for key, held in value.items() if key != "prompt"}
    made = [_record(path, rest) for path in _paths(root, paths)]
    if not made:
        yield Bad(item.row, "the message tree has no turn of the assistant", shown(value))
    yield from made


def _nested(row: int, prompt: Any) -> _Node:
    root = _node(row, prompt)
    waiting = [(root, prompt)]
    count = 0
    while waiting:
        node, value = waiting.pop()
        replies = value.get("replies") or []
        if not isinstance(replies, list):
            raise _Unfit("the replies of a message are not a list")
        for reply in replies:
            count += 1
            if count > MOST_MESSAGES:
                raise _Unfit(f"a message tree of more than {MOST_MESSAGES:,} messages")
            if isinstance(reply, dict) and reply.get("deleted"):
                continue
            made = _node(row, reply)
            node.replies.append(made)
            waiting.append((made, reply))
    return root


def _node(row: int, value: Any) -> _Node:
    if not isinstance(value, dict):
        raise _Unfit("a message of the tree is not an object")
    fields = {str(key): held for key, held in value.items() if held is not None and key not in ("text", "replies")}
    text, role, rank = value.get("text"), fields.pop("role", None), value.get("rank")
    known = ROLES.get(role.lower()) if isinstance(role, str) else None
    if known not in ("user", "assistant"):
        raise _Unfit(f"a message has the role {role!r}, which is neither prompter nor assistant")
    if isinstance(text, Repaired):
        raise _Unfit(f"a message is {text.error}")
    if not isinstance(text, str):
        raise _Unfit("a message has no text")
    if value.get("deleted"):
        raise _Unfit("the message is marked as deleted")
    order = float("inf")
    if isinstance(rank, int | float) and not isinstance(rank, bool) and not math.isnan(rank):
        order = float(min(max(rank, -MOST_MESSAGES), MOST_MESSAGES))
    return _Node(row, Message(known, text, None, fields), order)


def _paths(root: _Node, paths: Paths) -> Iterator[list[_Node]]:
    """Paths from the root to an answer: the best, or each that no other continues."""
    if paths == "best":
        path = [root]
        while path[-1].replies:
            path.append(min(path[-1].replies, key=lambda node: node.rank))
        while path and not _answers(path[-1]):
            path.pop()
        if path:
            yield path
        return
    waiting = [[root]]
    while waiting:
        path = waiting.pop()
        waiting += [[*path, reply] for reply in reversed(path[-1].replies)]
        # A reply of the user that nobody answered continues nothing.
        if _answers(path[-1]) and not any(_answered(reply) for reply in path[-1].replies):
            yield path


def _answers(node: _Node) -> bool:
    return node.message.role == "assistant" and bool(node.message.content.strip())


def _answered(node: _Node) -> bool:
    """Whether an answer of the assistant is at or below a message."""
    waiting = [node]
    while waiting:
        one = waiting.pop()
        if _answers(one):
            return True
        waiting += one.replies
    return False


def _record(path: list[_Node], fields: dict[str, Any]) -> Record:
    tree = path[0].message.fields.get("message_tree_id")
    return Record(
        path[-1].row,
        "",
        {**({} if tree is None else {"message_tree_id": tree}), **fields},
        [node.message for node in path],
    )
