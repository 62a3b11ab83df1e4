"""Parse YAML within limits: a few lines can stand for billions of nodes, or nest deeper than Python can follow."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any

import yaml

from headrace.errors import UserError

# A recipe of 5,000 sources with ten lines each has 110 thousand nodes in 1.1 MB and is parsed in four seconds.
MOST_NODES = 200_000
MOST_BYTES = 2_000_000
DEEPEST = 64


def parse(text: str, where: str) -> tuple[yaml.Node | None, Any]:
    """The nodes of a YAML text, which know their lines, and its value.

    Args:
        text: one YAML document.
        where: its name, for errors.

    Raises:
        UserError: it is not valid YAML, or exceeds the limits once aliases are expanded.
    """
    try:
        loader = _Loader(text)
        node = loader.get_single_node()
        if node is None:
            return None, None
        _Size(where).of(node, 0)
        return node, loader.construct_document(node)
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark
        place = f"{where}, line {mark.line + 1}, column {mark.column + 1}" if mark else where
        raise UserError(f"This is not valid YAML: {error.problem}.", place, "Check indentation and colons.") from None
    except yaml.reader.ReaderError as error:
        what = f"This is not valid YAML: it contains the character U+{int(error.character):04X}."
        raise UserError(what, f"{where}, character {error.position}", "Save it as plain UTF-8 text.") from None
    except (ValueError, OverflowError) as error:  # looks like a number or date, but is not one
        raise UserError(f"This is not valid YAML: {error}.", where, "Quote the value.") from None


def read_text(path: Path, what: str, missing: str) -> str:
    """The text of a file that a person wrote.

    Args:
        path: the file.
        what: what it is, for errors.
        missing: what to do if there is none.

    Raises:
        UserError: it is missing, too large, not UTF-8, or cannot be read.
    """
    try:
        with open(path, "rb") as file:
            held = file.read(MOST_BYTES + 1)
        if len(held) > MOST_BYTES:
            told = f"The {what} has more than {MOST_BYTES / 1e6:g} MB."
            raise UserError(told, str(path), f"Give a {what}; data files are named in it.")
        return held.decode("utf-8")
    except FileNotFoundError:
        raise UserError(f"The {what} does not exist.", str(path), missing) from None
    except UnicodeDecodeError as error:
        told = f"The {what} is not UTF-8 text."
        raise UserError(told, f"{path}, byte {error.start}", "Save it as UTF-8.") from None
    except OSError as error:
        told = f"The {what} cannot be read: {error.strerror}."
        raise UserError(told, str(path), "Give a readable YAML file.") from None


def lines(
    node: yaml.Node | None, place: tuple[str | int, ...], name: str
) -> Iterable[tuple[tuple[str | int, ...], int]]:
    """Each key's place and line, counted from 1."""
    if isinstance(node, yaml.MappingNode):
        seen: dict[str, int] = {}
        for key, value in node.value:
            text, line = str(key.value), key.start_mark.line + 1
            if text in seen:
                where = f"line {line}" if line == seen[text] else f"lines {seen[text]} and {line}"
                raise UserError(f"The key {text!r} appears twice.", f"{name}, {where}", "Keep one of them.")
            seen[text] = line
            yield (*place, text), line
            yield from lines(value, (*place, text), name)
    elif isinstance(node, yaml.SequenceNode):
        for index, item in enumerate(node.value):
            yield (*place, index), item.start_mark.line + 1
            yield from lines(item, (*place, index), name)


class _Loader(yaml.SafeLoader):
    depth = 0

    def compose_node(self, parent: yaml.Node | None, index: Any) -> yaml.Node | None:
        """As in PyYAML, but no deeper than ``DEEPEST``."""
        self.depth += 1
        if self.depth > DEEPEST:
            problem = f"sections nest deeper than {DEEPEST}"
            raise yaml.composer.ComposerError(None, None, problem, self.peek_event().start_mark)
        node = super().compose_node(parent, index)
        self.depth -= 1
        return node

    def flatten_mapping(self, node: yaml.MappingNode) -> None:
        """As in PyYAML, but a key that replaces a merged one stands alone, so that a key twice is a mistake."""
        own = len([key for key, _ in node.value if key.tag != "tag:yaml.org,2002:merge"])
        super().flatten_mapping(node)
        split = len(node.value) - own
        merged, stated = node.value[:split], node.value[split:]
        last = {key.value: pair for pair in merged if isinstance(key := pair[0], yaml.ScalarNode)}
        for key, _ in stated:
            last.pop(key.value if isinstance(key, yaml.ScalarNode) else None, None)
        odd = [pair for pair in merged if not isinstance(pair[0], yaml.ScalarNode)]
        node.value = [*odd, *last.values(), *stated]


class _Size:
    """Counts nodes as often as aliases repeat them."""

    def __init__(self, where: str) -> None:
        self._where = where
        self._known: dict[int, int | None] = {}

    def of(self, node: yaml.Node, depth: int) -> int:
        """The number of nodes in a tree, including its root."""
        if id(node) in self._known:
            known = self._known[id(node)]
            if known is None:
                raise self._refused("An alias refers to a section that contains it", node)
            return known
        if depth > DEEPEST:
            raise self._refused(f"Sections nest deeper than {DEEPEST} with aliases followed", node)
        self._known[id(node)] = None
        total = 1
        if isinstance(node, yaml.CollectionNode):
            for item in node.value:
                for child in item if isinstance(item, tuple) else (item,):
                    total += self.of(child, depth + 1)
        if total > MOST_NODES:
            raise self._refused(f"It expands to more than {MOST_NODES:,} values", node)
        self._known[id(node)] = total
        return total

    def _refused(self, what: str, node: yaml.Node) -> UserError:
        return UserError(f"{what}.", f"{self._where}, line {node.start_mark.line + 1}", "Write the values out.")
