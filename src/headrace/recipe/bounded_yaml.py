"""Parse YAML within limits: a few lines can stand for billions of nodes, or nest deeper than Python can follow."""

from __future__ import annotations

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
